"""Tiny training runs: their data, model and settings, their records, and ways to disturb them."""

import contextlib
import json
import re
import shutil
import signal
import tempfile
from argparse import Namespace

import numpy as np
import pytest
import torch
from tiny import SPECIAL

from common.devices import Precision
from common.errors import Interrupted
from common.weights_files import check_torch_file
from corpus.token_cache import TokenCache
from data import Rows
from model import IGNORED, ModelConfig, Transformer
from training import loop
from training.job import Job
from training.loop import train
from training.lora import add_adapters
from training.optimizer import learning_rate
from training.run_folder import Run
from training.settings import TrainingSettings, seed_everything

VOCAB = 24
CONTEXT = 16
CPU = torch.device("cpu")
FINGERPRINTS = {"tokenizer": "of the tokenizer", "data": [[20, 200]]}
LATEST = {"resume_from_checkpoint": "latest"}
AUTO = {"resume_from_checkpoint": "auto"}
SIX_STEPS = {"epochs": 1, "eval_steps": 2, "save_steps": 3, "logging_steps": 2, "keep_checkpoints": 2}


# A run ----------------------------------------------------------------------------------------------------------------


def make_cache(texts, seed):
    """Return stories of 1 to 30 tokens between <bos> and <eos>; most tokens follow from the one before."""
    generator = np.random.default_rng(seed)
    stories = []
    for _ in range(texts):
        story = [generator.integers(7, VOCAB)]
        for _ in range(generator.integers(30)):
            story.append(7 + 3 * story[-1] % 17 if generator.random() < 0.9 else generator.integers(7, VOCAB))
        stories.append([SPECIAL["<bos>"], *story, SPECIAL["<eos>"]])
    lengths = [len(story) for story in stories]
    return TokenCache(np.concatenate(stories).astype(np.uint16), np.cumsum([0, *lengths]), 4 * np.array(lengths))


def make_rows(texts=20, **options):
    return Rows(make_cache(texts, seed=1), CONTEXT, SPECIAL, **{"seed": 1} | options)


def make_validation(**options):
    return Rows(make_cache(12, seed=2), CONTEXT, SPECIAL, **options)


def rows_of(batches):
    """Return the targets of each row, without padding."""
    return [[token for token in row if token != IGNORED] for _, targets in batches for row in targets.tolist()]


def make_model(**changes):
    shape = {"vocab_size": VOCAB, "num_layers": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 24}
    torch.manual_seed(0)
    return Transformer(ModelConfig(**shape | {"max_seq_len": CONTEXT, "dropout": 0.0} | changes))


def make_settings(**changes):
    return TrainingSettings(**{"batch_size": 4, "epochs": 2, "lr": 1e-2, "logging_steps": 1, "amp": False} | changes)


def make_run(folder, **flags):
    flags = {"output_dir": str(folder), "overwrite": False, "resume_from_checkpoint": None, "pilot_run": False} | flags
    return Run(Namespace(**flags))


def sample(model):
    return "a sample"


def train_in(folder, rows=None, flags=None, fingerprints=FINGERPRINTS, lora_rank=None, **settings):
    """Train in a folder, as a new run or as the flags say, and return the summary."""
    run = make_run(folder, **flags or {})
    settings = make_settings(**settings)
    seed_everything(settings.seed)
    model = make_model(dropout=0.2).eval()  # in the mode of a loaded model
    if lora_rank:
        add_adapters(model, lora_rank)
    precision = Precision(CPU, settings.amp, settings.amp_dtype)
    try:
        return train(Job(model, rows or make_rows(), make_validation(), settings, run, precision, fingerprints, sample))
    finally:
        run.close()


# Its records ----------------------------------------------------------------------------------------------------------


def metrics(folder, *events):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if not events or row["event"] in events]


def weights(path):
    return torch.load(path, weights_only=True)["model"]


def assert_equal_weights(one, other):
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def assert_same_models(folder, other):
    """Check that the final and best models of two runs are the same to the last bit."""
    for name in ("final_model.pth", "best_model.pth"):
        assert_equal_weights(weights(folder / name), weights(other / name))


def outcome(folder):
    """Return the losses in a run's metrics, with their steps, epochs, tokens and learning rates."""
    return [
        (row["event"], row["step"], row["epoch"], row["tokens"], pytest.approx(row.get("train_loss", 0), rel=1e-6),
         row.get("val_loss"), row.get("lr"))
        for row in metrics(folder, "train", "eval")
    ]  # fmt: skip


def steps_logged(folder):
    log = (folder / "train.log").read_text(encoding="utf-8")
    return re.findall(r" step (\d+)/\d+ epoch [\d.]+ (\w+) ([\d.]+)", log)


def curves(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    # TensorBoard reads event files in the order of their names: by the second, then by a number, compared as text
    in_order = sorted(folder.glob("events.out.*"), key=lambda path: (path.name.split(".")[3], int(path.suffix[1:])))
    with tempfile.TemporaryDirectory() as copies:
        for number, path in enumerate(in_order):
            shutil.copy(path, f"{copies}/events.out.tfevents.{number:04}")
        events = EventAccumulator(copies)
        events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not tag.startswith("Throughput")]
    return {tag: [(event.step, pytest.approx(event.value)) for event in events.Scalars(tag)] for tag in tags}


def assert_nothing_is_lost(folder, uninterrupted):
    """Check that a resumed run equals the uninterrupted one: its weights, numbers, log and curves."""
    assert_same_models(folder, uninterrupted)
    assert outcome(folder) == outcome(uninterrupted)
    assert steps_logged(folder) == steps_logged(uninterrupted)
    assert curves(folder) == curves(uninterrupted)


def assert_all_that_exists_loads(folder):
    for path in folder.rglob("*"):
        assert not path.name.endswith(".partial"), path
        if path.suffix == ".pth":
            check_torch_file(path)
        if path.suffix == ".json":
            json.loads(path.read_text())


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Disturbing it --------------------------------------------------------------------------------------------------------


def at_call(monkeypatch, owner, name, number, act):
    """Call act() at the n-th call of owner.name, before the original runs."""
    original = getattr(owner, name)
    calls = []

    def counted(*args, **kwargs):
        calls.append(name)
        if len(calls) == number:
            act()
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, counted)


def terminate():
    signal.raise_signal(signal.SIGTERM)


@contextlib.contextmanager
def signal_at(step, signum):
    """Send a signal during step `step` (1, 2, ...), and check that it ends the run after this step."""

    def rate(done, *args):
        if done == step - 1:
            signal.raise_signal(signum)
        return learning_rate(done, *args)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted) as stopped:
        patch.setattr(loop, "learning_rate", rate)
        yield stopped


def interrupt(folder, step, signum=signal.SIGTERM, **options):
    """Train, with a signal that ends the run at this step, and return the signal's number."""
    with signal_at(step, signum) as stopped:
        train_in(folder, **options)
    return stopped.value.signum


@contextlib.contextmanager
def losses_not_finite_at(*steps, value=float("nan")):
    """Make the loss of these steps (1, 2, ...) NaN or infinite; a step is one call of the network."""
    forward = Transformer.forward
    calls = []

    def broken(self, ids, targets=None):
        loss = forward(self, ids, targets)
        calls.append(1)
        return loss * value if len(calls) in steps else loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Transformer, "forward", broken)
        yield
