"""From rows to stories.

In reading order: `read_stories`; `whole_stories`, for rows that are parts of a story; the errors for rows without a
story.
"""

from collections.abc import Iterator

from common.errors import UserError, one_line, one_line_json
from common.text import without_surrogates
from corpus.notes import Notes, ReadingFlags, Row, Wanted, first_of, in_words, is_empty, name_in, named, usable
from corpus.readers import STORY_SEPARATOR
from corpus.sources import Split
from corpus.turns import ROLE_KEYS, plain_keys

FIRST_ROWS = 1000  # rows that are searched for the separator
MOST_ROWS = 40  # rows per story, on average, at most: TinyStories-Instruct has about 15


def read_stories(
    split: Split, how: ReadingFlags | None = None, limit: int | None = None, notes: Notes | None = None
) -> Iterator[str]:
    """Yield up to limit stories, stripped of white space at both ends; empty ones are skipped.

    notes: collects what the log should report.  Raises UserError for a row without the column, for a value that is not
    text, and if there is no story at all; with how.skip_bad_rows such rows are only counted.
    """
    how = how or ReadingFlags()
    notes = notes if notes is not None else Notes()
    column = how.text_column
    any_form = how.story_ends == "auto"
    rows = split.rows(Wanted(lambda value: holds_story(value, column), how.story_ends, any_form), notes)
    first, rows = first_of(rows, FIRST_ROWS)
    are_texts = any(holds_story(row, column) for row, _ in first)  # if all values are numbers, it is the wrong column

    def story(row, place):
        text = row
        if not isinstance(row, str):
            name = name_in(row, column) if isinstance(row, dict) else None
            if name is None:
                raise no_column(row, column, place)
            notes.unused(row, column)
            text = row[name]
        if are_texts and isinstance(text, (int, float)) and not is_empty(text):
            text = str(text)
        if not isinstance(text, str) and not is_empty(text):
            raise UserError(f'{place}: column "{column}" contains {one_line_json(text)}, not text{other_column(row)}')
        if is_empty(text) or not text.strip():
            notes.leave_out("rows without a text")
            return None
        return without_surrogates(text.strip())

    if how.story_ends == "auto":
        rows = whole_stories(rows, [row for row, _ in first], column, notes)
    nothing = f"no stories in {split.name}; pass another --dataset"
    return usable(rows, story, how, limit, notes, nothing)


def holds_story(value: object, column: str) -> bool:
    """Whether a value from a file is a story: a text, or an object with a text in the column."""
    return isinstance(value, str) or (isinstance(value, dict) and isinstance(named(value, column), str))


def whole_stories(rows: Iterator[Row], first: list, column: str, notes: Notes) -> Iterator[Row]:
    """Yield rows; if some of the first are `<|endoftext|>`, join the rows between them into stories.

    TinyStories-Instruct has each line of a story in a row of its own, and `<|endoftext|>` in the row after its last
    line.  Inside a longer text, `<|endoftext|>` is plain text.
    """
    texts = [text for row in first if isinstance(text := story_in(row, column), str)]
    separators = sum(text.strip() == STORY_SEPARATOR for text in texts)
    if separators * MOST_ROWS < len(texts):  # one among many may be there by chance
        if separators or any(STORY_SEPARATOR in text for text in texts):
            notes.guess(f"{STORY_SEPARATOR} is inside texts, and is learned as a part of them")
        yield from rows
        return
    notes.guess(f"a row {STORY_SEPARATOR} ends a story: the rows before it are joined")
    story = []  # its rows so far
    began = ""  # where it began
    for row, place in rows:
        text = story_in(row, column)
        if not isinstance(text, str):
            yield row, place
            continue
        if isinstance(row, dict):
            notes.unused(row, column)
        began = began if story else place
        if text.strip() == STORY_SEPARATOR:
            yield from joined(story, began)
            story = []
        else:
            story.append(text)
    yield from joined(story, began)


def joined(story: list[str], place: str) -> Iterator[Row]:
    """Yield the row that the lines of a story form, if there are any."""
    if text := "\n".join(story).strip():
        yield text, place


def story_in(row: object, column: str) -> object:
    """Return the value in a row's column, or the row itself if it is not an object."""
    return named(row, column) if isinstance(row, dict) else row


def no_column(row: object, column: str, place: str) -> UserError:
    """Return the error for a row without the column of the stories."""
    if not isinstance(row, dict):
        return UserError(f'{place}: found {in_words(row)}, but expected an object with "{column}"')
    columns = one_line(", ".join(map(str, row)))
    advice = other_column(row)
    if any(str(name).endswith((".", "!", "?", '"')) for name in row):  # they are texts
        advice = "; the first line must contain the column names"
    return UserError(f'{place}: found the columns {columns}, but expected "{column}"{advice}')


def other_column(row: dict) -> str:
    """Return what to do about a row if the column of the stories is missing or is not text."""
    texts = {name: len(text) for name, text in row.items() if isinstance(text, str) and text.strip()}
    if texts:
        longest = max(texts, key=texts.get)
        return f"; pass --text_column {one_line(longest, 40)}"
    lists = [cell for cell in row.values() if isinstance(cell, list)]
    keys = [key for cell in lists for item in cell[:1] if isinstance(item, dict) for key in plain_keys(item)]
    if not {*ROLE_KEYS}.isdisjoint(keys):
        return "; dialogues are for train_tinystories_chat_model.py"
    return ""
