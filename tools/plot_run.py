"""Draw loss, perplexity, learning rate and speed of one or more runs in one picture.

    python tools/plot_run.py tinystories_model
    python tools/plot_run.py small/tinystories_model large/tinystories_model --output curves.pdf

A RUN is a run's folder or the metrics.jsonl in it.  A run that is still training is drawn up to its latest step.
Needs matplotlib: pip install -e ".[report]".
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.console import log
from common.errors import UserError
from common.files import check_outputs
from common.flags import FlagParser
from common.program import run_program
from training.curves import check_suffix, draw, drawable, read_metrics


def names_of(runs: list[str]) -> list[str]:
    """Return a name for each run: the end of its path, with as many folders as make it unique.

    Raises UserError for a run that is given twice.
    """
    folders = [Path(os.path.abspath(run.removesuffix("metrics.jsonl"))) for run in runs]
    names = []
    for run, folder in zip(runs, folders, strict=True):
        if folders.count(folder) > 1:
            raise UserError(f"{run} is given twice; name each run once")
        others = [other for other in folders if other != folder]
        lengths = range(1, len(folder.parts) + 1)
        length = next(n for n in lengths if all(other.parts[-n:] != folder.parts[-n:] for other in others))
        names.append(str(Path(*folder.parts[-length:])))
    return names


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = FlagParser(__doc__)
    parser.usage = "python tools/plot_run.py RUN [RUN ...] [flags]"
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder, or the metrics.jsonl in it")
    parser.add_argument(
        "--output", default="curves.png", metavar="FILE", help="a .png, .svg or .pdf file (default: %(default)s)"
    )
    return parser.parse_args(argv)


def main() -> None:
    args = parse_args()
    check_suffix(args.output)
    check_outputs([args.output], [])
    for run in args.runs:
        if Path(run).is_file() and Path(run).suffix != ".jsonl":
            raise UserError(f"{run} is not a run; name a run's folder, or the metrics.jsonl in it")
    runs = {name: read_metrics(run) for name, run in zip(names_of(args.runs), args.runs, strict=True)}
    for name, rows in runs.items():
        if not drawable(rows):
            log.info(f"{name} has no training step or evaluation to draw yet")
    draw(runs, args.output)
    log.info(f"wrote {args.output}")


if __name__ == "__main__":
    run_program(main)
