"""Dialogues: how turns become pairs, and the only way in which they become tokens; for rows see `dialogue_rows.py`.

In reading order: `join_turns`; `render_dialogues`, from turns to ids, for the trainer, the chat and the prompts;
`reply_mask`, the ids that are learned.  A turn is (role, text); its role is user, assistant or system.
"""

from typing import NamedTuple

import numpy as np

from common.text import without_surrogates

Turn = tuple[str, str]  # (role, text)


# Turns ----------------------------------------------------------------------------------------------------------------


def join_turns(turns: list[Turn], open_ended: bool = False) -> tuple[str | None, list[list]]:
    """Turn a list of (role, text) into (system text or None, [[user text, assistant text], ...]).

    Texts are stripped, and consecutive turns of one speaker are joined by a newline.  A leading assistant turn and a
    trailing user turn are dropped; with open_ended a trailing user turn stays, and its answer is None.
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
    """A dialogue as token ids, and what was left out so that it fits."""

    ids: list[int]
    dropped: int  # how many of the oldest pairs
    size: int  # bytes of what the assistant says
    question_cut: bool  # whether the system text lost its end, or the last question its beginning
    reply_cut: bool  # whether the last answer lost its end


def render_dialogues(
    tokenizer, dialogues: list[list[Turn]], max_tokens: int | None = None, open_ended: bool = False
) -> list[Rendered]:
    """Render dialogues, each a list of (role, text); all their texts are tokenized in one batch.

    A dialogue becomes `<bos>`, `<system> text` if it has a system text, then for each pair `<user> text <assistant>
    text <eos>`.  open_ended: the dialogue ends with a user turn, and its ids with `<assistant>`, for the model to
    continue.
    max_tokens: a longer dialogue loses its oldest pairs; if the last pair alone is too long, see `fit_last_pair`.
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
    """Render one dialogue; encoded: the ids of the system text and of each text of the pairs."""
    special = tokenizer.special
    head = [special["<bos>"]]
    if system:
        head += [special["<system>"], *encoded[0]]
    questions = [[special["<user>"], *ids] for ids in encoded[1::2]]
    replies = [[special["<assistant>"], *ids] for ids in encoded[2::2]]
    for reply, (_, text) in zip(replies, pairs, strict=True):
        if text is not None:  # a reply that the model will write has no end yet
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
    """Return (<bos> and the system text in at most half of max_tokens, whether something was cut)."""
    room = max(1, max_tokens // 2)
    return head[:room], len(head) > room


def fit_last_pair(question: list[int], reply: list[int], room: int, least: int) -> tuple[list[int], list[int]]:
    """Cut the only pair that is left so that it fits into `room` tokens.

    The question loses its beginning, or all of its text, if this keeps the reply whole.  Otherwise the reply loses its
    end, and the question keeps up to `least` tokens.  `<user>` and `<assistant>` stay.
    """
    if len(question) + len(reply) <= room:
        return question, reply
    kept = room - 1 - len(reply)  # tokens of the question's text, after <user>
    if kept < 0:  # the reply alone is too long
        kept = min(least, room - 2)
    if kept < len(question) - 1:
        question = [question[0], *question[len(question) - kept :]]
    return question, reply[: room - len(question)]


def reply_mask(ids: np.ndarray, special: dict[str, int]) -> np.ndarray:
    """Return True for what the chat trainer predicts: what the assistant says, including `<eos>`.

    A token belongs to the assistant if more replies have begun before it than have ended before it:

                       <bos> <user> Hi <assistant> Hello <eos> <user> Bye <assistant> Bye <eos>
        begun before       0      0  0           0     1     1      1   1           1   2     2
        ended before       0      0  0           0     0     0      1   1           1   1     1
        learned            0      0  0           0     1     1      0   0           0   1     1
    """
    # assignment: reply_mask, 5 points
    begins = ids == special["<assistant>"]
    ends = ids == special["<eos>"]
    begun_before = begins.cumsum() - begins
    ended_before = ends.cumsum() - ends
    return begun_before > ended_before
