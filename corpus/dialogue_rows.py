"""From rows to dialogues: the columns that hold one, its turns, and who of the speakers is the assistant.

In reading order: `read_dialogues`; `Form`, how the dialogues of a file
are laid out, found from its first rows; `turns_in_row`; `spoken_turns`, a list of turns in any shape; `Speakers`, from
names to roles.  Everywhere else a turn is (role, text), its role user, assistant or system.
"""

import ast
import io
import itertools
import json
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from common.errors import UserError, one_line, one_line_json
from corpus.dialogues import Turn, join_turns
from corpus.notes import NO_KEY, Notes, ReadingFlags, is_empty, plain_name, usable
from corpus.readers import Row, Wanted
from corpus.sources import Split

LISTS = (
    "conversation", "messages", "conversations", "dialogue", "dialog", "turns", "chat", "chat_messages", "utterances",
    "contents",
)  # fmt: skip
QUESTIONS = ("instruction", "prompt", "question", "query", "request", "q", "user", "human", "input", "inputs")
ANSWERS = (
    "output", "response", "completion", "answer", "reply", "a", "assistant", "bot", "gpt", "ai", "chatbot", "target",
    "outputs",
)  # fmt: skip
HISTORY = "history"  # earlier turns, beside a question or instead of it
LAST_LISTS = (HISTORY, "data")  # lists of turns where no other form is there
# The columns of each form, the likelier ones first.
FORMS = [
    *((name,) for name in LISTS), *itertools.product((*QUESTIONS, HISTORY), ANSWERS), *((name,) for name in LAST_LISTS),
]  # fmt: skip
INPUT = "input"  # may stand beside a question: what it is about, after it
CONTEXT = "context"  # the same, before it
SYSTEM = ("system", "system_prompt", "system_message", "systeminstruction")  # may stand beside any form
ID_COLUMNS = (  # name the dialogue where each row is one turn
    "dialogue_id", "dialog_id", "conversation_id", "conv_id", "chat_id", "session_id", "thread_id", "dialogue",
    "dialog", "conversation", "session", "thread",
)  # fmt: skip
BARE = "turns"  # what the column is called where a row is a list of turns

ROLES = {
    "user": "user", "human": "user", "prompter": "user", "customer": "user", "assistant": "assistant",
    "gpt": "assistant", "bot": "assistant", "model": "assistant", "chatgpt": "assistant", "ai": "assistant",
    "chatbot": "assistant",
    "system": "system", "developer": "system",
}  # fmt: skip
TOOLS = (
    "tool", "tool_call", "tool_response", "function", "function_call", "function_response", "observation", "ipython",
)  # fmt: skip
ROLE_KEYS = ("role", "from", "speaker", "sender", "author", "name", "type")
SURE_KEYS = ("role", "from")  # hold a role: another word is a mistake, not a name
TEXT_KEYS = ("content", "text", "value", "message", "utterance", "parts")
CALLS = ("tool_calls", "function_call")  # keys of a turn that need not have a text
FIRST_ROWS = 100  # are looked at to find the form
MOST_VALUES = 3  # of a key that may be the speaker's
KNOWN = (
    f"a list of turns ({', '.join(LISTS[:3])} ...), or a question ({', '.join(QUESTIONS[:4])} ...) and an answer "
    f"({', '.join(ANSWERS[:4])} ...), all in docs/data.md"
)


# Rows -----------------------------------------------------------------------------------------------------------------


def read_dialogues(
    split: Split, how: ReadingFlags | None = None, limit: int | None = None, notes: Notes | None = None
) -> Iterator[list[Turn]]:
    """Yield up to limit dialogues of a split, each a list of (role, text); those without an answer are left out.

    The form of the rows is that of most of the first ones; notes: hears what the log should say.
    Raises UserError for a form that is not known and for a row of another form; with how.skip_bad_rows such rows are
    counted.
    """
    how = how or ReadingFlags()
    notes = notes if notes is not None else Notes()
    rows = joined_turns(split.rows(Wanted(holds_dialogue), notes), notes)
    first = list(itertools.islice(rows, FIRST_ROWS))
    readable = [as_object(row) for row, _ in first if not isinstance(row, UserError)]
    form = find_form([row for row in readable if row is not None], split.name) if readable else FORMS[0]
    speakers = Speakers(how, notes)
    if readable:
        notes.guess(f"dialogues in the form {describe_form(form, readable)}")
        speakers.find(form, readable, split.name)

    def dialogue(row, place):
        try:
            turns = turns_in_row(row, form, speakers, notes)
        except ValueError as error:
            columns = " + ".join(form)
            raise UserError(f'{place}: {error}; the dialogues of this file are in the form "{columns}"') from None
        _, pairs = join_turns(turns)
        if not pairs:
            return None
        roles = [role for role, _ in turns if role != "system"]
        if roles[0] == "assistant":
            notes.leave_out("words of the assistant before the user's first")
        if roles[-1] == "user":
            notes.leave_out("words of the user that nobody answers")
        return turns

    nothing = f"no dialogues in {split.name}; pass --dataset a file or folder that holds some"
    rows = itertools.chain(first, rows)
    return usable(rows, dialogue, limit, notes, how.skip_bad_rows, "dialogues without an answer", nothing)


def holds_dialogue(value: object) -> bool:
    """Whether a value that is all of a JSON file is one dialogue: a list of turns, or an object with a form.

    A list is one only where its items say who speaks; lists of questions with answers are rows.
    """
    if isinstance(value, list):
        are_texts = all(isinstance(turn, str) for turn in value)
        say_who = all(isinstance(turn, dict) and plain_keys(turn) & {*ROLE_KEYS[:4]} for turn in value)
        return bool(value) and (are_texts or say_who)
    row = as_object(value)
    if row is None:
        return False
    if any(looks_like_turns(from_text(row.get(column))) for column in LISTS):
        return True
    filled = {name for name, cell in row.items() if not isinstance(cell, (list, dict)) or looks_like_turns(cell)}
    return bool(filled & {*QUESTIONS}) and bool(filled & {*ANSWERS})


def looks_like_turns(value: object) -> bool:
    """Whether a value is a list of turns and not of dialogues: its first item is a text, or an object with one."""
    if isinstance(value, dict):  # lists in columns
        return any(isinstance(value.get(key), list) for key in TEXT_KEYS)
    if not isinstance(value, list) or not value:
        return False
    turn = value[0]
    return isinstance(turn, str) or (isinstance(turn, dict) and bool(plain_keys(turn) & {*TEXT_KEYS}))


def plain_keys(fields: dict) -> set[str]:
    return {plain_name(name) for name in fields}


def as_object(row: object) -> dict | None:
    """A row with its names in lower case; a list of turns becomes an object with the column BARE; else None."""
    if isinstance(row, list):
        return {BARE: row}
    return {plain_name(name): value for name, value in row.items()} if isinstance(row, dict) else None


def find_form(rows: list[dict], name: str) -> tuple[str, ...]:
    """The columns of the form that fits the most of some rows.  Raises UserError where none fits any."""

    def fit(form):
        """How many rows have all columns filled, and how many have them at all."""
        filled = sum(all(row.get(column) for column in form) for row in rows)
        there = sum(all(column in row for column in form) for row in rows)
        return filled, there

    form = max(FORMS, key=fit)
    _, there = fit(form)
    if there:
        return form
    columns = list(dict.fromkeys(column for row in rows for column in row))
    if are_turns(columns):
        raise UserError(
            f"{name}: each row is one turn (columns {one_line(', '.join(columns))}); write a column dialogue_id beside "
            'it, or the turns of a dialogue into one row, {"messages": [...]}'
        )
    if columns == ["text"]:
        raise UserError(
            f"{name}: plain texts; write dialogues as .jsonl or .csv with one of the forms of a conversation"
        )
    shown = one_line(", ".join(columns)) or "none"
    raise UserError(f"{name}: no form of dialogues is known with the columns {shown}; known: {KNOWN}")


def are_turns(columns: Iterable[str]) -> bool:
    """Whether rows with these columns are single turns."""
    return not {*columns}.isdisjoint(ROLE_KEYS) and not {*columns}.isdisjoint(TEXT_KEYS)


def joined_turns(rows: Iterator[Row], notes: Notes) -> Iterator[Row]:
    """Yield rows; where each of them is one turn with the name of its dialogue beside it, a row for each dialogue.

    Raises UserError for a dialogue that goes on after another one has begun.
    """
    rows = iter(rows)
    first = list(itertools.islice(rows, FIRST_ROWS))
    rows = itertools.chain(first, rows)
    objects = [fields for row, _ in first if isinstance(row, dict) and (fields := as_object(row))]
    column = next((name for name in ID_COLUMNS if objects and all(name in fields for fields in objects)), None)
    if column is None or not all(are_turns(fields) for fields in objects):
        yield from rows
        return
    notes.guess(f'each row is one turn; those with the same "{column}" are a dialogue')
    seen = set()
    for number, group in itertools.groupby(rows, lambda pair: id_of(pair[0], column)):
        turns = list(group)
        errors = [pair for pair in turns if not isinstance(pair[0], dict)]
        yield from errors
        place = turns[0][1]
        if number in seen:
            raise UserError(
                f"{place}: more of the dialogue {one_line(number)} after another one; sort the rows by {column}"
            )
        seen.add(number)
        if not errors:
            inside = [{name: cell for name, cell in row.items() if plain_name(name) != column} for row, _ in turns]
            yield {BARE: inside}, place


def id_of(row: object, column: str) -> object:
    """What a row has in a column, None where it is no object."""
    value = as_object(row).get(column) if isinstance(row, dict) else None
    return value if isinstance(value, (str, int)) else None


def describe_form(form: tuple[str, ...], rows: list) -> str:
    """What the log calls a form; rows: some that may have it."""
    rows = [row for row in rows if row is not None]
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
    """The columns that are used beside those of a form, where they are filled."""
    pair = [INPUT, CONTEXT, HISTORY] if len(form) == 2 else []
    return [name for name in (*pair, *SYSTEM) if name not in form]


def from_text(value: object) -> object:
    """A list of turns that a cell of a table holds as JSON or in Python's notation; anything else as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(with_commas(value.strip()))
    except (ValueError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError):
        return value


def with_commas(text: str) -> str:
    """A list in Python's notation with the commas that NumPy leaves out: ['Hi' 'Hello!'] would be one text."""
    parts = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        begins = token.type == tokenize.STRING or token.string in ("{", "[")
        if begins and parts and parts[-1][-1:] in ("'", '"', "}", "]"):
            parts.append(",")
        if token.string.strip():
            parts.append(token.string)
    return " ".join(parts)


def turns_in_row(row: object, form: tuple[str, ...], speakers: "Speakers", notes: Notes) -> list[Turn]:
    """The turns of a row that has a form, those without any text left out.  Raises ValueError for another row."""
    fields = as_object(row)
    missing = [column for column in form if fields is None or column not in fields]
    if missing:
        found = f"the columns {', '.join(map(str, row))}" if isinstance(row, dict) else f"a {type(row).__name__}"
        raise ValueError(f'{one_line(found)}, no "{missing[0]}"')
    beside = columns_beside(form)
    if isinstance(row, dict):
        notes.unused(row, *form, *beside)
    turns = [("system", text_of(fields[column], column, notes)) for column in SYSTEM if fields.get(column)]
    if len(form) == 2:
        turns += pair_in_row(fields, form, beside, speakers, notes)
    else:
        value = from_text(fields[form[0]])
        turns += [] if is_empty(value) else speakers.turns(value, notes)
    spoken = [(role, text) for role, text in turns if text.strip()]
    if len(spoken) < len(turns) and len(form) == 1:
        notes.leave_out("turns without a text")
    return spoken


def pair_in_row(
    fields: dict, form: tuple[str, ...], beside: list[str], speakers: "Speakers", notes: Notes
) -> list[Turn]:
    """The turns of a row with a question and an answer."""
    turns = []
    if HISTORY in beside and not is_empty(fields.get(HISTORY)) and fields[HISTORY] != "":
        turns += speakers.turns(from_text(fields[HISTORY]), notes)
    question, answer = (from_text(fields[column]) for column in form)
    if form[0] == HISTORY:  # ends with the question
        turns = speakers.turns(question, notes)
        if not turns or turns[-1][0] != "user":
            raise ValueError(f'column "{HISTORY}" does not end with the words of the user')
        return [*turns, ("assistant", text_in(fields, form[1]))]
    if isinstance(question, list) or isinstance(answer, list):  # both are turns
        parts = [part if isinstance(part, list) else [part] for part in (question, answer)]
        return turns + speakers.turns([turn for part in parts for turn in part], notes)
    question = text_in(fields, form[0])
    if CONTEXT in beside and not is_empty(fields.get(CONTEXT)):
        question = f"{text_in(fields, CONTEXT)}\n{question}"
    if INPUT in beside and not is_empty(fields.get(INPUT)):
        question = f"{question}\n{text_in(fields, INPUT)}"
    return [*turns, ("user", question.strip()), ("assistant", text_in(fields, form[1]))]


def text_in(fields: dict, column: str) -> str:
    """The text in a column.  Raises ValueError if it holds none."""
    value = fields[column]
    if is_empty(value):
        return ""
    if isinstance(value, (int, float)):  # the answer 4
        return str(value)
    if not isinstance(value, str):
        raise ValueError(f'column "{column}" holds {one_line_json(value)}, not text')
    return value


# Turns ----------------------------------------------------------------------------------------------------------------


@dataclass
class Spoken:
    """A turn as a file has it.  speaker: as it is compared, None if nothing says it; key: where that stands."""

    speaker: str | None
    text: str
    key: str = ""
    fields: dict | None = None


def spoken_turns(value: object, speaker_key: str | None, notes: Notes) -> list[Spoken]:
    """The turns of a list in any accepted shape.

    A turn is a text, [role, text], or an object with the text under one of TEXT_KEYS and maybe the speaker under one of
    ROLE_KEYS; a pair, [question, answer] or {"human": ..., "assistant": ...}, is two turns.  Lists in columns,
    {"text": [...], "role": [...]}, are turns too.  speaker_key: the only key that says who speaks.
    Raises ValueError, its message one line that says which turn is wrong and how.
    """
    if isinstance(value, dict):
        value = turns_in_columns(value)
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{one_line_json(value)} where a list of turns was expected")
    turns = []
    begins = [turn[0] for turn in value if isinstance(turn, (list, tuple)) and len(turn) == 2]
    name_speakers = all(plain_name(begin) in ROLES for begin in begins)
    for number, turn in enumerate(value, start=1):
        if isinstance(turn, str):
            turns.append(Spoken(None, turn))
        elif isinstance(turn, (list, tuple)) and len(turn) == 2 and all(isinstance(text, str | None) for text in turn):
            if name_speakers:
                turns.append(Spoken(plain_name(turn[0]), turn[1] or ""))
            else:
                turns += [Spoken("user", turn[0] or ""), Spoken("assistant", turn[1] or "")]
        elif isinstance(turn, dict):
            turns += spoken_object(turn, number, speaker_key, notes)
        else:
            raise ValueError(f'turn {number} has no "content" or "text" that is text: {one_line_json(turn)}')
    return turns


def turns_in_columns(columns: dict) -> list[dict]:
    """[{"text": ..., "role": ...}, ...] of {"text": [...], "role": [...]}."""
    columns = {name: texts for name, texts in columns.items() if texts is not None}
    if not columns or not all(isinstance(texts, list) for texts in columns.values()):
        raise ValueError("an object where a list of turns was expected")
    return [dict(zip(columns, texts, strict=True)) for texts in zip(*columns.values(), strict=False)]


def spoken_object(turn: dict, number: int, speaker_key: str | None, notes: Notes) -> list[Spoken]:
    """The turn, or the two turns, that an object in a list of turns stands for."""
    fields = as_object(turn)
    for inside in ("message", "data"):
        if isinstance(fields.get(inside), dict):
            fields |= as_object(fields.pop(inside))
    key = next((key for key in TEXT_KEYS if not is_empty(fields.get(key))), None)
    if key is None:
        question = next((name for name in QUESTIONS if isinstance(fields.get(name), str)), None)
        answer = next((name for name in ANSWERS if isinstance(fields.get(name), str)), None)
        if question and answer:
            return [Spoken("user", fields[question]), Spoken("assistant", fields[answer])]
        if not fields.keys() & {*TEXT_KEYS, *CALLS}:
            raise ValueError(f'turn {number} has no "content" or "text": {one_line_json(turn)}')
    text = "" if key is None else text_of(fields[key], number, notes)
    keys = (plain_name(speaker_key),) if speaker_key else ROLE_KEYS
    named = {name: speaker_of(fields[name]) for name in keys if name in fields}
    named = {name: speaker for name, speaker in named.items() if speaker is not None}
    if not speaker_key and named.get("type") not in (*ROLES, *TOOLS):
        named.pop("type", None)  # says what a turn is, not who speaks
    known = [name for name, speaker in named.items() if speaker in ROLES or speaker in TOOLS]
    speaker_at = next(iter(known or named), None)
    notes.unused_keys(fields, key, speaker_at)
    return [Spoken(named.get(speaker_at), text, speaker_at or "", fields)]


def speaker_of(value: object) -> str | None:
    """Who speaks, as it is compared; None if a value says nothing."""
    if isinstance(value, dict):  # {"role": ..., "name": ...}
        value = next((value[key] for key in ROLE_KEYS if value.get(key)), None)
    if isinstance(value, (str, int)):
        return plain_name(value) or None
    return None


def text_of(value: object, where: int | str, notes: Notes) -> str:
    """The text of a turn's content: a text, a number, or a list of parts, of which those that are no text are left out.

    where: the turn's number, or the column.  Raises ValueError for anything else.
    """
    if is_empty(value):
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, dict):
        value = value.get("text", value.get("parts", value))
        if not isinstance(value, dict):
            return text_of(value, where, notes)
    if isinstance(value, list):
        texts = [part.get("text") if isinstance(part, dict) else part for part in value]
        for part, text in zip(value, texts, strict=True):
            if not isinstance(text, str):
                kind = part.get("type") if isinstance(part, dict) else type(part).__name__
                notes.leave_out(f"parts of a turn of the type {one_line(kind, 40)}")
        return "\n".join(text for text in texts if isinstance(text, str))
    place = f"turn {where} has" if isinstance(where, int) else f'column "{where}" holds'
    raise ValueError(f'{place} no "content" or "text" that is text: {one_line_json(value)}')


class Speakers:
    """Who of the speakers of a file is the assistant: by their roles, by --assistant_name, or by a guess."""

    def __init__(self, how: ReadingFlags | None = None, notes: Notes | None = None):
        how = how or ReadingFlags()
        self.key = how.speaker_key
        self.given = how.assistant_name
        self.assistant = plain_name(how.assistant_name) if how.assistant_name else None
        self.notes = notes

    def find(self, form: tuple[str, ...], rows: list, name: str) -> None:
        """Find the assistant from the first rows of a file, and note how.

        Raises UserError where a key of the turns may be the speaker's, and for an assistant who never speaks.
        """
        dialogues = list(self.first_dialogues(form, rows))
        spoken = [turn for turns in dialogues for turn in turns]
        everybody = list(dict.fromkeys(turn.speaker for turn in spoken if turn.speaker is not None))
        if self.given and self.assistant not in everybody:
            if not {*everybody} <= {*ROLES, *TOOLS}:
                raise UserError(
                    f"{name}: --assistant_name {self.given} does not speak in the first dialogues; "
                    f"these do: {one_line(', '.join(everybody))}"
                )
            self.given = self.assistant = None  # it is for another data set: here the roles tell
        if self.key and self.key != NO_KEY and spoken and not everybody:
            raise UserError(f"{name}: no turn has the --speaker_key {self.key}; leave it out, or pass {NO_KEY}")
        if spoken and not everybody:
            if self.key is None:
                self.refuse_unknown_key(spoken, name)
            self.notes.guess("no turn says who speaks: user and assistant take turns")
        elif not self.given:
            self.guess_assistant(dialogues)

    def first_dialogues(self, form: tuple[str, ...], rows: list) -> Iterator[list[Spoken]]:
        """The turns of the first rows; those that cannot be read are an error later, where they have a place."""
        columns = form if len(form) == 1 else (HISTORY, *form)
        for row in rows:
            for column in columns if row is not None else ():
                value = from_text(row.get(column))
                if isinstance(value, (list, dict)):
                    try:
                        yield spoken_turns(value, self.key, Notes())
                    except ValueError:
                        continue

    def refuse_unknown_key(self, spoken: list[Spoken], name: str) -> None:
        """Raise UserError where all turns have a key with the same two or three values: it may say who speaks."""
        objects = [turn.fields for turn in spoken if turn.fields is not None]
        if len(objects) < len(spoken):
            return
        for key in objects[0]:
            values = [fields.get(key) for fields in objects]
            if key in TEXT_KEYS or not all(isinstance(value, (str, int)) and value != "" for value in values):
                continue
            found = list(dict.fromkeys(map(plain_name, values)))
            if 1 < len(found) <= MOST_VALUES and len(found) < len(values):
                shown = one_line(" or ".join(found))
                raise UserError(
                    f'{name}: no key that is known says who speaks, but each turn has "{one_line(key, 40)}", {shown}; '
                    f"pass --speaker_key {one_line(key, 40)} --assistant_name {one_line(found[-1], 40)} (or another), "
                    f"or, if it does not, --speaker_key {NO_KEY}"
                )

    def guess_assistant(self, dialogues: list[list[Spoken]]) -> None:
        """Where speakers are names, the one who speaks in every dialogue, or does not speak first, is the assistant."""
        by_name = []  # for each dialogue of names alone: those who speak, in order
        for turns in dialogues:
            names = list(dict.fromkeys(turn.speaker for turn in turns if turn.speaker is not None))
            if len(names) > 1 and not any(name in ROLES or name in TOOLS for name in names):
                by_name.append(names)
        if not by_name:
            return
        everybody = list(dict.fromkeys(name for names in by_name for name in names))
        if len(everybody) == 2:
            firsts = Counter(names[0] for names in by_name)
            user = max(everybody, key=lambda name: firsts[name])  # of equals the first who speaks
            (self.assistant,) = (name for name in everybody if name != user)
            why = f'"{self.assistant}" is the assistant, "{user}", who begins, the user'
        else:
            always = [name for name in everybody if all(name in names for names in by_name)]
            if len(always) == 1:
                self.assistant = always[0]
                why = f'"{self.assistant}", who speaks in all dialogues, is the assistant, the others the user'
            else:
                why = "in each dialogue the first to speak is the user, the other one the assistant"
        self.notes.guess(f"speakers are names: {why}; --assistant_name decides otherwise")

    def turns(self, value: object, notes: Notes) -> list[Turn]:
        """The (role, text) of a list of turns in any accepted shape.  Raises ValueError as `spoken_turns`."""
        turns = []
        for number, turn in enumerate(spoken_turns(value, self.key, notes), start=1):
            if turn.speaker in TOOLS:
                notes.leave_out(f"turns of {turn.speaker}")
            elif turn.speaker is None:
                turns.append(("assistant" if turns and turns[-1][0] == "user" else "user", turn.text))
            else:
                turns.append((self.role_of(turn, number), turn.text))
        roles = self.roles_of_names(list(dict.fromkeys(role for role, _ in turns)))
        return [(roles.get(role, role), text) for role, text in turns]

    def role_of(self, turn: Spoken, number: int) -> str:
        """A speaker's role; "name ..." for a name, whose role depends on who else speaks."""
        role = ROLES.get(turn.speaker)
        if self.given:
            if turn.speaker == self.assistant:
                return "assistant"
            return "system" if role == "system" else "user"
        if role is None and turn.key in SURE_KEYS and not self.key:
            shown = one_line_json(turn.speaker)
            raise ValueError(
                f"turn {number} has the {turn.key} {shown}, not user, assistant or system; --assistant_name says "
                "who the assistant is"
            )
        return role or f"name {turn.speaker}"

    def roles_of_names(self, spoken: list[str]) -> dict[str, str]:
        """{"name ...": role} for the names among those who speak in a dialogue.

        Where the assistant's name is known, all others are the user; else, and beside roles, the names take the roles
        that nobody has, in order.
        """
        names = [role for role in spoken if role.startswith("name ")]
        free = [role for role in ("user", "assistant") if role not in spoken]
        if self.assistant and len(free) == 2:
            return {name: "assistant" if name == f"name {self.assistant}" else "user" for name in names}
        if len(names) > len(free):
            raise ValueError(
                f"{len(names) + 2 - len(free)} speakers, where user and assistant were expected; "
                "--assistant_name says who the assistant is"
            )
        return dict(zip(names, free, strict=False))


def read_turns(value: object) -> list[Turn]:
    """The (role, text) of one list of turns in any accepted shape.  Raises ValueError as `spoken_turns`."""
    return Speakers().turns(value, Notes())
