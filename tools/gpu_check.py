"""Check a GPU: does it compute correctly, and how fast is it?

    python tools/gpu_check.py --minutes 9 2>&1 | tee gpu_check.log
    python tools/gpu_check.py --minutes 4                               # the most important checks, for example on a T4

It first checks that results are right, then measures speed.  The most important checks come first, and each line is
printed when it is known.  The last line names the checks that did not fit into the time.  Send the output to the
maintainer of the course.

Needs the same packages as the five programs, except `datasets`; the CUDA tests also need pytest.  With eight or more
cores, the checks for right results run in parallel.  --device cpu is for testing this program, with tiny networks.
In reading order: `main`; right results; speed, which gpu/speed.py measures.
"""

import argparse
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpu.speed import (
    TINY,
    TRAINER,
    Trial,
    compare,
    measure_ceilings,
    measure_time_to_loss,
    measure_training,
    measure_writing,
)

from common.devices import choose_device, describe_device, has_bfloat16
from model import IGNORED

BEGAN = time.monotonic()
ROOT = Path(__file__).resolve().parents[1]
STORIES = ROOT / "sample_data/stories"
MANY_CORES = 8
RIGHT = 0.6  # share of the time for the checks of right results
# How far a gradient may be from the one in float32, relative to its norm.
TOLERANCES = {"float32": 0.005, "float16": 0.01, "bfloat16": 0.05}


def main() -> None:
    args = parse_args()
    device = choose_device(args.device)
    describe(device)
    seconds = 60 * args.minutes
    left_out = []
    with tempfile.TemporaryDirectory() as folder:
        section("right results")
        for title, lines in side_by_side(checks(device, Path(folder), seconds), RIGHT * seconds, left_out):
            show(title, lines)
        section("speed")
        for title, needed, measure in measurements(args, device, Path(folder)):
            if clock() + needed > seconds:
                left_out.append(title)
            else:
                show(title, guarded(measure))
    section("not run, because the time was too short: " + ("; ".join(left_out) or "none"))


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.usage = "python tools/gpu_check.py [flags]"
    parser.add_argument("--minutes", type=float, default=9, help="how long it may take (default: 9)")
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--dataset", help="TinyStories as files, to measure the time to 1.30 bits per byte (default: not measured)"
    )
    parser.add_argument("--compare", nargs=argparse.REMAINDER, help="another program to compare with, and its flags")
    return parser.parse_args(argv)


def clock() -> float:
    """Return the seconds since the program began."""
    return time.monotonic() - BEGAN


def section(title: str) -> None:
    print(f"== {clock():.0f} s: {title}", flush=True)


def show(title: str, lines: list[str]) -> None:
    for line in lines:
        print(f"{title}: {line}", flush=True)


def guarded(check: Callable[[], list[str]]) -> list[str]:
    """Run a check and return its lines; an error becomes a line, so the next checks still run."""
    try:
        return check()
    except Exception as error:
        traceback.print_exc(limit=-3)
        return [f"FAILED: {type(error).__name__}: {str(error)[:300]}"]


def describe(device: torch.device) -> None:
    """Print the device, the versions and the command."""
    print(f"{describe_device(device)}; torch {torch.__version__}, Python {platform.python_version()}, "
          f"{os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}: {' '.join(sys.argv)}", flush=True)  # fmt: skip
    if device.type == "cuda" and shutil.which("nvidia-smi"):
        query = "name,driver_version,clocks.sm,clocks.max.sm,power.limit"
        done = subprocess.run(["nvidia-smi", f"--query-gpu={query}", "--format=csv"], capture_output=True, text=True)
        print(done.stdout.strip(), flush=True)


# Right results --------------------------------------------------------------------------------------------------------

Check = tuple[str, float, Callable[[], list[str]]]  # (title, estimated seconds, function that returns the lines)


def checks(device: torch.device, folder: Path, most: float) -> list[Check]:
    """Return all checks, the most important first.  most: seconds after which a check that hangs is stopped."""
    checks = [
        ("gradients", 45, partial(check_gradients, device)),
        ("same loss in each precision", 80, partial(check_precisions, device, folder, most)),
        ("SIGTERM and resuming", 100, partial(check_resuming, device, folder, most)),
        ("two optimizers under the scaler", 40, partial(check_muon, device, folder, most)),
    ]
    if device.type == "cuda":
        checks.insert(2, ("tests/test_cuda.py", 120, partial(check_tests, most)))
    return checks


def side_by_side(checks: list[Check], until: float, left_out: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Run checks, in parallel if there are enough cores; yield (title, lines) when a check ends."""
    workers = len(checks) if (os.cpu_count() or 1) >= MANY_CORES else 1

    def run(check: Check) -> list[str]:
        title, seconds, function = check
        if workers == 1 and clock() + seconds > until:
            left_out.append(title)
            return []
        return guarded(function)

    with ThreadPoolExecutor(workers) as pool:
        futures = {pool.submit(run, check): check[0] for check in checks}
        for future in as_completed(futures):
            yield futures[future], future.result()


def dtypes(device: torch.device) -> list[str]:
    """Return the precisions that a device supports."""
    halves = ["float16"] if device.type == "cuda" else []
    return ["float32", *halves, *(["bfloat16"] if has_bfloat16(device) else [])]


def usual_dtype(device: torch.device) -> str:
    return "float16" if device.type == "cuda" else "float32"


def check_gradients(device: torch.device) -> list[str]:
    """Compare the first gradient in each precision, also compiled, with the one in full float32."""
    lines = []
    torch.set_float32_matmul_precision("highest")
    _, exact = first_gradient(device, "float32", compiling=False)
    torch.set_float32_matmul_precision("high")
    for dtype in dtypes(device):
        # a GPU usually trains compiled and in float16
        for compiling in (False, True) if dtype == usual_dtype(device) else (False,):
            loss, gradient = first_gradient(device, dtype, compiling)
            distance = ((gradient - exact).norm() / exact.norm()).item()
            verdict = "right" if distance < TOLERANCES[dtype] else "WRONG"
            how = ", compiled" if compiling else ""
            lines.append(f"{dtype}{how}: {verdict}, loss {loss:.5f}, {distance:.1e} from float32")
    return lines


def first_gradient(device: torch.device, dtype: str, compiling: bool) -> tuple[float, torch.Tensor]:
    """Return (loss, gradient of all weights) for the first batch with the default network."""
    trial = Trial(device, "course", dtype, compiling)
    ((inputs, targets), *_) = trial.batches_of(0)
    with trial.precision.autocast():
        loss = trial.network(inputs.to(device), targets.to(device))
    loss.backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in trial.model.parameters()])
    return loss.item() / int((targets != IGNORED).sum()), gradient


def check_tests(most: float) -> list[str]:
    """Run the CUDA tests; return pytest's results."""
    if importlib.util.find_spec("pytest") is None:
        return ["not run: pytest is not installed"]
    command = [sys.executable, "-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider", "tests/test_cuda.py"]
    if importlib.util.find_spec("xdist") and (os.cpu_count() or 1) >= MANY_CORES:
        command += ["-n", "4"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=most)
    return [line for line in done.stdout.splitlines() if re.match(r"FAILED|ERROR|.*\b(passed|failed|error)", line)][
        -20:
    ]


def trainer(device: torch.device, folder: Path, name: str, *flags: str) -> list[str]:
    """Train a tokenizer; return the command that trains on the sample stories, with output in folder / name."""
    tokenizer = folder / f"{name}.pkl"  # one for each run, as they run in parallel
    command = [sys.executable, str(ROOT / "train_bpe_tokenizer_hf.py"), "--dataset", str(STORIES)]
    subprocess.run([*command, "--output", str(tokenizer)], check=True, capture_output=True)
    shape = [word for key, value in TINY.items() for word in (f"--{key}", str(value))] if device.type == "cpu" else []
    places = ["--dataset", STORIES, "--tokenizer_path", tokenizer, "--output_dir", folder / name]
    places += ["--cache_dir", folder / f"{name}_cache", "--device", device]
    return [sys.executable, str(TRAINER), *map(str, places), *shape, *flags]


def final_loss(device: torch.device, folder: Path, name: str, most: float, *flags: str) -> tuple[float, int]:
    """Train, and return (final validation loss, skipped steps)."""
    steps = "20" if device.type == "cpu" else "200"
    flags = ("--max_steps", steps, "--eval_steps", steps, "--compile", "off", *flags)
    done = subprocess.run(trainer(device, folder, name, *flags), capture_output=True, text=True, timeout=most)
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-300:])
    summary = json.loads((folder / name / "summary.json").read_text(encoding="utf-8"))
    return summary["final_val_loss"], summary["skipped_steps"]


def check_precisions(device: torch.device, folder: Path, most: float) -> list[str]:
    """Check that runs of 200 steps in each precision end with the same loss (within 1%)."""
    lines = []
    exact = None
    for dtype in dtypes(device):
        flags = ["--no-amp"] if dtype == "float32" else ["--amp", "--amp_dtype", dtype]
        loss, skipped = final_loss(device, folder, dtype, most, *flags)
        if exact is None:
            exact = loss
        verdict = "right" if abs(loss / exact - 1) < 0.01 else "WRONG"
        lines.append(f"{dtype}: {verdict}, validation loss {loss:.4f}, {skipped} steps skipped")
    return lines


def check_muon(device: torch.device, folder: Path, most: float) -> list[str]:
    """Train in half precision with two optimizers."""
    loss, skipped = final_loss(device, folder, "muon", most, "--amp", "--optimizer", "muon")
    return [f"validation loss {loss:.4f}, {skipped} steps skipped"]


def check_resuming(device: torch.device, folder: Path, most: float) -> list[str]:
    """Stop a compiled run with SIGTERM, resume it, and stop it again."""
    flags = ["--amp", "--compile", "on", "--max_steps", "1000000", "--logging_steps", "50", "--eval_steps", "1000000"]
    command = trainer(device, folder, "cut", *flags)
    losses = []
    for more in ([], ["--resume_from_checkpoint", "latest"]):
        process = subprocess.Popen([*command, *more], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        rows = wait_for_rows(process, folder / "cut/metrics.jsonl", len(losses) + 3, most)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
        if process.returncode != 128 + signal.SIGTERM:
            raise RuntimeError(f"status {process.returncode} after SIGTERM: {errors[-300:]}")
        losses = rows
    first, last = losses[2], losses[-1]
    compiled_in = re.findall(r"compil\w+ (?:in|failed).*", errors)
    verdict = "right" if last < 1.05 * first else "WRONG"
    return [f"{verdict}, status 143 twice, train_loss {first:.3f} before and {last:.3f} after; {compiled_in}"]


def wait_for_rows(process: subprocess.Popen, metrics: Path, count: int, most: float) -> list[float]:
    """Wait until a running trainer has logged at least count training losses, and return them."""
    while process.poll() is None and clock() < most:
        time.sleep(0.5)
        text = metrics.read_text(encoding="utf-8") if metrics.exists() else ""
        rows = [json.loads(line) for line in text.splitlines()]
        losses = [row["train_loss"] for row in rows if row["event"] == "train"]
        if len(losses) >= count:
            return losses
    process.kill()
    raise RuntimeError(f"the trainer did not log {count} losses in time: {process.communicate()[1][-300:]}")


# Speed ----------------------------------------------------------------------------------------------------------------


def measurements(args: argparse.Namespace, device: torch.device, folder: Path) -> Iterator[Check]:
    """Yield all measurements, the most important first."""

    def training(seconds, preset, dtype, profiled=False, **more):
        title = f"training {preset}, {dtype}"
        if "compiling" in more:
            title += ", compiled"
        if "optimizer" in more:
            title += f", {more['optimizer']}"
        return title, seconds, lambda: measure_training(Trial(device, preset, dtype, **more), profiled)

    half = usual_dtype(device)
    wide = "bfloat16" if has_bfloat16(device) else half
    yield training(40, "course", half, profiled=True, compiling=True)
    yield training(15, "course", half, profiled=True)
    yield "writing", 25, partial(measure_writing, device)
    yield training(50, "cs336", wide, profiled=True, compiling=True)
    if args.compare:
        yield "the other program", 30, partial(compare, args.compare)
    if args.dataset:
        yield "time to 1.30 bits per byte", 90, partial(measure_time_to_loss, device, folder, args.dataset)
    yield training(15, "cs336", wide)
    yield training(15, "course", half, optimizer="muon")
    yield training(40, "course", half, compiling=True, optimizer="muon")
    yield training(30, "gpt2", wide, batch_size=12, steps=20)
    yield training(40, "course", wide, compiling=True)
    yield training(15, "course", "float32", steps=40)
    yield "ceilings", 15, partial(measure_ceilings, device)


if __name__ == "__main__":
    main()
