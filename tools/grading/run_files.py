"""What the files of a run hold, read with suspicion: they come from somebody else, and may be damaged or made up.

In reading order: `read_object` (args.json, summary.json), `read_rows` (metrics.jsonl), `read_model`, `read_board`
(TensorBoard's); logs are read in logs.py.  Each function returns what could be read, and adds what could not, in words,
to a list of problems.  No code in a file is run, and no weight is loaded.
"""

import hashlib
import json
import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event, SessionLog

from common.errors import UserError, one_line
from common.files import read_json
from common.numbers import LARGEST_NUMBER
from common.text import without_controls, without_surrogates
from common.weights_files import MODEL_FORMAT, Damaged, check_torch_file
from grading.unpacking import TooMuch, ZipStream

LARGEST_OBJECT = 1 << 18  # bytes of args.json and summary.json, which have 2,000
LARGEST_RECORD = 16 << 20  # bytes that are read of one file; a long run's have one or two million
LARGEST_MODEL = 1 << 30  # bytes
LARGEST_PICKLE = 1 << 20  # bytes of a model file's names and shapes; this course's have 5,000


def content_of(path: Path, name: str, problems: list[str]) -> bytes:
    """The first LARGEST_RECORD bytes of a file.  name: its own; on the disk it may have another one."""
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST_RECORD + 1)
    except OSError as error:
        problems.append(f"{one_line(name[-60:])} cannot be read ({error.strerror})")
        return b""
    if len(content) > LARGEST_RECORD:
        problems.append(f"{one_line(name[-60:])} is larger than {LARGEST_RECORD >> 20} MB; only its beginning was read")
    return content[:LARGEST_RECORD]


# args.json and summary.json -------------------------------------------------------------------------------------------


def read_object(path: Path, name: str, problems: list[str]) -> dict | None:
    """The object that a JSON file holds; None where it cannot be used."""
    try:
        return clean(read_json(path, LARGEST_OBJECT))
    except (UserError, ValueError, OSError) as error:
        problems.append(f"{name} cannot be used: {str(error).replace(str(path), 'it')}")
        return None


def clean(value: object, deepest: int = 6) -> object:
    """A value of JSON with printable texts.  Raises ValueError for lists too deep and numbers too large."""
    if value is None or (isinstance(value, (int, float)) and -LARGEST_NUMBER < value < LARGEST_NUMBER):
        return value
    if isinstance(value, str):
        return without_controls(without_surrogates(value))
    if isinstance(value, list) and deepest > 0:
        return [clean(item, deepest - 1) for item in value]
    if isinstance(value, dict) and deepest > 0:
        return {clean(key): clean(item, deepest - 1) for key, item in value.items()}
    raise ValueError("it holds a number that is not finite, or lists in lists in lists")


# metrics.jsonl --------------------------------------------------------------------------------------------------------

COUNTS = ("step", "tokens", "skipped", "parameters", "parameters_in_layers", "total_steps")  # from 0 on
KINDS = (  # of each field that is known
    dict.fromkeys(COUNTS, (int,))
    | dict.fromkeys(("epoch", "seconds", "train_loss", "lr", "loss_scale", "tokens_per_second"), (int, float))
    | dict.fromkeys(("flops_per_token", "accuracy"), (int, float))
    | dict.fromkeys(("val_loss", "perplexity", "bits_per_byte", "grad_norm"), (int, float, type(None)))
    | dict.fromkeys(("event", "run_id", "program", "precision", "text", "time", "ended", "device"), (str,))
    | {
        "compiled": (bool,),
        "versions": (dict,),
        "hardware": (dict,),
        "fingerprints": (dict,),
        "dataset": (list, type(None)),
    }
)
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


def read_rows(path: Path, problems: list[str]) -> list[dict]:
    """The rows of metrics.jsonl that have the fields of their event; the others are counted."""
    rows = []
    bad = []  # (number of the line, reason)
    lines = content_of(path, "metrics.jsonl", problems).split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip():
                rows.append(known_fields(json.loads(line.decode("utf-8-sig"))))
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
            bad.append((number, "it is no JSON"))
        except ValueError as error:
            bad.append((number, str(error)))
    if bad and bad[-1][0] == len(lines) and b"}" not in lines[-1]:
        problems.append("metrics.jsonl ends in the middle of a line")
        bad.pop()
    if bad:
        count = "1 row" if len(bad) == 1 else f"{len(bad):,} rows"
        number, reason = bad[0]
        problems.append(f"metrics.jsonl: {count} cannot be used, the first in line {number} ({reason})")
    return rows


def known_fields(row: object) -> dict:
    """The fields of a row that are known; raises ValueError where one is missing or of another kind."""
    event = row.get("event") if isinstance(row, dict) else None
    if not isinstance(event, str) or event not in FIELDS:
        raise ValueError("its event is none of a run's")
    found = {name: row.get(name) for name in (*FIELDS[event], *row) if name in KINDS}
    for name, value in found.items():
        if type(value) not in KINDS[name] or (name in COUNTS and value < 0):
            raise ValueError(f"its {name} is {one_line(value)}")
        found[name] = clean(value)
    return found


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


MODEL_FACTS = {  # the kind of each
    "config": dict, "step": int, "val_loss": float | int | None, "run_id": str | None,
    "tokenizer_fingerprint": str | None,
}  # fmt: skip


def read_model(path: Path, name: str, problems: list[str]) -> Model | None:
    """The facts of a model file; None where it is none."""
    try:
        weights = fingerprint_of(path)
        check_torch_file(path)
        content = torch.load(path, map_location="meta", weights_only=True)
        if not isinstance(content, dict) or content.get("format") != MODEL_FORMAT:
            raise UserError("it is another kind of file")
        facts = {fact: clean(content.get(fact)) for fact in MODEL_FACTS}
        if not all(isinstance(facts[fact], kind) for fact, kind in MODEL_FACTS.items()):
            raise UserError("it does not say what it is")
        if not all(isinstance(value, str | int | float | None) for value in facts["config"].values()):
            raise UserError("its config holds other than words and numbers")
        return Model(**facts, weights=weights)
    except PermissionError as error:
        problems.append(f"{name} cannot be read ({error.strerror})")
    except Damaged as error:
        problems.append(error.what.replace(str(path), name))
    except (UserError, ValueError, TooMuch) as error:
        reason = str(error).replace(str(path), "it").splitlines()[0]
        problems.append(f"{name} is no model file of this course ({reason})")
    except Exception:  # damaged bytes raise nearly every kind
        problems.append(f"{name} is damaged, or no model file of this course")
    return None


def fingerprint_of(path: Path) -> str:
    """A fingerprint of the tensors' bytes: of the check sums in the zip's list, so that nothing needs to be read."""
    if path.stat().st_size > LARGEST_MODEL:
        raise UserError(f"it is larger than {LARGEST_MODEL >> 30} GB")
    if not zipfile.is_zipfile(path):
        return ""  # `check_torch_file` says what it is
    with ZipStream(path) as stream, zipfile.ZipFile(stream) as archive:
        parts = archive.infolist()
    if any(part.filename.endswith("/data.pkl") and part.file_size > LARGEST_PICKLE for part in parts):
        raise UserError("what it says of its tensors is too long")
    tensors = sorted((part.file_size, part.CRC) for part in parts if "/data/" in part.filename)
    return hashlib.sha256(repr(tensors).encode()).hexdigest()


# TensorBoard's event files --------------------------------------------------------------------------------------------

LONGEST_CHECKED = 128  # bytes of an event of a number, with room; longer ones are texts and pictures


def read_board(paths: dict[str, Path], problems: list[str]) -> dict[str, list[tuple[int, float, float]]]:
    """{tag: [(step, wall time, value)]} of event files, {name: path}, in their order."""
    board = {}
    for name, path in paths.items():
        try:
            for record in records_in(content_of(path, name, problems)):
                add_event(Event.FromString(record), board)
        except (DecodeError, ValueError):
            problems.append(f"{one_line(name[-60:])} is damaged or cut off; what comes before that was read")
    return board


def add_event(event: Event, board: dict) -> None:
    """Add the numbers of an event; one that says that a run is resumed voids what came at its step and later."""
    if event.HasField("session_log") and event.session_log.status == SessionLog.START:
        for points in board.values():
            while points and points[-1][0] >= event.step:
                points.pop()
    for value in event.summary.value:
        # newer writers wrap a number into a tensor
        numbers = [value.simple_value] if value.HasField("simple_value") else value.tensor.float_val
        if len(numbers) == 1 and math.isfinite(numbers[0]):
            board.setdefault(value.tag, []).append((event.step, event.wall_time, numbers[0]))


def records_in(content: bytes) -> Iterator[bytes]:
    """Yield the events of a file.  Raises ValueError at the first that is not whole.

    The file is a row of records: the length of an event in 8 bytes, its check sum in 4, the event, its check sum in 4.
    """
    records = []
    place = 0
    while place < len(content):
        end = place + 12 + int.from_bytes(content[place : place + 8], "little")
        check_sum = int.from_bytes(content[end : end + 4], "little")
        records.append((content[place + 12 : end], check_sum))
        place = end + 4
    computed = check_sums([event for event, _ in records])
    for (event, said), check_sum in zip(records, computed.tolist(), strict=True):
        if len(event) <= LONGEST_CHECKED and said != check_sum:
            raise ValueError("damaged")
        yield event
    if place > len(content):
        raise ValueError("cut off")


TABLE = np.arange(256, dtype=np.uint32)  # of CRC-32C, for a byte at a time
for _ in range(8):
    TABLE = np.where(TABLE & 1, TABLE >> 1 ^ 0x82F63B78, TABLE >> 1).astype(np.uint32)


def check_sums(events: list[bytes]) -> np.ndarray:
    """The check sum of each event, a CRC-32C rotated and shifted; of those longer than LONGEST_CHECKED, any number.

    All are computed at once, a byte of each at a time, or it would take longer than all else.
    """
    content = np.frombuffer(b"".join(events), np.uint8)
    lengths = np.array([len(event) for event in events], int)
    ends = lengths.cumsum()
    sums = np.zeros(len(events), np.uint32)
    longest = min(LONGEST_CHECKED, lengths.max(initial=0))
    for left in range(longest, 0, -1):  # bytes to an event's end
        sums[lengths == left] = 0xFFFFFFFF  # these begin here; the sum of what stands before them does not count
        sums = TABLE[(sums ^ content[ends - left]) & 255] ^ sums >> 8
    sums = ~sums
    return (sums >> 15 | sums << 17) + np.uint32(0xA282EAD8)
