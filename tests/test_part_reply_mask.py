"""The part reply_mask of an assignment: dialogues written by hand, in which a * marks each token that is learned."""

import numpy as np
import pytest

from corpus.dialogues import reply_mask

SPECIAL = {"<bos>": 2, "<eos>": 3, "<user>": 4, "<assistant>": 5, "<system>": 6}
DIALOGUES = {
    "one reply": "<bos> <user> Hi <assistant> Hello* there* <eos>*",
    "two replies": "<bos> <user> Hi <assistant> Hello* <eos>* <user> Bye <assistant> Bye* <eos>*",
    "a system text": "<bos> <system> Be kind <user> Hi <assistant> Hello* <eos>*",
    "an empty reply": "<bos> <user> Hi <assistant> <eos>* <user> Well <assistant> Hm* <eos>*",
    "a reply without its end": "<bos> <user> Hi <assistant> Hello* there*",
    "no text of the user": "<bos> <user> <assistant> Hello* <eos>*",
    "a story": "<bos> Tom ran <eos>",
    "a question": "<bos> <user> Hi <assistant>",
    "nothing": "",
}


@pytest.mark.parametrize("dialogue", DIALOGUES.values(), ids=DIALOGUES)
def test_the_replies_and_their_ends_are_learned(dialogue):
    words = dialogue.split()
    ids = [SPECIAL.get(word.removesuffix("*"), 7 + place) for place, word in enumerate(words)]
    mask = reply_mask(np.array(ids, dtype=np.uint16), SPECIAL)
    assert mask.dtype == bool
    assert mask.tolist() == [word.endswith("*") for word in words]


def test_the_ids_of_the_special_tokens_are_looked_up():
    special = {"<bos>": 100, "<eos>": 101, "<user>": 102, "<assistant>": 103, "<system>": 104}
    assert reply_mask(np.array([100, 102, 3, 103, 5, 101]), special).tolist() == [False] * 4 + [True] * 2
