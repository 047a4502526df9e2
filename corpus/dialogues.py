"""Dialogues: the forms in which files hold them, and the one way in which they become tokens.

In reading order: `read_dialogues`, from rows to dialogues; `find_form` and `turns_of`, the rows that hold one;
`read_turns`, a list of turns in any form; `render_dialogues`, from turns to ids, for the trainer, the chat and the
prompts alike; `reply_mask`, what of the ids is learned.  Everywhere else a turn is (role, text), its role user,
assistant or system.
"""

import itertools
import json
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from common.errors import UserError, one_line, one_line_json
from common.text import without_surrogates
from corpus.sources import BadRows, Split, usable

ROLES = {
    "user": "user", "human": "user", "prompter": "user", "assistant": "assistant", "gpt": "assistant",
    "bot": "assistant", "model": "assistant", "chatgpt": "assistant", "system": "system",
}  # fmt: skip
ROLE_KEYS = ("role", "from", "name")
TEXT_KEYS = ("content", "text", "value")
LISTS = ("conversation", "messages", "conversations")  # columns that hold a list of turns
PAIRS = (
    ("instruction", "output"), ("prompt", "response"), ("prompt", "completion"), ("question", "answer"),
    ("instruction", "response"), ("question", "response"),
)  # fmt: skip
FORMS = [*((name,) for name in LISTS), *PAIRS]  # the columns of each form, the likelier ones first
INPUT = "input"  # a column that may stand beside an instruction
SYSTEM = ("system", "system_prompt")  # columns that may stand beside any form
FIRST_ROWS = 100  # are looked at to find the form
KNOWN = f"{', '.join(LISTS)} (a list of turns), {', '.join(' + '.join(pair) for pair in PAIRS)}"

Turn = tuple[str, str]  # (role, text)


# Rows -----------------------------------------------------------------------------------------------------------------


def read_dialogues(
    split: Split, limit: int | None = None, bad: BadRows | None = None, remarks: list[str] | None = None
) -> Iterator[list[Turn]]:
    """Yield up to limit dialogues of a split, each a list of (role, text); those without an answer are skipped.

    The form of the rows is that of most of the first ones; remarks: a list that gets a line which says it.
    Raises UserError for a form that is not known and for a row of another form; bad: a BadRows that may skip such rows.
    """
    rows = split.rows()
    first = list(itertools.islice(rows, FIRST_ROWS))
    readable = [row for row, _ in first if not isinstance(row, UserError)]
    form = find_form(readable, split.name) if readable else FORMS[0]
    if readable and remarks is not None:
        remarks.append(f"dialogues in the form {describe_form(form, readable)}")

    def dialogue(row, place):
        try:
            turns = turns_of(row, form)
        except ValueError as error:
            raise UserError(
                f'{place}: {error}; the dialogues of this file are in the form "{" + ".join(form)}": fix it'
            ) from None
        _, pairs = join_turns(turns)
        return turns if pairs else None

    nothing = f"no dialogues in {split.name}; pass --dataset a file or folder that holds some"
    return usable(itertools.chain(first, rows), dialogue, limit, bad or BadRows(), nothing)


def find_form(rows: list, name: str) -> tuple[str, ...]:
    """The columns of the form that fits the most of some rows.  Raises UserError where none fits any."""
    rows = [row for row in rows if isinstance(row, dict)]

    def fit(form):
        """How many rows have all columns filled, and how many have them at all."""
        filled = sum(all(row.get(column) for column in form) for row in rows)
        there = sum(all(column in row for column in form) for row in rows)
        return filled, there

    form = max(FORMS, key=fit)
    _, there = fit(form)
    if not there:
        columns = ", ".join(dict.fromkeys(str(column) for row in rows for column in row)) or "none"
        raise UserError(f"{name}: no form of dialogues is known with the columns {one_line(columns)}; known: {KNOWN}")
    return form


def describe_form(form: tuple[str, ...], rows: list) -> str:
    """What the log calls a form; rows: some that have it."""
    rows = [row for row in rows if isinstance(row, dict)]
    if form in PAIRS:
        beside = [name for name in (INPUT, *SYSTEM) if any(row.get(name) for row in rows)]
        return f'"{form[0]}" (user), "{form[1]}" (assistant)' + "".join(f', "{name}"' for name in beside)
    turns = from_text(next((row[form[0]] for row in rows if row.get(form[0])), None))
    turn = turns[0] if isinstance(turns, list) and turns else turns
    keys = [key for key in (*ROLE_KEYS, *TEXT_KEYS) if isinstance(turn, dict) and turn.get(key)]
    return f'"{form[0]}" ({", ".join(keys) or "texts"})'


def from_text(value: object) -> object:
    """A list of turns that a table holds as JSON; anything else as it is."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def turns_of(row: object, form: tuple[str, ...]) -> list[Turn]:
    """The turns of a row that has a form, those without any text left out.  Raises ValueError for another row."""
    missing = [column for column in form if not isinstance(row, dict) or row.get(column) is None]
    if missing:
        found = f"the columns {', '.join(map(str, row))}" if isinstance(row, dict) else f"a {type(row).__name__}"
        raise ValueError(f'{one_line(found)}, no "{missing[0]}"')
    system = [("system", text_in(row, column)) for column in SYSTEM if row.get(column)]
    turns = pair_of(row, form) if form in PAIRS else read_turns(from_text(row[form[0]]))
    return [(role, text) for role, text in system + turns if text.strip()]


def pair_of(row: dict, form: tuple[str, str]) -> list[Turn]:
    question = text_in(row, form[0])
    if form[0] == "instruction" and row.get(INPUT):
        question += f"\n{text_in(row, INPUT)}"
    return [("user", question), ("assistant", text_in(row, form[1]))]


def text_in(row: dict, column: str) -> str:
    """The text in a column.  Raises ValueError if it holds none."""
    value = row[column]
    if isinstance(value, (int, float)):  # as a table reads the answer 4
        return str(value)
    if not isinstance(value, str):
        raise ValueError(f'column "{column}" holds {one_line_json(value)}, not text')
    return value


# Turns ----------------------------------------------------------------------------------------------------------------


def read_turns(value: object) -> list[Turn]:
    """The (role, text) of a list of turns in any accepted form.

    A turn is a text, or an object with the text under `content`, `text` or `value` and maybe the speaker under `role`,
    `from` or `name`.  Where no speaker is given, user and assistant take turns.  Of names that are no roles, the first
    to speak is the user.  Lists in columns, {"text": [...], "role": [...]}, are turns too.
    Raises ValueError, its message one line that says which turn is wrong and how.
    """
    if isinstance(value, dict):
        value = turns_in_columns(value)
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{one_line_json(value)} where a list of turns was expected")
    turns = []
    for number, turn in enumerate(value, start=1):
        fields = turn if isinstance(turn, dict) else {"text": turn}
        text = next((fields[key] for key in TEXT_KEYS if fields.get(key) is not None), None)
        if not isinstance(text, str):
            raise ValueError(f'turn {number} has no "content" or "text" that is text: {one_line_json(turn)}')
        key = next((key for key in ROLE_KEYS if fields.get(key)), None)
        if key is None:
            role = "assistant" if turns and turns[-1][0] == "user" else "user"
        else:
            role = role_of(fields[key], key, number)
        turns.append((role, text))
    roles = roles_of_names(dict.fromkeys(role for role, _ in turns))
    return [(roles.get(role, role), text) for role, text in turns]


def turns_in_columns(columns: dict) -> list[dict]:
    """[{"text": ..., "role": ...}, ...] of {"text": [...], "role": [...]}."""
    columns = {name: texts for name, texts in columns.items() if texts is not None}
    if not columns or not all(isinstance(texts, list) for texts in columns.values()):
        raise ValueError("an object where a list of turns was expected")
    return [dict(zip(columns, texts, strict=True)) for texts in zip(*columns.values(), strict=False)]


def role_of(speaker: object, key: str, number: int) -> str:
    """A speaker's role; "name ..." for a name that is none.  key: under which it stands, in the turn of that number."""
    if not isinstance(speaker, str) or (key != "name" and speaker.lower() not in ROLES):
        raise ValueError(f"turn {number} has the {key} {one_line_json(speaker)}, not user, assistant or system")
    return ROLES.get(speaker.lower(), f"name {speaker}")


def roles_of_names(spoken: dict[str, None]) -> dict[str, str]:
    """{"name ...": role}: the names among those who spoke take the roles that nobody has, in order."""
    names = [role for role in spoken if role.startswith("name ")]
    free = [role for role in ("user", "assistant") if role not in spoken]
    if len(names) > len(free):
        raise ValueError(f"{len(spoken)} speakers, where user and assistant were expected")
    return dict(zip(names, free, strict=False))


def join_turns(turns: list[Turn], open_ended: bool = False) -> tuple[str | None, list[list]]:
    """(system text or None, [[user text, assistant text], ...]) of (role, text) turns.

    Texts are stripped, turns of one speaker in a row joined by a newline, a leading assistant turn and a trailing user
    turn dropped; with open_ended a trailing user turn stays, its answer None.
    """
    system = []
    pairs = []
    for role, text in turns:
        text = text.strip()
        answered = bool(pairs) and pairs[-1][1] is not None
        if role == "system":
            system.append(text)
        elif role == "user" and (answered or not pairs):
            pairs.append([text, None])
        elif role == "user":
            pairs[-1][0] += "\n" + text
        elif answered:
            pairs[-1][1] += "\n" + text
        elif pairs:
            pairs[-1][1] = text
    if pairs and pairs[-1][1] is None and not open_ended:
        pairs.pop()
    return "\n".join(system) or None, pairs


# Tokens ---------------------------------------------------------------------------------------------------------------


class Rendered(NamedTuple):
    """A dialogue as token ids, and what was left out of it so that it fits."""

    ids: list[int]
    dropped: int  # the oldest pairs
    size: int  # bytes of what the assistant says
    question_cut: bool  # the end of the system text, or the beginning of the only pair's question
    reply_cut: bool  # the end of its answer


def render_dialogues(
    tokenizer, dialogues: list[list[Turn]], max_tokens: int | None = None, open_ended: bool = False
) -> list[Rendered]:
    """Render dialogues, each a list of (role, text); all their texts are tokenized in one batch.

    `<bos>`, `<system> text` if there is one, then for each pair `<user> text <assistant> text <eos>`.  open_ended: the
    dialogue ends with the user's turn, and the ids with `<assistant>`, for the model to continue.
    max_tokens: what does not fit is left out, see `fit_last_pair`.
    """
    joined = [join_turns(turns, open_ended) for turns in dialogues]
    texts = [[system or "", *(text or "" for pair in pairs for text in pair)] for system, pairs in joined]
    all_texts = [text for parts in texts for text in parts]
    encoded = tokenizer.encode_batch(all_texts)
    rendered = []
    first = 0
    for (system, pairs), parts in zip(joined, texts, strict=True):
        last = first + len(parts)
        rendered.append(render(tokenizer, system, pairs, encoded[first:last], max_tokens))
        first = last
    return rendered


def render(tokenizer, system: str | None, pairs: list, encoded: list, max_tokens: int | None) -> Rendered:
    """One dialogue of `render_dialogues`; encoded: the ids of the system text and of each text of the pairs."""
    special = tokenizer.special
    head = [special["<bos>"]]
    if system:
        head += [special["<system>"], *encoded[0]]
    questions = [[special["<user>"], *ids] for ids in encoded[1::2]]
    replies = [[special["<assistant>"], *ids] for ids in encoded[2::2]]
    for reply, (_, text) in zip(replies, pairs, strict=True):
        if text is not None:  # a reply that is still to be written has no end
            reply.append(special["<eos>"])
    dropped = 0
    length = len(head) + sum(map(len, questions)) + sum(map(len, replies))
    while max_tokens is not None and length > max_tokens and dropped + 1 < len(pairs):
        length -= len(questions[dropped]) + len(replies[dropped])
        dropped += 1
    questions = questions[dropped:]
    replies = replies[dropped:]
    said = [text or "" for _, text in pairs[dropped:]]
    question_cut = reply_cut = False
    if max_tokens is not None and length > max_tokens:
        head, question_cut = cut_head(head, max_tokens)
        if pairs:
            question, reply = fit_last_pair(questions[-1], replies[-1], max_tokens - len(head), max_tokens // 4)
            question_cut = question_cut or len(question) < len(questions[-1])
            reply_cut = len(reply) < len(replies[-1])
            questions[-1] = question
            replies[-1] = reply
            if reply_cut:
                said[-1] = tokenizer.decode(reply)
    ids = list(head)
    for question, reply in zip(questions, replies, strict=True):
        ids += question + reply
    size = sum(len(without_surrogates(text).encode()) for text in said)
    return Rendered(ids, dropped, size, question_cut, reply_cut)


def cut_head(head: list[int], max_tokens: int) -> tuple[list[int], bool]:
    """(<bos> and the system text in at most half of max_tokens, whether something was cut off)."""
    room = max(1, max_tokens // 2)
    return head[:room], len(head) > room


def fit_last_pair(question: list[int], reply: list[int], room: int, least: int) -> tuple[list[int], list[int]]:
    """Cut the only pair that is left so that it fits into so many tokens.

    The question loses its beginning, down to nothing where that keeps the reply whole; a reply that does not fit even
    so loses its end, and the question keeps `least` tokens.  `<user>` and `<assistant>` stay.
    """
    if len(question) + len(reply) <= room:
        return question, reply
    kept = room - 1 - len(reply)  # of the question's text, behind <user>
    if kept < 0:  # the reply alone is too long
        kept = min(least, room - 2)
    if kept < len(question) - 1:
        question = [question[0], *question[len(question) - kept :]]
    return question, reply[: room - len(question)]


def reply_mask(ids: np.ndarray, special: dict[str, int]) -> np.ndarray:
    """True for what the assistant says in a rendered dialogue, its `<eos>` included: what the chat trainer predicts.

    A token is the assistant's where more replies have begun before it than have ended before it:

                       <bos> <user> Hi <assistant> Hello <eos> <user> Bye <assistant> Bye <eos>
        begun before       0      0  0           0     1     1      1   1           1   2     2
        ended before       0      0  0           0     0     0      1   1           1   1     1
        learned            0      0  0           0     1     1      0   0           0   1     1
    """
    begins = ids == special["<assistant>"]
    ends = ids == special["<eos>"]
    begun_before = begins.cumsum() - begins
    ended_before = ends.cumsum() - ends
    return begun_before > ended_before
