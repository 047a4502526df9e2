"""From rows to stories.

In reading order: `read_stories`; `whole_stories`, rows that are parts of a story; the errors for rows that hold none.
"""

import itertools
from collections.abc import Iterator

from common.errors import UserError, one_line, one_line_json
from common.text import without_surrogates
from corpus.notes import Notes, ReadingFlags, Row, Wanted, is_empty, named, usable
from corpus.readers import STORY_SEPARATOR
from corpus.sources import Split

FIRST_ROWS = 1000  # are looked at for the separator


def read_stories(
    split: Split, how: ReadingFlags | None = None, limit: int | None = None, notes: Notes | None = None
) -> Iterator[str]:
    """Yield up to limit stories, stripped of white space at their ends; empty ones are left out.

    notes: hears what the log should say.  Raises UserError for a row without the column, for one that is not text, and
    if there is no story at all; with how.skip_bad_rows such rows are counted.
    """
    how = how or ReadingFlags()
    notes = notes if notes is not None else Notes()
    column = how.text_column

    wanted = Wanted(lambda value: holds_story(value, column), how.story_ends)
    rows = split.rows(wanted, notes)
    first = list(itertools.islice(rows, FIRST_ROWS))
    are_texts = any(holds_story(row, column) for row, _ in first)  # not all numbers: these would be another column's

    def story(row, place):
        if isinstance(row, str):
            text = row
        else:
            if not isinstance(row, dict) or (text := named(row, column, UserError)) is UserError:
                raise no_column(row, column, place)
            notes.unused(row, column)
        if is_empty(text):
            return None
        if are_texts and isinstance(text, (int, float)):
            text = str(text)
        if not isinstance(text, str):
            raise UserError(f'{place}: column "{column}" holds {one_line_json(text)}, not text{other_column(row)}')
        return without_surrogates(text.strip()) or None

    rows = whole_stories(first, rows, column, notes)
    nothing = f"no stories in {split.name}; pass --dataset a file or folder that holds some"
    return usable(rows, story, limit, notes, how.skip_bad_rows, "rows without a text", nothing)


def holds_story(value: object, column: str) -> bool:
    """Whether a value of a file is a story: a text, or an object with one in the column."""
    return isinstance(value, str) or (isinstance(value, dict) and isinstance(named(value, column), str))


def whole_stories(first: list[Row], rows: Iterator[Row], column: str, notes: Notes) -> Iterator[Row]:
    """Yield the first rows and those after them; where `<|endoftext|>` stands in some of the first, what it separates.

    TinyStories-Instruct has a line of a story in each row, and a row that is the separator after the last one: there,
    the rows of a story are joined.  Other files have the separator at the end of each row.
    """
    texts = [named(row, column) if isinstance(row, dict) else row for row, _ in first]
    texts = [text for text in texts if isinstance(text, str)]
    rows = itertools.chain(first, rows)
    if not any(STORY_SEPARATOR in text for text in texts):
        yield from rows
        return
    are_joined = any(text.strip() == STORY_SEPARATOR for text in texts)
    notes.guess(f"a story ends at {STORY_SEPARATOR}" + (", and the rows before it are joined" if are_joined else ""))
    begun = []  # lines of a story whose end has not come yet
    for row, place in rows:
        text = named(row, column) if isinstance(row, dict) else row
        if not isinstance(text, str):
            yield row, place
            continue
        if isinstance(row, dict):
            notes.unused(row, column)
        if not begun:
            began_at = place
        *ends, rest = text.split(STORY_SEPARATOR)
        for end in ends:
            if story := "\n".join([*begun, end]).strip():
                yield story, began_at
            begun = []
            began_at = place
        begun.append(rest)
        if not are_joined:
            if rest.strip() or not ends:
                yield rest, place
            begun = []
    if story := "\n".join(begun).strip():
        yield story, began_at


def no_column(row: object, column: str, place: str) -> UserError:
    """The error for a row that lacks the column of the stories."""
    if not isinstance(row, dict):
        return UserError(f'{place}: a {type(row).__name__} found where an object with "{column}" was expected')
    columns = one_line(", ".join(map(str, row)))
    advice = other_column(row)
    if any(str(name).endswith((".", "!", "?", '"')) for name in row):  # they are texts
        advice = "; the first line must be the names of the columns"
    return UserError(f'{place}: the columns {columns} found where "{column}" was expected{advice}')


def other_column(row: dict) -> str:
    """What to do about a row in which the column of the stories is not what it should be."""
    texts = {name: len(text) for name, text in row.items() if isinstance(text, str) and text.strip()}
    if texts:
        longest = max(texts, key=texts.get)
        return f"; pass --text_column {one_line(longest, 40)}"
    if any(isinstance(cell, (list, dict)) for cell in row.values()):
        return "; dialogues are for train_tinystories_chat_model.py"
    return ""
