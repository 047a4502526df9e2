"""A run's log, train.log or what a shell wrote of the console, read with suspicion.

Its lines are recognised by their words; the patterns stand beside the messages, in training/log_lines.py.
"""

import codecs
import re
from dataclasses import dataclass, field
from datetime import datetime

from common.devices import READ_DEVICE
from common.errors import one_line
from common.numbers import finite_number
from common.text import without_controls
from training import log_lines

LONGEST_LINE = 10_000  # characters
MOST_PARTS = 20  # runs in one log


# A sample goes on until the next line that begins with a time.
SAMPLE = re.compile(rf"{log_lines.READ_SAMPLE.pattern}.*\n((?:(?!{log_lines.TIME}).*\n?)*)", re.MULTILINE)


@dataclass
class Log:
    """What a log says; what it does not say is None."""

    command: str | None = None  # "python train_tinystories_model.py ..."
    run_id: str | None = None
    device: str | None = None
    parameters_in_layers: int | None = None
    total_steps: int | None = None
    pilot: bool = False
    rows: list[dict] = field(default_factory=list)  # as in metrics.jsonl, and "time", a datetime, or None
    best: dict | None = None  # the line "best: ..." at the end: step, val_loss, perplexity, ...
    final: dict | None = None
    tokens: int | None = None  # the line at the very end
    sample: str | None = None
    error: str | None = None  # the last line that says why the program ended before its time


def number_in(text: str) -> int:
    return int(text.replace(",", ""))


FACTS = {  # what a line says of the run, and how its text is converted
    "command": (log_lines.READ_COMMAND, str.strip),
    "run_id": (log_lines.READ_RUN_ID, str),
    "device": (READ_DEVICE, str.strip),
    "parameters_in_layers": (log_lines.READ_PARAMETERS_IN_LAYERS, number_in),
    "total_steps": (log_lines.READ_TOTAL_STEPS, number_in),
    "tokens": (log_lines.READ_TOKENS, number_in),
    "error": (log_lines.READ_ERROR, str.strip),
}
EVENTS = {  # what a line on a step tells; of the first pattern that it has
    "train": log_lines.READ_TRAINED,
    "eval": log_lines.READ_EVALUATED,
    "skip": log_lines.READ_SKIPPED,
    "checkpoint": log_lines.READ_SAVED,
}


# Text -----------------------------------------------------------------------------------------------------------------


def text_of(content: bytes) -> str:
    """Text as shells write it, in UTF-8 or, with its mark, in UTF-16; what is neither becomes U+FFFD."""
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    return "\n".join(line[:LONGEST_LINE] for line in content.decode(encoding, "replace").splitlines())


def parts_of(text: str) -> list[str]:
    """The runs of a console's log, cut where a command is; one that resumes the run before belongs to that."""
    parts = re.split(r"^(?=\$ .*\btrain_tinystories_)", text, maxsplit=MOST_PARTS, flags=re.MULTILINE)
    runs = []
    for part in parts:
        began = log_lines.READ_STEP.search(part) or log_lines.READ_PARAMETERS_IN_LAYERS.search(part)
        if not began:  # the program refused to start, or another text stands before the first command
            continue
        if runs and log_lines.READ_RESUMED.search(part):
            runs[-1] += part
        else:
            runs.append(part)
    return runs


# Lines ----------------------------------------------------------------------------------------------------------------


def read_log(text: str, name: str, problems: list[str]) -> Log:
    """What the lines of a log say.  name: its file's; problems: gets a line where steps cannot be read."""
    log = Log()
    bad = 0
    text = without_controls(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text))  # without colours
    for found in SAMPLE.finditer(text):
        log.sample = found[1].strip("\n")
    for line in SAMPLE.sub("", text).split("\n"):
        try:
            if step := log_lines.READ_STEP.search(line):
                log.rows.append(row_of(*step.groups()))
                log.error = None  # that of an attempt before
            elif end := log_lines.READ_END.search(line):
                values = {"step": number_in(end[3])} | values_in(end[4])
                setattr(log, end[2], values)
            else:
                read_fact(line, log)
        except ValueError:
            bad += 1
    if bad:
        problems.append(f"{one_line(name[-60:])}: {bad:,} line{'s' if bad > 1 else ''} of steps cannot be read")
    return log


def read_fact(line: str, log: Log) -> None:
    """Note what a line other than those of steps says.  Raises ValueError where its number cannot be read."""
    resumed = log_lines.READ_RESUMED.search(line)
    if resumed:
        log.rows.append({"event": "resume", "step": number_in(resumed[1]), "time": None})
    if log_lines.READ_PILOT.search(line):
        log.pilot = True
    for name, (pattern, convert) in FACTS.items():
        found = pattern.search(line)
        if found:
            setattr(log, name, convert(found[1]))


def row_of(moment: str, step: str, total_steps: str, rest: str) -> dict:
    """The row of metrics.jsonl that a line on a step amounts to.  Raises ValueError where it cannot be read."""
    event = next((event for event, pattern in EVENTS.items() if pattern.search(rest)), None)
    if event is None:
        raise ValueError("no event of a run")
    place = {"step": number_in(step), "total_steps": number_in(total_steps), "time": datetime.fromisoformat(moment)}
    return {"event": event} | values_in(rest) | place


def values_in(text: str) -> dict:
    """{name as in metrics.jsonl: number} of a line's words, which are names and values in turn.

    Raises ValueError where a value is no number.
    """
    found = {}
    words = text.replace(",", "").split(" ")
    for name, value in zip(words[::2], words[1::2], strict=False):
        if name == "elapsed":
            hours, minutes, seconds = map(int, value.split(":"))
            found["seconds"] = 3600 * hours + 60 * minutes + seconds
        elif name in log_lines.READ_COLUMNS:
            number = finite_number(float(value.rstrip("]")))
            if number is None and name != "grad_norm":
                raise ValueError(f"{name} is {value}")
            found[log_lines.READ_COLUMNS[name]] = number
    return found
