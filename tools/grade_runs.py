"""Grade the runs of a class: print a table with all findings and, if asked, write a report and a CSV file.

    python tools/grade_runs.py submissions/ --report report.html --csv grades.csv
    python tools/grade_runs.py submissions/ --rubric rubric.toml
    python tools/grade_runs.py submissions/ --verify --dataset roneneldan/TinyStories
    python tools/grade_runs.py submissions/ --rubric rubric.toml --feedback feedback/
    python tools/grade_runs.py submissions/ --leaderboard rules.toml

A submission is a run's folder, a .zip or .tar.gz of one, or a saved console log.  One person may hand in several runs
in one folder.  A problem is visible in the records.  A question also comes up for honest runs: look before you judge.
docs/grading.md explains each finding.
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
from grading.edited_records import problems_of
from grading.facts import curves, facts_of, samples
from grading.feedback import write_feedback
from grading.findings import problem
from grading.leaderboard import check_rules, pages_of, read_rules, result_of, write_leaderboard
from grading.rubric import read_rubric
from grading.submissions import Submission, find, opened
from grading.verify import verified
from pages.report import Entry, write_report
from pages.svg_plots import thinned

from common.errors import UserError
from common.files import check_can_be_written, check_outputs, written_atomically
from common.flags import FlagParser
from common.program import run_program
from corpus.sources import open_dataset
from corpus.token_cache import default_cache_dir

OLDER_NAMES = {"differs from the default flags": "differs from the handout"}  # in CSV files and rubrics
MOST_PROCESSES = 61  # Windows cannot wait for more
IN_TABLE = ("model", "state", "steps", "tokens", "validation loss", "perplexity", "bits per byte", "hours", "device")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = FlagParser(__doc__)
    parser.usage = "python tools/grade_runs.py FOLDER [flags]"
    parser.add_argument("folder", help="the folder that contains the submissions")
    parser.add_argument("--report", metavar="FILE", help="write an .html report with findings, curves and stories")
    parser.add_argument("--csv", metavar="FILE", help="write a .csv file with the table, the findings and the points")
    parser.add_argument("--rubric", metavar="FILE", help="give points by the rules in a .toml file: docs/grading.md")
    parser.add_argument(
        "--feedback", metavar="FOLDER", help="write a page and a results.json for each student into this folder"
    )
    parser.add_argument(
        "--leaderboard", metavar="FILE",
        help="rank the runs within a budget by the rules in a .toml file: docs/grading.md (slow)",
    )  # fmt: skip
    parser.add_argument(
        "--verify", action="store_true", help="recompute the validation loss of each best_model.pth (slow)"
    )
    parser.add_argument("--dataset", help="with --verify: the stories on which the runs were evaluated")
    parser.add_argument("--chat_dataset", metavar="TEXT", help="with --verify: the dialogues of chat runs")
    parser.add_argument(
        "--tokenizer_path", default="bpe_tokenizer_tinystories.pkl",
        help="with --verify or --leaderboard: the tokenizer for submissions without one (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--cache_dir", default=str(default_cache_dir()), help="for tokenized texts (default: %(default)s)"
    )
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="how many to use (default: %(default)s)")
    args = parser.parse_args(argv)
    if args.processes < 1:
        raise UserError(f"--processes must be at least 1, not {args.processes}")
    if args.verify or args.leaderboard:
        check_can_be_written("--cache_dir", args.cache_dir)
    if args.verify and not (args.dataset or args.chat_dataset):
        raise UserError("--verify needs the texts: pass --dataset for stories, --chat_dataset for dialogues")
    for name in ("dataset", "chat_dataset"):
        if getattr(args, name) and not args.verify:
            raise UserError(f"--{name} is for --verify; pass both, or neither")
    for name, ending in (("report", ".html"), ("csv", ".csv")):
        path = getattr(args, name)
        if path and Path(path).suffix.lower() != ending:
            raise UserError(f"--{name} {path}: the name must end in {ending}")
    for name in ("rubric", "leaderboard"):
        path = getattr(args, name)
        if path and not Path(path).is_file():
            raise UserError(f"--{name}: no file {path}; docs/grading.md has an example")
    if args.feedback:
        check_feedback(args.feedback, args.folder)
    pages = pages_of(args.leaderboard) if args.leaderboard else []
    check_outputs([args.report, args.csv, *pages], [args.rubric, args.leaderboard])
    return args


def check_feedback(feedback: str, submissions: str) -> None:
    """Raise UserError if the feedback cannot be written, or would be next to the submissions and count as one."""
    if Path(feedback).exists() and not Path(feedback).is_dir():
        raise UserError(f"--feedback {feedback} is a file; name a folder")
    if Path(feedback).resolve().is_relative_to(Path(submissions).resolve()):
        raise UserError(f"--feedback {feedback} is in the folder of the submissions; choose a folder outside of it")
    check_can_be_written("--feedback", feedback)


# Grading --------------------------------------------------------------------------------------------------------------


def grade_all(submissions: dict[str, Path], args: argparse.Namespace) -> list[Entry]:
    """Grade {name: path}; return an `Entry` for each run, in the same order, with copies flagged."""
    graded = []
    bar = {"total": len(submissions), "unit": " submissions", "disable": not sys.stderr.isatty(), "leave": False}
    for runs in tqdm(grade_each(submissions, args), **bar):
        graded += runs
    copies = pairs({entry.name: traces for entry, traces in graded})
    for entry, _ in graded:
        entry.flags += copies.get(entry.name, [])
    return [entry for entry, _ in graded]


def grade_each(submissions: dict[str, Path], args: argparse.Namespace) -> Iterator[list[tuple[Entry, Traces]]]:
    """Yield the runs of each submission; several submissions are read in parallel."""
    processes = min(args.processes, len(submissions), MOST_PROCESSES)
    if processes == 1:
        for name, path in submissions.items():
            yield grade(name, path, args)
        return
    with ProcessPoolExecutor(processes) as pool:
        results = {name: pool.submit(grade, name, path, args) for name, path in submissions.items()}
        for name, result in results.items():
            try:
                yield result.result()
            except BrokenProcessPool:  # one process died, and its pool with it
                yield grade_in_own_process(name, submissions[name], args)


def grade_in_own_process(name: str, path: Path, args: argparse.Namespace) -> list[tuple[Entry, Traces]]:
    try:
        with ProcessPoolExecutor(1) as pool:
            return pool.submit(grade, name, path, args).result()
    except BrokenProcessPool:
        return [unreadable(name, name, "the process that read it died; was it out of memory?")]


def grade(name: str, path: Path, args: argparse.Namespace) -> list[tuple[Entry, Traces]]:
    """Read one submission; return for each of its runs what is shown and what is compared to find copies."""
    torch.set_num_threads(1)
    with opened(path, name) as runs:
        return [grade_run(run, args) for run in runs]


def grade_run(run: Submission, args: argparse.Namespace) -> tuple[Entry, Traces]:
    try:
        entry = Entry(run.name, facts_of(run), problems_of(run), samples=samples(run), person=run.person)
        entry.curves = {what: thinned(curve) for what, curve in curves(run).items()}
        if args.verify:
            entry.flags.extend(verified(run, args))
        if args.leaderboard:
            entry.result = result_of(run, entry, read_rules(args.leaderboard), args)
        return entry, traces_of(run)
    except Exception as error:  # an unforeseen error in one submission must not stop the others
        return unreadable(run.name, run.person, f"its records have values that no run writes ({type(error).__name__})")


def unreadable(name: str, person: str, reason: str) -> tuple[Entry, Traces]:
    run = Submission(person=person)
    return Entry(name, facts_of(run), [problem(f"cannot be read: {reason}")], person=person), traces_of(run)


# Output ---------------------------------------------------------------------------------------------------------------


def row_of(entry: Entry) -> dict:
    """Return the row of a run, {column: value}, for the table, the CSV file and rubrics."""
    row = {"who": entry.name} | {OLDER_NAMES.get(name, name): value for name, value in entry.facts.items()}
    for kind in ("problem", "question"):
        row[f"{kind}s"] = sum(flag.kind == kind for flag in entry.flags)
    if entry.points:
        row["points"] = sum(got for _, got, _ in entry.points)
    return row


def print_table(entries: list[Entry]) -> None:
    rows = [row_of(entry) for entry in entries]
    for row, entry in zip(rows, entries, strict=True):
        if entry.points:
            row["points"] = points_in_words(*entry.total[1:])
    columns = [name for name in ("who", *IN_TABLE, "problems", "questions", "points") if name in rows[0]]
    cells = [aligned([name, *(shown(row[name]) for row in rows)]) for name in columns]
    for line in zip(*cells, strict=True):
        print("  ".join(line).rstrip())


def aligned(texts: list[str]) -> list[str]:
    """Pad the head and the cells of a column to one width; numbers are aligned on the right."""
    width = max(map(len, texts))
    if all(re.fullmatch(r"[\d.,]+( of [\d.,]+)?|-", text) for text in texts[1:]):
        return [text.rjust(width) for text in texts]
    return [text.ljust(width) for text in texts]


def shown(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, (int, float)) else str(value)


def points_in_words(got: float, of: float) -> str:
    return f"{got:g} of {of:g}"


def print_details(entry: Entry) -> None:
    """Print the findings about a run, its points, and the beginning of a sample."""
    print(f"\n{entry.name}")
    differs = "differs from the default flags"
    lines = [(differs, beginning(entry.facts[differs]))]
    lines += [(flag.kind, flag.text) for flag in entry.flags]
    if entry.points:
        lines.append(("points", points_in_words(*entry.total[1:])))
    lines += [(points_in_words(got, of), what) for what, got, of in entry.points]
    lines.append(("sample", beginning(entry.facts["sample"])))
    for what, text in lines:
        if text:
            print(textwrap.fill(f"{what}: {text}", 120, initial_indent="  ", subsequent_indent="    "))


def beginning(text: str | None) -> str:
    return textwrap.shorten(text or "", 400, placeholder=" ...")


def write_csv(entries: list[Entry], path: str) -> None:
    """Write the table as CSV, with all problems, questions and points."""
    text = io.StringIO(newline="")
    lines = csv.writer(text)
    for entry in entries:
        row = row_of(entry)
        for kind in ("problem", "question"):
            row[f"{kind} texts"] = "; ".join(flag.text for flag in entry.flags if flag.kind == kind)
        row |= {f"points: {what}": got for what, got, _ in entry.points}
        if entry is entries[0]:
            lines.writerow(row)  # the names of the columns, which are the same for all runs
        lines.writerow(map(harmless, row.values()))
    with written_atomically(path) as file:
        file.write(text.getvalue().encode("utf-8-sig", "replace"))  # the BOM tells spreadsheets that it is UTF-8


def harmless(value: object) -> object:
    """Return a value that a spreadsheet does not read as a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def main() -> None:
    args = parse_args()
    rubric = read_rubric(args.rubric) if args.rubric else []
    for dataset in (args.dataset, args.chat_dataset):
        if dataset:
            open_dataset(dataset)  # report a wrong name once, before any run is read
    submissions = find(args.folder)
    if args.leaderboard:
        rules = read_rules(args.leaderboard)
        texts = check_rules(rules, submissions)
    entries = grade_all(submissions, args)
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
        write_report(entries, args.report, f"Grading of the folder {Path(args.folder).resolve().name}")
        print(f"wrote {args.report}", file=sys.stderr)
    if args.feedback:
        write_feedback(entries, args.feedback)
        print(f"wrote the feedback into {args.feedback}", file=sys.stderr)
    if args.leaderboard:
        pages = pages_of(args.leaderboard)
        print(write_leaderboard(entries, rules, texts, pages))
        print(f"wrote {' and '.join(map(str, pages))}", file=sys.stderr)


if __name__ == "__main__":
    run_program(main)
