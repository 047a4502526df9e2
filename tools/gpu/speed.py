"""How fast a device trains and writes; each function returns lines for the report.

In reading order: `Trial` and `measure_training`, with the kernels of a step; writing; the time to a loss; the upper
limits of speed; another program.
"""

import dataclasses
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from benchmark import SPECIAL, config_of, model_for_writing, random_stories, synchronize

from common.devices import Precision, compiled, peak_flops
from common.prefetch import computed_ahead
from data import Rows
from generation.generate import generate
from generation.sampling import Sampling
from model import ModelConfig, Transformer
from training.optimizer import Muon, make_optimizers
from training.settings import TrainingSettings
from training.step import micro_batches, training_step

ROOT = Path(__file__).resolve().parents[2]
TRAINER = ROOT / "train_tinystories_model.py"
TINY = {"num_layers": 1, "hidden_size": 64, "num_heads": 2, "intermediate_size": 96, "max_seq_len": 64}  # for a CPU
RACE = (
    *("--max_eval_samples", "400", "--epochs", "1", "--batch_size", "8", "--optimizer", "muon", "--lr", "3e-3"),
    *("--warmup_steps", "20", "--dropout", "0", "--logging_steps", "20", "--eval_steps", "100"),
)
KINDS = {  # kinds of kernels, and the patterns of their names
    "products": r"gemm|cutlass_\d|xmma|nvjet|wgmma", "attention": r"fmha|flash|efficient|attention",
    "compiled": r"triton_", "copies": r"memcpy|memset", "optimizer": r"multi_tensor|adam",
}  # fmt: skip


@dataclasses.dataclass
class Trial:
    """A preset's network with optimizers and random stories, to measure training."""

    device: torch.device
    preset: str
    dtype: str = "float16"
    compiling: bool = False
    batch_size: int = 64
    steps: int = 100
    optimizer: str = "adamw"

    def __post_init__(self):
        config = config_of(self.preset)
        if self.device.type == "cpu":
            config = ModelConfig(500, **TINY, dropout=0.0)
            self.batch_size = 4
            self.steps = 3
        torch.manual_seed(0)
        self.model = Transformer(config).to(self.device).train()
        self.settings = TrainingSettings(batch_size=self.batch_size, optimizer=self.optimizer)
        is_half = self.dtype != "float32"
        self.precision = Precision(self.device, is_half, self.dtype if is_half else None)
        texts = self.batch_size * (self.steps + 30) * config.max_seq_len // 200 + 200
        self.rows = Rows(random_stories(texts, config.vocab_size), config.max_seq_len, SPECIAL, True, seed=0)
        self.network = self.model
        if self.compiling:
            torch._dynamo.reset()  # else earlier networks count as recompilations, and it gives up
            self.network = compiled(self.model, self.precision, self.batches_of(0))
        self.optimizers = make_optimizers(self.model, self.settings)
        for optimizer in self.optimizers:
            if self.compiling and isinstance(optimizer, Muon):
                optimizer.compile()

    def batches_of(self, step: int) -> list:
        return micro_batches(self.rows, step, self.settings, self.device)


def measure_training(trial: Trial, profiled: bool) -> list[str]:
    """Measure tokens per second of training.  profiled: also list the kernels of a step."""
    device = trial.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()

    def step(batches):
        return training_step(trial.network, trial.optimizers, trial.precision, batches, trial.settings)

    for number in range(5):
        step(trial.batches_of(number))
    synchronize(device)
    began = time.perf_counter()
    tokens = 0
    for batches in computed_ahead(trial.batches_of, range(5, 5 + trial.steps)):
        result = step(batches)
        tokens += result.tokens
    synchronize(device)
    seconds = time.perf_counter() - began
    peak = peak_flops(device, trial.precision.dtype)
    mfu = f", mfu {tokens / seconds * trial.model.flops_per_token() / peak:.1%}" if peak else ""
    memory = f", {torch.cuda.max_memory_allocated() / 1e6:,.0f} MB" if device.type == "cuda" else ""
    line = f"{tokens / seconds:,.0f} tokens/s, {1e3 * seconds / trial.steps:.2f} ms per step{mfu}{memory}"
    if not result.good:
        line += ", the last step was SKIPPED"
    if trial.compiling and trial.network is trial.model:
        line += ", compiling FAILED"
    lines = [line]
    if profiled and device.type == "cuda":
        lines += profile(partial(step, trial.batches_of(0)), device)
    return lines


def profile(step: Callable, device: torch.device, steps: int = 5) -> list[str]:
    """Measure how long the host needs to launch a step, how long the GPU is busy with it, and with which kernels."""
    launches = []
    for _ in range(steps):
        synchronize(device)
        began = time.perf_counter()
        step()
        launches.append(time.perf_counter() - began)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as recorded:
        for _ in range(steps):
            step()
        synchronize(device)
    kernels = [event for event in recorded.key_averages() if event.self_device_time_total]
    kernels.sort(key=lambda kernel: -kernel.self_device_time_total)
    milliseconds = [kernel.self_device_time_total / 1e3 / steps for kernel in kernels]
    of_kind = dict.fromkeys([*KINDS, "other"], 0.0)
    for kernel, time_taken in zip(kernels, milliseconds, strict=True):
        of_kind[kind_of(kernel.key)] += time_taken
    kinds = ", ".join(f"{kind} {time_taken:.2f}" for kind, time_taken in of_kind.items())
    count = sum(kernel.count for kernel in kernels) // steps
    host = 1e3 * sorted(launches)[steps // 2]
    lines = [f"host {host:.2f} ms, GPU {sum(milliseconds):.2f} ms, {count} kernels; ms: {kinds}"]
    for kernel, time_taken in list(zip(kernels, milliseconds, strict=True))[:8]:
        lines.append(f"{time_taken:7.3f} ms {kernel.count / steps:6.1f} x {kernel.key[:90]}")
    return lines


def kind_of(kernel: str) -> str:
    """Return the kind of a kernel, from KINDS, or "other"."""
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, kernel, re.I)), "other")


def measure_writing(device: torch.device) -> list[str]:
    """Measure tokens per second of writing 1, 8 and 64 stories at once, of 200 tokens each (20 on a CPU)."""
    length = 20 if device.type == "cpu" else 200
    lines = []
    for count in (1, 8, 64):
        model = model_for_writing(device, "course", count)
        prompts = [[SPECIAL["<bos>"], *range(10, 17)]] * count
        began = time.perf_counter()
        written = sum(len(tokens) for tokens in generate(model, prompts, Sampling(max_new_tokens=length)))
        lines.append(f"{count} at once: {written / (time.perf_counter() - began):,.0f} tokens/s")
    return lines


def measure_time_to_loss(device: torch.device, folder: Path, dataset: str) -> list[str]:
    """Measure the time to a validation loss of 1.30 bits per byte, with compiling but without tokenizing."""
    tokenizer = folder / "of_dataset.pkl"
    command = [sys.executable, str(ROOT / "train_bpe_tokenizer_hf.py"), "--dataset", dataset]
    subprocess.run([*command, "--output", str(tokenizer)], check=True, capture_output=True)
    flags = ["--dataset", dataset, "--tokenizer_path", tokenizer, "--output_dir", folder / "to_loss", "--amp"]
    flags += ["--cache_dir", folder / "of_dataset", "--device", device, *RACE]
    done = subprocess.run([sys.executable, str(TRAINER), *map(str, flags)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-300:])
    rows = [json.loads(line) for line in (folder / "to_loss/metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    evaluations = [(row["seconds"], row["bits_per_byte"]) for row in rows if row["event"] == "eval"]
    reached = next((f"{seconds:.1f} s" for seconds, bits in evaluations if bits <= 1.30), "not reached")
    return [reached, *(f"{seconds:7.1f} s {bits:.4f}" for seconds, bits in evaluations)]


def measure_ceilings(device: torch.device) -> list[str]:
    """Measure the upper limits of speed: copies, and matrix products with the default network's sizes."""
    if device.type != "cuda":
        return ["not measured on a CPU"]

    def milliseconds(function, repeats=10):
        for _ in range(3):
            function()
        synchronize(device)
        began = time.perf_counter()
        for _ in range(repeats):
            function()
        synchronize(device)
        return (time.perf_counter() - began) / repeats * 1e3

    a = torch.randn(1 << 28, device=device)
    b = torch.empty_like(a)
    lines = [f"copies {2 * a.nbytes / milliseconds(lambda: b.copy_(a)) / 1e9:.2f} TB/s"]
    for rows, width, out in ((8192, 8192, 8192), (16384, 256, 768), (16384, 256, 2048), (4096, 256, 10_000)):
        x = torch.randn(rows, width, device=device, dtype=torch.float16)
        w = torch.randn(out, width, device=device, dtype=torch.float16)
        speed = 2 * rows * width * out / milliseconds(lambda x=x, w=w: x @ w.T) / 1e9
        lines.append(f"{rows} x {width} x {out}: {speed:.0f} TFLOP/s")
    return lines


def compare(command: list[str]) -> list[str]:
    """Run another program; return the last line that it prints."""
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=60)
    return (done.stdout.strip().splitlines() or [done.stderr.strip()[-300:]])[-1:]
