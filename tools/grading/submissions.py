"""Read submissions: runs' folders, archives of folders, and saved console logs.  Nothing is checked here.

In reading order: `find`, the submissions in a folder; `opened`, the runs of one submission.  unpacking.py takes the
files out of folders and archives, run_files.py and logs.py read them.  A file that cannot be read completely adds a
line to the run's problems; it never stops the other submissions.
"""

import contextlib
import os
import tempfile
from collections import defaultdict
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from common.console import log
from common.errors import UserError, one_line, reason_of
from grading.logs import Log, parts_of, read_log, text_of, text_of_notebook
from grading.run_files import Model, content_of, read_board, read_model, read_object, read_rows
from grading.unpacking import (
    ARCHIVES,
    BOARD,
    TEXTS,
    TOKENIZER,
    Found,
    Place,
    TooMuch,
    is_ignored,
    look_into,
    without_suffix,
)
from training.run_folder import RECORDS

OF_THE_GRADER = (".html", ".csv", ".toml", ".pkl")  # files that may be next to the submissions
MOST_NAMES = 5  # of files, in a message
MOST_TEXTS = 50  # text files of one submission that are searched for logs


@dataclass
class Submission:
    """One submitted run.  What is missing or cannot be read is None or empty; all numbers are finite."""

    name: str = ""  # "anna", or "anna/tinystories_chat_model" if anna handed in several runs
    person: str = ""
    problems: list[str] = field(default_factory=list)
    args: dict | None = None
    rows: list[dict] = field(default_factory=list)  # of metrics.jsonl, with the fields in FIELDS
    first_row: dict = field(default_factory=dict)  # the row that describes the run
    log: Log = field(default_factory=Log)
    log_name: str = ""  # "train.log", "the log" for a console log, "" if there is none
    summary: dict | None = None
    board: dict = field(default_factory=dict)  # {TensorBoard's tag: [(step, wall time, value)]}
    models: dict[str, Model] = field(default_factory=dict)  # {"best_model.pth": Model}
    paths: dict[str, Path] = field(default_factory=dict)  # {name: where it can be read while the submission is open}

    @property
    def history(self) -> list[dict]:
        """The events of the run: the rows of metrics.jsonl or, if there are none, of the log."""
        return self.rows or self.log.rows


# Folders --------------------------------------------------------------------------------------------------------------


def find(folder: str | Path) -> dict[str, Path]:
    """Return the submissions in a folder, {name: path}, sorted by name.  Raises UserError if there are none.

    If the folder itself is a run's folder, it is the only submission.  The log names the files that are left out.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; pass the folder that contains the submissions")
    paths = [path for path in sorted(folder.iterdir()) if not is_ignored(path.name)]
    records = [path.name for path in paths if path.name in RECORDS]
    archives = [path.name for path in paths if path.name.lower().endswith(ARCHIVES)]
    if records and archives:
        raise UserError(f"{folder}: {records[0]} lies next to {archives[0]}; put it into the folder of its student")
    if records:
        return {folder.resolve().name: folder}
    found = {}
    skipped = []
    for path in paths:
        is_leaderboard = path.suffix == ".md" and path.with_suffix(".toml").exists()
        if path.suffix.lower() in OF_THE_GRADER or is_leaderboard:
            skipped.append(one_line(path.name, 60))
        else:
            found[free_name(path, found)] = path
    if skipped:
        log.info(f"not read as submissions: {', '.join(skipped)}")
    if not found:
        raise UserError(f"{folder} contains no submissions; pass the folder that contains them")
    return found


def name_of(path: Path) -> str:
    return path.name if path.is_dir() else without_suffix(path.name)


def free_name(path: Path, taken: Container[str]) -> str:
    """Return the name of a submission, which is not taken: names on disk may differ only in invisible letters."""
    name = one_line(name_of(path), 255)
    number = 1
    while name in taken:
        name = one_line(path.name, 255)
        if number > 1:
            name = f"{name} ({number})"
        number += 1
    return name


@contextlib.contextmanager
def opened(path: Path, name: str | None = None) -> Iterator[list[Submission]]:
    """Open a submission and return its runs; unpacked files exist until the block ends."""
    name = one_line(name or name_of(path), 255)
    with tempfile.TemporaryDirectory(prefix="submission-", ignore_cleanup_errors=True) as folder:
        try:
            runs = read(path, name, Path(folder))
        except Exception as error:  # an unforeseen error in one submission must not stop the others
            reason = one_line(reason_of(error))
            runs = [Submission(name, name, [f"{one_line(path.name[-60:])} cannot be read ({reason})"])]
        yield runs


def read(path: Path, name: str, target: Path) -> list[Submission]:
    """Read the runs of a submission.  target: an empty folder for unpacked files."""
    found = Found(target)
    try:
        look_into(path, (path.name,), found)
    except TooMuch as error:
        found.refuse(path.name, f"{error}; the rest was not read")
    runs = list(runs_in(found.files))
    problems = found.problems()
    if not runs:
        runs = [((), Submission())]
        problems.append(no_run([place[-1] for place in found.files] + found.others))
    tokenizers = [path for place, path in found.files.items() if place[-1] == TOKENIZER]
    shared = len(os.path.commonprefix([place for place, _ in runs]))
    for place, run in runs:
        run.person = name
        run.name = "/".join([name, *map(one_line, place[shared:])]) if len(runs) > 1 else name
        run.problems = problems + run.problems
        if tokenizers:
            run.paths.setdefault(TOKENIZER, tokenizers[0])
    return [run for _, run in runs]


def no_run(names: list[str]) -> str:
    """Return the problem of a submission without a run; names: of the files in it."""
    shown = [one_line(name, 40) for name in names[:MOST_NAMES]]
    if len(names) > MOST_NAMES:
        shown.append(f"{len(names) - MOST_NAMES:,} more")
    it_has = f"it has only {', '.join(shown)}" if shown else "it is empty"
    supported = "folders, .zip, .tar.gz, .tgz, .tar, and logs as text files or in notebooks"
    return f"no run found, neither records nor the log of one: {it_has} (supported: {supported})"


# Runs -----------------------------------------------------------------------------------------------------------------


def runs_in(files: dict[Place, Path]) -> Iterator[tuple[Place, Submission]]:
    """Yield the runs of a submission: one for each folder with records or, without such folders, those in the logs."""
    folders = defaultdict(dict)  # {place: {name: path}}
    for place in sorted(files):
        folders[place[:-1]][place[-1]] = files[place]
    with_records = {place: paths for place, paths in folders.items() if not paths.keys().isdisjoint(RECORDS)}
    logs = [place for place in sorted(files) if place[-1].lower().endswith(TEXTS)][:MOST_TEXTS]
    for folder, paths in with_records.items():
        near = [place for place in logs if place[:-1] == folder or len(with_records) == 1]
        yield folder, read_run(paths, {place[-1]: files[place] for place in near})
    if not with_records:
        consoles = []
        for place in logs:
            consoles += [((*place[:-1], part), run) for part, run in read_console(place[-1], files[place])]
        yield from joined(consoles)


def joined(consoles: list[tuple[Place, Submission]]) -> list[tuple[Place, Submission]]:
    """Join the console logs of one resumed run, if each was written after the one before."""
    runs = []
    newest = {}  # {run id: the run that is joined so far}
    for place, run in sorted(consoles, key=lambda console: first_and_last(console[1])):
        earlier = newest.get(run.log.run_id)
        if earlier and first_and_last(earlier)[1] <= first_and_last(run)[0]:
            earlier.log = earlier.log.continued(run.log)
            earlier.problems += run.problems
        else:
            runs.append((place, run))
            if run.log.run_id:
                newest[run.log.run_id] = run
    return sorted(runs, key=lambda found: found[0])


def first_and_last(run: Submission) -> tuple[datetime, datetime]:
    """Return when the first and the last line about a step were written."""
    times = [row["time"] for row in run.log.rows if row["time"]] or [datetime.min]
    return times[0], times[-1]


def read_run(paths: dict[str, Path], logs: dict[str, Path]) -> Submission:
    """Read the run of a folder, {name: path}.  logs: possible console logs, used if there is no train.log."""
    run = Submission(paths=paths)
    if "args.json" in paths:
        run.args = read_object(paths["args.json"], "args.json", run.problems)
    if "summary.json" in paths:
        run.summary = read_object(paths["summary.json"], "summary.json", run.problems)
    if "metrics.jsonl" in paths:
        run.rows = read_rows(paths["metrics.jsonl"], run.problems)
        run.first_row = next((row for row in run.rows if row["event"] == "run"), {})
    run.board = read_board({name: path for name, path in paths.items() if name.startswith(BOARD)}, run.problems)
    models = {name: read_model(path, name, run.problems) for name, path in paths.items() if name.endswith(".pth")}
    run.models = {name: model for name, model in models.items() if model}
    if "train.log" in paths:
        run.log_name = "train.log"
        text = text_of(content_of(paths["train.log"], "train.log", run.problems))
        run.log = read_log(text, "train.log", run.problems)
        return run
    consoles = [console for name, path in logs.items() for _, console in read_console(name, path)]
    of_this_run = [console for console in consoles if console.log.run_id == run.first_row.get("run_id", "none")]
    longest = max(of_this_run or consoles, key=lambda console: len(console.log.rows), default=Submission())
    run.log = longest.log
    run.log_name = longest.log_name
    run.problems += longest.problems
    return run


def read_console(name: str, path: Path) -> Iterator[tuple[str, Submission]]:
    """Yield (name, run) of each run in a console log: several if a script ran one after the other."""
    problems = []
    content = content_of(path, name, problems)
    parts = parts_of(text_of_notebook(content) if name.lower().endswith(".ipynb") else text_of(content))
    stem = without_suffix(name)
    for number, part in enumerate(parts, start=1):
        run = Submission(problems=list(problems), paths={name: path}, log_name="the log")
        run.log = read_log(part, name, run.problems)
        yield stem if len(parts) == 1 else f"{stem}-{number}", run
