"""Dialogues: the forms in which files hold them, and the one way in which they become tokens.

In reading order: `read_turns`, a list of turns in any form; `FORMS`, the rows that hold a dialogue, and
`read_dialogues`, which finds out which of them a file has; `render_dialogues`, from turns to ids, for the trainer, the
chat and the prompts alike; `reply_mask`, what of the ids is learned.  Everywhere else a turn is (role, text), its role
user, assistant or system.
"""

import itertools
import json
from typing import NamedTuple

from common.console import say
from common.errors import UserError
from common.text import clean, shortened
from corpus.sources import BadRows, usable

ROLES = {
    "user": "user", "human": "user", "prompter": "user", "assistant": "assistant", "gpt": "assistant",
    "bot": "assistant", "model": "assistant", "chatgpt": "assistant", "system": "system",
}  # fmt: skip
ROLE_KEYS, TEXT_KEYS = ("role", "from", "name"), ("content", "text", "value")
LISTS = ("conversation", "messages", "conversations")  # columns that hold a list of turns
PAIRS = (
    ("instruction", "output"), ("prompt", "response"), ("prompt", "completion"), ("question", "answer"),
    ("instruction", "response"), ("question", "response"),
)  # fmt: skip
FORMS = [*((name,) for name in LISTS), *PAIRS]  # the columns of each form, the likelier ones first
INPUT, SYSTEM = "input", ("system", "system_prompt")  # columns that may stand beside
FIRST_ROWS = 100  # are looked at to find the form
KNOWN = f"{', '.join(LISTS)} (a list of turns), {', '.join(' + '.join(pair) for pair in PAIRS)}"


# Turns ----------------------------------------------------------------------------------------------------------------
def read_turns(value):
    """The (role, text) of a list of turns in any accepted form.

    A turn is a text, or an object with the text under `content`, `text` or `value` and maybe the speaker under `role`,
    `from` or `name`.  Where no speaker is given, user and assistant take turns.  Of names that are no roles, the first
    to speak is the user.  Lists in columns, {"text": [...], "role": [...]}, are turns too.
    Raises ValueError, its message one line that says which turn is wrong and how.
    """
    if isinstance(value, dict):
        columns = {name: texts for name, texts in value.items() if texts is not None}
        if not columns or not all(isinstance(texts, list) for texts in columns.values()):
            raise ValueError("an object where a list of turns was expected")
        value = [dict(zip(columns, texts, strict=True)) for texts in zip(*columns.values(), strict=False)]
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{printed_value(value)} where a list of turns was expected")
    turns = []
    for number, turn in enumerate(value, start=1):
        fields = turn if isinstance(turn, dict) else {"text": turn}
        text = next((fields[key] for key in TEXT_KEYS if fields.get(key) is not None), None)
        if not isinstance(text, str):
            raise ValueError(f'turn {number} has no "content" or "text" that is text: {printed_value(turn)}')
        key = next((key for key in ROLE_KEYS if fields.get(key)), None)
        speaker = fields.get(key)
        if speaker is None:
            role = "assistant" if turns and turns[-1][0] == "user" else "user"
        elif isinstance(speaker, str) and (key == "name" or speaker.lower() in ROLES):
            role = ROLES.get(speaker.lower(), f"name {speaker}")
        else:
            raise ValueError(f"turn {number} has the {key} {printed_value(speaker)}, not user, assistant or system")
        turns.append((role, text))
    spoken = dict.fromkeys(role for role, _ in turns)
    names = [role for role in spoken if role.startswith("name ")]
    free = [role for role in ("user", "assistant") if role not in spoken]
    if len(names) > len(free):
        raise ValueError(f"{len(spoken)} speakers, where user and assistant were expected")
    roles = dict(zip(names, free, strict=False))
    return [(roles.get(role, role), text) for role, text in turns]


def printed_value(value):
    return shortened(json.dumps(value, default=str), 60)


# Rows -----------------------------------------------------------------------------------------------------------------
def find_form(rows, name):
    """The columns of the form that fits the most of some rows.  Raises UserError where none fits any."""
    rows = [row for row in rows if isinstance(row, dict)]
    filled = lambda form: sum(all(row.get(column) for column in form) for row in rows)
    there = lambda form: sum(all(column in row for column in form) for row in rows)
    form = max(FORMS, key=lambda form: (filled(form), there(form)))
    if not there(form):
        columns = ", ".join(dict.fromkeys(str(column) for row in rows for column in row)) or "none"
        raise UserError(f"{name}: no form of dialogues is known with the columns {shortened(columns)}; known: {KNOWN}")
    return form


def describe_form(form, rows):
    """What the log calls a form; rows: some that have it."""
    if form in PAIRS:
        beside = [name for name in (INPUT, *SYSTEM) if any(isinstance(row, dict) and row.get(name) for row in rows)]
        return f'"{form[0]}" (user), "{form[1]}" (assistant)' + "".join(f', "{name}"' for name in beside)
    turns = next((row[form[0]] for row in rows if isinstance(row, dict) and row.get(form[0])), None)
    turns = from_text(turns)
    turn = turns[0] if isinstance(turns, list) and turns else turns
    keys = [key for key in (*ROLE_KEYS, *TEXT_KEYS) if isinstance(turn, dict) and turn.get(key)]
    return f'"{form[0]}" ({", ".join(keys) or "texts"})'


def from_text(value):
    """A list of turns that a table holds as JSON; anything else as it is."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def turns_of(row, form):
    """The turns of a row that has a form, those without any text left out.  Raises ValueError for another row."""
    missing = [column for column in form if not isinstance(row, dict) or row.get(column) is None]
    if missing:
        found = f"the columns {', '.join(map(str, row))}" if isinstance(row, dict) else f"a {type(row).__name__}"
        raise ValueError(f'{shortened(found)}, no "{missing[0]}"')
    if form in PAIRS:
        asked, answer = (text_in(row, column) for column in form)
        more = text_in(row, INPUT) if form[0] == "instruction" and row.get(INPUT) else ""
        turns = [("user", f"{asked}\n{more}" if more else asked), ("assistant", answer)]
    else:
        turns = read_turns(from_text(row[form[0]]))
    turns = [("system", text_in(row, column)) for column in SYSTEM if row.get(column)] + turns
    return [(role, text) for role, text in turns if text.strip()]


def text_in(row, column):
    value = row[column]
    if isinstance(value, (int, float)):  # as a table reads the answer 4
        return str(value)
    if not isinstance(value, str):
        raise ValueError(f'column "{column}" holds {printed_value(value)}, not text')
    return value


def read_dialogues(split, limit=None, bad=None, say=say):
    """Yield up to limit dialogues of a split, each a list of (role, text); those without an answer are passed over.

    The form of the rows is that of most of the first ones, and is said.  Raises UserError for a form that is not
    known and for a row of another form; bad: a BadRows that may skip such rows.
    """
    rows = split.rows()
    first = list(itertools.islice(rows, FIRST_ROWS))
    readable = [row for row, _ in first if not isinstance(row, UserError)]
    form = find_form(readable, split.name) if readable else FORMS[0]
    if readable:
        say(f"dialogues in the form {describe_form(form, readable)}")

    def dialogue(row, place):
        try:
            turns = turns_of(row, form)
        except ValueError as error:
            raise UserError(
                f'{place}: {error}; the dialogues of this file are in the form "{" + ".join(form)}"'
            ) from None
        return turns if join_turns(turns)[1] else None

    nothing = f"no dialogues in {split.name}; pass --dataset a file or folder that holds some"
    return usable(itertools.chain(first, rows), dialogue, limit, bad or BadRows(), nothing)


# Tokens ---------------------------------------------------------------------------------------------------------------
class Rendered(NamedTuple):
    """A dialogue as token ids, and what was left out of it so that it fits."""

    ids: list
    dropped: int  # the oldest pairs
    size: int  # bytes of what the assistant says
    question_cut: bool  # the end of the system text, or the beginning of the only pair's question
    reply_cut: bool  # the end of its answer


def join_turns(turns, open_ended=False):
    """(system text or None, [[user text, assistant text], ...]) of (role, text) turns.

    Texts are stripped, turns of one speaker in a row joined by a newline, a leading assistant turn and a trailing user
    turn dropped; with open_ended a trailing user turn stays, its answer None.
    """
    system, pairs = [], []
    for role, text in turns:
        text = text.strip()
        if role == "system":
            system.append(text)
        elif role == "user" and pairs and pairs[-1][1] is None:
            pairs[-1][0] += "\n" + text
        elif role == "user":
            pairs.append([text, None])
        elif pairs and pairs[-1][1] is not None:
            pairs[-1][1] += "\n" + text
        elif pairs:
            pairs[-1][1] = text
    if pairs and pairs[-1][1] is None and not open_ended:
        pairs.pop()
    return "\n".join(system) or None, pairs


def render_dialogues(tokenizer, dialogues, max_tokens=None, open_ended=False):
    """A list of `Rendered`, one for each dialogue, a list of (role, text); all their texts are tokenized in one batch.

    `<bos>`, `<system> text` if there is one, then for each pair `<user> text <assistant> text <eos>`.  open_ended: the
    dialogue ends with the user's turn, and the ids with `<assistant>`, for the model to go on.
    max_tokens: the oldest pairs are dropped until the rest fits.  Where the last pair alone does not, a system text is
    cut to half of max_tokens; the question loses its beginning, down to nothing where that keeps the answer whole; an
    answer that does not fit even so loses its end, and the question keeps a quarter of max_tokens.
    """
    joined = [join_turns(turns, open_ended) for turns in dialogues]
    texts = [[system or "", *(text or "" for pair in pairs for text in pair)] for system, pairs in joined]
    encoded = iter(tokenizer.encode_batch(list(itertools.chain.from_iterable(texts))))
    return [
        render(tokenizer, system, pairs, list(itertools.islice(encoded, len(parts))), max_tokens)
        for (system, pairs), parts in zip(joined, texts, strict=True)
    ]


def render(tokenizer, system, pairs, encoded, max_tokens):
    """One dialogue of `render_dialogues`; encoded: the ids of the system text and of each text of the pairs."""
    special = tokenizer.special
    head = [special["<bos>"], *([special["<system>"], *encoded[0]] if system else [])]
    ends = [[] if answer is None else [special["<eos>"]] for _, answer in pairs]
    asked = [[special["<user>"], *ids] for ids in encoded[1::2]]
    answers = [[special["<assistant>"], *ids, *end] for ids, end in zip(encoded[2::2], ends, strict=True)]
    first, question_cut, reply_cut = 0, False, False
    if max_tokens is not None:
        length = len(head) + sum(map(len, asked)) + sum(map(len, answers))
        while length > max_tokens and first + 1 < len(pairs):
            length -= len(asked[first]) + len(answers[first])
            first += 1
        if length > max_tokens:
            question_cut = len(head) > max(1, max_tokens // 2)
            head = head[: max(1, max_tokens // 2)]
        if pairs and len(head) + len(asked[-1]) + len(answers[-1]) > max_tokens:
            room = max_tokens - len(head) - 1  # for the question's text and the answer
            reply_cut = len(answers[-1]) > room
            kept = min(max_tokens // 4, room - 1) if reply_cut else room - len(answers[-1])
            if kept < len(asked[-1]) - 1:
                question_cut = True
                asked[-1] = [special["<user>"], *asked[-1][len(asked[-1]) - kept :]]
            if reply_cut:
                answers[-1] = answers[-1][: max_tokens - len(head) - len(asked[-1])]
                pairs[-1][1] = tokenizer.decode(answers[-1])
    ids = head + [token for pair in zip(asked[first:], answers[first:], strict=True) for ids in pair for token in ids]
    size = sum(len(clean(answer or "").encode()) for _, answer in pairs[first:])
    return Rendered(ids, first, size, question_cut, reply_cut)


def reply_mask(ids, special):
    """True for what the assistant says in a rendered dialogue, its `<eos>` included: what the chat trainer predicts."""
    begun, ended = ids == special["<assistant>"], ids == special["<eos>"]
    return (begun.cumsum() - begun) > (ended.cumsum() - ended)
