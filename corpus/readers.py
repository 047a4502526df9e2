"""From a file to rows: JSON however it is laid out, text tables, plain text, parquet and arrow.

A row is whatever stands there: an object, a text, a list of turns.  Each comes with its place, for a message; in the
place of a row that cannot be read comes the UserError that says why, so that reading can go on after it.

In reading order: `read_rows`, for any file; then one reader a kind: JSON, tables of text (csv), plain text, and what
pyarrow reads.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path
from typing import Any, BinaryIO

from common.errors import UserError, one_line, reason_of
from corpus.encodings import HEAD, WholeFileError, decoded, decoded_lines, opened, unpacked
from corpus.notes import Notes

KINDS = {
    ".jsonl": "json", ".ndjson": "json", ".json": "json", ".csv": "table", ".tsv": "table", ".txt": "text",
    ".parquet": "parquet", ".arrow": "arrow",
}  # fmt: skip
PACKED_SUFFIXES = (".gz", ".zst", ".bz2", ".xz")
STORY_SEPARATOR = "<|endoftext|>"
ENDS = {
    "separator": f"at {STORY_SEPARATOR}", "line": "with its line", "blank_line": "at an empty line",
}  # fmt: skip
NO_DELIMITER = "\x1f"  # that no text holds: for a table of one column, whose texts may have commas without quotes
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
EXCELS_FIRST_LINE = re.compile("sep=(.)")
LARGEST_CELL = 2**31 - 1  # characters; more than Windows' C library can count
NOT_SPACE = re.compile(r"\S")

Row = tuple[object, str]  # (what stands there, or the UserError that says why it cannot be read; its place)


@dataclass
class Wanted:
    """What rows are read for.

    holds_one: whether a value of a JSON file is one row.  Where a whole file is one value that is none, the rows are
    looked for inside it, under `name` if there is one.  story_ends: where a story of a .txt file ends, see
    `notes.STORY_ENDS`.
    """

    holds_one: Callable[[object], bool]
    story_ends: str = "auto"
    name: str | None = None


def kind_of(path: Path) -> str | None:
    """The kind of file that a name stands for, a value of KINDS; packed or not, in capitals or not."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in PACKED_SUFFIXES:
        suffixes.pop()
    return KINDS.get(suffixes[-1]) if suffixes else None


def read_rows(path: Path, wanted: Wanted, notes: Notes) -> Iterator[Row]:
    """Yield the rows of a file.  Raises UserError for a file that cannot be read at all."""
    kind = kind_of(path)
    if kind is None:
        known = " ".join(KINDS)
        raise UserError(
            f"{path}: cannot read {path.suffix or 'a file without a suffix'}; known are {known}, "
            f"also packed: {' '.join(PACKED_SUFFIXES)}"
        )
    if kind in ("parquet", "arrow"):
        yield from arrow_rows(kind, path)
    elif kind == "table":
        yield from table_rows(path, notes)
    elif kind == "json":
        yield from json_rows(path, wanted, notes)
    elif wanted.story_ends == "auto" and begins_as_table(path, wanted):
        notes.guess(f"{path.name} holds a table, and is read so")
        yield from table_rows(path, notes)
    elif wanted.story_ends == "auto" and begins_as_json(path):
        notes.guess(f"{path.name} holds JSON, and is read so")
        yield from json_rows(path, wanted, notes)
    else:
        yield from text_rows(path, wanted, notes)


# JSON -----------------------------------------------------------------------------------------------------------------


def parsed(text: str, place: object) -> object:
    """A text's JSON, its NaN None.  Raises UserError if it is none."""
    try:
        return DECODER.decode(text)
    except json.JSONDecodeError as error:
        where = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno}, column {error.colno}"
        raise UserError(f"{place}: not JSON ({error.msg}: {where}); fix it") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: not JSON that can be read ({reason_of(error)}); fix it") from None


def constant(name: str) -> float | None:
    """What Infinity, -Infinity and NaN stand for."""
    return None if name == "NaN" else float(name)


DECODER = json.JSONDecoder(parse_constant=constant)


def json_lines(path: Path) -> Iterator[Row]:
    """Yield the rows of a file with one JSON value a line; empty lines are skipped."""
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
    """Yield the rows of a JSON file: one a line, a list, an object with a list inside, or objects one after the other.

    A file whose first line is a whole value is read line by line, so that it may be larger than the memory.
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
    """Yield the rows of values that take several lines each; where there are none, of lines, the first of them broken.

    Raises UserError for such a value that is broken: what comes after it cannot be read.
    """
    with opened(path) as file:
        content = file.read()
    try:
        values = list(values_in(decoded(content, path), path))
    except UserError:
        first_line = content.split(b"\n", 1)[0].strip()
        if first_line.endswith((b"{", b"[", b",")):  # a value that goes on in the next line
            raise
        yield from values_of_lines(decoded_lines(io.BytesIO(content), path), path)
        return
    if len(values) == 1:
        ((value, place),) = values
        yield from rows_inside(value, place, path, wanted, notes)
    else:
        yield from values


def values_in(text: str, path: Path) -> Iterator[Row]:
    """Yield the JSON values that follow each other in a text.  Raises UserError where one is broken."""
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
    if isinstance(value, list) and (all(isinstance(item, str) for item in value) or not wanted.holds_one(value)):
        rows = value
    elif isinstance(value, dict) and not wanted.holds_one(value):
        rows = rows_of_table(value, wanted) or rows_under_a_name(value, path, wanted, notes)
    if rows is None:
        yield value, place
        return
    for number, row in enumerate(rows, start=1):
        yield row, f"{path}, item {number}"


def rows_of_table(table: dict, wanted: Wanted) -> list[dict] | None:
    """The rows of an object that holds a table by its columns, as pandas and `datasets` write it; None: it is none."""
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
    return rows if rows and wanted.holds_one(rows[0]) else None


def rows_under_a_name(value: dict, path: Path, wanted: Wanted, notes: Notes) -> list | None:
    """The rows in the one list inside an object, {"data": [...]}, or its values, {"1": {...}, "2": {...}}, if any."""
    items = list(value.values())
    if items and all(isinstance(item, dict) and wanted.holds_one(item) for item in items):
        return items
    if wanted.name in value:
        return value[wanted.name]
    collections = {name: list(item.values()) if isinstance(item, dict) else item for name, item in value.items()}
    collections = {name: item for name, item in collections.items() if isinstance(item, list) and item}
    found = [name for name, item in collections.items() if wanted.holds_one(item[0])]
    if len(found) != 1 or (isinstance(collections[found[0]][0], str) and len(collections) > 1):
        return None  # which of several lists it is cannot be known
    (name,) = found
    others = one_line(", ".join(str(other) for other in value if other != name))
    left_out = f"; left out: {others}" if others else ""
    notes.guess(f'the rows of {path.name} are under "{one_line(name, 40)}"{left_out}')
    return collections[name]


def lists_by_name(path: Path, names: Iterable[str]) -> list[str]:
    """Those of some names under which a JSON file that is one object, and begins with one of them, has lists."""
    if kind_of(path) != "json":
        return []
    with opened(path) as file:
        head = file.read(HEAD).decode(errors="replace")
    if not re.match(rf'\s*{{\s*"({"|".join(names)})"\s*:\s*\[', head):
        return []
    with opened(path) as file:
        try:
            value = json.loads(file.read())
        except (ValueError, RecursionError):
            return []  # an error when it is read
    return [name for name in names if isinstance(value.get(name), list)]


def begins_as_json(path: Path) -> bool:
    """Whether the first line of a file is a JSON object or list, or the beginning of one that takes several lines."""
    with opened(path) as file:
        first_line = next((line.strip() for line in file if line.strip()), b"")
    if first_line in (b"{", b"["):
        return True
    try:
        return isinstance(json.loads(first_line), (dict, list))
    except (ValueError, RecursionError):
        return False


def begins_as_table(path: Path, wanted: Wanted) -> bool:
    """Whether the first line of a file is the names of columns with tabs between, those that are wanted among them."""
    with opened(path) as file:
        first_line = file.readline(HEAD).decode(errors="replace").strip("\r\n")
    return "\t" in first_line and wanted.holds_one(dict.fromkeys(first_line.split("\t"), "a text"))


# Tables of text -------------------------------------------------------------------------------------------------------


def table_rows(path: Path, notes: Notes) -> Iterator[Row]:
    """Yield the rows of a csv file, {column: text as it stands}, by commas, semicolons or tabs.

    Raises UserError if the first line does not name the columns, each once.
    """
    csv.field_size_limit(LARGEST_CELL)
    with opened(path) as file:
        lines = table_lines(file)
        before = []  # empty lines, which count
        while (first := next(lines, "")) and not first.strip():
            before.append(first)
        if match := EXCELS_FIRST_LINE.fullmatch(first.strip()):
            before.append("\n")
            first = next(lines, "")
        delimiter = match[1] if match else delimiter_of(first)
        reader = csv.reader(
            chain(before, [first], lines), delimiter=delimiter, strict=True,
            skipinitialspace=f"{delimiter} " in first,  # where the names have spaces before them, the texts have, too
        )  # fmt: skip
        rows = (row for row in cells_of(reader, path) if row[0])
        names = column_names(next(rows, ([], ""))[0], path)
        separated = f"cells are separated by {DELIMITERS.get(delimiter, delimiter)}"
        notes.guess("one column: a comma in a line is part of its text" if delimiter == NO_DELIMITER else separated)
        for cells, place in rows:
            if isinstance(cells, UserError):
                yield cells, place
            elif any(cell.strip() for cell in cells):
                yield row_of(names, cells, place), place


def table_lines(file: BinaryIO) -> Iterator[str]:
    """Yield lines that end as they stand; what is not UTF-8 is marked by surrogates, which `cells_of` finds."""
    for line in file:
        text = line.decode("utf-8", "surrogateescape")
        if "\r" in text[:-2]:  # the line ends of old Macs
            yield from io.StringIO(text, newline="")
        else:
            yield text


def delimiter_of(line: str) -> str:
    """What separates the column names in the first line of a table; NO_DELIMITER where it has one name."""

    def columns(delimiter):
        try:
            return len(next(csv.reader([line], delimiter=delimiter), []))
        except csv.Error:
            return 0

    likeliest = max(DELIMITERS, key=columns)  # the first of equals: commas
    return likeliest if columns(likeliest) > 1 else NO_DELIMITER


def cells_of(reader: Iterator[list[str]], path: Path) -> Iterator[tuple[list[str] | UserError, str]]:
    """Yield (cells, place) of a csv.reader, with errors in the place of rows that cannot be read."""
    is_utf8 = False
    while True:
        place = f"{path}, line {reader.line_num + 1}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                yield WholeFileError(f"{place}: the quote that is opened here is never closed; fix it"), place
                return
            advice = "close each quote, and write a quote inside quotes twice"
            yield WholeFileError(f"{place}: not csv ({error}); {advice}"), place
            continue
        text = "".join(cells)
        try:
            text.encode()
            is_utf8 = is_utf8 or not text.isascii()
            yield cells, place
        except UnicodeEncodeError:
            try:
                decoded(text.encode("utf-8", "surrogateescape"), place, is_utf8)
            except UserError as error:
                yield error, place


def column_names(cells: list[str] | UserError, path: Path) -> list[str]:
    """The names of a table's columns, without spaces around them."""
    if isinstance(cells, UserError):
        raise cells
    if not any(cell.strip() for cell in cells):
        raise UserError(f"{path}: no names of columns in the first line; begin the file with them")
    names = [cell.strip() or f"unnamed {number}" for number, cell in enumerate(cells, start=1)]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f'{path}: two columns are named "{one_line(twice[0])}"; name each column once')
    return names


def row_of(names: list[str], cells: list[str], place: str) -> dict | UserError:
    """The row that the cells make, or the error if there are not as many as columns."""
    while len(cells) > len(names) and not cells[-1]:
        cells.pop()
    if len(cells) != len(names):
        values = f"{len(cells)} value{'s' * (len(cells) > 1)}, but {len(names)} column{'s' * (len(names) > 1)}"
        return UserError(f"{place}: {values}; put quotes around texts that hold a comma or a line break")
    return dict(zip(names, cells, strict=True))


# Plain text -----------------------------------------------------------------------------------------------------------


def text_rows(path: Path, wanted: Wanted, notes: Notes) -> Iterator[Row]:
    """Yield ({"text": story}, place) of a .txt file, its line ends all \\n."""
    end = wanted.story_ends
    if end == "auto":
        end = story_end(path)
        notes.guess(f".txt: a story ends {ENDS[end]}; --story_ends decides otherwise")
    story = []  # lines so far
    first = 1
    with opened(path) as file:
        for number, text in decoded_lines(file, path):
            if isinstance(text, UserError):
                yield text, f"{path}, line {number}"
                continue
            text = text.removesuffix("\n").removesuffix("\r")
            if end == "separator":
                *ends, text = text.split(STORY_SEPARATOR)
            elif end == "line" or (end == "blank_line" and not text.strip()):
                ends = [text]
            else:
                ends = []
            for piece in ends:
                if whole := "\n".join([*story, piece]).strip():
                    yield {"text": whole}, f"{path}, line {first}"
                story = []
                first = number + 1
            if end != "line":
                story.append(text)
    if whole := "\n".join(story).strip():
        yield {"text": whole}, f"{path}, line {first}"


def story_end(path: Path) -> str:
    """Where the stories of a .txt file end: at `<|endoftext|>` where it stands anywhere, else at empty lines where
    these are as many as between stories of several lines, else at the end of each line.
    """
    if holds_separator(path):
        return "separator"
    with opened(path) as file:
        lines = [line.strip() for line in file.read(HEAD).splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    texts = [list(group) for is_text, group in groupby(lines, key=bool) if is_text]
    empty = sum(not line for line in lines)
    of_several_lines = sum(len(text) > 1 for text in texts)
    separates = len(texts) > 2 and empty >= len(lines) / 5 and of_several_lines >= len(texts) / 2
    return "blank_line" if separates else "line"


def holds_separator(path: Path) -> bool:
    """Whether `<|endoftext|>` stands anywhere in a file, which is not read into memory."""
    separator = STORY_SEPARATOR.encode()
    end = b""  # of the part before: the separator may stand across two parts
    with opened(path) as file:
        while part := file.read(1 << 20):
            if separator in end + part:
                return True
            end = part[-len(separator) :]
    return False


# Parquet and arrow ----------------------------------------------------------------------------------------------------


def arrow_rows(kind: str, path: Path) -> Iterator[Row]:
    """Yield the rows of a parquet or arrow file, as `datasets` saves it."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError(f"{path}: reading {kind} needs the package datasets; install it, or use .jsonl") from None
    number = 0
    try:
        with unpacked(path) as file:
            source = file if file.seekable() else io.BytesIO(file.read())
            if kind == "parquet":
                batches = pyarrow.parquet.ParquetFile(source).iter_batches(batch_size=1000)
            else:
                batches = arrow_batches(pyarrow, source)
            for batch in batches:
                if len(set(batch.schema.names)) < len(batch.schema.names):
                    raise UserError(f"{path}: two columns have one name; name each column once")
                for row in batch.to_pylist():
                    number += 1
                    yield row, f"{path}, row {number}"
    except UserError:
        raise
    except Exception as error:  # pyarrow raises many kinds
        raise UserError(
            f"{path}, after row {number}: cannot be read ({reason_of(error)}); is the file whole?"
        ) from None


def arrow_batches(pyarrow: Any, source: BinaryIO) -> Iterator:
    """Yield the batches of an arrow file: of the stream that `save_to_disk` writes, or of the file format."""
    if source.read(6) == b"ARROW1":
        reader = pyarrow.ipc.open_file(source)
        yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
    else:
        source.seek(0)
        yield from pyarrow.ipc.open_stream(source)
