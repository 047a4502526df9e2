"""What was handed in, as data: runs' folders, archives of them, redirected console logs.  It judges nothing.

In reading order: `find`, what a folder of submissions holds; `opened`, the runs of one of them.  Taking files out of
folders and archives is in unpacking.py, reading them in run_files.py.  What cannot be read, or not whole, becomes a
line among the run's problems, and never stops the others.
"""

import contextlib
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from common.errors import UserError, one_line
from grading.run_files import (
    LIKE_A_LOG,
    Log,
    content_of,
    parts_of,
    read_board,
    read_log,
    read_model,
    read_object,
    read_rows,
    text_of,
)
from grading.unpacking import (
    LINK,
    NOT_PLAIN,
    Found,
    TooMuch,
    is_archive,
    is_ignored,
    look_into,
    shown,
    unpack,
    without_suffix,
)

MODELS = ("best_model.pth", "final_model.pth")
RECORDS = ("args.json", "train.log", "metrics.jsonl", "summary.json", *MODELS)
TOKENIZER = "bpe_tokenizer_tinystories.pkl"
BOARD = "events.out.tfevents."
LONGEST_NAME = 255
TEXTS = (".log", ".txt", ".out")
MOST_TEXTS = 50  # that are looked at in one submission, in search of logs


@dataclass
class Submission:
    """One run that was handed in; what is missing or cannot be read is None or empty, and all numbers are finite."""

    name: str = ""  # "anna", or "anna/tinystories_chat_model" where anna handed in several runs
    person: str = ""
    problems: list = field(default_factory=list)  # in words
    args: dict | None = None
    rows: list = field(default_factory=list)  # of metrics.jsonl, as FIELDS has them
    log: Log | None = None
    summary: dict | None = None
    board: dict = field(default_factory=dict)  # {TensorBoard's tag: [(step, wall time, value)]}
    models: dict = field(default_factory=dict)  # {"best_model.pth": Model}
    files: set = field(default_factory=set)  # names
    paths: dict = field(default_factory=dict)  # {name: where the file can be read while the submission is opened}


# Folders --------------------------------------------------------------------------------------------------------------


def find(folder):
    """{name: path} of the submissions in a folder, in the order of their names.  Raises UserError where there is none.

    A folder that is itself a run's is the only one.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; pass the one that the submissions are in")
    of_ours = (".html", ".csv", ".toml", ".pkl")  # what the one who grades keeps here
    paths = [path for path in folder.iterdir() if not is_ignored(path.name) and path.suffix.lower() not in of_ours]
    paths.sort(key=lambda path: path.name)
    if any(path.name in RECORDS for path in paths):
        return {name_of(folder.resolve()): folder}
    if not paths:
        raise UserError(f"{folder} holds no submissions; pass the folder that they are in")
    found = {}
    for path in paths:
        name = name_of(path)
        found[path.name if name in found else name] = path
    return found


def name_of(path):
    return path.name if path.is_dir() else without_suffix(path.name)


@contextlib.contextmanager
def opened(path, name=None):
    """The runs of one submission, a list of Submission; what was unpacked is there until the block ends."""
    path = Path(path)
    name = shown(name or name_of(path), LONGEST_NAME)
    with tempfile.TemporaryDirectory(prefix="submission-", ignore_cleanup_errors=True) as folder:
        try:
            runs = read(path, name, Path(folder))
        except Exception as error:  # a submission that nobody foresaw must not stop the others
            reason = one_line(str(error) or type(error).__name__)
            runs = [Submission(name, name, [f"{shown(path.name)} cannot be read ({reason})"])]
        yield runs


def read(path, name, target):
    """The runs of a submission; target: an empty folder for what is unpacked."""
    found = Found(is_wanted, target)
    is_text = path.is_file() and not is_archive(path.name)
    try:
        if path.is_symlink():
            found.refuse(path.name, LINK)
        elif path.is_dir():
            look_into(path, found)
        elif not path.is_file():
            found.refuse(path.name, NOT_PLAIN)
        elif is_text:
            found.add((), path.name, path)
        else:
            unpack(path, found)
    except TooMuch as error:
        found.problems.append(f"{shown(path.name)}: {error}; the rest was not read")
    folders = sorted((place, names) for place, names in found.folders.items() if any(n in RECORDS for n in names))
    texts = [(place, file, where) for place, names in found.folders.items() for file, where in names.items() if where]
    texts = sorted((place, file, where) for place, file, where in texts if is_text or is_log_name(file))[:MOST_TEXTS]
    if len(folders) == 1 and "train.log" not in folders[0][1]:  # the console's log may stand beside the run's folder
        folders[0][1].update({file: where for _, file, where in texts if file not in folders[0][1]})
    runs = [(place, read_run(names)) for place, names in folders]
    if not runs:
        runs = [((*place, part), run) for place, file, where in texts for part, run in read_text(file, where)]
    problems = found.said()
    tokenizer = next((names[TOKENIZER] for names in found.folders.values() if names.get(TOKENIZER)), None)
    if not runs:
        runs = [((), Submission())]
        problems.append(
            "no run in it: neither a run's records nor a log of one was found "
            "(what is read: folders, .zip, .tar.gz, .tgz, .tar, logs as text)"
        )
    shared = len(os.path.commonprefix([place for place, _ in runs]))
    for place, run in runs:
        run.person, run.name = name, "/".join((name, *map(shown, place[shared:]))) if len(runs) > 1 else name
        run.problems[:0] = problems
        run.paths |= {"tokenizer": tokenizer} if tokenizer else {}
    return [run for _, run in runs]


def is_log_name(name):
    return name.lower().endswith(TEXTS)


def is_wanted(name):
    return name in RECORDS or name == TOKENIZER or name.startswith(BOARD) or is_log_name(name)


# A run ----------------------------------------------------------------------------------------------------------------


def read_run(files):
    """The run of a folder; files: {name: where it can be read, or None}."""
    paths = {name: path for name, path in files.items() if path}
    run = Submission(files={shown(name, LONGEST_NAME) for name in files})
    run.paths = {name: paths[name] for name in RECORDS if name in paths}
    say = run.problems.append
    if "args.json" in paths:
        run.args = read_object(paths["args.json"], "args.json", say)
    if "summary.json" in paths:
        run.summary = read_object(paths["summary.json"], "summary.json", say)
    if "metrics.jsonl" in paths:
        run.rows = read_rows(paths["metrics.jsonl"], say)
    run.board = read_board({name: path for name, path in sorted(paths.items()) if name.startswith(BOARD)}, say)
    if "train.log" in paths:
        run.log = read_log(text_of(content_of(paths["train.log"], "train.log", say)), "train.log", say)
    else:
        texts = {name: path for name, path in paths.items() if is_log_name(name)}
        logs = [one for name, path in sorted(texts.items())[:MOST_TEXTS] for _, one in read_text(name, path)]
        if logs:  # one console may have held several runs
            run_id = next((row["run_id"] for row in run.rows if row["event"] == "run"), None)
            longest = max(logs, key=lambda one: len(one.log.rows))
            found = next((one for one in logs if one.log.run_id == run_id), longest)
            run.log = found.log
            run.problems += found.problems
    for name in MODELS:
        if name in paths:
            run.models[name] = read_model(paths[name], name, say)
    run.models = {name: model for name, model in run.models.items() if model}
    return run


def read_text(name, path):
    """(name, run) of each of the runs whose lines a text holds: one after the other if a script ran several."""
    said = []
    text = text_of(content_of(path, name, said.append))
    if not LIKE_A_LOG.search(text[: 1 << 20]):
        return []
    logs, stem = [], without_suffix(name)
    for part in parts_of(text):
        run = Submission(problems=list(said), files={shown(name, LONGEST_NAME)})
        run.log = read_log(part, name, run.problems.append)
        logs.append(run)
    return [(stem if len(logs) == 1 else f"{stem}-{count}", run) for count, run in enumerate(logs, start=1)]
