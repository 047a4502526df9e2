"""Tables of text: csv files by commas, semicolons or tabs.  A cell is the text that stands there, never a number.

In reading order: `table_rows`; the lines and what separates their cells; `cells_of`, lines to cells; `column_names` and
`row_of`, cells to rows; `begins_as_table`, for a file of another name.
"""

import csv
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from common.errors import UserError, one_line
from corpus.encodings import HEAD, WholeFileError, decoded, opened
from corpus.notes import Notes, Row, Wanted, plain_name

NO_DELIMITER = "\ud800"  # for a table of one column, whose texts may have commas without quotes: it is in no text
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
EXCELS_FIRST_LINE = re.compile("sep=(.)")
LARGEST_CELL = 2**31 - 1  # characters; more than Windows' C library can count


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
        yield line.decode("utf-8", "surrogateescape")


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
                raise UserError(f"{place}: the quote that is opened here is never closed; fix it") from None
            reason = "text after a closing quote" if "expected after" in str(error) else str(error)
            advice = "close each quote, and write a quote inside quotes twice"
            yield WholeFileError(f"{place}: not csv ({reason}); {advice}"), place
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
    while not cells[-1].strip():  # a delimiter at the end of each line
        cells.pop()
    names = [cell.strip() or f"unnamed {number}" for number, cell in enumerate(cells, start=1)]
    plain = [plain_name(name) for name in names]
    twice = [name for name in names if plain.count(plain_name(name)) > 1]
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


def begins_as_table(path: Path, wanted: Wanted) -> bool:
    """Whether the first line of a file is the names of columns with tabs between, those that are wanted among them."""
    with opened(path) as file:
        first_line = file.readline(HEAD).decode(errors="replace").strip("\r\n")
    return "\t" in first_line and wanted.holds_one(dict.fromkeys(first_line.split("\t"), "a text"))
