"""Measure the speed of training, generation, tokenizing and grading on this machine, as a table and as JSON.

    python tools/benchmark.py                                   # everything, on the best device
    python tools/benchmark.py --only training --models course --compare path/to/reference.py

--compare must be the last flag. It runs another program before each measurement of training or generation. That program
must print one line of JSON (`real_tokens_per_second`, `generated_tokens_per_second`, `peak_rss_mb`, `peak_gpu_mb`). The
table then has the ratios to it: machines are noisy, so only numbers from the same run can be compared. Each measurement
runs in its own process, so its peak memory is measured separately. Needs only torch 2.9 or newer, numpy and tokenizers.
"""

import argparse
import dataclasses
import json
import math
import multiprocessing
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.console import silence
from common.devices import Precision, choose_device, compiled, has_bfloat16, peak_flops, ready_to_write
from common.prefetch import computed_ahead
from common.weights_files import save_model
from corpus.sources import Split
from corpus.token_cache import TokenCache, batches_of_text, cache_stories
from data import SPECIAL_TOKENS, Rows, train_tokenizer
from generation.generate import generate
from generation.sampling import Sampling
from model import ModelConfig, Transformer
from training import presets
from training.optimizer import make_optimizers
from training.run_folder import Run, write_line
from training.settings import TrainingSettings
from training.step import micro_batches, training_step

MEASURED = ("course", "cs336", "28M", "gpt2")  # the presets that are measured on a GPU
SPECIAL = {token: index for index, token in enumerate(SPECIAL_TOKENS)}
STORY_TOKENS = 200  # median length of a story of TinyStories, with a vocabulary of 10,000 tokens
STORY_SPREAD = 0.3  # sigma of the logarithm of that length
KINDS = ("training", "generation", "past", "tokenizing", "grading")
COLUMNS = {
    "tokens_per_second": "{:,.0f}", "bytes_per_second": "{:,}", "mfu": "{:.1%}", "peak_rss_mb": "{:,}",
    "peak_gpu_mb": "{:,}", "seconds_to_compile": "{}", "seconds": "{}", "ratio": "{:.2f}", "memory_ratio": "{:.2f}",
}  # fmt: skip


def main() -> None:
    args = parse_args()
    device = choose_device(args.device)
    about = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else str(device),
        "threads": torch.get_num_threads(),
        "date": time.strftime("%Y-%m-%d"),
        "command": sys.argv[1:],
    }
    print(json.dumps(about))
    print(f"| {'measured':42} | {' | '.join(COLUMNS)} |")
    print("|---|" + "--:|" * len(COLUMNS))
    results = {}
    for label, measure in measurements(args, device):
        kind = label.split()[0]
        other = run_other(args.compare) if args.compare and kind in ("training", "generation") else None
        result = in_a_process(measure)
        if other:
            result |= ratios_to(other, kind, result) | {"other": other}
        print_row(label, result)
        results[label] = result
        Path(args.json).write_text(json.dumps({"about": about, "results": results}, indent=1), encoding="utf-8")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.usage = "python tools/benchmark.py [flags]"
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS, help="what to measure (default: all)")
    parser.add_argument(
        "--models", nargs="+", choices=presets.PRESETS, help="presets (default: course; on a GPU, three more)"
    )
    parser.add_argument("--batch_size", type=int, default=64, help="rows per training step (default: 64)")
    parser.add_argument("--steps", type=int, help="timed training steps (default: 3 on a CPU, 50 on a GPU)")
    parser.add_argument("--new_tokens", type=int, default=200, help="length of the stories (default: 200)")
    parser.add_argument("--megabytes", type=int, default=20, help="text to tokenize (default: 20)")
    parser.add_argument("--submissions", type=int, default=200, help="runs to grade (default: 200)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compare", nargs=argparse.REMAINDER, help="another program to compare with, and its flags")
    parser.add_argument("--json", default="benchmark.json", help="where to write the numbers (default: benchmark.json)")
    return parser.parse_args()


def measurements(args: argparse.Namespace, device: torch.device) -> Iterator[tuple[str, Callable[[], dict]]]:
    """Yield (name, measuring function) for everything that --only selects."""
    for name in args.models or (["course"] if device.type == "cpu" else MEASURED):
        if "training" in args.only:
            yield from training_measurements(args, device, name)
        if "generation" in args.only:
            for batch_size in (1, 8, 64):
                label = f"generation {name}, {batch_size} at once"
                yield label, partial(measure_generation, device, name, batch_size, args.new_tokens)
        if "past" in args.only:
            for batch_size in (1, 64):
                label = f"past the context {name}, {batch_size} at once"
                yield label, partial(measure_past_the_context, device, name, batch_size)
    if "tokenizing" in args.only:
        yield f"tokenizing {args.megabytes} MB", partial(measure_tokenizing, args.megabytes)
    if "grading" in args.only:
        yield f"grading {args.submissions} submissions", partial(measure_grading, args.submissions)


def training_measurements(args: argparse.Namespace, device: torch.device, name: str) -> Iterator[tuple]:
    """Yield (name, measuring function) for each way to train a preset's network."""
    precisions = [None]
    if device.type == "cuda":
        precisions.append("float16")
    if has_bfloat16(device):
        precisions.append("bfloat16")
    steps = args.steps or (3 if device.type == "cpu" else 50)
    for batching, compiling in (("packed", False), ("packed", True), ("padded", False)):
        for dtype in precisions:
            label = f"training {name}, {batching}, {dtype or 'float32'}" + (", compiled" if compiling else "")
            yield label, partial(measure_training, device, name, args.batch_size, batching, dtype, compiling, steps)


# Processes ------------------------------------------------------------------------------------------------------------


def in_a_process(measure: Callable[[], dict]) -> dict:
    """Run a function in a new process; return its result and the peak memory of the process in MB."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=report, args=(sender, measure))
    process.start()
    sender.close()
    try:
        result = receiver.recv()
    except EOFError:
        result = {"failed": "the process crashed; see above"}
    process.join()
    return result


def report(sender, measure: Callable[[], dict]) -> None:
    """Measure and send the result."""
    try:
        with silence():  # messages would only clutter the table
            result = measure()
        if torch.cuda.is_available():
            result["peak_gpu_mb"] = torch.cuda.max_memory_allocated() // 2**20
        result["peak_rss_mb"] = peak_rss_mb()
    except torch.OutOfMemoryError:
        result = {"failed": "out of memory"}
    sender.send(result)


def peak_rss_mb() -> int | None:
    """Return the peak memory of this process in MB; None on Windows."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 2**20


def run_other(command: list[str]) -> dict:
    """Run another program; return the JSON in its last line."""
    done = subprocess.run([sys.executable, *command], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"error: --compare {' '.join(command)} ended with status {done.returncode}; see above")
    return json.loads(done.stdout.strip().splitlines()[-1])


def ratios_to(other: dict, kind: str, result: dict) -> dict:
    """Return our speed and memory as multiples of those of the other program."""
    theirs = other.get({"training": "real_tokens_per_second", "generation": "generated_tokens_per_second"}[kind])
    memory = "peak_gpu_mb" if other.get("peak_gpu_mb") else "peak_rss_mb"
    ratios = {}
    if theirs and result.get("tokens_per_second"):
        ratios["ratio"] = round(result["tokens_per_second"] / theirs, 2)
    if kind == "training" and other.get(memory) and result.get(memory):
        ratios["memory_ratio"] = round(result[memory] / other[memory], 2)
    return ratios


def print_row(label: str, result: dict) -> None:
    """Print a row of the table."""
    cells = [form.format(result[name]) if result.get(name) else "" for name, form in COLUMNS.items()]
    if "failed" in result:
        cells[0] = result["failed"]
    cells = [f"{cell:>{len(name)}}" for cell, name in zip(cells, COLUMNS, strict=True)]
    print(f"| {label:42} | {' | '.join(cells)} |", flush=True)


# Training and generation ----------------------------------------------------------------------------------------------


def config_of(name: str) -> ModelConfig:
    """Return the config of a preset with its usual vocabulary; without dropout, so that all programs do the same."""
    return dataclasses.replace(presets.config_of(name, 50_257 if name == "gpt2" else 10_000), dropout=0.0)


def random_stories(count: int, vocab_size: int, seed: int = 0) -> TokenCache:
    """Return stories of random tokens, with lengths as in TinyStories."""
    generator = np.random.default_rng(seed)
    lengths = np.exp(generator.normal(math.log(STORY_TOKENS), STORY_SPREAD, count)).astype(np.int64)
    tokens = generator.integers(len(SPECIAL), vocab_size, lengths.sum()).astype(np.uint32)
    starts = np.cumsum([0, *lengths])
    tokens[starts[:-1]] = SPECIAL["<bos>"]
    tokens[starts[1:] - 1] = SPECIAL["<eos>"]
    return TokenCache(tokens, starts, lengths * 4)


def synchronize(device: torch.device) -> None:
    """Wait until the GPU has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_training(
    device: torch.device, name: str, batch_size: int, batching: str, amp_dtype: str | None, compiling: bool, steps: int
) -> dict:
    """Measure tokens per second of training, not counting the first step."""
    device = choose_device(str(device))  # also sets up torch in this process
    config = config_of(name)
    model = Transformer(config).to(device).train()
    settings = TrainingSettings(batch_size=batch_size)
    precision = Precision(device, amp_dtype is not None, amp_dtype)
    optimizers = make_optimizers(model, settings)
    stories = random_stories(batch_size * (steps + 2) * config.max_seq_len // STORY_TOKENS + 50, config.vocab_size)
    rows = Rows(stories, config.max_seq_len, SPECIAL, batching == "packed", seed=0)
    network = model
    result = {}
    if compiling:
        began = time.perf_counter()
        network = compiled(model, precision, micro_batches(rows, 0, settings, device))
        if network is model:
            return {"failed": "torch.compile does not work here"}
        result["seconds_to_compile"] = round(time.perf_counter() - began, 1)

    def batches_of(step):
        return micro_batches(rows, step, settings, device)

    tokens = 0
    for step, batches in enumerate(computed_ahead(batches_of, range(steps + 1))):
        predicted = training_step(network, optimizers, precision, batches, settings).tokens
        if step == 0:  # warm-up
            synchronize(device)
            began = time.perf_counter()
        else:
            tokens += predicted
    synchronize(device)
    speed = tokens / (time.perf_counter() - began)
    peak = peak_flops(device, precision.dtype)
    mfu = round(speed * model.flops_per_token() / peak, 3) if peak else None
    return {"tokens_per_second": round(speed), "mfu": mfu} | result


def model_for_writing(device: torch.device, name: str, rows: int) -> Transformer:
    """Return a preset's untrained network, warmed up and ready to write this number of rows at once."""
    model = ready_to_write(Transformer(config_of(name)).to(choose_device(str(device))).eval(), rows)
    for _ in generate(model, [[SPECIAL["<bos>"]]], Sampling(max_new_tokens=4)):
        pass
    return model


def measure_generation(device: torch.device, name: str, batch_size: int, new_tokens: int) -> dict:
    """Measure tokens per second when stories of new_tokens tokens are written."""
    model = model_for_writing(device, name, batch_size)
    prompts = [[SPECIAL["<bos>"], *range(10, 17)]] * batch_size
    began = time.perf_counter()
    sampling = Sampling(max_new_tokens=new_tokens, temperature=1.0)
    written = sum(len(tokens) for tokens in generate(model, prompts, sampling))
    return {"tokens_per_second": round(written / (time.perf_counter() - began), 1)}


def measure_past_the_context(device: torch.device, name: str, batch_size: int) -> dict:
    """Measure tokens per second beyond the first context, in stories of four contexts, and the ratio to the first."""
    model = model_for_writing(device, name, batch_size)
    context = model.config.max_seq_len
    sampling = Sampling(max_new_tokens=4 * context, temperature=1.0)
    times = [time.perf_counter()]
    times += [time.perf_counter() for _ in generate(model, [[SPECIAL["<bos>"]]] * batch_size, sampling)]
    inside = (context - 1) / (times[context - 1] - times[0])
    past = (3 * context + 1) / (times[4 * context] - times[context - 1])
    return {"tokens_per_second": round(batch_size * past, 1), "ratio": round(past / inside, 2)}


# Tokenizing -----------------------------------------------------------------------------------------------------------


def texts_of_words(megabytes: int, seed: int = 0) -> Iterator[str]:
    """Yield texts as long as stories, made of invented words: realistic work for a tokenizer."""
    generator = np.random.default_rng(seed)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    lexicon = np.array(["".join(generator.choice(letters, generator.integers(2, 9))) for _ in range(5000)])
    ranks = np.minimum((generator.pareto(1.0, megabytes * 200_000) * 10).astype(int), len(lexicon) - 1)
    for first in range(0, len(ranks), 180):
        yield " ".join(lexicon[ranks[first : first + 180]]).capitalize() + "."


def measure_tokenizing(megabytes: int) -> dict:
    """Measure bytes per second into the token cache, and the ratio to `encode_batch_fast` alone on the same text."""
    texts = list(texts_of_words(megabytes))
    size = sum(map(len, texts))
    tokenizer = train_tokenizer(texts[:2000], 10_000)
    split = Split("words", lambda wanted, notes: (({"text": text}, "") for text in texts), lambda: "words")
    alone = cached = math.inf
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            cache_stories(split, tokenizer, folder)
            cached = min(cached, time.perf_counter() - began)
        began = time.perf_counter()
        for batch in batches_of_text(texts):
            tokenizer.backend.encode_batch_fast(batch, add_special_tokens=False)
        alone = min(alone, time.perf_counter() - began)
    return {"bytes_per_second": round(size / cached), "ratio": round(alone / cached, 2)}


# Grading --------------------------------------------------------------------------------------------------------------


def make_run(folder: Path, points: int = 3000, evaluations: int = 20) -> None:
    """Write the records of a run of the course's size as the trainer does, including two models of 23 MB."""
    run = Run(argparse.Namespace(output_dir=str(folder), overwrite=False, resume_from_checkpoint=None, pilot_run=False))
    run.start()
    model = Transformer(config_of("course"))
    place = {"epoch": 0.0, "tokens": 0, "seconds": 0.0}
    run.record("run", step=0, **place, run_id=run.run_id, time=time.strftime("%Y-%m-%dT%H:%M:%S%z"))
    for step in range(1, points + 1):
        loss = 9 / step**0.2
        values = {"train_loss": loss, "perplexity": math.exp(loss), "lr": 1e-3, "tokens_per_second": 5e5}
        tags = {"Loss/train": loss, "Perplexity/train": math.exp(loss), "LearningRate": 1e-3}
        tags["Throughput/tokens_per_second"] = 5e5
        run.record("train", tags, step=step, **place, **values, grad_norm=1.0)
        said = " ".join(f"{name} {value:.4f}" for name, value in values.items())
        write_line(f"2026-01-01 00:00:00 step {step}/{points} epoch 0.00 {said} elapsed 0:00:01", run.log_file)
        if step % (points // evaluations) == 0:
            values = {"val_loss": loss, "perplexity": math.exp(loss), "bits_per_byte": loss / 2, "accuracy": 0.5}
            run.record("eval", {"Loss/val": loss}, step=step, **place, **values)
            run.record("sample", step=step, **place, text="Once upon a time. " * 40)
    for name in ("best_model.pth", "final_model.pth"):
        save_model(run.path(name), model, "of a tokenizer", points, loss, run.run_id)
    run.close()


def measure_grading(submissions: int) -> dict:
    """Measure how many seconds it takes to grade runs of the course's size; every second one is a .zip."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "made"
        make_run(made)
        archive = shutil.make_archive(str(made), "zip", made)
        handed_in = Path(folder) / "submissions"
        handed_in.mkdir()
        for number in range(submissions):
            if number % 2:
                shutil.copy(archive, handed_in / f"{number}.zip")
            else:
                shutil.copytree(made, handed_in / str(number))
        program = Path(__file__).parent / "grade_runs.py"
        files = ["--report", f"{folder}/report.html", "--csv", f"{folder}/grades.csv"]
        began = time.perf_counter()
        subprocess.run([sys.executable, program, handed_in, *files], check=True, stdout=subprocess.DEVNULL)
        return {"seconds": round(time.perf_counter() - began, 1)}


if __name__ == "__main__":
    main()
