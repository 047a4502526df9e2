"""Turns of a dialogue in any shape that files use: who speaks, and the text.

In reading order: the known words; `Spoken`; `spoken_turns`, a list of turns; `text_of`, the text of a turn;
`from_text`, a list in a cell of a table; `as_object`, names in lower case.
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
TOOLS = (  # speakers whose turns are skipped
    "tool", "tool_call", "tool_response", "function", "function_call", "function_response", "observation", "ipython",
)  # fmt: skip
ROLE_KEYS = (
    "role", "from", "speaker", "sender", "author", "name", "sender_name", "username", "nick", "type",
)  # fmt: skip
TEXT_KEYS = ("content", "text", "value", "message", "utterance", "parts")
CALLS = ("tool_calls", "function_call")  # keys of a turn that need not have a text
QUESTIONS = (
    "instruction", "prompt", "question", "query", "request", "q", "user", "human", "input", "inputs",
    "questions",
)  # fmt: skip
ANSWERS = (
    "output", "response", "completion", "answer", "reply", "a", "assistant", "bot", "gpt", "ai", "chatbot", "target",
    "targets", "outputs", "answers",
)  # fmt: skip
BARE = "turns"  # the name of the column if a row is a list of turns


@dataclass
class Spoken:
    """A turn as it is in a file.

    speaker: in the form in which names are compared; None if the turn does not say.  key: the key that says who speaks.
    """

    speaker: str | None
    text: str
    key: str = ""
    fields: dict | None = None


def spoken_turns(value: object, speaker_key: str | None, notes: Notes, assistant: str | None = None) -> list[Spoken]:
    """Return the turns of a list in any accepted shape.

    A turn is a text, [role, text], or an object with the text under one of TEXT_KEYS and maybe the speaker under one of
    ROLE_KEYS.  A pair, [question, answer] or {"human": ..., "assistant": ...}, is two turns.  Lists in columns,
    {"text": [...], "role": [...]}, are turns, too.  speaker_key: the only key that says who speaks.  assistant: the
    assistant's name.
    Raises ValueError with a message of one line: which turn is wrong, and how.
    """
    if isinstance(value, dict):
        value = turns_in_columns(value)
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"found {one_line_json(value)}, but expected a list of turns")
    turns = []
    begins = [turn[0] for turn in value if isinstance(turn, (list, tuple)) and len(turn) == 2]
    names = {plain_name(begin) for begin in begins if isinstance(begin, str)}
    name_speakers = not names.isdisjoint({*ROLES, assistant})
    if begins and not name_speakers:
        notes.guess("each pair is a turn of the user and one of the assistant")
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
    """Turn {"text": [...], "role": [...]} into [{"text": ..., "role": ...}, ...]."""
    columns = {name: texts for name, texts in columns.items() if texts is not None}
    if not columns or not all(isinstance(texts, list) for texts in columns.values()):
        raise ValueError("found an object, but expected a list of turns")
    return [dict(zip(columns, texts, strict=True)) for texts in zip(*columns.values(), strict=False)]


def spoken_object(turn: dict, number: int, speaker_key: str | None, notes: Notes) -> list[Spoken]:
    """Return the turn, or the two turns, in an object from a list of turns."""
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
    """Return (who speaks, the key that says it): a known role, or else the first name; (None, "") if no key says it.

    `type` is the kind of a turn; it says who speaks only if its value is a role.
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
    """Return who speaks, in the form in which names are compared; None if a value does not say."""
    if isinstance(value, dict):  # {"role": ..., "name": ...}
        value = next((value[key] for key in ROLE_KEYS if value.get(key)), None)
    if isinstance(value, (str, int)):
        return plain_name(value) or None
    return None


def text_of(value: object, where: int | str, notes: Notes) -> str:
    """Return the text of a turn's content: a text, a number, or a list of parts; parts that are not text are left out.

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
        between = "" if any(isinstance(part, str) for part in value) else "\n"  # parts of one line, or lines
        return between.join(text for text in texts if isinstance(text, str))
    place = f"turn {where} has" if isinstance(where, int) else f'column "{where}" has'
    raise ValueError(f'{place} no "content" or "text" that is text: {one_line_json(value)}')


def from_text(value: object) -> object:
    """Return the list of turns that a cell contains as JSON or in Python's notation; any other value as it is."""
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
    """Add the commas that NumPy leaves out of lists in Python's notation: ['Hi' 'Hello!'] would be one text."""
    parts = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        begins = token.type == tokenize.STRING or token.string in ("{", "[")
        if begins and parts and parts[-1][-1:] in ("'", '"', "}", "]"):
            parts.append(",")
        if token.string.strip():
            parts.append(token.string)
    return " ".join(parts)


def as_object(row: object) -> dict | None:
    """Return a row with names in lower case; a list of turns as an object with the column BARE; otherwise None."""
    if isinstance(row, list):
        return {BARE: row}
    if not isinstance(row, dict):
        return None
    fields = {}
    for name, value in row.items():
        plain = plain_name(name)
        if plain not in fields or name == plain:  # if names differ only in case, the lower-case one is used
            fields[plain] = value
    return fields


def plain_keys(fields: dict) -> set[str]:
    return {plain_name(name) for name in fields}
