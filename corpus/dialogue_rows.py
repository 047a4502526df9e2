"""From rows to dialogues: which columns contain a dialogue, in which form, and its turns.

In reading order: `read_dialogues`; `holds_dialogue`, for whole JSON files; `find_form`, from the first rows of a file;
`joined_turns`, for files with one turn per row; `turns_in_row`.  `turns.py` reads the turns themselves, and
`speakers.py` finds out which speaker is the assistant.
"""

import contextlib
import itertools
from collections.abc import Iterable, Iterator

from common.errors import UserError, one_line, one_line_json
from corpus.dialogues import Turn, join_turns
from corpus.notes import Notes, ReadingFlags, Row, Wanted, first_of, in_words, is_empty, plain_name, usable
from corpus.sources import Split
from corpus.speakers import Speakers
from corpus.turns import (
    ANSWERS,
    BARE,
    QUESTIONS,
    ROLE_KEYS,
    ROLES,
    TEXT_KEYS,
    Spoken,
    as_object,
    from_text,
    plain_keys,
    spoken_turns,
    text_of,
)

LISTS = (
    "conversation", "messages", "conversations", "dialogue", "dialog", "turns", "chat", "chat_messages", "utterances",
    "contents",
)  # fmt: skip
HISTORY = "history"  # earlier turns, next to a question or instead of it
LAST_LISTS = (HISTORY, "data")  # lists of turns, if there is no other form
# The columns of each form, the most likely ones first.
FORMS = [
    *((name,) for name in LISTS), *itertools.product((*QUESTIONS, HISTORY), ANSWERS), *((name,) for name in LAST_LISTS),
]  # fmt: skip
INPUT = "input"  # optional, next to a question: what it is about, added after it
CONTEXT = "context"  # the same, added before it
SYSTEM = ("system", "system_prompt", "system_message", "systeminstruction")  # optional in any form
ID_COLUMNS = (  # names of the column that identifies the dialogue, if each row is one turn
    "dialogue_id", "dialog_id", "conversation_id", "conv_id", "chat_id", "session_id", "thread_id", "dialogue",
    "dialog", "conversation", "session", "thread",
)  # fmt: skip
FIRST_ROWS = 100  # rows that are read to find the form
KNOWN = (
    f"a list of turns ({', '.join(LISTS[:3])} ...), or a question ({', '.join(QUESTIONS[:4])} ...) and an answer "
    f"({', '.join(ANSWERS[:4])} ...); docs/data.md lists all"
)


def read_dialogues(
    split: Split, how: ReadingFlags | None = None, limit: int | None = None, notes: Notes | None = None
) -> Iterator[list[Turn]]:
    """Yield up to limit dialogues of a split, each a list of (role, text); skip dialogues without an answer.

    The form of the rows is the one that most of the first rows have.  notes: collects what the log should report.
    Raises UserError for an unknown form, and for a row of another form; with how.skip_bad_rows such rows are only
    counted.
    """
    how = how or ReadingFlags()
    notes = notes if notes is not None else Notes()
    first, rows = first_objects(split, notes)
    form = find_form(first, split.name) if first else FORMS[0]
    speakers = Speakers(how, notes)
    if first:
        notes.guess(f"dialogues in the form {describe_form(form, first)}")
        model, _ = first_objects(split.like, Notes()) if split.like else (first, None)
        model_form = find_form(model, split.like.name) if split.like and model else form
        speakers.find(list(first_dialogues(model_form, model, speakers)), split.name)
    beside = columns_beside(form)

    def dialogue(row, place):
        try:
            turns = turns_in_row(row, form, beside, speakers, notes)
        except ValueError as error:
            columns = " + ".join(form)
            if split.files > 1:
                others = f'most dialogues are in the form "{columns}"; pass each file with a --dataset of its own'
            else:
                others = f'the dialogues of this file are in the form "{columns}"'
            raise UserError(f"{place}: {error}; {others}") from None
        _, pairs = join_turns(turns)
        if not pairs:
            notes.leave_out(why_without_pair({role for role, _ in turns}))
            return None
        roles = [role for role, _ in turns if role != "system"]
        if roles[0] == "assistant":
            notes.leave_out("assistant turns before the user's first turn")
        if roles[-1] == "user":
            notes.leave_out("user turns without an answer")
        return turns

    nothing = f"no dialogues in {split.name}; pass another --dataset"
    return usable(rows, dialogue, how, limit, notes, nothing)


def why_without_pair(roles: set[str]) -> str:
    """Return what is missing in a dialogue of these roles, which has no question with an answer."""
    if roles == {"system", "user"}:
        return 'dialogues of only "system" and "user"; if "system" answers, pass --assistant_name system'
    return "dialogues without a question" if roles == {"assistant"} else "dialogues without an answer"


def first_objects(split: Split, notes: Notes) -> tuple[list[dict], Iterator[Row]]:
    """Return (the first rows of a split that are objects or lists of turns, all its rows)."""
    rows = joined_turns(split.rows(Wanted(holds_dialogue), notes), notes)
    first, rows = first_of(rows, FIRST_ROWS)
    objects = [as_object(row) for row, _ in first]
    return [row for row in objects if row is not None], rows


def holds_dialogue(value: object) -> bool:
    """Whether the value of a whole JSON file is one dialogue: a list of turns, or an object with a known form.

    A list of objects is a dialogue only if all say who speaks; a list of questions with answers is a list of rows.
    """
    if isinstance(value, list):
        are_texts = all(isinstance(turn, str) for turn in value)
        return bool(value) and (are_texts or are_all_turns(value))
    row = as_object(value)
    if row is None:
        return False
    if any(looks_like_turns(from_text(row.get(column))) for column in LISTS):
        return True
    filled = {name for name, cell in row.items() if not isinstance(cell, (list, dict)) or are_all_turns(cell)}
    return bool(filled & {*QUESTIONS}) and bool(filled & {*ANSWERS})


def says_who(turn: object) -> bool:
    """Whether an item of a list is a turn that says who speaks, and not a row that names its dialogue."""
    keys = plain_keys(turn) if isinstance(turn, dict) else set()
    return bool(keys & {*ROLE_KEYS}) and bool(keys & {*TEXT_KEYS, "data"}) and not keys & {*ID_COLUMNS}


def are_all_turns(value: object) -> bool:
    """Whether a value is a list of turns that all say who speaks."""
    return isinstance(value, list) and bool(value) and all(map(says_who, value))


def looks_like_turns(value: object) -> bool:
    """Whether a value is a list of turns, not of dialogues: its first item is a text, or an object with a text."""
    if isinstance(value, dict):  # lists in columns
        return any(isinstance(value.get(key), list) for key in TEXT_KEYS)
    if not isinstance(value, list) or not value:
        return False
    turn = value[0]
    if isinstance(turn, list):  # [speaker, text]
        return len(turn) == 2 and isinstance(turn[0], str) and plain_name(turn[0]) in ROLES
    return isinstance(turn, str) or (isinstance(turn, dict) and bool(plain_keys(turn) & {*TEXT_KEYS}))


def find_form(rows: list[dict], name: str) -> tuple[str, ...]:
    """Return the columns of the form that fits most of these rows.  Raises UserError if none fits any row."""

    def fit(form):
        """Return how many rows have all columns filled, and how many have the columns at all."""
        if len(form) == 1:
            rows_with_it = [row for row in rows if may_hold_turns(row, form[0])]
        else:
            rows_with_it = [row for row in rows if all(column in row for column in form)]
        filled = sum(all(row[column] for column in form) for row in rows_with_it)
        return filled, len(rows_with_it)

    form = max(FORMS, key=fit)
    _, there = fit(form)
    if there:
        return form
    columns = list(dict.fromkeys(column for row in rows for column in row))
    if are_turns(columns):
        raise UserError(
            f"{name}: each row is one turn (columns {one_line(', '.join(columns))}); add a column dialogue_id, "
            'or put the turns of a dialogue into one row, {"messages": [...]}'
        )
    if columns == ["text"]:
        raise UserError(f"{name}: plain texts; write dialogues as .jsonl or .csv, with the columns of a conversation")
    if not columns:
        raise UserError(f"{name}: the rows have no columns; a dialogue is {KNOWN}")
    shown = one_line(", ".join(columns))
    raise UserError(f"{name}: the columns {shown} match no known form of dialogues; known: {KNOWN}")


def may_hold_turns(row: dict, column: str) -> bool:
    """Whether a column of a row may contain a list of turns: it is a list or object, empty, or a text.

    If the row also has a question and an answer, a plain text does not count.
    """
    if column not in row or isinstance(row[column], (int, float)):
        return False
    value = from_text(row[column])
    others = row.keys() - {column}
    return not isinstance(value, str) or others.isdisjoint(QUESTIONS) or others.isdisjoint(ANSWERS)


def are_turns(columns: Iterable[str]) -> bool:
    """Whether rows with these columns are single turns."""
    return not {*columns}.isdisjoint(ROLE_KEYS) and not {*columns}.isdisjoint(TEXT_KEYS)


def joined_turns(rows: Iterator[Row], notes: Notes) -> Iterator[Row]:
    """Yield rows; if each of them is one turn that names its dialogue, yield one row per dialogue instead.

    Raises UserError for a dialogue that continues after another one has begun.
    """
    first, rows = first_of(rows, FIRST_ROWS)
    objects = [as_object(row) for row, _ in first if isinstance(row, dict)]
    column = next((name for name in ID_COLUMNS if objects and names_dialogues(objects, name)), None)
    hold_turns = any(looks_like_turns(row.get(name)) for row in objects for name in LISTS)
    if column is None or hold_turns or not all(map(are_turns, objects)):
        yield from rows
        return
    notes.guess(f'each row is one turn; rows with the same "{column}" are one dialogue')
    finished = set()
    current = began = ""  # the dialogue that is being read, and where it began
    turns = []
    is_broken = False  # whether a row between its turns cannot be read
    after_error = False
    for row, place in rows:
        if not isinstance(row, dict):
            yield row, place
            after_error = True
            continue
        fields = as_object(row)
        cell = fields.pop(column, None)
        name = "" if is_empty(cell) else str(cell).strip()
        if not name and not turns:
            raise UserError(f"{place}: no {column}; write the same one into each row of a dialogue")
        if not name:  # merged cells in a spreadsheet
            notes.guess(f'a row without "{column}" belongs to the dialogue of the row before it')
            name = current
        if name in finished:
            again = f"{place}: the dialogue {one_line(name, 40)} continues after another one"
            raise UserError(f"{again}; sort the rows by {column}")
        if turns and name != current:
            yield whole_dialogue(turns, is_broken, began), began
            finished.add(current)
            turns = []
        if not turns:
            current = name
            began = place
            is_broken = False
        is_broken = is_broken or (after_error and bool(turns))
        after_error = False
        turns.append(fields)
    if turns:
        yield whole_dialogue(turns, is_broken, began), began


def whole_dialogue(turns: list[dict], is_broken: bool, place: str) -> dict | UserError:
    """Return the row that these turns form, or an error if one of them is missing."""
    return UserError(f"{place}: a turn of this dialogue cannot be read") if is_broken else {BARE: turns}


def names_dialogues(rows: list[dict], column: str) -> bool:
    """Whether a column may contain the name or number of each row's dialogue; it may be empty, except in the first."""
    cells = [from_text(row.get(column)) for row in rows]
    there = all(column in row for row in rows) and not is_empty(cells[0])
    return there and all(is_empty(cell) or isinstance(cell, (str, int, float)) for cell in cells)


def describe_form(form: tuple[str, ...], rows: list[dict]) -> str:
    """Return a description of a form for the log; rows: some that may have it."""
    beside = [name for name in columns_beside(form) if any(row.get(name) for row in rows)]
    also = "".join(f', "{name}"' for name in beside)
    if len(form) == 2:
        return f'"{form[0]}" (user), "{form[1]}" (assistant){also}'
    turns = from_text(next((row[form[0]] for row in rows if row.get(form[0])), None))
    turn = turns[0] if isinstance(turns, list) and turns else turns
    keys = plain_keys(turn) if isinstance(turn, dict) else set()
    shown = [key for key in (*ROLE_KEYS, *TEXT_KEYS) if key in keys]
    return f'"{form[0]}" ({", ".join(shown) or "texts"}){also}'


def columns_beside(form: tuple[str, ...]) -> list[str]:
    """Return the optional columns of a form, which are used if they are filled."""
    pair = [INPUT, CONTEXT, HISTORY] if len(form) == 2 else []
    return [name for name in (*pair, *SYSTEM) if name not in form]


def first_dialogues(form: tuple[str, ...], rows: list[dict], speakers: Speakers) -> Iterator[list[Spoken]]:
    """Yield the turns of the first rows; skip unreadable ones, which raise an error later, with their place."""
    columns = form if len(form) == 1 else (HISTORY, *form)
    for row in rows:
        for column in columns:
            value = row.get(column)
            value = turns_or_text(value) if column in (*QUESTIONS, *ANSWERS) else from_text(value)
            if isinstance(value, (list, dict)):
                with contextlib.suppress(ValueError):
                    yield spoken_turns(value, speakers.key, Notes(), speakers.assistant)


def turns_in_row(row: object, form: tuple[str, ...], beside: list[str], speakers: Speakers, notes: Notes) -> list[Turn]:
    """Return the turns of a row that has this form, without those that have no text; beside: see `columns_beside`.

    Raises ValueError for a row that has another form.
    """
    fields = as_object(row)
    missing = [column for column in form if fields is None or column not in fields]
    if missing:
        found = f"the columns {', '.join(map(str, row))}" if isinstance(row, dict) else in_words(row)
        raise ValueError(f'{one_line(found)}, but no "{missing[0]}"')
    if isinstance(row, dict):
        notes.unused(row, *form, *beside)
    turns = [("system", text_of(fields[column], column, notes)) for column in SYSTEM if column in fields]
    if len(form) == 2:
        turns += pair_in_row(fields, form, beside, speakers, notes)
    else:
        value = from_text(fields[form[0]])
        turns += [] if is_empty(value) else speakers.turns(value, notes)
    if any(role != "system" and not text.strip() for role, text in turns) and len(form) == 1:
        notes.leave_out("turns without a text")
    return [(role, text) for role, text in turns if text.strip()]


def pair_in_row(fields: dict, form: tuple[str, ...], beside: list[str], speakers: Speakers, notes: Notes) -> list[Turn]:
    """Return the turns of a row with a question and an answer."""
    question, answer = (turns_or_text(fields[column]) for column in form)
    if form[0] == HISTORY:  # the history ends with the question
        turns = speakers.turns(from_text(question), notes)
        if not turns or turns[-1][0] != "user":
            raise ValueError(f'column "{HISTORY}" does not end with a turn of the user')
        return [*turns, ("assistant", text_in(fields, form[1]))]
    turns = []
    if HISTORY in beside:
        history = from_text(fields.get(HISTORY))
        if isinstance(history, (list, dict)):
            turns = speakers.turns(history, notes)
        elif not is_empty(history) and history != "":
            notes.leave_out(f'"{HISTORY}" that is not a list of turns')
    if are_all_turns(question) or are_all_turns(answer):
        parts = [part if are_all_turns(part) else [part] for part in (question, answer)]
        return turns + speakers.turns([turn for part in parts for turn in part], notes)
    texts = [text_in(fields, form[0])]
    if isinstance(fields.get(CONTEXT), str):
        texts.insert(0, fields[CONTEXT])
    elif fields.get(CONTEXT):
        notes.leave_out(f'"{CONTEXT}" that is not text')
    if INPUT in beside and not is_empty(fields.get(INPUT)):
        texts.append(text_in(fields, INPUT))
    question = "\n".join(text for text in texts if text.strip())
    return [*turns, ("user", question), ("assistant", text_in(fields, form[1]))]


def turns_or_text(cell: object) -> object:
    """Return the turns that a cell of a question or answer contains; any other text, such as "[1, 2]", stays text."""
    value = from_text(cell)
    return value if are_all_turns(value) else cell


def text_in(fields: dict, column: str) -> str:
    """Return the text in a column.  Raises ValueError if there is something else."""
    value = fields[column]
    if is_empty(value):
        return ""
    if isinstance(value, (int, float)):  # an answer may be 4
        return str(value)
    if not isinstance(value, str):
        raise ValueError(f'column "{column}" contains {one_line_json(value)}, not text')
    return value
