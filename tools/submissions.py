"""What was handed in, as data: runs' folders, archives of them, redirected console logs.  It judges nothing.

In reading order: `find`, what a folder of submissions holds; `opened`, the runs of one of them; then a reader for each
of a run's files.  A file that cannot be read, or not whole, becomes a line among the run's problems.  No code of a
submission is run, no weight is loaded.
"""

import contextlib
import hashlib
import json
import math
import re
import sys
import tempfile
import warnings
import zipfile
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from unpacking import Found, TooMuch, is_archive, is_ignored, look_into, shown, unpack, without_suffix  # noqa: E402

from checkpoints import MODEL_FORMAT, Damaged, check_torch_file  # noqa: E402
from shell import UserError, printable, printed  # noqa: E402
from sources import clean  # noqa: E402

MODELS = ("best_model.pth", "final_model.pth")
RECORDS = ("args.json", "train.log", "metrics.jsonl", "summary.json", *MODELS)
BOARD = "events.out.tfevents."
TEXTS = (".log", ".txt", ".out")
LARGEST_RECORD = 32 << 20  # bytes that are read of one file; a long run's have one or two million
LARGEST_MODEL = 1 << 30  # bytes


@dataclass
class Model:
    """What a model file says of itself; weights: a fingerprint of its tensors' bytes."""

    config: dict
    step: int
    val_loss: float | None
    run_id: str | None
    tokenizer_fingerprint: str | None
    weights: str


@dataclass
class Log:
    """What train.log, or a console log, says; the rows are as in metrics.jsonl, with "time", a datetime, or None."""

    command: str | None = None  # "python train_tinystories_model.py ..."
    run_id: str | None = None
    device: str | None = None
    parameters: int | None = None
    total_steps: int | None = None
    pilot: bool = False
    rows: list = field(default_factory=list)  # of the events train, eval, skip and resume
    best: dict | None = None  # the line "best: ..." at the end: step, val_loss, perplexity, ...
    final: dict | None = None
    tokens: int | None = None  # the line at the very end
    sample: str | None = None
    error: str | None = None  # the last line that says why the program ended before its time

    @property
    def ended(self):
        return self.best is not None and self.final is not None


@dataclass
class Submission:
    """One run that was handed in; what is missing or cannot be read is None or empty, and all numbers are finite."""

    name: str  # "anna", or "anna/tinystories_chat_model" where anna handed in several runs
    person: str
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
    paths = sorted((path for path in folder.iterdir() if not is_ignored(path.name)), key=lambda path: path.name)
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
    name = shown(name or name_of(path))
    with tempfile.TemporaryDirectory(prefix="submission-", ignore_cleanup_errors=True) as folder:
        try:
            runs = read(path, name, Path(folder))
        except Exception as error:  # a submission that nobody foresaw must not stop the others
            reason = printed(str(error) or type(error).__name__)
            runs = [Submission(name, name, [f"{shown(path.name)} cannot be read ({reason})"])]
        yield runs


def read(path, name, target):
    found = Found(is_wanted, target)
    if path.is_symlink():
        return [Submission(name, name, [f"{shown(path.name)} is a link, and is not followed"])]
    if path.is_dir():
        with noting_too_much(found):
            look_into(path, found)
    elif not path.is_file():
        return [Submission(name, name, [f"{shown(path.name)} is no plain file"])]
    elif is_archive(path.name):
        unpack(path, found)
    else:
        found.add((), path.name, path)
    folders = runs_in(found.folders, alone=path.is_file() and not is_archive(path.name))
    shared = next((n for n in range(99) if len({place[: n + 1] for place, _ in folders}) > 1), 0)
    submissions = []
    for place, files in folders:
        of_several = "/".join((name, *map(shown, place[shared:]))) if len(folders) > 1 else name
        submissions.append(read_run(of_several, name, files))
    for submission in submissions:
        submission.problems[:0] = found.said()
    if not submissions:
        problem = "no run in it: neither a run's records nor a log of one was found"
        submissions = [Submission(name, name, [*found.said(), problem])]
    return submissions


@contextlib.contextmanager
def noting_too_much(found):
    try:
        yield
    except TooMuch as error:
        found.problems.append(f"{error}; the rest was not read")


def is_wanted(name):
    return name in RECORDS or name.startswith(BOARD) or name.lower().endswith(TEXTS)


def runs_in(folders, alone):
    """(path, {name: Path or None}) of each run: the folders that hold records; without any, each log is a run."""
    runs = sorted((place, files) for place, files in folders.items() if any(name in RECORDS for name in files))
    logs = [(place, name, path) for place, files in folders.items() for name, path in files.items() if path]
    logs = [(place, name, path) for place, name, path in logs if alone or name.lower().endswith(TEXTS)]
    if not runs:
        return sorted(((*place, without_suffix(name)), {name: path}) for place, name, path in logs)
    if len(runs) == 1 and "train.log" not in runs[0][1]:  # the console's log may stand beside the run's folder
        runs[0][1].update({name: path for _, name, path in logs if name not in runs[0][1]})
    return runs


# A run ----------------------------------------------------------------------------------------------------------------


def read_run(name, person, files):
    """files: {name: where it can be read, or None}."""
    paths = {file: path for file, path in files.items() if path}
    run = Submission(name, person, files=set(map(shown, files)), paths={n: p for n, p in paths.items() if n in RECORDS})
    say = run.problems.append
    run.args, run.summary = (
        read_object(paths[file], file, say) if file in paths else None for file in ("args.json", "summary.json")
    )
    if "metrics.jsonl" in paths:
        run.rows = read_rows(paths["metrics.jsonl"], say)
    run.board = read_board({file: path for file, path in sorted(paths.items()) if file.startswith(BOARD)}, say)
    run.log = read_logs({n: p for n, p in paths.items() if n not in RECORDS[2:] and not n.startswith(BOARD)}, say)
    for file in MODELS:
        if file in paths:
            with contextlib.suppress(UserError):
                run.models[file] = read_model(paths[file], file, say)
    return run


def content_of(path, name, say):
    """The first LARGEST_RECORD bytes of a file."""
    with open(path, "rb") as file:
        content = file.read(LARGEST_RECORD)
        if file.read(1):
            say(f"{shown(name)} is larger than {LARGEST_RECORD >> 20} MB; only its beginning was read")
    return content


# args.json, summary.json, metrics.jsonl -------------------------------------------------------------------------------

COUNTS = ("step", "tokens", "skipped", "parameters", "parameters_in_layers", "total_steps")
NUMBERS = ("epoch", "seconds", "train_loss", "perplexity", "lr", "tokens_per_second", "flops_per_token")
NUMBERS += ("val_loss", "bits_per_byte", "accuracy", "grad_norm")
WORDS = ("event", "run_id", "program", "started", "precision", "text", "time", "ended", "device")
KINDS = dict.fromkeys(COUNTS, int) | dict.fromkeys(NUMBERS, float) | dict.fromkeys(WORDS, str)
KINDS |= {"versions": dict, "hardware": dict, "fingerprints": dict, "dataset": list}
PLACE = ("step", "epoch", "tokens", "seconds")
FIELDS = {  # what a row of each event must have
    "run": ("step", "run_id", "started"),
    "train": (*PLACE, "train_loss", "perplexity", "lr", "grad_norm", "tokens_per_second"),
    "eval": (*PLACE, "val_loss", "perplexity", "bits_per_byte", "accuracy"),
    "sample": ("step", "text"),
    "checkpoint": ("step",),
    "skip": ("step", "skipped"),
    "resume": ("step",),
    "end": ("step", "ended"),
}


def not_json(name):
    raise ValueError(f"{name} is no number of JSON")


DECODE = json.JSONDecoder(parse_constant=not_json).decode


def plain(value, deepest=6):
    """A value of JSON with printable texts; raises ValueError for what cannot be used."""
    kind = type(value)
    if kind is str:
        return printable(clean(value))
    if kind is float and not math.isfinite(value) or kind is int and abs(value) >= 1 << 53:
        raise ValueError("it holds a number that is too large")
    if kind in (dict, list) and not deepest:
        raise ValueError("it holds lists in lists in lists")
    if kind is dict:
        return {printable(clean(key)): plain(item, deepest - 1) for key, item in value.items()}
    return [plain(item, deepest - 1) for item in value] if kind is list else value


def read_object(path, name, say):
    """The object that args.json or summary.json is, or None."""
    try:
        content = plain(DECODE(content_of(path, name, say).decode("utf-8-sig")))
    except (ValueError, RecursionError):
        say(f"{name} is damaged: it is no JSON, or holds numbers that no run has")
        return None
    if not isinstance(content, dict):
        say(f"{name} does not hold names and their values")
        return None
    return content


def read_rows(path, say):
    """The rows of metrics.jsonl that have the fields of their event; the others are counted."""
    rows, bad, reason = [], [], ""
    lines = content_of(path, "metrics.jsonl", say).split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append(row_of(DECODE(line.decode("utf-8-sig").strip())))
        except (ValueError, RecursionError) as error:
            if number == len(lines) and b"}" not in line:
                say("metrics.jsonl ends in the middle of a line")
                continue
            known = type(error) is ValueError
            reason = reason or (str(error) if known else "it is no JSON")
            bad.append(number)
    if bad:
        count = "1 row" if len(bad) == 1 else f"{len(bad):,} rows"
        say(f"metrics.jsonl: {count} cannot be used, the first in line {bad[0]} ({reason})")
    return rows


def row_of(row):
    """A row with the fields that are known; raises ValueError where one is missing or of another kind."""
    event = row.get("event") if type(row) is dict else None
    if type(event) is not str or event not in FIELDS:
        raise ValueError("its event is none of a run's")
    for name in FIELDS[event]:
        if name not in row:
            raise ValueError(f"it lacks {name}")
    found = {}
    for name, value in row.items():
        kind, wanted = type(value), KINDS.get(name)
        if wanted is None:
            continue
        if kind is float or kind is int:
            good = wanted is kind or (wanted is float and kind is int)
            good = good and -1e15 < value < 1e15 and (wanted is float or value >= 0)
        else:
            good = kind is wanted or (value is None and name == "grad_norm")
            value = plain(value)
        if not good:
            raise ValueError(f"its {name} is {printed(value)}")
        found[name] = value
    return found


# train.log and the console's log --------------------------------------------------------------------------------------

TIME = r"(?:(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) )?"
STEP = re.compile(TIME + r"step ([\d,]{1,15})/([\d,]{1,15}) (.*)")
END = re.compile(TIME + r"(best|final): step ([\d,]{1,15}) (.*?) -> ")
COLUMNS = {"tokens/s": "tokens_per_second", "elapsed": "seconds", "loss": "val_loss"}
NUMERIC = {"epoch", "train_loss", "val_loss", "perplexity", "lr", "grad_norm", "bits_per_byte", "accuracy", "tokens/s"}
NUMERIC |= {"mfu", "loss"}
FACTS = {  # the lines that say what a run is
    "command": re.compile(r"^\$ (.*)"),
    "run_id": re.compile(r"\brun ([0-9a-f]{32})\b"),
    "device": re.compile(r"\bdevice: (.*)"),
    "parameters": re.compile(r"\bmodel: ([\d,]{1,20}) parameters"),
    "total_steps": re.compile(r"^([\d,]{1,15}) steps of "),
    "tokens": re.compile(r"^([\d,]{1,20}) tokens in "),
    "error": re.compile(r"^(error: .*|[\w.]*(?:Error|Exception|Interrupt)\b.*|interrupted|stopped after step .*)"),
}
RESUMED = re.compile(r"going on from .* at step ([\d,]{1,15}) of ")


def text_of(content):
    """Text in the encodings of the shells: UTF-8, UTF-16 with its mark, else Windows' code page, by lines."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16", "replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return "\n".join(map(line_of, content.split(b"\n")))


def line_of(line):
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return line.decode("cp1252", "replace")


def read_logs(paths, say):
    """train.log, or of other texts the one with the most rows."""
    if "train.log" in paths:
        return read_log(content_of(paths["train.log"], "train.log", say), "train.log", say)
    logs = [(name, [], path) for name, path in paths.items()]
    read = [(read_log(content_of(path, name, said.append), name, said.append), said) for name, said, path in logs]
    read = [(log, said) for log, said in read if log.rows or log.run_id or log.total_steps]
    if not read:
        return None
    log, said = max(read, key=lambda one: len(one[0].rows))
    for problem in said:
        say(problem)
    return log


def read_log(content, name, say):
    log, bad, sample = Log(), 0, None
    text = printable(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text_of(content)).replace("\r", "\n"))
    for line in text.split("\n"):
        if "step " in line and (found := STEP.search(line)):
            row = log_row(*found.groups())
            if row:
                log.rows.append(row)
            bad += row is None
        elif sample is not None and not (END.match(line)):
            sample.append(line)
        elif found := END.match(line):
            words = words_of(found[4])
            if words:
                setattr(log, found[2], {"step": number(found[3])} | words)
            if sample is not None:
                log.sample, sample = "\n".join(sample).strip("\n"), None
        elif line.startswith("a sample of "):
            sample = []
        elif line.startswith("pilot run: "):
            log.pilot = True
        elif found := RESUMED.search(line):
            log.rows.append({"event": "resume", "step": number(found[1]), "time": None})
        else:
            for fact, pattern in FACTS.items():
                if found := pattern.search(line):
                    value = found[1].strip()
                    numeric = fact in ("parameters", "total_steps", "tokens")
                    setattr(log, fact, number(value) if numeric else value)
    if sample:
        log.sample = "\n".join(sample).strip("\n")
    if bad:
        say(f"{shown(name)}: {bad:,} line{'s' * (bad > 1)} of steps cannot be read")
    return log


def number(text):
    return int(text.replace(",", "") or 0)


def words_of(text):
    """The names and numbers of a log line, with the names of metrics.jsonl; None where they are no numbers."""
    words, found = text.split(" "), {}
    for name, value in zip(words[::2], words[1::2], strict=False):
        try:
            if name in NUMERIC:
                found[COLUMNS.get(name, name)] = float(value.replace(",", "").rstrip("%"))
            elif name == "elapsed":
                hours, minutes, seconds = map(int, value.split(":"))
                found["seconds"] = 3600 * hours + 60 * minutes + seconds
            else:
                break
        except ValueError:
            return None
    return found


def log_row(moment, step, total, rest):
    """A row of a log line, or None where its numbers cannot be read."""
    if rest.startswith("skipped"):
        row = {"event": "skip"}
    else:
        row = words_of(rest)
        event = {"train_loss": "train", "val_loss": "eval"}.get(next((n for n in row or () if n.endswith("_loss")), ""))
        if not event:
            return None
        row = {"event": event} | row
        if not math.isfinite(row.get("grad_norm", 0)):
            row["grad_norm"] = None
        if not all(math.isfinite(value) for value in row.values() if type(value) is float):
            return None
    try:
        moment = moment and datetime.fromisoformat(moment)
    except ValueError:
        moment = None
    return row | {"step": number(step), "total_steps": number(total), "time": moment}


# TensorBoard ----------------------------------------------------------------------------------------------------------


def read_board(paths, say):
    """{tag: [(step, wall time, value)]} of the event files in the order of their names.

    A record is its length in 8 bytes, their check sum in 4, the event, its check sum.  An event that says that a run
    goes on voids what came before it at its step and later.
    """
    if not paths:
        return {}
    try:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    except ImportError:
        say("tensorboard is not installed here: the event files were not read")
        return {}
    board = {}
    for name, path in paths.items():
        content, at, whole = content_of(path, name, say), 0, True
        while whole and at < len(content):
            length = int.from_bytes(content[at : at + 8], "little")
            whole = at + length + 16 <= len(content)
            if not whole:
                say(f"{shown(name)} is damaged or cut off; what comes before that was read")
                break
            try:
                event = Event.FromString(content[at + 12 : at + 12 + length])
            except Exception:
                say(f"{shown(name)} is damaged; what comes before that was read")
                break
            at += length + 16
            if event.HasField("session_log") and event.session_log.status == SessionLog.START:
                for tag, points in board.items():
                    board[tag] = [point for point in points if point[0] < event.step]
            for value in event.summary.value:
                scalar = scalar_of(value)
                if scalar is not None and math.isfinite(scalar):
                    board.setdefault(printable(value.tag), []).append((event.step, event.wall_time, scalar))
    return board


def scalar_of(value):
    """The number that a summary's value is, or None; newer writers wrap it into a tensor without dimensions."""
    kind = value.WhichOneof("value")
    if kind == "simple_value":
        return value.simple_value
    if kind != "tensor" or value.tensor.tensor_shape.dim or value.tensor.dtype not in (1, 2):
        return None
    tensor = value.tensor
    if tensor.tensor_content:
        kind = np.dtype("<f4" if tensor.dtype == 1 else "<f8")
        return float(np.frombuffer(tensor.tensor_content, kind, 1)[0])
    numbers = tensor.float_val or tensor.double_val
    return numbers[0] if numbers else None


# Models ---------------------------------------------------------------------------------------------------------------


def read_model(path, name, say):
    """The facts of a model file; raises UserError where it is none, and says why."""
    try:
        if path.stat().st_size > LARGEST_MODEL:
            raise UserError(f"it is larger than {LARGEST_MODEL >> 30} GB")
        check_torch_file(path)
        with warnings.catch_warnings(action="ignore"):
            content = torch.load(path, map_location="meta", weights_only=True)
        if not isinstance(content, dict) or content.get("format") != MODEL_FORMAT:
            raise UserError("it is another kind of file")
        facts = plain({key: value for key, value in content.items() if key not in ("model", "format", "version")})
        kinds = {"config": dict, "step": int, "val_loss": (float, int, type(None))}
        kinds |= dict.fromkeys(("run_id", "tokenizer_fingerprint"), (str, type(None)))
        if not all(isinstance(facts.get(field), kind) for field, kind in kinds.items()):
            raise UserError("it lacks what a model file says of itself")
        facts = {field: facts.get(field) for field in kinds}
        return Model(**facts, weights=weights_of(path))
    except Damaged:
        say(f"{name} is damaged: it is cut off, or bytes in it have changed")
        raise
    except UserError as error:
        say(f"{name} is no model file of this course ({str(error).replace(str(path), 'it')})")
        raise
    except Exception:
        say(f"{name} is damaged, or no model file of this course")
        raise UserError(name) from None


def weights_of(path):
    """A fingerprint of the tensors' bytes: of the check sums in the zip's list, so that nothing needs to be read."""
    with zipfile.ZipFile(path) as archive:
        parts = [part for part in archive.infolist() if re.fullmatch(r"[^/]+/data/\d+", part.filename)]
    parts.sort(key=lambda part: int(part.filename.rsplit("/", 1)[1]))
    return hashlib.sha256(repr([(part.file_size, part.CRC) for part in parts]).encode()).hexdigest()
