"""Read the log of a run, either train.log or a saved console log, and validate its values.

Lines are recognised by their words.  The patterns are next to the messages in training/log_lines.py.
"""

import codecs
import json
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


# A sample ends before the next line that begins with a time.
SAMPLE = re.compile(rf"{log_lines.READ_SAMPLE.pattern}.*\n((?:(?!{log_lines.TIME}).*\n?)*)", re.MULTILINE)


@dataclass
class Log:
    """The content of a log; a value that the log does not have is None."""

    command: str | None = None  # "python train_tinystories_model.py ..."
    run_id: str | None = None
    devices: list[str] = field(default_factory=list)  # of the run's parts, if it was resumed
    parameters_in_layers: int | None = None
    total_steps: int | None = None
    pilot: bool = False
    stopped_early: bool = False
    rows: list[dict] = field(default_factory=list)  # as in metrics.jsonl, plus "time": a datetime or None
    best: dict | None = None  # the line "best: ..." at the end: step, val_loss, perplexity, ...
    final: dict | None = None
    tokens: int | None = None  # from the very last line
    sample: str | None = None
    error: str | None = None  # the last line that says why the program ended early
    unreadable: int = 0  # lines about steps

    def continued(self, later: "Log") -> "Log":
        """Return this log and a later one of the same run, as one."""
        last = {name: value for name, value in vars(later).items() if value is not None}
        return Log(**vars(self) | last | {
            "command": self.command, "rows": self.rows + later.rows, "devices": self.devices + later.devices,
            "pilot": self.pilot or later.pilot, "error": later.error, "unreadable": self.unreadable + later.unreadable,
        })  # fmt: skip


def number_in(text: str) -> int:
    return int(text.replace(",", ""))


FACTS = {  # facts about the run: the pattern of the line, and how its text is converted
    "command": (log_lines.READ_COMMAND, str.strip),
    "run_id": (log_lines.READ_RUN_ID, str),
    "parameters_in_layers": (log_lines.READ_PARAMETERS_IN_LAYERS, number_in),
    "total_steps": (log_lines.READ_TOTAL_STEPS, number_in),
    "tokens": (log_lines.READ_TOKENS, number_in),
    "error": (log_lines.READ_ERROR, str.strip),
}
LAST_NAMES = {"train": "seconds", "eval": "tokens_per_second"}  # without it, a line was cut off
EVENTS = {  # the event of a step line; the first pattern that matches decides
    "train": log_lines.READ_TRAINED,
    "eval": log_lines.READ_EVALUATED,
    "skip": log_lines.READ_SKIPPED,
    "checkpoint": log_lines.READ_SAVED,
}


# Text -----------------------------------------------------------------------------------------------------------------


def text_of(content: bytes) -> str:
    """Decode a text file: UTF-16 if it has a BOM, as PowerShell writes it, else UTF-8; bad bytes become U+FFFD."""
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    return "\n".join(line[:LONGEST_LINE] for line in content.decode(encoding, "replace").splitlines())


def text_of_notebook(content: bytes) -> str:
    """Return what the cells of a notebook printed; "" if it is not a notebook."""
    try:
        cells = json.loads(content)["cells"]
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        texts = ["".join(output["text"]) for output in outputs if "text" in output]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""
    return text_of("\n".join(texts).encode("utf-8", "replace"))


def parts_of(text: str) -> list[str]:
    """Split a console log at its commands into runs; a command that resumes the run before it belongs to that run."""
    parts = re.split(rf"^(?=\$ .*{log_lines.TRAINER})", text, maxsplit=MOST_PARTS, flags=re.MULTILINE)
    runs = []
    for part in parts:
        began = log_lines.READ_STEP.search(part) or log_lines.READ_PARAMETERS_IN_LAYERS.search(part)
        if not began:  # the program refused to start, or this is other text before the first command
            continue
        if runs and log_lines.READ_RESUMED.search(part):
            runs[-1] += part
        else:
            runs.append(part)
    return runs


def unwrapped(text: str) -> str:
    """Join lines that were cut at the width of a terminal, as in a log that was copied from one.

    They are if lines about steps are cut off where the longest lines end.
    """
    lines = text.split("\n")
    width = max(map(len, lines))
    if not any(len(line) >= width - 1 and is_cut_off(line) for line in lines):
        return text
    joined = []
    between = None  # what belongs between this line and the one before it; None: it is a line of its own
    for line in lines:
        if between is None or log_lines.READ_BEGINNING.match(line):
            joined.append(line)
        else:
            joined[-1] += between + line
        between = {width: "", width - 1: " "}.get(len(line))  # a space at the end was lost
    return "\n".join(joined)


def is_cut_off(line: str) -> bool:
    """Return whether a line about a step cannot be read."""
    step = log_lines.READ_STEP.search(line)
    try:
        return step is not None and not row_of(*step.groups())
    except ValueError:
        return True


# Lines ----------------------------------------------------------------------------------------------------------------


def read_log(text: str, name: str, problems: list[str]) -> Log:
    """Read the lines of a log.  name: of the file; problems: list that gets a line if steps cannot be read."""
    log = Log()
    text = unwrapped(without_controls(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)))  # without colours
    for found in SAMPLE.finditer(text):
        log.sample = found[1].strip("\n")
    for line in SAMPLE.sub("", text).split("\n"):
        try:
            if step := log_lines.READ_STEP.search(line):
                log.rows.append(row_of(*step.groups()))
                log.error = None  # it was from an earlier attempt
            elif end := log_lines.READ_END.search(line):
                values = {"step": number_in(end[3])} | values_in(end[4])
                setattr(log, end[2], values)
            else:
                read_fact(line, log)
        except ValueError:
            log.unreadable += 1
    if log.unreadable:
        count = f"{log.unreadable:,} line{'s' if log.unreadable > 1 else ''}"
        problems.append(f"{one_line(name[-60:])}: {count} about steps cannot be read; are they cut off?")
    return log


def read_fact(line: str, log: Log) -> None:
    """Add the facts of a line that is not about a step.  Raises ValueError if its number cannot be read."""
    resumed = log_lines.READ_RESUMED.search(line)
    if resumed:
        log.rows.append({"event": "resume", "step": number_in(resumed[1]), "time": None})
    if log_lines.READ_PILOT.search(line):
        log.pilot = True
    if log_lines.READ_EARLY_STOP.search(line):
        log.stopped_early = True
    if device := READ_DEVICE.search(line):
        log.devices.append(device[1].strip())
    for name, (pattern, convert) in FACTS.items():
        found = pattern.search(line)
        if found:
            setattr(log, name, convert(found[1]))


def row_of(moment: str, step: str, total_steps: str, rest: str) -> dict:
    """Convert a step line to a row as in metrics.jsonl.  Raises ValueError if it cannot be read."""
    event = next((event for event, pattern in EVENTS.items() if pattern.search(rest)), None)
    if event is None:
        raise ValueError("unknown event")
    place = {"step": number_in(step), "total_steps": number_in(total_steps), "time": datetime.fromisoformat(moment)}
    values = values_in(rest)
    if event in LAST_NAMES and LAST_NAMES[event] not in values:
        raise ValueError("cut off")
    return {"event": event} | values | place


def values_in(text: str) -> dict:
    """Return {name in metrics.jsonl: number} from the text of a line, in which names and values alternate.

    Raises ValueError if a value is not a number.
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
