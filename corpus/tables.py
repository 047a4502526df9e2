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
from corpus.encodings import HEAD, decoded, opened
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
            quoting=csv.QUOTE_NONE if delimiter == "\t" and quotes_are_text(path) else csv.QUOTE_MINIMAL,
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


def quotes_are_text(path: Path) -> bool:
    """Whether quotes in a table with tabs are part of its texts, as in raw dumps.

    So it is where each line has as many tabs as the first one, and quotes around cells would not be closed, or would
    make one cell of parts of two lines.
    """
    with opened(path) as file:
        head = file.read(HEAD).decode("utf-8", "replace")
    lines = [f"{line}\n" for line in head.split("\n") if line.strip()]
    if len(head) >= HEAD / 4:
        lines = lines[:-1]  # which may be cut
    if any(line.count("\t") != lines[0].count("\t") for line in lines):
        return False
    try:
        cells = [cell for row in csv.reader(lines, delimiter="\t", strict=True) for cell in row]
    except csv.Error:
        return True
    return any("\n" in cell and "\t" in cell for cell in cells)


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
            # What stands before the next quote may be rows or a part of this one: nothing can be skipped.
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
    if len(cells) < len(names):
        missing = f"a value for {names[len(cells)]} is missing, or a text with a line break needs quotes"
        return UserError(f"{place}: {len(cells)} of {len(names)} values; {missing}")
    if len(cells) > len(names):
        values = f"{len(cells)} value{'s' * (len(cells) > 1)}, but {len(names)} column{'s' * (len(names) > 1)}"
        return UserError(f"{place}: {values}; put quotes around texts that hold a comma")
    return dict(zip(names, cells, strict=True))


def begins_as_table(path: Path, wanted: Wanted) -> bool:
    """Whether the first line of a file is the names of several columns, those that are wanted among them."""
    with opened(path) as file:
        first_line = file.readline(HEAD).decode(errors="replace").strip("\r\n")
    try:
        names = next(csv.reader([first_line], delimiter=delimiter_of(first_line)), [])
    except csv.Error:
        return False
    return len(names) > 1 and wanted.holds_one(dict.fromkeys(names, "a text"))
