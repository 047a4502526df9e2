"""What each file of a run says, read with suspicion: the files come from somebody else, and may be damaged or made up.

In reading order: `read_object` (args.json, summary.json), `read_rows` (metrics.jsonl), `read_log` (train.log, or what a
shell wrote of the console), `read_board` (TensorBoard's event files), `read_model`.  Each takes a function `say`, which
is told in words what is wrong, and returns what could be read.  No code in a file is run, and no weight is loaded.
"""

import codecs
import contextlib
import hashlib
import json
import math
import re
import warnings
import zipfile
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import torch

from common.errors import UserError, one_line
from common.text import without_controls, without_surrogates
from common.weights_files import MODEL_FORMAT, Damaged, check_torch_file
from grading.unpacking import TooMuch, check_list, shown

LARGEST_OBJECT = 1 << 18  # bytes of args.json and summary.json, which have 2,000
LARGEST_RECORD = 16 << 20  # bytes that are read of one file; a long run's have one or two million
LARGEST_MODEL = 1 << 30  # bytes
LARGEST_PICKLE = 1 << 20  # bytes of a model file's names and shapes; this course's have 5,000
LONGEST_LINE = 10_000  # characters of a log's line
LONGEST_SAMPLE = 100  # lines
MOST_RESTARTS = 1000  # of a run
MOST_PARTS = 20  # runs in one log
LONGEST_CHECKED = 1024  # bytes of a record of numbers, with room


def content_of(path, name, say):
    """The first LARGEST_RECORD bytes of a file."""
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST_RECORD)
            if file.read(1):
                say(f"{shown(name)} is larger than {LARGEST_RECORD >> 20} MB; only its beginning was read")
        return content
    except OSError as error:
        say(f"{shown(name)} cannot be read ({error.strerror})")
        return b""


# args.json, summary.json, metrics.jsonl -------------------------------------------------------------------------------

COUNTS = ("step", "tokens", "skipped", "parameters", "parameters_in_layers", "total_steps")
NUMBERS = ("epoch", "seconds", "train_loss", "perplexity", "lr", "tokens_per_second", "flops_per_token")
NUMBERS += ("val_loss", "bits_per_byte", "accuracy", "grad_norm")
WORDS = ("event", "run_id", "program", "precision", "text", "time", "ended", "device")
KINDS = dict.fromkeys(COUNTS, int) | dict.fromkeys(NUMBERS, float) | dict.fromkeys(WORDS, str)
KINDS |= {"versions": dict, "hardware": dict, "fingerprints": dict, "dataset": list}
LARGEST_COUNT, LARGEST_NUMBER = 1 << 53, 1e305
PLACE = ("step", "epoch", "tokens", "seconds")
FIELDS = {  # what a row of each event must have
    "run": ("step", "run_id", "time"),
    "train": (*PLACE, "train_loss", "perplexity", "lr", "grad_norm", "tokens_per_second"),
    "eval": (*PLACE, "val_loss", "perplexity", "bits_per_byte", "accuracy"),
    "sample": ("step", "text"),
    "checkpoint": ("step",),
    "skip": ("step", "skipped"),
    "resume": ("step",),
    "end": ("step", "ended"),
}


MAY_BE_NULL = {"grad_norm", "dataset", "val_loss", "perplexity", "bits_per_byte"}


def not_json(name):
    raise ValueError(f"{name} is no number of JSON")


DECODE = json.JSONDecoder(parse_constant=not_json).decode


def plain(value, deepest=6):
    """A value of JSON with printable texts; raises ValueError for what cannot be used."""
    kind = type(value)
    if kind is str:
        return without_controls(without_surrogates(value))
    if kind is float and not math.isfinite(value) or kind is int and abs(value) >= 1 << 64:
        raise ValueError("it holds a number that is too large")
    if kind in (dict, list) and not deepest:
        raise ValueError("it holds lists in lists in lists")
    if kind is dict:
        return {without_controls(without_surrogates(key)): plain(item, deepest - 1) for key, item in value.items()}
    return [plain(item, deepest - 1) for item in value] if kind is list else value


def reason_of(error):
    return str(error) if type(error) is ValueError else "it is no JSON"


def read_object(path, name, say):
    """The object that args.json or summary.json is, or None."""
    try:
        content = content_of(path, name, say)
        if len(content) > LARGEST_OBJECT:
            raise ValueError(f"it has more than {LARGEST_OBJECT >> 10} kB")
        content = plain(DECODE(content.decode("utf-8-sig")))
    except (ValueError, RecursionError) as error:
        say(f"{name} cannot be used: {reason_of(error)}")
        return None
    if not isinstance(content, dict):
        say(f"{name} cannot be used: it does not hold names and their values")
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
            reason = reason or reason_of(error)
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
        if wanted is float and (kind is float or kind is int):
            good = -LARGEST_NUMBER < value < LARGEST_NUMBER
            value = float(value) if good else value
        elif wanted is int:
            good = kind is int and 0 <= value < LARGEST_COUNT
        else:
            good = kind is wanted or wanted is None or (value is None and name in MAY_BE_NULL)
            value = plain(value) if good else value
        if not good:
            raise ValueError(f"its {name} is {one_line(value)}")
        if wanted:
            found[name] = value
    return found


# train.log and the console's log --------------------------------------------------------------------------------------


@dataclass
class Log:
    """What train.log, or a console log, says; the rows are as in metrics.jsonl, with "time", a datetime, or None."""

    command: str | None = None  # "python train_tinystories_model.py ..."
    run_id: str | None = None
    device: str | None = None
    parameters: int | None = None
    parameters_in_layers: int | None = None
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


TIME = r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) "
STEP = re.compile(TIME + r"step ([\d,]{1,15})/([\d,]{1,15}) (.*)")
END = re.compile(TIME + r"(best|final): step ([\d,]{1,15}) (.*?) -> ")
COLUMNS = {"tokens/s": "tokens_per_second", "[tokens/s": "tokens_per_second", "loss": "val_loss"}
COLUMNS |= {name: name for name in ("epoch", "train_loss", "val_loss", "perplexity", "lr", "grad_norm")}
COLUMNS |= {"bits_per_byte": "bits_per_byte", "accuracy": "accuracy"}
FACTS = {  # the lines that say what a run is
    "command": re.compile(r"^(?:\S+ : )?\$ (.*\btrain_tinystories_.*)"),
    "run_id": re.compile(r"\brun ([0-9a-f]{32})\b"),
    "device": re.compile(r"\bdevice: (.*)"),
    "parameters": re.compile(r"\bmodel: ([\d,]{1,20}) parameters"),
    "parameters_in_layers": re.compile(r"\bparameters, ([\d,]{1,20}) of them in the layers"),
    "total_steps": re.compile(r"^([\d,]{1,15}) steps of "),
    "tokens": re.compile(r"^([\d,]{1,20}) tokens in "),
    "error": re.compile(r"^(error: .*|[\w.]*(?:Error|Exception|Interrupt)\b.*|interrupted|stopped after step .*)"),
}
LIKE_A_LOG = re.compile(r"\bdevice: (?:cuda|cpu|mps)|^[\d,]+ steps of \d|step [\d,]+/[\d,]+ ", re.M)
COUNTED = ("parameters", "parameters_in_layers", "total_steps", "tokens")
RESUMED = re.compile(r"going on from .* at step ([\d,]{1,15}) of ")


def text_of(content):
    """Text in the encodings of the shells: UTF-8 or UTF-16 with its mark; what is neither, is of Windows' code page."""
    wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")
    text = content.decode("utf-16", "replace") if wide else content.decode("utf-8-sig", "code page")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join(line[:LONGEST_LINE] for line in lines)


def of_code_page(error):
    return error.object[error.start : error.end].decode("cp1252", "replace"), error.end


codecs.register_error("code page", of_code_page)


def parts_of(text):
    """A console's log, cut where another run begins; one that goes on with the run before belongs to that."""
    parts = []
    for part in re.split(r"^(?=\$ .*\btrain_tinystories_)", text, maxsplit=MOST_PARTS, flags=re.M):
        if parts and not STEP.search(parts[-1]):  # a run that was refused, or what the shell said
            parts[-1] = part
        elif parts and RESUMED.search(part):
            parts[-1] += part
        else:
            parts.append(part)
    return parts


def read_log(text, name, say):
    log, bad, sample = Log(), 0, None
    text = without_controls(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text))
    for line in text.split("\n"):
        if not line and sample is None:
            continue
        try:
            if "step " in line and (found := STEP.search(line)):
                log.rows.append(log_row(*found.groups()))
                log.error, sample = None, None  # that of an attempt before
            elif found := END.search(line):
                setattr(log, found[2], {"step": number(found[3])} | values_of(found[4]))
                sample = None
            elif sample is not None:
                sample.append(line)
                log.sample = "\n".join(sample).strip("\n") if len(sample) < LONGEST_SAMPLE else log.sample
            elif line.startswith("a sample of "):
                sample = []
            elif line.startswith("pilot run: "):
                log.pilot = True
            elif found := RESUMED.search(line):
                log.rows.append({"event": "resume", "step": number(found[1]), "time": None})
            else:
                for fact, pattern in FACTS.items():
                    if found := pattern.search(line):
                        value = number(found[1]) if fact in COUNTED else found[1].strip()
                        setattr(log, fact, value)
        except ValueError:
            bad += 1
    if bad:
        say(f"{shown(name)}: {bad:,} line{'s' * (bad > 1)} of steps cannot be read")
    return log


def number(text):
    return int(text.replace(",", ""))


def values_of(text):
    """{name as in metrics.jsonl: number} of a log line's words, which are names and values in turn.

    Raises ValueError where a value is no number.
    """
    words, found = text.replace(",", "").split(" "), {}
    for name, value in zip(words[::2], words[1::2], strict=False):
        if name in COLUMNS:
            found[COLUMNS[name]] = value = float(value.rstrip("]"))
            if value - value:  # neither infinite nor no number
                if name != "grad_norm":
                    raise ValueError(f"{name} is {value}")
                found[name] = None
        elif name == "elapsed":
            hours, minutes, seconds = map(int, value.split(":"))
            found["seconds"] = 3600 * hours + 60 * minutes + seconds
        elif name != "mfu":
            break
    return found


def log_row(moment, step, total, rest):
    """A row of a log line; raises ValueError where its numbers cannot be read."""
    if rest.startswith("skipped"):
        row = {"event": "skip"}
    elif rest.startswith("checkpoint-"):
        row = {"event": "checkpoint"}
    else:
        row = values_of(rest)
        row = {"event": "train" if "train_loss" in row else "eval" if "val_loss" in row else ""} | row
        if not row["event"]:
            raise ValueError("no loss")
    row["step"], row["total_steps"], row["time"] = number(step), number(total), None
    with contextlib.suppress(ValueError):
        row["time"] = datetime.fromisoformat(moment)
    return row


# TensorBoard ----------------------------------------------------------------------------------------------------------


def read_board(paths, say):
    """{tag: [(step, wall time, value)]} of the event files in the order of their names.

    A record is its length in 8 bytes, their check sum in 4, the event, its check sum.  An event that says that a run
    goes on voids what came before it at its step and later.
    """
    if not paths:
        return {}
    try:
        from google.protobuf.message import DecodeError
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    except ImportError:
        say("tensorboard is not installed here: the event files were not read")
        return {}
    board, restarts = {}, 0
    for name, path in paths.items():
        content = content_of(path, name, say)
        records, whole = records_of(content)
        for start, length in records:
            try:
                event = Event.FromString(content[start : start + length])
            except DecodeError:
                whole = False
                break
            if event.HasField("session_log") and event.session_log.status == SessionLog.START:
                restarts += 1
                for tag, points in board.items() if restarts <= MOST_RESTARTS else ():
                    board[tag] = [point for point in points if point[0] < event.step]
            for value in event.summary.value:
                scalar = scalar_of(value)
                if scalar is not None and not scalar - scalar:  # finite
                    board.setdefault(value.tag, []).append((event.step, event.wall_time, scalar))
        if not whole:
            say(f"{shown(name)} is damaged or cut off; what comes before that was read")
    if restarts > MOST_RESTARTS:
        say(f"the event files say that the run was gone on with more than {MOST_RESTARTS:,} times")
    return {without_controls(tag): points for tag, points in board.items() if points}


def records_of(content):
    """([(start, length) of each record that is whole], whether these are all)."""
    starts, lengths, at, whole = [], [], 0, True
    while whole and at < len(content):
        length = int.from_bytes(content[at : at + 8], "little")
        whole = at + length + 16 <= len(content)
        if whole:
            starts.append(at + 12)
            lengths.append(length)
        at += length + 16
    good = whole_records(content, np.array(starts, np.int64), np.array(lengths, np.int64))
    count = int(good.argmin()) if not good.all() else len(starts)
    return list(zip(starts[:count], lengths[:count], strict=True)), whole and count == len(starts)


TABLE = np.arange(256, dtype=np.uint32)  # of CRC-32C, a byte at a time
for _ in range(8):
    TABLE = np.where(TABLE & 1, TABLE >> 1 ^ 0x82F63B78, TABLE >> 1).astype(np.uint32)


def whole_records(content, starts, lengths):
    """Whether each record has the check sum that follows it; of all records at once, or it would take a second a run.

    Longer ones, texts and pictures, are not looked at.
    """
    content, good = np.frombuffer(content, np.uint8), np.ones(len(starts), bool)
    order = np.argsort(-lengths, kind="stable")
    order = order[lengths[order] <= LONGEST_CHECKED]
    starts, lengths = starts[order], lengths[order]
    sums = np.full(len(order), 0xFFFFFFFF, np.uint32)
    for place in range(lengths.max(initial=0)):
        count = np.searchsorted(-lengths, -place)  # those that are longer
        sums[:count] = TABLE[(sums[:count] ^ content[starts[:count] + place]) & 255] ^ sums[:count] >> 8
    sums = ~sums
    sums = (sums >> 15 | sums << 17) + np.uint32(0xA282EAD8)
    said = content[(starts + lengths)[:, None] + np.arange(4)] if len(order) else np.zeros((0, 4), np.uint8)
    good[order] = np.ascontiguousarray(said).view("<u4")[:, 0] == sums
    return good


def scalar_of(value):
    """The number that a summary's value is, or None; newer writers wrap it into a tensor without dimensions."""
    if value.HasField("simple_value"):
        return value.simple_value
    if not value.HasField("tensor") or value.tensor.tensor_shape.dim or value.tensor.dtype not in (1, 2):
        return None
    tensor, kind = value.tensor, "<f4" if value.tensor.dtype == 1 else "<f8"
    if len(tensor.tensor_content) == np.dtype(kind).itemsize:
        return float(np.frombuffer(tensor.tensor_content, kind)[0])
    numbers = tensor.float_val or tensor.double_val
    return numbers[0] if numbers else None


# Models ---------------------------------------------------------------------------------------------------------------


@dataclass
class Model:
    """What a model file says of itself; weights: a fingerprint of its tensors' bytes."""

    config: dict
    step: int
    val_loss: float | None
    run_id: str | None
    tokenizer_fingerprint: str | None
    weights: str


def read_model(path, name, say):
    """The facts of a model file; None where it is none, and why is said."""
    kinds = {"config": dict, "step": int, "val_loss": (float, int, type(None))}
    kinds |= dict.fromkeys(("run_id", "tokenizer_fingerprint"), (str, type(None)))
    try:
        weights = weights_of(path)
        check_torch_file(path)
        with warnings.catch_warnings(action="ignore"):
            content = torch.load(path, map_location="meta", weights_only=True)
        if not isinstance(content, dict) or content.get("format") != MODEL_FORMAT:
            raise UserError("it is another kind of file")
        facts = {fact: plain(content.get(fact)) for fact in kinds}
        scalar = (str, int, float, type(None))
        if not all(isinstance(facts[fact], kind) for fact, kind in kinds.items()):
            raise UserError("it does not say what it is")
        if not all(isinstance(value, scalar) for value in facts["config"].values()):
            raise UserError("its config holds other than words and numbers")
        return Model(**facts | {"config": plain(dict(facts["config"]))}, weights=weights)
    except Damaged as error:
        say(error.what.replace(str(path), name))
    except (UserError, ValueError) as error:
        say(f"{name} is no model file of this course ({str(error).replace(str(path), 'it').splitlines()[0]})")
    except TooMuch as error:
        say(f"{name} is not read ({error})")
    except Exception:  # damaged bytes raise nearly every kind
        say(f"{name} is damaged, or no model file of this course")
    return None


def weights_of(path):
    """A fingerprint of the tensors' bytes: of the check sums in the zip's list, so that nothing needs to be read."""
    if path.stat().st_size > LARGEST_MODEL:
        raise TooMuch(f"it is larger than {LARGEST_MODEL >> 30} GB")
    check_list(path)
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except zipfile.BadZipFile:
        raise Damaged(f"{path} is {'damaged: it is cut off' if path.stat().st_size else 'empty'}") from None
    if any(part.filename.endswith("/data.pkl") and part.file_size > LARGEST_PICKLE for part in parts):
        raise TooMuch("what it says of its tensors is too long")
    parts = {part.filename: part for part in parts if re.fullmatch(r"[^/]+/data/[0-9]{1,9}", part.filename)}
    parts = sorted(parts.values(), key=lambda part: int(part.filename.rsplit("/", 1)[1]))
    return hashlib.sha256(repr([(part.file_size, part.CRC) for part in parts]).encode()).hexdigest()
