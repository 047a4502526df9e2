"""Find the scaling law of small models: train a grid of sizes and lengths, and fit a law to the losses.

    python tools/scaling.py --minutes 20 --dataset sample_data/stories --output_dir scaling

The program measures how fast this machine trains each size.  Then it plans runs with compute budgets of C, 2C, 4C ...,
three sizes for each budget, so that all runs together take about --minutes.  Each run is train_tinystories_model.py
with a schedule over its own length.  The same command again resumes the grid.  The sizes suit a CPU.  The law that is
fitted to the final validation losses is

    L(N, D) = E + A / N^alpha + B / D^beta          approach 3 of Hoffmann et al. 2022 (arXiv 2203.15556)

D: training tokens.  N: all parameters, including the embeddings, because they also compute the logits, which is most of
the work in networks this small.  C = 6 N D, in operations, without the products in attention.

It writes to --output_dir: grid.json (the planned runs), a folder for each run, and scaling.svg (loss over compute).
The table and the law go to stdout, everything else to stderr.
"""

import argparse
import dataclasses
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pages.svg_plots import Axes, plot
from scoring.scaling_law import (
    DELTA,
    Fit,
    Result,
    compute_optimal,
    error_of,
    fit_law,
    leave_one_out_error,
    predicted_loss,
    root_mean_square,
)

from common.console import log
from common.devices import Precision, choose_device
from common.errors import Interrupted, UserError
from common.files import write_json, written_atomically
from common.flags import FlagParser
from common.program import run_program
from common.ranks import ONE_RANK
from data import load_tokenizer
from model import ModelConfig, Transformer
from training.curves import COLOURS
from training.optimizer import make_optimizers
from training.settings import TrainingSettings
from training.time_limit import seconds_per_step

TRAINER = Path(__file__).resolve().parents[1] / "train_tinystories_model.py"
SHAPES = ((2, 32), (2, 64), (4, 96), (4, 128), (6, 160))  # (layers, width), each 1.5 to 2 times as large as the last
HEAD = 32  # numbers; divides every width
CONTEXT = 256  # tokens
# The batch is small, so that short runs, too, have enough steps; a CPU computes 2,048 tokens (8 rows) at a time anyway.
# Muon's updates have the same size at each width, so one learning rate is used for all.  In runs of 250 steps of 2x32
# and 150 of 4x96 (850 stories, one seed), 0.006 was 0.44 and 0.13 nats worse than 0.018, and 0.036 was 0.08 and 0.03
# better.  Longer runs were not tried; they usually need lower rates.
RECIPE = {"optimizer": "muon", "lr": 0.018, "batch_size": 8}
STEP_TOKENS = RECIPE["batch_size"] * CONTEXT
EVAL_STORIES = 500
EVALUATION_STEPS = 18  # take as long as an evaluation: 500 stories of 220 tokens, with a third of the work per token
SIZES_A_BUDGET = 3
MOST_BUDGETS = 6
FEWEST_BUDGETS = 2
ENOUGH_STEPS = 100  # in the shortest run
LEAST_STEPS = 10  # if there is little time
ENOUGH_RUNS = 6  # for a law of 5 numbers
TERA = 1e12
STYLE = """<style>svg { background: #fff; font: 12px sans-serif; } .grid { stroke: #ddd; }
.curve { fill: none; stroke-width: 1.5; } .dots { stroke-width: 7; stroke-linecap: round; }</style>"""


@dataclass(frozen=True)
class Run:
    """A planned run; seconds: its expected duration."""

    layers: int
    width: int
    parameters: int
    steps: int
    seconds: float

    @property
    def name(self) -> str:
        return f"{self.layers}x{self.width}_{self.steps}_steps"

    @property
    def compute(self) -> float:
        """C, in operations."""
        return 6 * self.parameters * self.steps * STEP_TOKENS


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = FlagParser(__doc__)
    parser.usage = "python tools/scaling.py [flags]"
    parser.add_argument("--minutes", type=int, default=20, help="for all runs together (default: %(default)s)")
    parser.add_argument(
        "--dataset", default="roneneldan/TinyStories", help="stories, as for the trainer (default: %(default)s)"
    )
    parser.add_argument("--text_column", default="text", help="the column with the story (default: %(default)s)")
    parser.add_argument(
        "--tokenizer_path", default="bpe_tokenizer_tinystories.pkl", help="step 1's file (default: %(default)s)"
    )
    parser.add_argument("--output_dir", default="scaling", help="folder for the grid (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=42, help="of every run (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto: cuda, then mps, then cpu (default: %(default)s)")
    args = parser.parse_args(argv)
    if args.minutes < 1:
        raise UserError(f"--minutes must be at least 1, not {args.minutes}")
    return args


def main() -> None:
    args = parse_args()
    folder = Path(args.output_dir)
    runs = read_grid(args) or make_grid(args)
    results = []
    for number, run in enumerate(runs, start=1):
        try:
            if not (folder / run.name / "summary.json").exists():
                log.info(f"run {number} of {len(runs)}: {run.name}, about {run.seconds:.0f} s")
                train(command(args, run, folder / run.name))
            results.append(read_result(run, folder / run.name))
        except UserError as error:
            if error.status == 2:  # the other runs would fail, too
                raise
            log.error(f"error: {run.name} skipped: {error}")
    report(results, folder)


# The grid -------------------------------------------------------------------------------------------------------------


def flags_of(args: argparse.Namespace) -> dict:
    """Return the flags that define a grid."""
    return {name: value for name, value in vars(args).items() if name != "output_dir"}


def read_grid(args: argparse.Namespace) -> list[Run]:
    """Return the runs in grid.json, [] if there is no such file.  Raises UserError if it was made with other flags."""
    path = Path(args.output_dir) / "grid.json"
    if not path.exists():
        return []
    try:
        grid = json.loads(path.read_text(encoding="utf-8"))
        before = dict(grid["flags"])
        runs = [Run(**run) for run in grid["runs"]]
    except (ValueError, LookupError, TypeError):
        raise UserError(f"{path} is damaged; remove it, or pass another --output_dir") from None
    for name, value in flags_of(args).items():
        was = before.get(name)
        if was != value:
            raise UserError(f"--{name} {value}: {path} was made with {was}; pass that, or another --output_dir")
    return runs


def make_grid(args: argparse.Namespace) -> list[Run]:
    """Measure the speed, plan the runs, and write grid.json."""
    vocab_size = load_tokenizer(args.tokenizer_path).vocab_size
    device = choose_device(args.device)
    log.info("measuring the overhead of a run, and the time of a step of each size")
    with tempfile.TemporaryDirectory() as folder:
        for place in ("tokenizes", "measured"):  # the first one may have to tokenize the stories
            began = time.perf_counter()
            train(command(args, Run(*SHAPES[0], parameters=0, steps=1, seconds=0), Path(folder) / place))
    overhead = time.perf_counter() - began
    steps = [measure_step(shape, vocab_size, device, min(3, args.minutes)) for shape in SHAPES]
    seconds = 60 * args.minutes - (time.perf_counter() - began)
    runs = lay_out(steps, seconds, overhead)
    total = sum(run.seconds for run in runs)
    log.info(f"{len(runs)} runs, about {total / 60:.1f} minutes")
    if total > 1.1 * seconds:
        log.info(f"--minutes {args.minutes} is too short: {len(runs)} runs that learn something take longer")
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "grid.json", {"flags": flags_of(args), "runs": [dataclasses.asdict(run) for run in runs]})
    return runs


def measure_step(shape: tuple[int, int], vocab_size: int, device: torch.device, seconds: float) -> Run:
    """Measure the time of a step for some seconds, on random tokens, and return a run of one step."""
    layers, width = shape
    config = ModelConfig(vocab_size, layers, width, width // HEAD, 2 * width, CONTEXT, dropout=0.0)
    model = Transformer(config).to(device).train()
    settings = TrainingSettings(**RECIPE)
    ids = torch.randint(vocab_size, (settings.batch_size, CONTEXT + 1))
    batches = itertools.repeat([(ids[:, :-1], ids[:, 1:])])
    job = SimpleNamespace(settings=settings, precision=Precision(device, None), ranks=ONE_RANK)
    _, parameters = model.num_parameters()
    step_seconds = seconds_per_step(job, model, make_optimizers(model, settings), batches, seconds)
    return Run(layers, width, parameters, steps=1, seconds=step_seconds)


def lay_out(steps: list[Run], seconds: float, overhead: float) -> list[Run]:
    """Plan runs that fit the time: with as many budgets as leave each run `ENOUGH_STEPS`, or with the fewest.

    steps: a run of one step for each size.  overhead: seconds of a run in addition to its steps and its evaluation.
    """
    for budgets in range(MOST_BUDGETS, FEWEST_BUDGETS - 1, -1):
        runs = ladder(steps, budgets, seconds, overhead)
        if min(run.steps for run in runs) >= ENOUGH_STEPS:
            break
    return runs


def ladder(steps: list[Run], budgets: int, seconds: float, overhead: float) -> list[Run]:
    """Plan runs for compute budgets that double each time, three sizes each; at least `LEAST_STEPS` in each run.

    Every second budget moves to larger sizes: four times the compute needs about twice the size (Hoffmann et al.).
    """
    cells = []  # (budget as a multiple of the first one, a step of this size)
    for number in range(budgets):
        first = number // 2
        cells += [(2**number, step) for step in steps[first : first + SIZES_A_BUDGET]]
    beside_steps = sum(overhead + EVALUATION_STEPS * step.seconds for _, step in cells)
    seconds_of_one = sum(multiple * step.seconds / step.compute for multiple, step in cells)  # for a budget of 1
    least = max(LEAST_STEPS * step.compute / multiple for multiple, step in cells)
    budget = max(least, (seconds - beside_steps) / seconds_of_one)
    runs = []
    for multiple, step in cells:
        count = round(multiple * budget / step.compute)
        in_all = overhead + (count + EVALUATION_STEPS) * step.seconds
        runs.append(dataclasses.replace(step, steps=count, seconds=in_all))
    return runs


# Runs -----------------------------------------------------------------------------------------------------------------


def command(args: argparse.Namespace, run: Run, folder: Path) -> list[str]:
    """Return the command that trains a run.

    The schedule has the length of the run; with a longer one the loss would be too high (Hoffmann et al. 2022).
    """
    flags = flags_of(args) | RECIPE
    del flags["minutes"]
    flags |= {
        "num_layers": run.layers, "hidden_size": run.width, "num_heads": run.width // HEAD,
        "intermediate_size": 2 * run.width, "max_seq_len": CONTEXT, "dropout": 0, "max_steps": run.steps,
        "eval_steps": run.steps, "max_eval_samples": EVAL_STORIES, "keep_checkpoints": 1, "compile": "off",
        "output_dir": folder, "resume_from_checkpoint": "auto",
    }  # fmt: skip
    return [sys.executable, str(TRAINER), *(f"--{name}={value}" for name, value in flags.items())]


def train(words: list[str]) -> None:
    """Run a trainer to its end or, if interrupted, to its checkpoint.  Raises UserError if it fails."""
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "encoding": "utf-8", "errors": "replace"}
    process = subprocess.Popen(words, **pipes)
    try:
        _, messages = process.communicate()
    except (KeyboardInterrupt, Interrupted):
        if os.name != "nt":  # on Windows this would kill it, and the console sends it the Ctrl-C anyway
            process.terminate()
        process.communicate()
        raise
    if process.returncode:
        errors = [line.removeprefix("error: ") for line in messages.splitlines() if line.startswith("error: ")]
        reason = "; ".join(errors) or f"the trainer ended with status {process.returncode}"
        raise UserError(reason, status=2 if process.returncode == 2 else 1)


def read_result(run: Run, folder: Path) -> Result:
    """Read the result of a finished run from its summary.json."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    size = f"{run.layers}x{run.width}"
    return Result(size, run.parameters, summary["tokens"], summary["final_val_loss"], summary["epoch"])


# The report -----------------------------------------------------------------------------------------------------------


def report(results: list[Result], folder: Path) -> None:
    """Print the table and, if there are enough runs, the law; and draw scaling.svg."""
    fit = fit_law(results) if len(results) >= ENOUGH_RUNS else None
    print("size    N, parameters   D, tokens  C, 10^12    loss" + ("  fitted  difference" if fit else ""))
    for run in results:
        line = f"{run.size:6} {run.parameters:14,} {run.tokens:11,} {run.compute / TERA:9.4g} {run.loss:7.4f}"
        if fit:
            line += f" {predicted_loss(fit, run.parameters, run.tokens):7.4f} {error_of(fit, run):+11.2%}"
        print(line)
    if fit:
        print(law_in_words(fit, results))
    else:
        print(f"no law: {len(results)} runs finished, but its 5 numbers need at least {ENOUGH_RUNS}")
    repeated = [run.epochs for run in results if run.epochs > 1]
    if repeated:
        runs = f"{len(repeated)} of {len(results)} runs"
        log.info(f"warning: {runs} saw the data up to {max(repeated):.1f} times: the law is for repeated data")
    if results:
        with written_atomically(folder / "scaling.svg") as file:
            file.write(picture(results, fit).encode())
        log.info(f"wrote {folder / 'scaling.svg'}")


def law_in_words(fit: Fit, results: list[Result]) -> str:
    error = root_mean_square([error_of(fit, run) for run in results])
    a = fit.beta / (fit.alpha + fit.beta)
    largest = max(run.compute for run in results)
    parameters, tokens = compute_optimal(fit, largest)
    return (
        f"L(N, D) = {fit.E:.3f} + {fit.A:.4g} / N^{fit.alpha:.3f} + {fit.B:.4g} / D^{fit.beta:.3f}\n"
        f"by approach 3 of Hoffmann et al. 2022: Huber loss ({DELTA:g}) of log losses, L-BFGS\n"
        f"error: {error:.2%} (root mean square), {leave_one_out_error(results):.2%} at runs left out of the fit\n"
        f"compute-optimal: N grows as C^{a:.2f}, D as C^{1 - a:.2f}; "
        f"N = {parameters / 1e6:.2g} M and D = {tokens / 1e6:.2g} M at the largest C, {largest / TERA:.3g}"
    )


def picture(results: list[Result], fit: Fit | None) -> str:
    """Return an SVG of loss over compute: a dot for each run, a curve for each size, the lowest losses dashed."""
    lines = []
    above = [STYLE, '<text x="70" y="396">validation loss over compute, 6 N D, in 10^12 operations</text>']
    for number, size in enumerate(dict.fromkeys(run.size for run in results)):
        runs = [run for run in results if run.size == size]
        colour = COLOURS[number % len(COLOURS)]
        dots = []
        for run in runs:
            dots += [(run.compute / TERA, run.loss), (math.nan, math.nan)]
        lines.append((dots, f'class="curve dots" stroke="{colour}"', ""))
        above.append(f'<text x="780" y="{20 + 16 * number}" fill="{colour}" text-anchor="end">{size}</text>')
        if fit:
            parameters = runs[0].parameters
            computes = spread(runs[0].compute / 1.4, runs[-1].compute * 1.4)
            law = [(c / TERA, predicted_loss(fit, parameters, c / (6 * parameters))) for c in computes]
            lines.append((law, f'class="curve" stroke="{colour}"', ""))
    if fit:
        computes = spread(min(run.compute for run in results), max(run.compute for run in results))
        lowest = [(c / TERA, predicted_loss(fit, *compute_optimal(fit, c))) for c in computes]
        lines.append((lowest, 'class="curve" stroke="#000" stroke-dasharray="6 4"', ""))
    svg = plot("loss over compute", lines, 800, 440, Axes(log_x=True), "".join(above))
    return svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)


def spread(low: float, high: float) -> list[float]:
    """Return numbers from low to high, each larger than the one before by the same factor."""
    return [low * (high / low) ** (number / 40) for number in range(41)]


if __name__ == "__main__":
    run_program(main)
