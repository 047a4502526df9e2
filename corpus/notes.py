"""How files are read: what a user can say of it, and what the log should say of it.

In reading order: `ReadingFlags`; `Notes`, which collects guesses, what is left out and rows that cannot be used;
`usable` and `first_of`, which go through rows; `named` and `is_empty`, a cell of one.
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

STORY_ENDS = ("auto", "line", "blank_line", "file")  # where a story of a .txt file ends
NO_KEY = "none"  # for --speaker_key: no key says who speaks
LOOK_AHEAD = 100  # rows after a bad one, to see whether skipping it helps
MOST_NAMES = 12  # of columns that a line of the log lists


Row = tuple[object, str]  # (what stands there, or the UserError that says why it cannot be read; its place)


@dataclass
class Wanted:
    """What rows are read for.

    holds_one: whether a value of a JSON file is one row.  Where a whole file is one value that is none, the rows are
    looked for inside it, under `name` if there is one.  story_ends: where a story of a .txt file ends, see
    STORY_ENDS.
    """

    holds_one: Callable[[object], bool]
    story_ends: str = "auto"
    name: str | None = None


@dataclass
class ReadingFlags:
    """How files are read; each field is a flag of the same name, see `add_reading_flags`."""

    text_column: str = flag("text", "the column that holds the story")
    story_ends: str = flag(
        "auto", "where a story of a .txt file ends; auto: at <|endoftext|>, an empty line, or with its line or file",
        choices=STORY_ENDS,
    )  # fmt: skip
    speaker_key: str | None = flag(
        None, "the key of a turn that says who speaks; none: user and assistant take turns (default: role, from, ...)",
        type=str, metavar="KEY",
    )  # fmt: skip
    assistant_name: str | None = flag(
        None, "the speaker whose words are learned; all others are the user (default: as the log says)",
        type=str, metavar="NAME",
    )  # fmt: skip
    skip_bad_rows: bool = flag(False, "count rows that cannot be read, instead of stopping", action="store_true")


def add_reading_flags(group, stories: bool = False, dialogues: bool = False) -> None:
    """The flags of `ReadingFlags` that stories or dialogues need."""
    without = []
    if not stories:
        without += ["text_column", "story_ends"]
    if not dialogues:
        without += ["speaker_key", "assistant_name"]
    add_fields(group, ReadingFlags, {}, without=without)


@dataclass
class Notes:
    """What the log should say of how files were read.

    bad_rows: how many rows cannot be used; first_bad: why the first cannot.
    """

    guesses: dict[str, list[str]] = field(default_factory=dict)  # {guess: the files that it is about}
    columns: dict[str, None] = field(default_factory=dict)  # that are not used
    keys: dict[str, None] = field(default_factory=dict)  # of turns, that are not used
    counts: dict[str, int] = field(default_factory=dict)  # of what else is left out
    bad_rows: int = 0
    first_bad: str = ""
    last_columns: object = None  # of the row before, which need not be looked at again

    def guess(self, text: str, file: str | None = None) -> None:
        """Note a guess, once, and the names of the files that it is about."""
        files = self.guesses.setdefault(text, [])
        if file and file not in files:
            files.append(file)

    def unused(self, row: dict, *used: str) -> None:
        """Note the columns of a row that are not among those that are used; names count without case."""
        if row.keys() != self.last_columns:
            self.last_columns = row.keys()
            for name in row.keys() - {name_in(row, column) for column in used}:
                self.columns[one_line(str(name), 40)] = None

    def unused_keys(self, turn: dict, *used: str | None) -> None:
        """Note the keys of a turn that are not among those that are used."""
        for name in turn.keys() - {*used}:
            if not is_empty(turn[name]):
                self.keys[one_line(str(name), 40)] = None

    def leave_out(self, what: str) -> None:
        """Count something that is left out."""
        self.counts[what] = self.counts.get(what, 0) + 1

    def lines(self) -> list[str]:
        """All of it, in lines for the log."""
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
    """Names in a line: `a, b and 3 more`."""
    more = f" and {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else ""
    return f"{', '.join(names[:MOST_NAMES])}{more}"


def usable(
    rows: Iterable[Row], take: Callable, how: ReadingFlags, limit: int | None, notes: Notes, nothing: str
) -> Iterator:
    """Yield up to limit results of take(row, place) for the (row, place) of rows, those that are None left out.

    take raises UserError for a row that cannot be used: with how.skip_bad_rows it is counted.  Raises UserError, with
    nothing as its message, if there is no result at all.
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
                raise UserError(f"{error}, or pass --skip_bad_rows" if helps else str(error)) from None
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
    with contextlib.suppress(UserError):  # the file cannot be read further
        for row, place in rows:
            with contextlib.suppress(UserError):
                if not isinstance(row, UserError) and take(row, place) is not None:
                    return True
    return False


def first_of(rows: Iterator[Row], count: int) -> tuple[list[Row], Iterator[Row]]:
    """(the first rows, all rows).  An error after which nothing can be read is raised in its place, not here."""
    first = []
    try:
        first.extend(itertools.islice(rows, count))
    except UserError as error:
        rows = raise_later(error)
    return first, itertools.chain(first, rows)


def raise_later(error: UserError) -> Iterator[Row]:
    """Raise an error when the next row is asked for."""
    raise error
    yield


@functools.lru_cache(maxsize=10_000, typed=True)  # True is not 1
def plain_name(name: object) -> str:
    """A column's name as it is compared."""
    return str(name).strip().casefold()


def named(row: dict, column: str, missing: object = None) -> object:
    """What stands in a column, whose name counts without case and spaces around it; missing: what if there is none."""
    name = name_in(row, column)
    return missing if name is None else row[name]


def name_in(row: dict, column: str) -> str | None:
    """The name that a column has in a row: its own, or else the first that differs in case and spaces only."""
    if column in row:
        return column
    wanted = plain_name(column)
    return next((name for name in row if plain_name(name) == wanted), None)


def in_words(row: object) -> str:
    """What stands in the place of an object, for a message."""
    if isinstance(row, bool | int | float):
        return "a number"
    return {"NoneType": "null", "list": "a list", "str": "a text"}.get(type(row).__name__, "something else")


def is_empty(value: object) -> bool:
    """Whether a cell counts as empty: null, and NaN, which tables have in its place."""
    return value is None or (isinstance(value, float) and math.isnan(value))
