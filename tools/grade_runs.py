"""Read what a class handed in, and say of each run what is true: a table, and if you like a report and a CSV file.

    python tools/grade_runs.py submissions/ --report report.html --csv grades.csv
    python tools/grade_runs.py submissions/ --rubric rubric.toml
    python tools/grade_runs.py submissions/ --verify --dataset roneneldan/TinyStories

A submission is a run's folder, a .zip or .tar.gz of one, or a redirected console log; one person may hand in several
runs in one folder.  A problem is read off the records, a question is something that also happens honestly: look before
you judge.  docs/grading.md explains each.
"""

import argparse
import csv
import io
import os
import re
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from grading.copies import Traces, pairs, traces_of
from grading.edited_records import problem, problems_of
from grading.facts import curves, facts_of, samples
from grading.rubric import read_rubric
from grading.submissions import Submission, find, opened
from grading.verify import verified
from pages.report import Entry, write_report
from pages.svg_plots import thinned

from common.errors import UserError
from common.files import written_atomically
from common.flags import FlagParser
from common.program import run_program
from corpus.sources import open_dataset
from corpus.token_cache import default_cache_dir

IN_TABLE = ("model", "state", "steps", "tokens", "validation loss", "perplexity", "bits per byte", "hours", "device")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = FlagParser(__doc__)
    parser.usage = "python tools/grade_runs.py FOLDER [flags]"
    parser.add_argument("folder", help="of the submissions")
    parser.add_argument("--report", metavar="FILE", help="write all of it, with curves and stories, to an .html file")
    parser.add_argument("--csv", metavar="FILE", help="write the table, the problems and the points to a .csv file")
    parser.add_argument("--rubric", metavar="FILE", help="give points, as the .toml file says (see docs/grading.md)")
    parser.add_argument(
        "--verify", action="store_true", help="compute the validation losses again from each best_model.pth (slow)"
    )
    parser.add_argument("--dataset", help="with --verify: the stories that the runs were evaluated on")
    parser.add_argument("--chat_dataset", metavar="TEXT", help="with --verify: the dialogues of chat runs")
    parser.add_argument(
        "--tokenizer_path", default="bpe_tokenizer_tinystories.pkl",
        help="with --verify: for runs that come without their own (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--cache_dir", default=str(default_cache_dir()), help="for tokenized text (default: %(default)s)"
    )
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="at once (default: %(default)s)")
    args = parser.parse_args(argv)
    if args.processes < 1:
        raise UserError(f"--processes must be at least 1, not {args.processes}")
    if args.verify and not (args.dataset or args.chat_dataset):
        raise UserError("--verify needs the texts: pass --dataset for stories, --chat_dataset for dialogues")
    for name in ("dataset", "chat_dataset"):
        if getattr(args, name) and not args.verify:
            raise UserError(f"--{name} is for --verify; pass both")
    for name in ("report", "csv"):
        path = getattr(args, name)
        if path and not Path(path).absolute().parent.is_dir():
            raise UserError(f"--{name} {path}: there is no folder {Path(path).parent}")
        if path and Path(path).is_dir():
            raise UserError(f"--{name} {path} is a folder; name a file")
    return args


# Grading --------------------------------------------------------------------------------------------------------------


def grade_all(submissions: dict[str, Path], args: argparse.Namespace) -> list[Entry]:
    """Grade {name: path}: an `Entry` for each run, in the order of their names, copies flagged."""
    graded = []
    bar = {"total": len(submissions), "unit": " submissions", "disable": not sys.stderr.isatty(), "leave": False}
    for runs in tqdm(grade_each(submissions, args), **bar):
        graded += runs
    copies = pairs({entry.name: traces for entry, traces in graded})
    for entry, _ in graded:
        entry.flags += copies.get(entry.name, [])
    return [entry for entry, _ in graded]


def grade_each(submissions: dict[str, Path], args: argparse.Namespace) -> Iterator[list[tuple[Entry, Traces]]]:
    """Yield the runs of each submission; several are read at once."""
    processes = min(args.processes, len(submissions))
    if processes == 1:
        for name, path in submissions.items():
            yield grade(name, path, args)
        return
    with ProcessPoolExecutor(processes) as pool:
        results = {name: pool.submit(grade, name, path, args) for name, path in submissions.items()}
        for name, result in results.items():
            try:
                yield result.result()
            except BrokenProcessPool:  # a process has died, and took the others with it
                yield grade_in_own_process(name, submissions[name], args)


def grade_in_own_process(name: str, path: Path, args: argparse.Namespace) -> list[tuple[Entry, Traces]]:
    try:
        with ProcessPoolExecutor(1) as pool:
            return pool.submit(grade, name, path, args).result()
    except BrokenProcessPool:
        return [unreadable(name, name, "reading it ended the process; is the memory full?")]


def grade(name: str, path: Path, args: argparse.Namespace) -> list[tuple[Entry, Traces]]:
    """Read one submission: for each of its runs what is shown, and what tells a copy."""
    torch.set_num_threads(1)
    with opened(path, name) as runs:
        return [grade_run(run, args) for run in runs]


def grade_run(run: Submission, args: argparse.Namespace) -> tuple[Entry, Traces]:
    try:
        entry = Entry(run.name, facts_of(run), problems_of(run), samples=samples(run))
        entry.curves = {what: thinned(curve) for what, curve in curves(run).items()}
        if args.verify:
            entry.flags.extend(verified(run, args))
        return entry, traces_of(run)
    except Exception as error:  # what nobody foresaw in one submission must not stop the others
        return unreadable(run.name, run.person, f"its records hold what no run writes ({type(error).__name__})")


def unreadable(name: str, person: str, reason: str) -> tuple[Entry, Traces]:
    run = Submission(person=person)
    return Entry(name, facts_of(run), [problem(f"cannot be read: {reason}")]), traces_of(run)


# What is printed and written ------------------------------------------------------------------------------------------


def row_of(entry: Entry) -> dict:
    """{column: value} of a run, for the table and the CSV file."""
    row = {"who": entry.name} | entry.facts
    for kind in ("problem", "question"):
        row[f"{kind}s"] = sum(flag.kind == kind for flag in entry.flags)
    if entry.points:
        row["points"] = sum(got for _, got, _ in entry.points)
    return row


def print_table(entries: list[Entry]) -> None:
    rows = [row_of(entry) for entry in entries]
    columns = [name for name in ("who", *IN_TABLE, "problems", "questions", "points") if name in rows[0]]
    cells = [aligned([name, *(shown(row[name]) for row in rows)]) for name in columns]
    for line in zip(*cells, strict=True):
        print("  ".join(line).rstrip())


def aligned(texts: list[str]) -> list[str]:
    """A column of the table, its head and its cells, padded to one width; numbers stand on the right."""
    width = max(map(len, texts))
    if all(re.fullmatch(r"[\d.,]+|-", text) for text in texts[1:]):
        return [text.rjust(width) for text in texts]
    return [text.ljust(width) for text in texts]


def shown(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, (int, float)) else str(value)


def print_details(entry: Entry) -> None:
    """Print what was found in a run, and what it wrote."""
    print(f"\n{entry.name}")
    lines = [("differs from the handout", beginning(entry.facts["differs from the handout"]))]
    lines += [(flag.kind, flag.text) for flag in entry.flags]
    lines += [("points", f"{got:g} of {of:g} for {what}") for what, got, of in entry.points]
    lines.append(("sample", beginning(entry.facts["sample"])))
    for what, text in lines:
        if text:
            print(textwrap.fill(f"{what}: {text}", 120, initial_indent="  ", subsequent_indent="    "))


def beginning(text: str | None) -> str:
    return textwrap.shorten(text or "", 400, placeholder=" ...")


def write_csv(entries: list[Entry], path: str) -> None:
    """Write the table, with all problems, questions and points."""
    text = io.StringIO(newline="")
    lines = csv.writer(text)
    for entry in entries:
        row = row_of(entry)
        for kind in ("problem", "question"):
            row[f"{kind} texts"] = "; ".join(flag.text for flag in entry.flags if flag.kind == kind)
        row |= {f"points: {what}": got for what, got, _ in entry.points}
        if entry is entries[0]:
            lines.writerow(row)  # its names: the same for all
        lines.writerow(map(harmless, row.values()))
    with written_atomically(path) as file:
        file.write(text.getvalue().encode("utf-8-sig", "replace"))  # with this mark spreadsheets take it for UTF-8


def harmless(value: object) -> object:
    """A text that a spreadsheet does not take for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def main() -> None:
    args = parse_args()
    rubric = read_rubric(args.rubric) if args.rubric else []
    for dataset in (args.dataset, args.chat_dataset):
        if dataset:
            open_dataset(dataset)  # a name that is wrong is wrong for all
    entries = grade_all(find(args.folder), args)
    for entry in entries:
        facts = row_of(entry) | {"finished": entry.facts["state"] == "finished"}
        entry.points = [criterion.points_for(facts) for criterion in rubric]
    print_table(entries)
    for entry in entries:
        print_details(entry)
    if args.csv:
        write_csv(entries, args.csv)
        print(f"wrote {args.csv}", file=sys.stderr)
    if args.report:
        write_report(entries, args.report, f"Submissions in {Path(args.folder).resolve().name}")
        print(f"wrote {args.report}", file=sys.stderr)


if __name__ == "__main__":
    run_program(main)
