"""Read the files of a run and validate them: they come from strangers, and may be damaged or faked.

In reading order: `read_object` (args.json, summary.json), `read_rows` (metrics.jsonl), `read_model`, `read_board`
(TensorBoard's event files); logs.py reads the logs.  Each function returns what it could read, and adds a message to a
list of problems about the rest.  No code in a file is run, and no weights are loaded.
"""

import codecs
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

LARGEST_OBJECT = 1 << 18  # bytes of args.json and summary.json, which usually have 2,000
LARGEST_RECORD = 16 << 20  # bytes that are read of one file; those of a long run have one or two million
LARGEST_MODEL = 1 << 30  # bytes
LARGEST_PICKLE = 1 << 20  # bytes for the names and shapes in a model file; in this course they have 5,000


def content_of(path: Path, name: str, problems: list[str]) -> bytes:
    """Read the first LARGEST_RECORD bytes of a file.  name: its name for messages; on disk it may have another."""
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
    """Read the object in a JSON file; return None if it cannot be used."""
    try:
        return clean(read_json(path, LARGEST_OBJECT))
    except (UserError, ValueError, OSError) as error:
        problems.append(f"{name} cannot be used: {str(error).replace(str(path), 'it')}")
        return None


def clean(value: object, deepest: int = 6) -> object:
    """Make the texts in a JSON value printable.  Raises ValueError for too deep nesting or too large numbers."""
    if value is None or (isinstance(value, (int, float)) and -LARGEST_NUMBER < value < LARGEST_NUMBER):
        return value
    if isinstance(value, str):
        return without_controls(without_surrogates(value))
    if isinstance(value, list) and deepest > 0:
        return [clean(item, deepest - 1) for item in value]
    if isinstance(value, dict) and deepest > 0:
        return {clean(key): clean(item, deepest - 1) for key, item in value.items()}
    raise ValueError("it contains a number that is too large or not finite, or too deeply nested lists")


# metrics.jsonl --------------------------------------------------------------------------------------------------------

COUNTS = ("step", "tokens", "skipped", "parameters", "parameters_in_layers", "total_steps")  # integers from 0 up
KINDS = (  # the types of each known field
    dict.fromkeys(COUNTS, (int,))
    | dict.fromkeys(("epoch", "seconds", "train_loss", "lr", "loss_scale", "tokens_per_second"), (int, float))
    | dict.fromkeys(("flops_per_token", "accuracy"), (int, float))
    | dict.fromkeys(("val_loss", "perplexity", "bits_per_byte", "grad_norm", "reward"), (int, float, type(None)))
    | dict.fromkeys(("event", "run_id", "program", "precision", "text", "time", "ended", "device"), (str,))
    | {
        "compiled": (bool,),
        "versions": (dict,),
        "hardware": (dict,),
        "fingerprints": (dict,),
        "dataset": (list, str, type(None)),
    }
)
PLACE = ("step", "epoch", "tokens", "seconds")
FIELDS = {  # the fields that a row must have, for each event
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
    """Read the rows of metrics.jsonl that have all fields of their event; the others are reported as a problem."""
    rows = []
    bad = []  # (number of the line, reason)
    content = content_of(path, "metrics.jsonl", problems)
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # PowerShell's
        content = content.decode("utf-16", "replace").encode()
    lines = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip():
                rows.append(known_fields(json.loads(line.decode("utf-8-sig"))))
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
            bad.append((number, "not valid JSON"))
        except ValueError as error:
            bad.append((number, str(error)))
    if bad and bad[-1][0] == len(lines) and b"}" not in lines[-1]:
        problems.append("metrics.jsonl ends in the middle of a line")
        bad.pop()
    if bad:
        count = "1 row" if len(bad) == 1 else f"{len(bad):,} rows"
        number, reason = bad[0]
        problems.append(f"metrics.jsonl: {count} cannot be used; the first is line {number} ({reason})")
    return rows


def known_fields(row: object) -> dict:
    """Return the known fields of a row.  Raises ValueError if one is missing or has the wrong type."""
    event = row.get("event") if isinstance(row, dict) else None
    if not isinstance(event, str) or event not in FIELDS:
        raise ValueError("unknown event")
    found = {name: row.get(name) for name in (*FIELDS[event], *row) if name in KINDS}
    for name, value in found.items():
        if type(value) not in KINDS[name] or (name in COUNTS and value < 0):
            raise ValueError(f"wrong value for {name}: {one_line(value)}")
        found[name] = clean(value)
    return found


# Models ---------------------------------------------------------------------------------------------------------------


@dataclass
class Model:
    """The facts that a model file records; weights: a fingerprint of its tensors' bytes."""

    config: dict
    step: int
    val_loss: float | None
    run_id: str | None
    tokenizer_fingerprint: str | None
    weights: str


MODEL_FACTS = {  # the type of each
    "config": dict, "step": int, "val_loss": float | int | None, "run_id": str | None,
    "tokenizer_fingerprint": str | None,
}  # fmt: skip


def read_model(path: Path, name: str, problems: list[str]) -> Model | None:
    """Read the facts of a model file; return None if it is not one."""
    try:
        weights = fingerprint_of(path)
        check_torch_file(path)
        content = torch.load(path, map_location="meta", weights_only=True)
        if not isinstance(content, dict) or content.get("format") != MODEL_FORMAT:
            raise UserError("it is a different kind of file")
        facts = {fact: clean(content.get(fact)) for fact in MODEL_FACTS}
        if not all(isinstance(facts[fact], kind) for fact, kind in MODEL_FACTS.items()):
            raise UserError("a fact in it is missing or has the wrong type")
        if not all(isinstance(value, str | int | float | None) for value in facts["config"].values()):
            raise UserError("its config contains more than texts and numbers")
        return Model(**facts, weights=weights)
    except PermissionError as error:
        problems.append(f"{name} cannot be read ({error.strerror})")
    except Damaged as error:
        problems.append(error.what.replace(str(path), name))
    except (UserError, ValueError, TooMuch) as error:
        reason = str(error).replace(str(path), "it").splitlines()[0]
        problems.append(f"{name} is not a model file of this course ({reason})")
    except Exception:  # damaged bytes can raise almost any error
        problems.append(f"{name} is damaged or not a model file of this course")
    return None


def fingerprint_of(path: Path) -> str:
    """Return a fingerprint of the tensors: of the checksums in the zip's index, so that no tensor needs to be read."""
    if path.stat().st_size > LARGEST_MODEL:
        raise UserError(f"it is larger than {LARGEST_MODEL >> 30} GB")
    if not zipfile.is_zipfile(path):
        return ""  # `check_torch_file` raises the error
    with ZipStream(path) as stream, zipfile.ZipFile(stream) as archive:
        parts = archive.infolist()
    if any(part.filename.endswith("/data.pkl") and part.file_size > LARGEST_PICKLE for part in parts):
        raise UserError("its list of tensors is too long")
    tensors = sorted((part.file_size, part.CRC) for part in parts if "/data/" in part.filename)
    return hashlib.sha256(repr(tensors).encode()).hexdigest()


# TensorBoard's event files --------------------------------------------------------------------------------------------

LONGEST_CHECKED = 128  # bytes; an event with a number is shorter, longer ones are texts and pictures


def read_board(paths: dict[str, Path], problems: list[str]) -> dict[str, list[tuple[int, float, float]]]:
    """Read event files, {name: path}, in their order; return {tag: [(step, wall time, value)]}."""
    board = {}
    for name, path in paths.items():
        try:
            for record in records_in(content_of(path, name, problems)):
                add_event(Event.FromString(record), board)
        except (DecodeError, ValueError):
            problems.append(f"{one_line(name[-60:])} is damaged or truncated; it was read up to that point")
    return board


def add_event(event: Event, board: dict) -> None:
    """Add the numbers of an event; the start event of a resumed run removes all points from its step on."""
    if event.HasField("session_log") and event.session_log.status == SessionLog.START:
        for points in board.values():
            while points and points[-1][0] >= event.step:
                points.pop()
    for value in event.summary.value:
        # newer writers store a number as a tensor
        numbers = [value.simple_value] if value.HasField("simple_value") else value.tensor.float_val
        if len(numbers) == 1 and math.isfinite(numbers[0]):
            board.setdefault(value.tag, []).append((event.step, event.wall_time, numbers[0]))


def records_in(content: bytes) -> Iterator[bytes]:
    """Yield the events of a file.  Raises ValueError at the first one that is damaged or truncated.

    The file is a sequence of records: length of the event (8 bytes), its checksum (4), the event, its checksum (4).
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
        raise ValueError("truncated")


TABLE = np.arange(256, dtype=np.uint32)  # for CRC-32C, one byte at a time
for _ in range(8):
    TABLE = np.where(TABLE & 1, TABLE >> 1 ^ 0x82F63B78, TABLE >> 1).astype(np.uint32)


def check_sums(events: list[bytes]) -> np.ndarray:
    """Compute the checksum of each event, a masked CRC-32C; for events longer than LONGEST_CHECKED it is meaningless.

    All are computed in parallel, one byte of each at a time; one by one, they would take longer than all else.
    """
    content = np.frombuffer(b"".join(events), np.uint8)
    lengths = np.array([len(event) for event in events], int)
    ends = lengths.cumsum()
    sums = np.zeros(len(events), np.uint32)
    longest = min(LONGEST_CHECKED, lengths.max(initial=0))
    for left in range(longest, 0, -1):  # bytes to an event's end
        sums[lengths == left] = 0xFFFFFFFF  # these begin here, so the sum so far is reset
        sums = TABLE[(sums ^ content[ends - left]) & 255] ^ sums >> 8
    sums = ~sums
    return (sums >> 15 | sums << 17) + np.uint32(0xA282EAD8)
