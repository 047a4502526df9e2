"""How files are read: the flags for it, and what the log should report.

In reading order: `ReadingFlags`; `Notes`, which collects guesses, what is left out and unusable rows; `usable` and
`first_of`, which go through rows; `named` and `is_empty`, for one cell of a row.
"""

import contextlib
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from common.errors import UserError, one_line
from common.flags import add_fields, flag
from corpus.encodings import WholeFileError

STORY_ENDS = ("auto", "line", "blank_line", "file")  # where a story ends in a .txt file
NO_KEY = "none"  # value for --speaker_key: no key says who speaks
LOOK_AHEAD = 100  # rows after a bad one that are tried, to see whether skipping it helps
MOST_NAMES = 12  # of columns in one line of the log


Row = tuple[object, str]  # (the row, or the UserError that says why it cannot be read; its place)


@dataclass
class Wanted:
    """What rows are read for.

    holds_one: whether a value of a JSON file is one row.  If a whole file is one value that is not a row, the rows are
    searched inside it, or are under `name` if that is given.  story_ends: where a story ends in a .txt file, see
    STORY_ENDS.  any_form: whether such a file may contain JSON or a table.
    """

    holds_one: Callable[[object], bool]
    story_ends: str = "auto"
    any_form: bool = True
    name: str | None = None


@dataclass
class ReadingFlags:
    """How files are read; each field is a flag with the same name, see `add_reading_flags`."""

    text_column: str = flag("text", "the column that contains the story")
    story_ends: str = flag(
        "auto", "what ends a story in a .txt file; auto: <|endoftext|>, an empty line, or the end of the line or file",
        choices=STORY_ENDS,
    )  # fmt: skip
    speaker_key: str | None = flag(
        None, "the key in a turn that says who speaks; none: user and assistant take turns (default: role, from, ...)",
        type=str, metavar="KEY",
    )  # fmt: skip
    assistant_name: str | None = flag(
        None, "the speaker to learn from; all others are the user (default: a guess, see the log)",
        type=str, metavar="NAME",
    )  # fmt: skip
    skip_bad_rows: bool = flag(False, "skip rows that cannot be read, and count them", action="store_true")


def add_reading_flags(group, stories: bool = False, dialogues: bool = False) -> None:
    """Add the flags of `ReadingFlags` that stories or dialogues need."""
    without = []
    if not stories:
        without += ["text_column", "story_ends"]
    if not dialogues:
        without += ["speaker_key", "assistant_name"]
    add_fields(group, ReadingFlags, {}, without=without)


@dataclass
class Notes:
    """What the log should report about how files were read.

    bad_rows: how many rows cannot be used; first_bad: why the first one cannot.
    """

    guesses: dict[str, list[str]] = field(default_factory=dict)  # {guess: the files that it concerns}
    columns: dict[str, None] = field(default_factory=dict)  # that are not used
    keys: dict[str, None] = field(default_factory=dict)  # of turns, that are not used
    counts: dict[str, int] = field(default_factory=dict)  # of everything else that is left out
    bad_rows: int = 0
    first_bad: str = ""
    last_columns: object = None  # of the row before: the same columns are not examined again

    def guess(self, text: str, file: str | None = None) -> None:
        """Note a guess once, with the names of the files that it concerns."""
        files = self.guesses.setdefault(text, [])
        if file and file not in files:
            files.append(file)

    def unused(self, row: dict, *used: str) -> None:
        """Note the columns of a row that are not used; names are compared without case."""
        if row.keys() != self.last_columns:
            self.last_columns = row.keys()
            for name in row.keys() - {name_in(row, column) for column in used}:
                self.columns[one_line(str(name), 40)] = None

    def unused_keys(self, turn: dict, *used: str | None) -> None:
        """Note the keys of a turn that are not used."""
        for name in turn.keys() - {*used}:
            if not is_empty(turn[name]):
                self.keys[one_line(str(name), 40)] = None

    def leave_out(self, what: str) -> None:
        """Count something that is left out."""
        self.counts[what] = self.counts.get(what, 0) + 1

    def lines(self) -> list[str]:
        """Return everything as lines for the log."""
        left_out = [f"{what} ({count:,})" for what, count in self.counts.items()]
        if self.keys:
            left_out.insert(0, f"{'keys' if len(self.keys) > 1 else 'key'} of turns {list_of(sorted(self.keys))}")
        if self.columns:
            left_out.insert(0, f"{'columns' if len(self.columns) > 1 else 'column'} {list_of(sorted(self.columns))}")
        lines = [f"{list_of(files)}: {text}" if files else text for text, files in self.guesses.items()]
        if left_out:
            lines.append("left out: " + "; ".join(left_out))
        if self.bad_rows:
            lines.append(self.bad_summary())
        return lines

    def bad_summary(self) -> str:
        return f"{self.bad_rows:,} bad row{'s' * (self.bad_rows > 1)} skipped; the first: {self.first_bad}"


def list_of(names: list[str]) -> str:
    """Return names in one line: `a, b and 3 more`."""
    more = f" and {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else ""
    return f"{', '.join(names[:MOST_NAMES])}{more}"


def usable(
    rows: Iterable[Row], take: Callable, how: ReadingFlags, limit: int | None, notes: Notes, nothing: str
) -> Iterator:
    """Yield up to limit results of take(row, place) for rows of (row, place), without those that are None.

    take raises UserError for a row that cannot be used; with how.skip_bad_rows such rows are only counted.  Raises
    UserError, with `nothing` as its message, if there is no result at all.
    """
    count = 0
    rows = iter(rows)
    for row, place in rows:
        try:
            if isinstance(row, UserError):
                raise row
            result = take(row, place)
        except UserError as error:
            if not how.skip_bad_rows:
                helps = not isinstance(error, WholeFileError) and (count or any_usable(rows, take))
                skip = ", or pass --skip_bad_rows" if "; " in str(error) else "; pass --skip_bad_rows"
                raise UserError(f"{error}{skip}" if helps else str(error)) from None
            notes.first_bad = notes.first_bad or str(error)
            notes.bad_rows += 1
            continue
        if result is None:
            continue
        yield result
        count += 1
        if count == limit:
            return
    if not count:
        left_out = "".join(f"; {what} ({number:,})" for what, number in notes.counts.items())
        raise UserError(nothing + left_out + (f"; {notes.bad_summary()}" if notes.bad_rows else ""))


def any_usable(rows: Iterable, take: Callable) -> bool:
    """Whether one of the next rows can be used."""
    rows = itertools.islice(rows, LOOK_AHEAD)
    with contextlib.suppress(UserError):  # the rest of the file cannot be read
        for row, place in rows:
            with contextlib.suppress(UserError):
                if not isinstance(row, UserError) and take(row, place) is not None:
                    return True
    return False


def first_of(rows: Iterator[Row], count: int) -> tuple[list[Row], Iterator[Row]]:
    """Return (the first rows, all rows).  An error that ends the reading is raised at its row, not here."""
    first = []
    try:
        first.extend(itertools.islice(rows, count))
    except UserError as error:
        rows = raise_later(error)
    return first, itertools.chain(first, rows)


def raise_later(error: UserError) -> Iterator[Row]:
    """Raise an error when the next row is requested."""
    raise error
    yield


@functools.lru_cache(maxsize=10_000, typed=True)  # True is not 1
def plain_name(name: object) -> str:
    """Return a column's name in the form in which names are compared."""
    return str(name).strip().casefold()


def named(row: dict, column: str, missing: object = None) -> object:
    """Return the value in a column, or `missing`; the name is compared without case and surrounding spaces."""
    name = name_in(row, column)
    return missing if name is None else row[name]


def name_in(row: dict, column: str) -> str | None:
    """Return a column's name in a row: the exact one, or the first that differs only in case or outer spaces."""
    if column in row:
        return column
    wanted = plain_name(column)
    return next((name for name in row if plain_name(name) == wanted), None)


def in_words(row: object) -> str:
    """Describe a value that is not an object, for a message."""
    if isinstance(row, bool | int | float):
        return "a number"
    return {"NoneType": "null", "list": "a list", "str": "a text"}.get(type(row).__name__, "something else")


def is_empty(value: object) -> bool:
    """Whether a cell counts as empty: null, or NaN, which tables have instead."""
    return value is None or (isinstance(value, float) and math.isnan(value))
