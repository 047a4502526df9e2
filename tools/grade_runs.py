"""Read what a class handed in, and say of each run what is true: a table, and if you like a report and a CSV file.

    python tools/grade_runs.py submissions/ --report report.html --csv grades.csv
    python tools/grade_runs.py submissions/ --rubric rubric.toml
    python tools/grade_runs.py submissions/ --verify --dataset roneneldan/TinyStories

A submission is a run's folder, a .zip or .tar.gz of one, or a redirected console log; one person may hand in several
runs in one folder.  A problem is read off the records, a question is something that also happens honestly: look before
you judge.  docs/grading.md explains each.
"""

import csv
import os
import re
import sys
import textwrap
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from grading.edited_records import (
    Traces,
    curves,
    facts_of,
    is_finished,
    pairs,
    problem,
    problems_of,
    samples,
    traces_of,
)
from grading.rubric import points, read_rubric
from grading.submissions import Submission, find, opened
from grading.verify import verified
from pages.report import Entry, write_report
from pages.svg_plots import thinned

import train_tinystories_chat_model
import train_tinystories_model
from common.errors import UserError
from common.files import written_atomically
from common.flags import FlagParser
from common.program import run_program
from corpus.sources import open_dataset
from corpus.token_cache import default_cache_dir

TRAINERS = train_tinystories_model, train_tinystories_chat_model
PROGRAMS = {f"{trainer.__name__}.py": trainer.parse_args for trainer in TRAINERS}
KINDS = "problem", "question"
LONGEST = 400  # characters of a text that is printed
IN_TABLE = ("model", "state", "steps", "tokens", "validation loss", "perplexity", "bits per byte", "hours", "device")


@dataclass
class Graded:
    """What is left of a run that was read: what is shown of it, and what tells a copy."""

    entry: Entry
    traces: Traces = field(default_factory=Traces)
    finished: bool = False


def parse_args(argv=None):
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


def grade(item, args):
    """Read one submission (name, path) -> a list of Graded, one a run."""
    torch.set_num_threads(1)
    name, path = item
    with opened(path, name) as runs:
        return [graded(run, args) for run in runs]


def graded(run, args):
    try:
        entry = Entry(run.name, facts_of(run, PROGRAMS), problems_of(run, PROGRAMS), curves(run), samples(run))
        if args.verify:
            entry.flags += verified(run, args)
        entry.curves = {what: thinned(curve) for what, curve in entry.curves.items()}
        return Graded(entry, traces_of(run), is_finished(run))
    except Exception as error:  # what nobody foresaw in one submission must not stop the others
        return unreadable(run, f"its records hold what no run writes ({type(error).__name__})")


def unreadable(run, reason):
    empty = Submission(run.name, run.person)
    return Graded(Entry(run.name, facts_of(empty, PROGRAMS), [problem(f"cannot be read: {reason}")]))


def grade_all(submissions, args):
    """Grade {name: path}, several at once -> a list of Graded in the order of their names, copies flagged."""
    bar = tqdm(total=len(submissions), unit=" submissions", disable=not sys.stderr.isatty(), leave=False)
    work, processes, found = partial(grade, args=args), min(args.processes, len(submissions)), []
    if processes == 1:
        for item in submissions.items():
            found += work(item)
            bar.update()
    else:
        with ProcessPoolExecutor(processes) as pool:
            waiting = [(item, pool.submit(work, item)) for item in submissions.items()]
            for item, result in waiting:
                found += graded_alone(item, work, result)
                bar.update()
    bar.close()
    for name, flags in pairs({one.entry.name: one.traces for one in found}).items():
        next(one for one in found if one.entry.name == name).entry.flags.extend(flags)
    return found


def graded_alone(item, work, result):
    """The result of a submission; where a process has died, and took others with it, that of a process of its own."""
    try:
        return result.result()
    except BrokenProcessPool:
        pass
    try:
        with ProcessPoolExecutor(1) as pool:
            return pool.submit(work, item).result()
    except BrokenProcessPool:
        return [unreadable(Submission(item[0], item[0]), "reading it ended the process; is the memory full?")]


# What is printed and written ------------------------------------------------------------------------------------------


def row_of(one, rubric):
    """{column: value} of a run for the CSV file and the report."""
    entry = one.entry
    counts = {f"{kind}s": sum(flag.kind == kind for flag in entry.flags) for kind in KINDS}
    row = {"who": entry.name} | entry.facts | counts
    if rubric:
        row["points"] = sum(got for _, got, _ in entry.points)
    return row


def print_table(found, rubric):
    rows = [{name: shown(value) for name, value in row_of(one, rubric).items()} for one in found]
    columns = ["who", *IN_TABLE, "problems", "questions", *(["points"] if rubric else [])]
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in columns}
    numeric = {name for name in columns if all(re.fullmatch(r"[\d.,]+|-", row[name]) for row in rows)}
    aligned = lambda name, text: text.rjust(widths[name]) if name in numeric else text.ljust(widths[name])
    for row in ({name: name for name in columns}, *rows):
        print("  ".join(aligned(name, row[name]) for name in columns).rstrip())
    for one in found:
        entry = one.entry
        if entry.flags or entry.facts["differs from the handout"] or entry.points:
            print(f"\n{entry.name}")
        if entry.facts["differs from the handout"]:
            differs = textwrap.shorten(entry.facts["differs from the handout"], LONGEST, placeholder=" ...")
            print_line("differs from the handout", differs)
        for flag in entry.flags:
            print_line(flag.kind, flag.text)
        for what, got, of in entry.points:
            print_line("points", f"{got:g} of {of:g} for {what}")
        if entry.facts["sample"]:
            print_line("sample", textwrap.shorten(entry.facts["sample"], LONGEST, placeholder=" ..."))


def print_line(kind, text):
    print(textwrap.fill(f"{kind}: {text}", 120, initial_indent="  ", subsequent_indent="    "))


def shown(value):
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, (int, float)) else str(value)


def write_csv(found, path, rubric):
    rows = []
    for one in found:
        said = {f"{kind} texts": "; ".join(f.text for f in one.entry.flags if f.kind == kind) for kind in KINDS}
        rows.append(row_of(one, rubric) | said | {f"points: {what}": got for what, got, _ in one.entry.points})
    names = list(dict.fromkeys(name for row in rows for name in row))
    with written_atomically(path) as file:
        file.write("\ufeff".encode())  # so that spreadsheets take it for UTF-8
        lines = csv.DictWriter(Encoded(file), names)
        lines.writeheader()
        lines.writerows({name: harmless(value) for name, value in row.items()} for row in rows)


class Encoded:
    """A binary file as the csv module writes to it."""

    def __init__(self, file):
        self.file = file

    def write(self, text):
        return self.file.write(text.encode("utf-8", "replace"))


def harmless(value):
    """A text that a spreadsheet does not take for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def main():
    args = parse_args()
    rubric = read_rubric(args.rubric) if args.rubric else None
    for dataset in filter(None, (args.dataset, args.chat_dataset)):
        open_dataset(dataset)  # a name that is wrong is wrong for all
    found = grade_all(find(args.folder), args)
    for one in found if rubric else []:
        one.entry.points = points(rubric, row_of(one, None) | {"finished": one.finished})
    print_table(found, rubric)
    if args.csv:
        write_csv(found, args.csv, rubric)
    if args.report:
        write_report([one.entry for one in found], args.report, f"Submissions in {Path(args.folder).resolve().name}")
    for name in ("csv", "report"):
        if getattr(args, name):
            print(f"wrote {getattr(args, name)}", file=sys.stderr)


if __name__ == "__main__":
    run_program(main)
