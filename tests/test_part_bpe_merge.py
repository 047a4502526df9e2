"""The part bpe_merge of an assignment: docs/bpe_from_scratch.py learns the merges that the library learns."""

import json

from bpe_from_scratch import count_pairs, learn_merges, merge, most_frequent
from programs import ROOT

from corpus.other_tokenizers import BYTES
from data import train_tokenizer

MERGES = 500


def word(text):
    return tuple(bytes([byte]) for byte in text.encode())


def test_the_pairs_of_a_word_count_as_often_as_the_word_occurs():
    counts = count_pairs({word("hot"): 5, word("hoho"): 2, word("a"): 9, (b"ho", b"t"): 1})
    assert dict(counts) == {(b"h", b"o"): 9, (b"o", b"t"): 5, (b"o", b"h"): 2, (b"ho", b"t"): 1}


def test_the_most_frequent_pair_is_chosen_and_of_several_the_one_with_the_lowest_ids():
    ids = {b"z": 0, b"a": 1, b"b": 2, b"c": 3}
    assert most_frequent({(b"z", b"z"): 1, (b"c", b"c"): 3, (b"a", b"a"): 2}, ids) == (b"c", b"c")
    assert most_frequent({(b"b", b"z"): 3, (b"a", b"c"): 3, (b"a", b"b"): 3}, ids) == (b"a", b"b")
    assert most_frequent({(b"a", b"b"): 3, (b"z", b"c"): 3}, ids) == (b"z", b"c")


def test_every_occurrence_of_the_pair_is_merged_from_left_to_right():
    assert merge(word("banana"), (b"a", b"n")) == (b"b", b"an", b"an", b"a")
    assert merge(word("aaaaa"), (b"a", b"a")) == (b"aa", b"aa", b"a")
    assert merge((b"th", b"e", b"t", b"he"), (b"th", b"e")) == (b"the", b"t", b"he")
    assert merge(word("cat"), (b"t", b"c")) == word("cat")
    assert merge((), (b"a", b"b")) == ()


def test_the_merges_of_a_few_words():
    text = "low low low low low lower lower newest newest newest newest newest newest widest widest widest"
    merges = [pair for pair, _ in learn_merges([text], 4)]
    assert merges == [(b"e", b"s"), (b"es", b"t"), (b"l", b"o"), (b"lo", b"w")]


def test_a_pair_that_occurs_once_is_not_merged():
    assert list(learn_merges(["ab ab cd"], 10)) == [((b"a", b"b"), 2)]
    assert list(learn_merges([], 10)) == []


def test_the_merges_are_those_of_the_library():
    lines = (ROOT / "sample_data/stories/train.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    tokenizer = train_tokenizer(texts, 7 + 256 + MERGES)  # special tokens, bytes, merges
    written = json.loads(tokenizer.backend.to_str())["model"]["merges"]
    library = [tuple(bytes(BYTES[letter] for letter in token) for token in pair) for pair in written]
    assert len(library) == MERGES
    for number, (pair, _) in enumerate(learn_merges(texts, MERGES)):
        assert pair == library[number], f"merge {number + 1}"
    assert number == MERGES - 1
