"""Turns of a dialogue in any shape that files have: who speaks, and the text.

In reading order: the words that are known; `Spoken`; `spoken_turns`, a list of turns; `text_of`, what a turn says;
`from_text`, a list that a cell of a table holds; `as_object`, names in lower case.
"""

import ast
import io
import json
import tokenize
from dataclasses import dataclass

from common.errors import one_line, one_line_json
from corpus.notes import Notes, is_empty, plain_name

ROLES = {
    "user": "user", "human": "user", "prompter": "user", "customer": "user", "assistant": "assistant",
    "gpt": "assistant", "bot": "assistant", "model": "assistant", "chatgpt": "assistant", "ai": "assistant",
    "chatbot": "assistant", "system": "system", "developer": "system",
}  # fmt: skip
TOOLS = (  # speakers whose turns are left out
    "tool", "tool_call", "tool_response", "function", "function_call", "function_response", "observation", "ipython",
)  # fmt: skip
ROLE_KEYS = (
    "role", "from", "speaker", "sender", "author", "name", "sender_name", "username", "nick", "type",
)  # fmt: skip
TEXT_KEYS = ("content", "text", "value", "message", "utterance", "parts")
CALLS = ("tool_calls", "function_call")  # keys of a turn that need not have a text
QUESTIONS = ("instruction", "prompt", "question", "query", "request", "q", "user", "human", "input", "inputs")
ANSWERS = (
    "output", "response", "completion", "answer", "reply", "a", "assistant", "bot", "gpt", "ai", "chatbot", "target",
    "targets", "outputs",
)  # fmt: skip
BARE = "turns"  # what the column is called where a row is a list of turns


@dataclass
class Spoken:
    """A turn as a file has it.  speaker: as it is compared, None if nothing says it; key: where that stands."""

    speaker: str | None
    text: str
    key: str = ""
    fields: dict | None = None


def spoken_turns(value: object, speaker_key: str | None, notes: Notes, assistant: str | None = None) -> list[Spoken]:
    """The turns of a list in any accepted shape.

    A turn is a text, [role, text], or an object with the text under one of TEXT_KEYS and maybe the speaker under one of
    ROLE_KEYS; a pair, [question, answer] or {"human": ..., "assistant": ...}, is two turns.  Lists in columns,
    {"text": [...], "role": [...]}, are turns too.  speaker_key: the only key that says who speaks.  assistant: a name.
    Raises ValueError, its message one line that says which turn is wrong and how.
    """
    if isinstance(value, dict):
        value = turns_in_columns(value)
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{one_line_json(value)} where a list of turns was expected")
    turns = []
    begins = [turn[0] for turn in value if isinstance(turn, (list, tuple)) and len(turn) == 2]
    names = {plain_name(begin) for begin in begins if isinstance(begin, str)}
    name_speakers = not names.isdisjoint({*ROLES, assistant})
    if begins and not name_speakers:
        notes.guess("pairs are the words of the user and those of the assistant")
    for number, turn in enumerate(value, start=1):
        if isinstance(turn, str):
            turns.append(Spoken(None, turn))
        elif isinstance(turn, (list, tuple)) and len(turn) == 2 and all(isinstance(text, str | None) for text in turn):
            if name_speakers:
                turns.append(Spoken(plain_name(turn[0] or "user"), turn[1] or ""))
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
    key = next((key for key in TEXT_KEYS if fields.get(key)), None)
    if key is None:
        key = next((key for key in TEXT_KEYS if not is_empty(fields.get(key))), None)  # "" or 0
    if key is None:
        question = next((name for name in QUESTIONS if isinstance(fields.get(name), str)), None)
        answer = next((name for name in ANSWERS if isinstance(fields.get(name), str)), None)
        if question and answer:
            notes.unused_keys(fields, question, answer)
            return [Spoken("user", fields[question]), Spoken("assistant", fields[answer])]
        role = next((name for name in fields if name in ROLES and isinstance(fields[name], str)), None)
        if role:  # {"assistant": "Hello!"}
            notes.unused_keys(fields, role)
            return [Spoken(role, fields[role])]
        if fields.keys().isdisjoint((*TEXT_KEYS, *CALLS)):
            raise ValueError(f'turn {number} has no "content" or "text": {one_line_json(turn)}')
    text = "" if key is None else text_of(fields[key], number, notes)
    speaker, speaker_at = find_speaker(fields, speaker_key)
    notes.unused_keys(fields, key, speaker_at)
    return [Spoken(speaker, text, speaker_at, fields)]


def find_speaker(fields: dict, speaker_key: str | None) -> tuple[str | None, str]:
    """(who speaks, the key that says it): a role that is known, else the first name; (None, "") where nothing says it.

    `type` says what a turn is, and who speaks only where it is a role.
    """
    found = None, ""
    for key in (plain_name(speaker_key),) if speaker_key else ROLE_KEYS:
        speaker = speaker_of(fields[key]) if key in fields else None
        if speaker in ROLES or speaker in TOOLS:
            return speaker, key
        if speaker is not None and found[0] is None and (key != "type" or speaker_key):
            found = speaker, key
    return found


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
        between = "" if any(isinstance(part, str) for part in value) else "\n"  # parts of a line, or lines
        return between.join(text for text in texts if isinstance(text, str))
    place = f"turn {where} has" if isinstance(where, int) else f'column "{where}" holds'
    raise ValueError(f'{place} no "content" or "text" that is text: {one_line_json(value)}')


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


def as_object(row: object) -> dict | None:
    """A row with its names in lower case; a list of turns becomes an object with the column BARE; else None."""
    if isinstance(row, list):
        return {BARE: row}
    if not isinstance(row, dict):
        return None
    fields = {}
    for name, value in row.items():
        plain = plain_name(name)
        if plain not in fields or name == plain:  # of names that differ in case only, as `notes.name_in` says
            fields[plain] = value
    return fields


def plain_keys(fields: dict) -> set[str]:
    return {plain_name(name) for name in fields}
