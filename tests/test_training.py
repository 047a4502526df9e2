"""A training run: its arithmetic, what it leaves behind, how it stops and goes on, and the files it reads."""

import contextlib
import json
import math
import os
import pickle
import re
import signal
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

from common import devices
from common.devices import Precision
from common.errors import Interrupted, UserError
from common.files import written_atomically
from common.flags import FlagParser, parse_flags
from common.program import noted_signals
from common.weights_files import load_model, save_model
from corpus.token_cache import TokenCache
from data import SPECIAL_TOKENS, Rows
from model import IGNORED, ModelConfig, Transformer
from training import loop, run_folder
from training import step as step_module
from training.loop import Job, train
from training.optimizer import learning_rate, make_optimizers
from training.run_folder import Run
from training.settings import TrainingSettings, add_training_flags, seed_everything
from training.step import evaluate, micro_batches, training_step

SPECIAL = {token: number for number, token in enumerate(SPECIAL_TOKENS)}
VOCAB, CONTEXT, CPU = 24, 16, torch.device("cpu")
FINGERPRINTS = {"tokenizer": "of the tokenizer", "data": [[20, 200]]}


def make_cache(texts, seed):
    """Stories of 1 to 30 tokens between <bos> and <eos>; most tokens follow from the one before."""
    generator, stories = np.random.default_rng(seed), []
    for _ in range(texts):
        story = [generator.integers(7, VOCAB)]
        for _ in range(generator.integers(30)):
            story.append(7 + 3 * story[-1] % 17 if generator.random() < 0.9 else generator.integers(7, VOCAB))
        stories.append([SPECIAL["<bos>"], *story, SPECIAL["<eos>"]])
    lengths = [len(story) for story in stories]
    return TokenCache(np.concatenate(stories).astype(np.uint16), np.cumsum([0, *lengths]), 4 * np.array(lengths))


def make_rows(kind=Rows, texts=20, **options):
    return kind(make_cache(texts, seed=1), CONTEXT, SPECIAL, **{"seed": 1} | options)


def make_validation(**options):
    return Rows(make_cache(12, seed=2), CONTEXT, SPECIAL, **options)


def make_model(**changes):
    shape = {"vocab_size": VOCAB, "num_layers": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 24}
    torch.manual_seed(0)
    return Transformer(ModelConfig(**shape | {"max_seq_len": CONTEXT, "dropout": 0.0} | changes))


def make_settings(**changes):
    return TrainingSettings(**{"batch_size": 4, "epochs": 2, "lr": 1e-2, "logging_steps": 1, "amp": False} | changes)


def make_run(folder, **flags):
    flags = {"output_dir": str(folder), "overwrite": False, "resume_from_checkpoint": None, "pilot_run": False} | flags
    return Run(Namespace(**flags))


def train_in(folder, rows=None, flags=None, fingerprints=FINGERPRINTS, **settings):
    """A run in a folder, from its beginning or as the flags say; returns its summary."""
    run, settings = make_run(folder, **flags or {}), make_settings(**settings)
    seed_everything(settings.seed)
    model = make_model(dropout=0.2).eval()  # as a model comes from its file
    precision = Precision(CPU, settings.amp, settings.amp_dtype)
    try:
        return train(Job(model, rows or make_rows(), make_validation(), settings, run, precision, fingerprints, sample))
    finally:
        run.close()


def sample(model):
    return "a sample"


LATEST = {"resume_from_checkpoint": "latest"}


def metrics(folder, *events):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if not events or row["event"] in events]


def weights(path):
    return torch.load(path, weights_only=True)["model"]


def assert_equal_weights(one, other):
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def one_line(error):
    """The message of a UserError, which must be one line."""
    message = str(error.value)
    assert message and "\n" not in message
    return message


@pytest.fixture(autouse=True)
def ctrl_c_as_at_a_shell():
    """Where the tests run in the background SIGINT is ignored, and a run would leave it so."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(folder, summary) of a run that came to its end."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, train_in(folder, eval_steps=3, save_steps=3)


@pytest.fixture
def val_losses(monkeypatch):
    """A list: the validation losses that the run's evaluations shall find, one after the other."""
    losses, real = [], loop.evaluate
    prescribed = lambda *args, **options: real(*args, **options) | {"val_loss": losses.pop(0)}
    monkeypatch.setattr(loop, "evaluate", prescribed)
    return losses


# One step -------------------------------------------------------------------------------------------------------------


def weights_after_steps(rows, steps=4, **settings):
    """Weights, losses and norms after some steps of plain gradient descent, which hides no factor of the gradient."""
    model, settings = make_model(), make_settings(max_grad_norm=0, **settings)
    optimizer, results = torch.optim.SGD(model.parameters(), lr=0.5), []
    for step in range(steps):
        batches = micro_batches(rows, step, settings, CPU)
        result = training_step(model, [optimizer], Precision(CPU), batches, settings)
        results.append([result.loss.item(), result.tokens, result.norm.item()])
    return {**model.state_dict(), "results": torch.tensor(results)}


def assert_close_weights(one, other):
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("packed", [True, False])
def test_accumulating_four_batches_is_one_batch_four_times_as_large(packed, monkeypatch):
    monkeypatch.setattr(step_module, "CPU_TOKENS", 2 * CONTEXT)  # so that two rows are a micro-batch here, as on a GPU
    rows = make_rows(packed=packed)
    accumulated = weights_after_steps(rows, batch_size=2, gradient_accumulation_steps=4)
    monkeypatch.setattr(step_module, "CPU_TOKENS", 8 * CONTEXT)
    assert_close_weights(accumulated, weights_after_steps(rows, batch_size=8))


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("tokens", [1, 3 * CONTEXT])
def test_the_micro_batches_of_a_cpu_change_nothing(packed, tokens, monkeypatch):
    rows = make_rows(packed=packed)
    whole = weights_after_steps(rows, batch_size=8)
    assert len(micro_batches(rows, 0, make_settings(batch_size=8), CPU)) == 1
    monkeypatch.setattr(step_module, "CPU_TOKENS", tokens)
    assert len(micro_batches(rows, 0, make_settings(batch_size=8), CPU)) == (8 if tokens == 1 else 3)
    assert_close_weights(whole, weights_after_steps(rows, batch_size=8))


@pytest.mark.parametrize("accumulation", [1, 3])
def test_the_micro_batches_of_a_step_are_its_rows(accumulation):
    rows, settings = make_rows(packed=False), make_settings(batch_size=2, gradient_accumulation_steps=accumulation)
    for step in (0, 1):
        first = step * settings.rows_per_step
        expected = rows_of([rows.batch(first + number, 1) for number in range(settings.rows_per_step)])
        assert sorted(rows_of(micro_batches(rows, step, settings, CPU))) == sorted(expected)


def test_a_cpu_gets_rows_of_similar_length_together_and_none_wider_than_it_must_be(monkeypatch):
    monkeypatch.setattr(step_module, "CPU_TOKENS", 24)
    monkeypatch.setattr(step_module, "WIDTHS", 4)
    lengths = [3, 16, 4, 9, 1, 15, 0]
    targets = np.full((len(lengths), 18), IGNORED)
    for row, length in enumerate(lengths):
        targets[row, length // 2 : length] = row
    parts = step_module.cut_for(CPU, np.arange(len(lengths) * 18).reshape(-1, 18), targets)
    assert [tuple(inputs.shape) for inputs, _ in parts] == [(4, 4), (1, 12), (1, 16), (1, 16)]
    assert sorted(rows_of(parts)) == sorted(rows_of([(None, torch.from_numpy(targets))]))
    for inputs, targets in parts:
        for row, wanted in zip(inputs[:, 0] // 18, targets, strict=True):
            assert {*wanted.tolist()} <= {IGNORED, row.item()}


def rows_of(batches):
    """The targets of each row, without padding."""
    return [[token for token in row if token != IGNORED] for _, targets in batches for row in targets.tolist()]


def test_the_loss_and_the_gradient_are_means_over_predicted_tokens():
    rows, settings, model = make_rows(packed=False), make_settings(batch_size=6), make_model()
    inputs, targets = map(torch.from_numpy, rows.batch(0, 6))
    expected = torch.nn.functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
    gradient = torch.autograd.grad(expected, list(model.parameters()))
    batches, still = micro_batches(rows, 0, settings, CPU), torch.optim.SGD(model.parameters(), lr=0.0)
    loss, tokens, norm, _ = training_step(model, [still], Precision(CPU), batches, settings)
    assert tokens == (targets != IGNORED).sum()
    assert loss.item() / tokens == pytest.approx(expected.item(), rel=1e-5)
    assert norm.item() == pytest.approx(math.sqrt(sum((g**2).sum().item() for g in gradient)), rel=1e-4)


@pytest.mark.parametrize(("longest", "factor"), [(1e-3, None), (0, 1), (1e9, 1)])
def test_a_long_gradient_is_scaled_down_and_a_short_one_left_alone(longest, factor):
    model, settings = make_model(), make_settings(max_grad_norm=longest)
    before = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    batches = micro_batches(make_rows(), 0, settings, CPU)
    sgd = torch.optim.SGD(model.parameters(), lr=1.0)
    _, _, norm, _ = training_step(model, [sgd], Precision(CPU), batches, settings)
    moved = torch.cat([parameter.detach().flatten() for parameter in model.parameters()]) - before
    assert norm > 0.1  # as it was before scaling
    assert moved.norm().item() == pytest.approx(norm.item() * factor if factor else longest, rel=1e-3)


def test_only_matrices_decay():
    model, settings = make_model(arch="gpt2"), make_settings(weight_decay=0.5)
    for parameter in model.parameters():
        parameter.data.fill_(1.0)
        parameter.grad = torch.zeros_like(parameter)
    for optimizer in make_optimizers(model, settings):
        optimizer.step()
    for parameter in model.parameters():
        expected = 1 - settings.lr * 0.5 if parameter.dim() == 2 else 1.0
        torch.testing.assert_close(parameter.data, torch.full_like(parameter, expected))


# The learning rate ----------------------------------------------------------------------------------------------------


def rates(total, **settings):
    return [learning_rate(step, total, make_settings(lr=0.01, **settings)) for step in range(total + 1)]


@pytest.mark.parametrize("scheduler", ["cosine", "linear"])
@pytest.mark.parametrize(("total", "warmup"), [(100, 2), (5000, 100), (80_000, 1000)])
def test_the_learning_rate_warms_up_over_2_percent_of_the_run_at_most_1000_steps(scheduler, total, warmup):
    rate = rates(total, scheduler=scheduler)
    assert rate[: warmup + 1] == pytest.approx([0.01 * (step + 1) / warmup for step in range(warmup)] + [0.01])
    assert rate[warmup + 1] < 0.01


@pytest.mark.parametrize("scheduler", ["cosine", "linear"])
@pytest.mark.parametrize("min_lr", [0.0, 0.001])
@pytest.mark.parametrize("warmup", [None, 0, 7])
def test_the_learning_rate_falls_from_lr_to_min_lr(scheduler, min_lr, warmup):
    rate = rates(200, scheduler=scheduler, min_lr=min_lr, warmup_steps=warmup)
    first = 4 if warmup is None else warmup
    assert max(rate) == rate[first] == pytest.approx(0.01)
    assert rate[first:] == sorted(rate[first:], reverse=True)
    assert rate[-1] == pytest.approx(min_lr, abs=1e-9)
    halfway = (200 + first) // 2
    assert rate[halfway] == pytest.approx((0.01 + min_lr) / 2, rel=0.02)
    quarter = min_lr + (0.01 - min_lr) * (0.75 if scheduler == "linear" else math.cos(math.pi / 8) ** 2)
    assert rate[(halfway + first) // 2] == pytest.approx(quarter, rel=0.02)


def test_a_warmup_longer_than_the_run_never_reaches_lr():
    assert max(rates(10, warmup_steps=50)) < 0.01


def test_the_run_takes_its_steps_at_the_rates_of_the_schedule(finished):
    rows = metrics(finished[0], "train")
    assert [row["lr"] for row in rows] == [learning_rate(step, len(rows), make_settings()) for step in range(len(rows))]


def test_at_a_rate_of_0_a_run_changes_no_weight(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "learning_rate", lambda *_: 0.0)
    train_in(tmp_path)
    assert_equal_weights(weights(tmp_path / "final_model.pth"), make_model().state_dict())


# Evaluation -----------------------------------------------------------------------------------------------------------


def test_an_evaluation_scores_every_token_but_bos_once():
    model, rows = make_model(dropout=0.5), make_validation()
    model.tokens.weight.data *= 20  # so that its guesses differ
    result = evaluate(model, rows, Precision(CPU))
    assert model.training

    model.eval()
    nats, right = [], []
    text = torch.from_numpy(rows.cache.tokens.astype(np.int64))
    for place in range(1, len(text)):
        if text[place] != SPECIAL["<bos>"]:
            first = (place - 1) // CONTEXT * CONTEXT  # rows do not overlap
            chances = model(text[None, first:place])[0, -1].double().log_softmax(-1)
            nats.append(-chances[text[place]].item())
            right.append(chances.argmax() == text[place])
    assert len(nats) == len(text) - len(rows.cache)
    assert result["val_loss"] == pytest.approx(np.mean(nats), rel=1e-5)
    assert result["perplexity"] == pytest.approx(math.exp(np.mean(nats)), rel=1e-4)
    assert result["bits_per_byte"] == pytest.approx(np.sum(nats) / math.log(2) / rows.cache.sizes.sum(), rel=1e-5)
    assert result["accuracy"] == pytest.approx(np.mean(right))
    assert 0 < np.mean(right) < 1


@pytest.mark.parametrize("packed", [True, False])
def test_an_evaluation_does_not_depend_on_the_batch_size(packed, monkeypatch):
    model, rows = make_model(), make_validation(packed=packed)
    expected = pytest.approx(evaluate(model, rows, Precision(CPU)), rel=1e-5)
    assert evaluate(model, rows, Precision(CPU), batch_size=1) == expected
    assert evaluate(model, rows, Precision(CPU), batch_size=5) == expected
    monkeypatch.setattr(step_module, "CPU_TOKENS", 3 * CONTEXT)
    assert evaluate(model, rows, Precision(CPU)) == expected


def test_an_evaluation_does_not_depend_on_how_training_rows_are_made(tmp_path):
    evaluations = []
    for number, options in enumerate(({}, {"packed": False}, {"seed": 5}, {"texts": 7})):
        train_in(tmp_path / str(number), make_rows(**options), lr=1e-30)  # too small to change a weight
        evaluations.append(metrics(tmp_path / str(number), "eval")[0]["val_loss"])
    assert len(set(evaluations)) == 1


def test_an_evaluation_changes_neither_weights_nor_chance():
    model, rows = make_model(dropout=0.5), make_validation()
    before, state = {name: tensor.clone() for name, tensor in model.state_dict().items()}, torch.get_rng_state()
    with_gradients = []
    model.blocks[0].register_forward_hook(lambda *_: with_gradients.append(torch.is_grad_enabled()))
    evaluate(model, rows, Precision(CPU))
    assert_equal_weights(before, model.state_dict())
    assert torch.equal(state, torch.get_rng_state())
    assert with_gradients and not any(with_gradients)


def test_a_hopeless_loss_has_a_perplexity_too():
    assert math.isfinite(step_module.perplexity(1e6))


# What a run leaves behind ---------------------------------------------------------------------------------------------


def test_a_run_leaves_its_records_and_nothing_else(finished):
    names = {path.name for path in finished[0].iterdir() if not path.name.startswith("events.out.tfevents.")}
    checkpoints = {name for name in names if name.startswith("checkpoint-")}
    last = metrics(finished[0], "train")[-1]["step"]
    assert f"checkpoint-{last}.pth" in checkpoints
    kept = {"args.json", "train.log", "metrics.jsonl", "best_model.pth", "final_model.pth", "summary.json"}
    assert names - checkpoints == kept


def test_args_json_holds_the_flags(finished):
    args = json.loads((finished[0] / "args.json").read_text())
    assert args["output_dir"] == str(finished[0]) and args["overwrite"] is False


def test_the_rows_of_the_metrics_have_the_names_of_the_design_and_steps_in_order(finished):
    rows = metrics(finished[0])
    places = {"event", "step", "epoch", "tokens", "seconds"}
    train_names = places | {"train_loss", "perplexity", "lr", "grad_norm", "tokens_per_second"}
    eval_names = places | {"val_loss", "perplexity", "bits_per_byte", "accuracy"}
    assert all(row.keys() == train_names for row in rows if row["event"] == "train")
    assert all(row.keys() == eval_names for row in rows if row["event"] == "eval")
    steps = [row["step"] for row in rows]
    assert steps == sorted(steps)
    assert [row["step"] for row in rows if row["event"] == "train"] == list(range(1, steps[-1] + 1))
    assert rows[0]["event"] == "run" and rows[0]["run_id"]


def test_the_metrics_count_tokens_and_epochs(finished):
    rows, trained = make_rows(), metrics(finished[0], "train")
    predicted = sum(len(row) for row in rows_of([rows.batch(number, 1) for number in range(4 * len(trained))]))
    assert trained[-1]["tokens"] == predicted
    assert [row["epoch"] for row in trained[:-1]] == [
        pytest.approx(4 * row["step"] / rows.per_epoch, abs=1e-3) for row in trained[:-1]
    ]
    assert trained[-1]["epoch"] == 2
    assert trained[0]["perplexity"] == pytest.approx(math.exp(trained[0]["train_loss"]))


def test_the_summary_holds_the_best_and_the_final_evaluation(finished):
    folder, returned = finished
    summary, evaluations = json.loads((folder / "summary.json").read_text()), metrics(folder, "eval")
    assert summary == returned
    best, final = min(evaluations, key=lambda row: row["val_loss"]), evaluations[-1]
    for name in ("step", "val_loss", "perplexity", "bits_per_byte", "accuracy"):
        assert summary[f"best_{name}"] == best[name] and summary[f"final_{name}"] == final[name]
    assert summary["tokens"] == metrics(folder, "train")[-1]["tokens"]
    assert summary["run_id"] == metrics(folder, "run")[0]["run_id"]
    assert summary.keys() >= {"seconds", "tokens_per_second"}


def test_the_logged_losses_are_means_since_the_line_before(finished, tmp_path):
    train_in(tmp_path, logging_steps=3)
    single, logged = metrics(finished[0], "train"), metrics(tmp_path, "train")
    last = len(single)
    assert [row["step"] for row in logged] == sorted({1, last, *range(3, last, 3)})
    places = [0] + [row["step"] for row in logged]
    before = {0: 0} | {row["step"]: row["tokens"] for row in single}
    for first, row in zip(places, logged, strict=False):
        part = single[first : row["step"]]
        nats = sum(one["train_loss"] * (one["tokens"] - before[one["step"] - 1]) for one in part)
        assert row["train_loss"] == pytest.approx(nats / (row["tokens"] - before[first]), rel=1e-4)


def test_the_log_holds_the_console_s_lines_without_a_bar(tmp_path, capsys):
    train_in(tmp_path)
    log, console = (tmp_path / "train.log").read_text(), capsys.readouterr()
    assert "train_loss" in log and "val_loss" in log and "\r" not in log and "\x1b" not in log
    assert sorted(log.splitlines()) == sorted((console.out + console.err).splitlines())
    assert "train_loss" in console.out and "train_loss" not in console.err


def test_the_event_file_holds_the_curves(finished):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(finished[0])).Reload()
    for event, curves in {
        "train": {"Loss/train": "train_loss", "Perplexity/train": "perplexity", "LearningRate": "lr"},
        "eval": {"Loss/val": "val_loss", "Perplexity/val": "perplexity", "BitsPerByte/val": "bits_per_byte"},
    }.items():
        for tag, name in curves.items():
            points = [(point.step, point.value) for point in board.Scalars(tag)]
            rows = [(row["step"], pytest.approx(row[name], rel=1e-5)) for row in metrics(finished[0], event)]
            assert points == rows
    assert board.Scalars("Throughput/tokens_per_second")


def test_a_run_without_tensorboard_says_so_and_leaves_the_rest(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    train_in(tmp_path)
    assert "tensorboard is not installed" in (tmp_path / "train.log").read_text()
    assert metrics(tmp_path, "end") and not list(tmp_path.glob("events*"))


def test_training_lowers_the_validation_loss(finished):
    first, *_, last = metrics(finished[0], "eval")
    assert last["val_loss"] < first["val_loss"] < math.log(VOCAB) + 0.1


def test_the_best_model_is_the_one_with_the_lowest_validation_loss(tmp_path, val_losses, monkeypatch):
    val_losses[:] = [4.0, 2.0, 3.0, 2.0] + [5.0] * 20
    seen, evaluate = [], loop.evaluate

    def watched(model, *args, **options):
        seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return evaluate(model, *args, **options)

    monkeypatch.setattr(loop, "evaluate", watched)
    summary = train_in(tmp_path, eval_steps=1)
    assert len(seen) > 4
    assert_equal_weights(weights(tmp_path / "best_model.pth"), seen[1])
    assert_equal_weights(weights(tmp_path / "final_model.pth"), seen[-1])
    assert (summary["best_step"], summary["best_val_loss"]) == (2, 2.0)
    content = torch.load(tmp_path / "best_model.pth", weights_only=True)
    assert (content["step"], content["val_loss"], content["run_id"]) == (2, 2.0, summary["run_id"])
    content = torch.load(tmp_path / "final_model.pth", weights_only=True)
    assert (content["step"], content["val_loss"]) == (len(seen), 5.0)


def test_the_best_model_has_the_loss_that_the_summary_says(finished):
    folder, summary = finished
    for kind in ("best", "final"):
        model, _ = load_model(folder / f"{kind}_model.pth")
        result = evaluate(model, make_validation(), Precision(CPU))
        assert result["val_loss"] == pytest.approx(summary[f"{kind}_val_loss"], rel=1e-6)


def test_every_epoch_ends_with_an_evaluation(tmp_path):
    rows = make_rows()
    train_in(tmp_path, rows, eval_steps=10_000, epochs=3)
    ends = [math.ceil(epoch * rows.per_epoch / 4) for epoch in (1, 2, 3)]
    assert [row["step"] for row in metrics(tmp_path, "eval")] == ends
    assert metrics(tmp_path, "train")[-1]["step"] == ends[-1]


def test_the_newest_checkpoints_are_kept(tmp_path):
    train_in(tmp_path, save_steps=1, keep_checkpoints=3)
    last = metrics(tmp_path, "train")[-1]["step"]
    kept = {f"checkpoint-{step}.pth" for step in (last - 2, last - 1, last)}
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == kept
    assert {row["step"] for row in metrics(tmp_path, "checkpoint")} == set(range(1, last + 1))


def test_early_stopping_stops_after_so_many_evaluations_without_a_lower_loss(tmp_path, val_losses):
    val_losses[:] = [3.0, 2.0, 2.5, 1.0, 1.5, 1.0, 9.0]
    summary = train_in(tmp_path, eval_steps=1, epochs=4, early_stopping_patience=2)
    assert summary["ended"] == metrics(tmp_path, "end")[-1]["ended"] == "stopped early"
    assert metrics(tmp_path, "train")[-1]["step"] == 6
    assert (summary["best_step"], summary["best_val_loss"], summary["final_val_loss"]) == (4, 1.0, 1.0)
    assert "early stop" in (tmp_path / "train.log").read_text()
    assert (tmp_path / "final_model.pth").exists()


# Stopping and going on ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def signal_at(step, signum):
    """A signal comes in the midst of step `step` (1, 2, ...), and ends the run after it."""

    def rate(done, *args):
        if done == step - 1:
            os.kill(os.getpid(), signum)
        return learning_rate(done, *args)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted) as stopped:
        patch.setattr(loop, "learning_rate", rate)
        yield stopped


def interrupt(folder, step, signum=signal.SIGTERM, **settings):
    """A run that a signal ends at this step."""
    with signal_at(step, signum) as stopped:
        train_in(folder, **settings)
    return stopped.value.signum


def outcome(folder):
    """What a run's metrics say about its losses."""
    return [
        (row["event"], row["step"], row["epoch"], row["tokens"], pytest.approx(row.get("train_loss", 0), rel=1e-6),
         row.get("val_loss"), row.get("lr"))
        for row in metrics(folder, "train", "eval")
    ]  # fmt: skip


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_after_its_step_with_a_checkpoint(tmp_path, signum):
    before = signal.getsignal(signum)
    assert interrupt(tmp_path, 3, signum) == signum
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-3.pth"]
    assert metrics(tmp_path, "train")[-1]["step"] == 3
    assert not (tmp_path / "summary.json").exists()
    assert "--resume_from_checkpoint latest" in (tmp_path / "train.log").read_text()
    assert signal.getsignal(signum) == before


def test_a_second_ctrl_c_ends_the_program_at_once():
    with pytest.raises(KeyboardInterrupt), noted_signals() as noted:
        os.kill(os.getpid(), signal.SIGINT)
        assert noted == [signal.SIGINT]
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("steps", [(1,), (4,), (5,), (12,), (2, 3, 6)])  # 12 is the last
@pytest.mark.parametrize("speed", [{}, {"amp": True}, {"compile": "on"}], ids=str)
def test_a_resumed_run_ends_as_the_uninterrupted_one(tmp_path, steps, speed, monkeypatch):
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network, **options: compile_(network, backend="eager", **options))
    settings = {"logging_steps": 2, "eval_steps": 3} | speed
    train_in(tmp_path / "whole", **settings)
    interrupt(tmp_path / "parts", steps[0], **settings)
    for step in steps[1:]:
        with signal_at(step, signal.SIGTERM):
            train_in(tmp_path / "parts", None, LATEST, **settings)
    summary = train_in(tmp_path / "parts", None, LATEST, **settings)
    for name in ("final_model.pth", "best_model.pth"):
        assert_equal_weights(weights(tmp_path / "parts" / name), weights(tmp_path / "whole" / name))
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")
    whole = json.loads((tmp_path / "whole/summary.json").read_text())
    assert {name: summary[name] for name in summary if name.startswith(("best_", "final_"))} == {
        name: whole[name] for name in whole if name.startswith(("best_", "final_"))
    }
    assert summary["tokens"] == whole["tokens"] and summary["resumes"] == len(steps)
    assert summary["run_id"] == metrics(tmp_path / "parts", "run")[0]["run_id"] != whole["run_id"]


def test_a_run_goes_on_on_another_device_but_not_in_another_precision_that_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "has_bfloat16", lambda device: True)
    interrupt(tmp_path, 3, amp=None)
    monkeypatch.setattr(devices, "has_bfloat16", lambda device: False)  # another machine
    with pytest.raises(UserError, match="--amp, --amp_dtype: float32, and .* was trained with bfloat16"):
        train_in(tmp_path, None, LATEST, amp=False)
    assert train_in(tmp_path, None, LATEST, amp=None)["ended"] == "finished"


def test_what_came_after_the_checkpoint_is_not_recorded_twice(tmp_path):
    train_in(tmp_path / "whole")
    interrupt(tmp_path / "parts", 5, save_steps=3, keep_checkpoints=9)
    (tmp_path / "parts/checkpoint-5.pth").unlink()  # as if the power had failed before it was written
    with open(tmp_path / "parts/metrics.jsonl", "a") as file:
        file.write('{"event": "train", "ste')
    train_in(tmp_path / "parts", None, LATEST)
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")


def test_a_run_that_goes_on_from_an_older_checkpoint_keeps_its_own_newest_ones(tmp_path):
    train_in(tmp_path, save_steps=1, keep_checkpoints=5)
    oldest = min(int(path.stem.split("-")[1]) for path in tmp_path.glob("checkpoint-*"))
    with pytest.raises(UserError, match="checkpoint-12.pth is newer than .* and would be lost"):
        train_in(tmp_path, None, {"resume_from_checkpoint": str(tmp_path / f"checkpoint-{oldest}.pth")})
    for step in range(oldest + 1, 13):
        (tmp_path / f"checkpoint-{step}.pth").unlink()
    with signal_at(oldest + 1, signal.SIGTERM):
        train_in(tmp_path, None, {"resume_from_checkpoint": str(tmp_path / f"checkpoint-{oldest}.pth")})
    assert make_run(tmp_path, **LATEST).checkpoint == tmp_path / f"checkpoint-{oldest + 1}.pth"
    assert make_run(tmp_path, **LATEST).checkpoint.exists()


def test_a_run_resumed_into_another_folder_ends_with_a_best_model(tmp_path, val_losses):
    val_losses[:] = [1.0] + [2.0] * 20
    interrupt(tmp_path / "one", 5, eval_steps=2)
    train_in(tmp_path / "other", None, {"resume_from_checkpoint": str(tmp_path / "one/checkpoint-5.pth")})
    assert weights(tmp_path / "other/best_model.pth")


def test_a_run_is_not_resumed_into_the_folder_of_another_one(finished, tmp_path):
    train_in(tmp_path, seed=9, epochs=1)
    before, checkpoint = files(tmp_path), next(finished[0].glob("checkpoint-*.pth"))
    with pytest.raises(UserError) as refusal:
        train_in(tmp_path, None, {"resume_from_checkpoint": str(checkpoint)})
    assert str(tmp_path) in one_line(refusal)
    assert files(tmp_path) == before


@pytest.mark.parametrize("patience", [0, 2])
def test_a_run_that_came_to_its_end_can_be_resumed_and_ends_the_same(tmp_path, val_losses, patience):
    val_losses[:] = [3.0, 2.0] + [2.5] * 20
    first = train_in(tmp_path, early_stopping_patience=patience)
    before = weights(tmp_path / "final_model.pth")
    again = train_in(tmp_path, None, LATEST, early_stopping_patience=patience)
    assert_equal_weights(weights(tmp_path / "final_model.pth"), before)
    assert again["final_step"] == first["final_step"] and again["best_step"] == first["best_step"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"lr": 3e-3}, "--lr"),
        ({"batch_size": 2}, "--batch_size"),
        ({"seed": 7}, "--seed"),
        ({"fingerprints": FINGERPRINTS | {"tokenizer": "of another"}}, "tokenizer"),
        ({"fingerprints": FINGERPRINTS | {"data": [[21, 210]]}}, "data"),
        ({"rows": make_rows(packed=False)}, "batching"),
    ],
)
def test_going_on_as_another_run_is_refused_by_the_flag(tmp_path, change, named):
    interrupt(tmp_path, 2)
    before = files(tmp_path)
    with pytest.raises(UserError, match=named) as refusal:
        train_in(tmp_path, **{"flags": LATEST} | change)
    first, *more, last = str(refusal.value).splitlines()
    assert "checkpoint-2.pth" in first and not more and "go on with the same" in last
    assert files(tmp_path) == before


def test_a_checkpoint_from_before_a_field_was_added_is_gone_on_with(tmp_path):
    interrupt(tmp_path, 2)
    (path,) = tmp_path.glob("checkpoint-*")
    content = torch.load(path, weights_only=True)
    del content["flags"]["norm_epsilon"], content["flags"]["rotary_base"]
    torch.save(content, path)
    assert train_in(tmp_path, None, LATEST)["ended"] == "finished"


def test_each_flag_that_would_train_something_else_has_a_line(tmp_path):
    interrupt(tmp_path, 2)
    with pytest.raises(UserError) as refusal:
        train_in(tmp_path, None, LATEST, lr=0.5, seed=7, weight_decay=0.3)
    assert [line.split()[0] for line in str(refusal.value).splitlines()] == [
        "--lr:",
        "--seed:",
        "--weight_decay:",
        "go",
    ]


def test_flags_that_train_nothing_else_may_change_on_resuming(tmp_path):
    interrupt(tmp_path, 2)
    train_in(tmp_path, None, LATEST, logging_steps=3, save_steps=2, keep_checkpoints=1, eval_steps=2)
    assert (tmp_path / "summary.json").exists()


@pytest.mark.parametrize("kind", ["garbage", "truncated", "empty", "model"])
def test_what_is_no_checkpoint_is_refused_by_its_name(finished, tmp_path, kind):
    path, checkpoint = tmp_path / "some.pth", next(finished[0].glob("checkpoint-*")).read_bytes()
    path.write_bytes(
        {
            "garbage": b'{"this": "is json"}',
            "truncated": checkpoint[: len(checkpoint) // 2],
            "empty": b"",
            "model": (finished[0] / "best_model.pth").read_bytes(),
        }[kind]
    )
    with pytest.raises(UserError) as refusal:
        train_in(tmp_path / "run", None, {"resume_from_checkpoint": str(path)})
    assert str(path) in one_line(refusal)
    assert not (tmp_path / "run").exists()


def test_resuming_from_nothing_is_refused_and_auto_starts_a_run(tmp_path):
    with pytest.raises(UserError, match="no checkpoint") as refusal:
        make_run(tmp_path, **LATEST)
    assert str(tmp_path) in one_line(refusal)
    with pytest.raises(UserError, match="missing.pth"):
        make_run(tmp_path, resume_from_checkpoint="missing.pth")
    assert make_run(tmp_path, resume_from_checkpoint="auto").checkpoint is None


def test_auto_goes_on_from_the_newest_checkpoint_or_starts_again(tmp_path):
    (tmp_path / "metrics.jsonl").touch()  # of a run that was killed before its first checkpoint
    assert make_run(tmp_path, resume_from_checkpoint="auto").checkpoint is None
    train_in(tmp_path, flags={"overwrite": True}, save_steps=5)
    (tmp_path / "checkpoint-12.pth").rename(tmp_path / "checkpoint-100.pth")
    (tmp_path / "checkpoint-10.pth").rename(tmp_path / "checkpoint-99.pth")
    assert make_run(tmp_path, resume_from_checkpoint="auto").checkpoint == tmp_path / "checkpoint-100.pth"


# The run's folder -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["args.json", "metrics.jsonl", "best_model.pth", "checkpoint-3.pth", "train.log"])
def test_a_folder_that_holds_a_run_is_refused(tmp_path, name):
    (tmp_path / name).write_text("{}")
    before = files(tmp_path)
    with pytest.raises(UserError, match="--overwrite") as refusal:
        train_in(tmp_path)
    assert str(tmp_path) in one_line(refusal) and "--resume_from_checkpoint" in one_line(refusal)
    assert files(tmp_path) == before


def test_a_file_where_the_folder_should_be_is_refused(tmp_path):
    (tmp_path / "run").write_text("notes")
    with pytest.raises(UserError, match="--output_dir"):
        train_in(tmp_path / "run")


@pytest.mark.parametrize(
    ("first", "second"),
    [({}, {"overwrite": True}), ({"pilot_run": True}, {}), ({"pilot_run": True}, {"pilot_run": True})],
)
def test_overwriting_or_a_pilot_s_folder_lets_a_new_run_replace_the_old_one(tmp_path, first, second):
    train_in(tmp_path, flags=first, epochs=3)
    (tmp_path / "notes.txt").write_text("mine")
    summary = train_in(tmp_path, flags=second, epochs=1)
    assert len(metrics(tmp_path, "run")) == 1 and metrics(tmp_path, "run")[0]["run_id"] == summary["run_id"]
    steps = metrics(tmp_path, "train")[-1]["step"]
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == [f"checkpoint-{steps}.pth"]
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) <= 1
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_folder_with_other_files_takes_a_run(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    make_run(tmp_path)


def test_no_two_runs_have_the_same_id(tmp_path):
    assert make_run(tmp_path).run_id != make_run(tmp_path).run_id


def test_the_command_to_go_on_is_the_user_s_own(tmp_path, monkeypatch):
    words = ["step2.py", "--dataset", "my stories", "--overwrite", "--resume_from_checkpoint", "auto", "--amp"]
    monkeypatch.setattr(sys, "argv", words)
    expected = "python step2.py --dataset 'my stories' --amp --resume_from_checkpoint latest"
    assert run_folder.command_to_resume() == expected


# The model file -------------------------------------------------------------------------------------------------------


def test_a_model_file_holds_what_the_next_steps_need(tmp_path):
    model = make_model(arch="gpt2").bfloat16()
    save_model(tmp_path / "m.pth", model, "a fingerprint", step=7, val_loss=1.5, run_id="an id")
    content = torch.load(tmp_path / "m.pth", weights_only=True)
    state = content.pop("model")
    assert content == {
        "format": "tinystories-model", "version": 1, "config": model.config.as_dict(), "step": 7, "val_loss": 1.5,
        "tokenizer_fingerprint": "a fingerprint", "run_id": "an id",
    }  # fmt: skip
    assert all(tensor.dtype == torch.float32 for tensor in state.values())
    assert sum(tensor.numel() for tensor in state.values()) == model.num_parameters()[1]  # tied weights once


@pytest.mark.parametrize("changes", [{}, {"arch": "gpt2", "window_size": 4}, {"tie_embeddings": False}])
def test_a_loaded_model_computes_the_same(tmp_path, changes):
    model, ids = make_model(**changes).eval(), torch.arange(CONTEXT)[None] % VOCAB
    save_model(tmp_path / "m.pth", model, "a fingerprint")
    loaded, content = load_model(
        tmp_path / "m.pth", Namespace(fingerprint="a fingerprint", vocab_size=VOCAB), dropout=0.3
    )
    assert not loaded.training
    assert torch.equal(loaded(ids), model(ids))
    assert loaded.config == ModelConfig(**model.config.as_dict() | {"dropout": 0.3})
    assert content["tokenizer_fingerprint"] == "a fingerprint"


def test_a_model_of_another_tokenizer_is_refused_in_words(tmp_path):
    save_model(tmp_path / "m.pth", make_model(), "a fingerprint")
    with pytest.raises(UserError, match="not trained with this tokenizer") as refusal:
        load_model(tmp_path / "m.pth", Namespace(fingerprint="another", vocab_size=5000))
    assert str(tmp_path / "m.pth") in one_line(refusal) and "--tokenizer_path" in one_line(refusal)


OTHER_FILES = ["garbage", "text", "list", "tokenizer", "other version", "other shape"]


@pytest.mark.parametrize("part", [0, 1, 100, 0.5, 0.99, *OTHER_FILES])
def test_what_is_no_whole_model_file_is_refused_by_its_name(tmp_path, part, recwarn):
    path = tmp_path / "m.pth"
    save_model(path, make_model(), "a fingerprint")
    whole, content = path.read_bytes(), torch.load(path, weights_only=True)
    if part == "garbage":
        path.write_bytes(np.random.default_rng(0).bytes(5000))
    elif part == "text":
        path.write_text("Once upon a time")
    elif part == "list":
        torch.save([1, 2], path)
    elif part == "tokenizer":
        path.write_bytes(pickle.dumps({"format": "tinystories-bpe-tokenizer", "version": 1}, protocol=4))
    elif part == "other version":
        torch.save(content | {"version": 99}, path)
    elif part == "other shape":
        torch.save(content | {"config": content["config"] | {"hidden_size": 32}}, path)
    else:
        path.write_bytes(whole[: round(part * len(whole)) if part < 1 else part])
    with pytest.raises(UserError) as refusal:
        load_model(path)
    assert str(path) in one_line(refusal)
    assert not recwarn.list  # nothing of torch's own beside the one line


def test_a_missing_model_file_is_named(tmp_path):
    with pytest.raises(UserError, match="missing.pth") as refusal:
        load_model(tmp_path / "missing.pth")
    assert one_line(refusal)


class Planted:
    """Unpickling it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_code_in_a_file_is_refused_and_not_run(tmp_path, save):
    path, trace = tmp_path / "m.pth", tmp_path / "trace"
    save({"format": "tinystories-model", "version": 1, "model": Planted(trace)}, path)
    with pytest.raises(UserError) as refusal:
        load_model(path)
    assert str(path) in one_line(refusal)
    with pytest.raises(UserError):
        train_in(tmp_path / "run", None, {"resume_from_checkpoint": str(path)})
    assert not trace.exists()


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    with written_atomically(path) as file:
        file.write(b"old")
        assert not path.exists()
    with pytest.raises(RuntimeError), written_atomically(path) as file:
        file.write(b"new, but")
        raise RuntimeError
    assert files(tmp_path) == {path: b"old"}
    with written_atomically(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert files(tmp_path) == {path: b"new"}


# Flags, device and precision ------------------------------------------------------------------------------------------


def parse(*argv):
    parser = FlagParser("A trainer.")
    add_training_flags(parser, "some_model", epochs=9)
    pilot = {"epochs": 7, "amp_dtype": "bfloat16"}
    return parse_flags(parser, lambda given: pilot if given.get("pilot_run") else {}, argv)


def test_a_flag_at_the_shell_wins_over_the_pilot_and_the_pilot_over_the_default():
    assert (parse().epochs, parse().amp_dtype, parse().lr) == (9, None, TrainingSettings().lr)
    pilot = parse("--pilot_run")
    assert (pilot.epochs, pilot.amp_dtype, pilot.lr) == (7, "bfloat16", TrainingSettings().lr)
    for argv in (("--pilot_run", "--epochs", "2"), ("--epochs", "2", "--pilot_run")):
        assert (parse(*argv).epochs, parse(*argv).amp_dtype) == (2, "bfloat16")
    assert parse("--pilot_run", "--epochs", "9").epochs == 9  # given, though it is the default


@pytest.mark.parametrize("argv", [("--epoch", "2"), ("--epochs", "two"), ("--scheduler", "steps"), ("--nonsense",)])
def test_a_wrong_flag_is_refused_in_one_line(argv):
    with pytest.raises(UserError, match=argv[0]) as refusal:
        parse(*argv)
    assert one_line(refusal)


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 0}, {"epochs": 0}, {"gradient_accumulation_steps": 0}, {"logging_steps": 0},
        {"keep_checkpoints": 0}, {"eval_steps": 0}, {"save_steps": -1}, {"warmup_steps": -1}, {"min_lr": -1.0},
        {"weight_decay": -0.1}, {"weight_decay": math.nan}, {"max_grad_norm": -1.0}, {"early_stopping_patience": -1},
        {"adam_beta1": 1.0}, {"adam_beta2": -0.5}, {"lr": 0.0}, {"lr": math.inf}, {"lr": math.nan}, {"min_lr": 0.5},
    ],
)  # fmt: skip
def test_a_setting_that_makes_no_sense_is_refused_by_its_flag(change):
    with pytest.raises(UserError, match=f"--{next(iter(change))}") as refusal:
        make_settings(**change)
    assert one_line(refusal)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_on_a_cpu_without_it_goes_on_in_float32_and_says_so(dtype, monkeypatch, said):
    monkeypatch.setattr(devices, "has_bfloat16", lambda device: False)
    precision = Precision(CPU, amp=True, amp_dtype=dtype)
    assert len(said) == 1 and "--amp" in said[0] and "float32" in said[0]
    assert precision.name() == "float32"
    with precision.autocast():
        assert make_model()(torch.zeros(1, 3, dtype=torch.int64)).dtype == torch.float32


def test_a_device_is_chosen_and_said_and_an_impossible_one_refused(said):
    assert devices.choose_device("cpu") == CPU
    assert len(said) == 1 and "cpu" in said[0]
    for name in ("toaster", "cuda:999"):
        with pytest.raises(UserError, match=f"--device {name}") as refusal:
            devices.choose_device(name)
        assert one_line(refusal)


def test_half_precision_is_the_default_where_a_cpu_has_bfloat16_units_and_nowhere_else(monkeypatch, said):
    for able, name in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(devices, "has_bfloat16", lambda device, able=able: able)
        precision = Precision(CPU, amp=None)
        assert precision.name() == name and not said and not precision.scaler.is_enabled()
        with precision.autocast():
            assert make_model()(torch.zeros(1, 3, dtype=torch.int64)).dtype == precision.dtype
        assert Precision(CPU, amp=False).name() == "float32"
        assert devices.ready_to_write(make_model()).tokens.weight.dtype == precision.dtype
    assert parse("--no-amp").amp is False and parse("--amp").amp is True and parse().amp is None


def test_the_peak_of_a_card_is_found_by_its_name(monkeypatch):
    cards = {"Tesla T4": 65, "NVIDIA L4": 121, "NVIDIA A100-SXM4-40GB": 312, "NVIDIA H100 80GB HBM3": 990}
    for name, peak in (cards | {"NVIDIA H200": 990, "NVIDIA L40S": None, "NVIDIA T400": None}).items():
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=name: name)
        assert devices.peak_flops(torch.device("cuda"), torch.float16) == (peak and peak * 1e12)
    assert 1e8 < devices.peak_flops(CPU, torch.float32) < 1e14


# Compiling ------------------------------------------------------------------------------------------------------------


def test_only_a_long_run_is_worth_compiling():
    cuda, half, hour, pays = torch.device("cuda"), torch.float16, 3600 * 0.2, devices.compiling_pays
    assert pays(cuda, 65e12, half, hour * 65e12) and not pays(cuda, 65e12, half, 1e12)
    assert pays(cuda, 65e12, torch.float32, 5e15) and not pays(cuda, 65e12, half, 5e15)  # slower, so sooner worth it
    assert pays(cuda, None, half, 1e18)  # a card that is not in the table
    assert pays(cuda, 990e12, half, 1e17)  # the five epochs of the course
    assert not pays(CPU, 2e11, half, 1e18)  # where a run that goes on shall end with exactly the same weights
    assert not pays(torch.device("mps"), None, half, 1e18)


def test_a_compiled_run_is_the_same_run_and_compiles_once(tmp_path, monkeypatch):
    graphs, compile_ = [], torch.compile

    def keep(graph, example):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda network, **options: compile_(network, backend=keep, **options))
    plain = train_in(tmp_path / "plain")
    assert not graphs  # so short a run is not worth it
    compiled = train_in(tmp_path / "compiled", compile="on")
    assert len(graphs) == 1  # though evaluations came between
    assert compiled["final_val_loss"] == pytest.approx(plain["final_val_loss"], rel=1e-4)
    assert "compiled in" in (tmp_path / "compiled" / "train.log").read_text()


def test_where_compiling_fails_the_run_goes_on_without(tmp_path, monkeypatch):
    def fail(network, **options):
        raise RuntimeError("no C compiler was found\nand much more")

    monkeypatch.setattr(torch, "compile", fail)
    plain, failed = train_in(tmp_path / "plain"), train_in(tmp_path / "failed", compile="on")
    assert failed["final_val_loss"] == plain["final_val_loss"]
    log = (tmp_path / "failed" / "train.log").read_text()
    assert "compiling failed, the run goes on without: no C compiler was found\n" in log and "much more" not in log


def test_a_log_line_says_how_fast_the_run_is_and_when_it_ends(finished):
    line = next(line for line in (finished[0] / "train.log").read_text().splitlines() if "train_loss" in line)
    assert re.search(r"tokens/s [\d,]+ mfu \d+% elapsed 0:00:\d\d left 0:00:\d\d end [A-Z][a-z][a-z] \d\d:\d\d$", line)
