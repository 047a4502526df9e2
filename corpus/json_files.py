"""JSON files in any layout: one value per line, a list, an object with a list inside, or a sequence of objects.

In reading order: `json_lines`, one value per line; `json_rows`, any layout; `rows_inside`, the rows of a file that is
one value; `begins_as_json`, for files with another suffix.
"""

import io
import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from common.errors import UserError, one_line, reason_of
from corpus.encodings import HEAD, decoded, decoded_lines, opened
from corpus.notes import Notes, Row, Wanted, plain_name
from corpus.turns import ANSWERS, QUESTIONS

FIRST_ITEMS = 20  # of a list: one of them shows what the list contains
TEXT_LISTS = ("data", "rows", "texts", "stories", "items", "examples", "records", "samples", "prompts", "train")
NOT_SPACE = re.compile(r"\S")


def parsed(text: str, place: object) -> object:
    """Parse JSON text; NaN becomes None.  Raises UserError if it is not JSON."""
    try:
        return DECODER.decode(text)
    except json.JSONDecodeError as error:
        where = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno}, column {error.colno}"
        raise UserError(f"{place}: not JSON ({error.msg}: {where}); fix it") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: not JSON that can be read ({reason_of(error)}); fix it") from None


def constant(name: str) -> float | None:
    """Return the value for Infinity, -Infinity or NaN."""
    return None if name == "NaN" else float(name)


DECODER = json.JSONDecoder(parse_constant=constant)


def json_lines(path: Path) -> Iterator[Row]:
    """Yield the rows of a file with one JSON value per line; empty lines are skipped."""
    with opened(path) as file:
        yield from values_of_lines(decoded_lines(file, path), path)


def values_of_lines(lines: Iterable[tuple[int, str | UserError]], path: Path) -> Iterator[Row]:
    for number, text in lines:
        place = f"{path}, line {number}"
        if isinstance(text, UserError):
            yield text, place
        elif text.strip():
            try:
                yield parsed(text.strip(), place), place
            except UserError as error:
                yield error, place


def json_rows(path: Path, wanted: Wanted, notes: Notes) -> Iterator[Row]:
    """Yield the rows of a JSON file: one per line, a list, an object with a list inside, or a sequence of objects.

    A file whose first line is a whole value is read line by line, so it may be larger than the memory.
    """
    with opened(path) as file:
        lines = values_of_lines(decoded_lines(file, path), path)
        first = next(lines, None)
        if first is None:
            return
        value, place = first
        if not isinstance(value, UserError):
            second = next(lines, None)
            if second is None:  # the file is one value, on one line
                yield from rows_inside(value, place, path, wanted, notes)
            else:
                yield from chain([first, second], lines)
            return
    yield from document_rows(path, wanted, notes)


def document_rows(path: Path, wanted: Wanted, notes: Notes) -> Iterator[Row]:
    """Yield the rows of a file with values that take several lines each, or of its lines if there are no such values.

    Raises UserError if such a value is broken: nothing after it can be read.
    """
    with opened(path) as file:
        content = file.read()
    try:
        values = list(values_in(decoded(content, path), path))
    except UserError:
        first_line = content.split(b"\n", 1)[0].strip()
        if first_line.endswith((b"{", b"[", b",")):  # a value that continues on the next line
            raise
        yield from values_of_lines(decoded_lines(io.BytesIO(content), path), path)
        return
    if len(values) == 1:
        ((value, place),) = values
        yield from rows_inside(value, place, path, wanted, notes)
    else:
        yield from values


def values_in(text: str, path: Path) -> Iterator[Row]:
    """Yield the JSON values that follow each other in a text.  Raises UserError if one is broken."""
    end = 0
    line = 1
    while (start := NOT_SPACE.search(text, end)) is not None:
        line += text.count("\n", end, start.start())
        place = f"{path}, line {line}"
        try:
            value, end = DECODER.raw_decode(text, start.start())
        except json.JSONDecodeError as error:
            where = f"{path}, line {error.lineno}"
            raise UserError(f"{where}: not JSON ({error.msg}: column {error.colno}); fix it") from None
        except (ValueError, RecursionError) as error:
            raise UserError(f"{place}: not JSON that can be read ({reason_of(error)}); fix it") from None
        yield value, place
        line += text.count("\n", start.start(), end)


def rows_inside(value: object, place: str, path: Path, wanted: Wanted, notes: Notes) -> Iterator[Row]:
    """Yield the rows of a file that is one JSON value: the value itself, its items, or those of a list inside it."""
    rows = None
    if wanted.name is not None:
        rows = value[wanted.name]
    elif isinstance(value, list) and not wanted.holds_one(value):
        rows = value
    elif isinstance(value, dict) and not wanted.holds_one(value):
        rows = rows_of_table(value, wanted) or rows_under_a_name(value, path, wanted, notes)
    if rows is None:
        yield value, place
        return
    for number, row in enumerate(rows, start=1):
        yield row, f"{path}, item {number}"


def rows_of_table(table: dict, wanted: Wanted) -> list[dict] | None:
    """Return the rows of an object that stores a table by columns, as pandas and `datasets` do; None if it does not."""
    cells = list(table.values())
    if isinstance(table.get("columns"), list) and isinstance(table.get("data"), list):
        names = [str(name) for name in table["columns"]]
        is_table = all(isinstance(row, list) and len(row) == len(names) for row in table["data"])
        rows = [dict(zip(names, row, strict=True)) for row in table["data"]] if is_table else []
    elif cells and all(isinstance(column, list) and len(column) == len(cells[0]) for column in cells):
        rows = [dict(zip(table, row, strict=True)) for row in zip(*cells, strict=True)]
    elif cells and all(isinstance(column, dict) and column.keys() == cells[0].keys() for column in cells):
        rows = [{name: column[key] for name, column in table.items()} for key in cells[0]]
    else:
        rows = []
    return rows if any(map(wanted.holds_one, rows[:FIRST_ITEMS])) else None


def rows_under_a_name(value: dict, path: Path, wanted: Wanted, notes: Notes) -> list | None:
    """Return the rows inside an object, or None if they cannot be found.

    They are in its one list of rows, {"data": [...]}, or they are its values, {"1": {...}, "2": {...}}.
    """
    items = list(value.values())
    if are_rows(value, wanted):
        return items
    collections = {name: list(item.values()) if isinstance(item, dict) else item for name, item in value.items()}
    collections = {name: item for name, item in collections.items() if isinstance(item, list) and item}

    def holds_rows(name):
        first = collections[name][:FIRST_ITEMS]
        if plain_name(name) not in TEXT_LISTS:  # texts there may be anything, such as the tags of a story
            first = [item for item in first if not isinstance(item, str)]
        return any(map(wanted.holds_one, first))

    found = [name for name in collections if holds_rows(name)]
    found = ["train"] if "train" in found else found
    if len(found) != 1:
        return None  # it is unclear which of several lists contains the rows
    (name,) = found
    others = one_line(", ".join(str(other) for other in value if other != name))  # maybe other splits
    left_out = f"; left out: {others}" if others else ""
    notes.guess(f'the rows of {path.name} are under "{one_line(name, 40)}"{left_out}')
    return collections[name]


def are_rows(value: dict, wanted: Wanted) -> bool:
    """Whether the values of an object are its rows: rows, or objects with the same names, and rows among them."""
    items = list(value.values())
    if not items or not all(isinstance(item, (dict, list)) for item in items):
        return False
    if not {*QUESTIONS, *ANSWERS}.isdisjoint(map(plain_name, value)):  # one side of all dialogues
        return False
    alike = all(isinstance(item, dict) and item.keys() == items[0].keys() for item in items)
    some = any if alike else all  # a value may be missing in objects that are alike
    return some(map(wanted.holds_one, items))


def lists_by_name(path: Path, names: Iterable[str]) -> list[str]:
    """Return those names under which a JSON file has lists that are not empty; they must be in one object."""
    with opened(path) as file:
        head = file.read(HEAD).decode(errors="replace")
    if not head.lstrip().startswith("{") or not re.search(rf'"({"|".join(names)})"\s*:\s*\[', head):
        return []
    with opened(path) as file:
        try:
            value = json.loads(file.read())
        except (ValueError, RecursionError):
            return []  # reported when the file is read
    if not isinstance(value, dict):
        return []
    return [name for name in names if isinstance(value.get(name), list) and value[name]]


def begins_as_json(path: Path) -> bool:
    """Whether a file's first line is a JSON object or a list of them, or begins one that takes several lines."""
    with opened(path) as file:
        lines = (line.strip() for line in file if line.strip())
        first_line = next(lines, b"")
        second_line = next(lines, b"")
    if first_line in (b"{", b"["):
        return second_line.startswith((b'"', b"{", b"["))
    try:
        value = json.loads(first_line)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], (dict, list)))
