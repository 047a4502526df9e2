"""Tables of text: csv files with commas, semicolons or tabs.  A cell is text as it is in the file, never a number.

In reading order: `table_rows`; lines, and what separates their cells; `cells_of`, from lines to cells; `column_names`
and `row_of`, from cells to rows; `begins_as_table`, for files with another suffix.
"""

import csv
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from common.errors import UserError, one_line
from corpus.encodings import HEAD, decoded, opened
from corpus.notes import Notes, Row, Wanted, plain_name

NO_DELIMITER = "\ud800"  # for a table with one column, whose texts may have commas without quotes: no text contains it
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
EXCELS_FIRST_LINE = re.compile("sep=(.)")
LARGEST_CELL = 2**31 - 1  # characters; the most that the csv module accepts on Windows


def table_rows(path: Path, notes: Notes) -> Iterator[Row]:
    """Yield the rows of a csv file, {column: text}, with commas, semicolons, tabs or bars between cells.

    Raises UserError if the first line does not name each column once.
    """
    csv.field_size_limit(LARGEST_CELL)
    with opened(path) as file:
        lines = table_lines(file)
        before = []  # empty lines, which count as lines
        while (first := next(lines, "")) and not first.strip():
            before.append(first)
        if match := EXCELS_FIRST_LINE.fullmatch(first.strip()):
            before.append("\n")
            first = next(lines, "")
        delimiter = match[1] if match else delimiter_of(first)
        reader = csv.reader(
            chain(before, [first], lines), delimiter=delimiter, strict=True,
            quoting=csv.QUOTE_NONE if delimiter == "\t" and quotes_are_text(path) else csv.QUOTE_MINIMAL,
            skipinitialspace=f"{delimiter} " in first,  # if names have a space before them, texts have it, too
        )  # fmt: skip
        rows = (row for row in cells_of(reader, path) if row[0])
        names = column_names(next(rows, ([], ""))[0], path)
        separated = f"cells are separated by {DELIMITERS.get(delimiter, delimiter)}"
        notes.guess("one column: a comma in a line is part of its text" if delimiter == NO_DELIMITER else separated)
        for cells, place in rows:
            if isinstance(cells, UserError):
                yield cells, place
            elif [cell.strip(" \ufeff") for cell in cells[: len(names)]] == names:  # two tables, one after the other
                notes.leave_out("repeated lines of column names")
            elif any(cell.strip() for cell in cells):
                yield row_of(names, cells, place), place


def table_lines(file: BinaryIO) -> Iterator[str]:
    """Yield lines with their line ends; bytes that are not UTF-8 become surrogates, which `cells_of` finds."""
    for line in file:
        yield line.decode("utf-8", "surrogateescape")


def quotes_are_text(path: Path) -> bool:
    """Whether quotes in a table with tabs are part of its texts, as in raw dumps.

    They are if each line has as many tabs as the first one, and if quotes around cells would stay open, or would join
    parts of two lines in one cell.
    """
    with opened(path) as file:
        numbers = {line.count(b"\t") for line in file if line.strip()}
    if len(numbers) > 1:
        return False
    with opened(path) as file:
        try:
            rows = csv.reader(table_lines(file), delimiter="\t", strict=True)
            return any("\n" in cell and "\t" in cell for row in rows for cell in row)
        except csv.Error:
            return True


def delimiter_of(line: str) -> str:
    """Return what separates the column names in a table's first line; NO_DELIMITER if there is only one name."""

    def columns(delimiter):
        try:
            return len(next(csv.reader([line], delimiter=delimiter), []))
        except csv.Error:
            return 0

    likeliest = max(DELIMITERS, key=columns)  # if equal, the first: commas
    return likeliest if columns(likeliest) > 1 else NO_DELIMITER


def cells_of(reader: Iterator[list[str]], path: Path) -> Iterator[tuple[list[str] | UserError, str]]:
    """Yield (cells, place) from a csv.reader; for a row that cannot be read, cells is an error."""
    is_utf8 = False
    while True:
        place = f"{path}, line {reader.line_num + 1}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                raise UserError(f"{place}: the quote that opens here is never closed; fix it") from None
            # The text up to the next quote may be rows or a part of this one: nothing can be skipped.
            reason = "text after a closing quote" if "expected after" in str(error) else str(error)
            advice = "close each quote, and write a quote inside quotes twice"
            raise UserError(f"{place}: not csv ({reason}); {advice}") from None
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
    """Return the names of a table's columns, without spaces around them."""
    if isinstance(cells, UserError):
        raise cells
    if not any(cell.strip() for cell in cells):
        raise UserError(f"{path}: no column names in the first line; begin the file with them")
    while not cells[-1].strip():  # a delimiter at the end of each line
        cells.pop()
    names = [cell.strip() or f"unnamed {number}" for number, cell in enumerate(cells, start=1)]
    plain = [plain_name(name) for name in names]
    twice = [name for name in names if plain.count(plain_name(name)) > 1]
    if twice:
        raise UserError(f'{path}: two columns are named "{one_line(twice[0])}"; give each its own name')
    return names


def row_of(names: list[str], cells: list[str], place: str) -> dict | UserError:
    """Return the row that these cells form, or an error if there are more or fewer cells than columns."""
    while len(cells) > len(names) and not cells[-1]:
        cells.pop()
    if len(cells) < len(names):
        missing = f"a value for {names[len(cells)]} is missing, or a text with a line break needs quotes"
        return UserError(f"{place}: {len(cells)} of {len(names)} values; {missing}")
    if len(cells) > len(names):
        values = f"{len(cells)} value{'s' * (len(cells) > 1)}, but {len(names)} column{'s' * (len(names) > 1)}"
        values += f" ({one_line(', '.join(names), 60)})"
        return UserError(f"{place}: {values}; put quotes around texts that contain a comma")
    return dict(zip(names, cells, strict=True))


def begins_as_table(path: Path, wanted: Wanted) -> bool:
    """Whether the first line of a file is several column names, including those that are wanted."""
    with opened(path) as file:
        first_line = file.readline(HEAD).decode(errors="replace").strip("\r\n")
    try:
        names = next(csv.reader([first_line], delimiter=delimiter_of(first_line)), [])
    except csv.Error:
        return False
    return len(names) > 1 and wanted.holds_one(dict.fromkeys(names, "a text"))
