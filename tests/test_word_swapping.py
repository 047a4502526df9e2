"""Word swapping: what may stand for what, in the whole text, and the same again after resuming."""

import numpy as np
import pytest

from corpus.token_cache import TokenCache
from data import Rows, train_tokenizer
from training import word_swapping as swapping
from training.word_swapping import SimilarWords

PAIRS = [
    (f"a {animal} met {name}", f"a {animal} and {name} met a {other}")
    for animal in ("cat", "dog", "cow")
    for name in ("Tim", "Bob")
    for other in ("pig", "hen")
]


@pytest.fixture
def tokenizer():
    return train_tokenizer([text for pair in PAIRS for text in pair for _ in range(20)], 400)


@pytest.fixture
def cache(tokenizer):
    special = tokenizer.special
    ids = [
        [
            *(special["<bos>"], special["<user>"], *tokenizer.encode(asked)),
            *(special["<assistant>"], *tokenizer.encode(answer), special["<eos>"]),
        ]
        for asked, answer in PAIRS
    ]
    starts = np.cumsum([0, *map(len, ids)])
    return TokenCache(np.concatenate(ids).astype(np.uint16), starts, np.full(len(ids), 40))


@pytest.fixture
def similar(tokenizer, cache, monkeypatch):
    monkeypatch.setattr(swapping, "COMMON", 0.6)
    vectors = np.random.default_rng(0).normal(size=(tokenizer.vocab_size, 8))
    return lambda probability: SimilarWords(tokenizer, cache, vectors, probability)


def words_of(tokenizer, ids):
    """The words of the user's turn and of the assistant's."""
    (end,) = np.flatnonzero(ids == tokenizer.special["<assistant>"])
    return tokenizer.decode(ids[2:end]).split(), tokenizer.decode(ids[end + 1 : -1]).split()


def test_a_word_that_user_and_assistant_share_becomes_the_same_other_word_everywhere(similar, tokenizer, cache):
    change = similar(1.0).swapped
    seen = set()
    for seed in range(40):
        asked, answer = words_of(tokenizer, change(cache.text(0), np.random.default_rng(seed)))
        assert asked == ["a", asked[1], "met", asked[3]]  # "a" and "met" are in every dialogue: they stay
        assert answer == ["a", asked[1], "and", asked[3], "met", "a", "pig"]
        seen |= {asked[1], asked[3]}
    assert seen >= {"cat", "dog", "cow", "pig", "hen", "Tim", "Bob"}


def test_a_word_of_the_system_turn_is_not_the_users(similar, tokenizer, cache):
    special = tokenizer.special
    said = tokenizer.encode("a cat met Tim")
    ids = np.array([special["<bos>"], special["<system>"], *said, special["<assistant>"], *said]).astype(np.uint16)
    assert (similar(1.0).swapped(ids, np.random.default_rng(0)) == ids).all()
    ids[1] = special["<user>"]
    assert not (similar(1.0).swapped(ids, np.random.default_rng(0)) == ids).all()


def test_names_stay_names_and_the_nearest_words_are_taken(similar, tokenizer, monkeypatch):
    monkeypatch.setattr(swapping, "NEIGHBOURS", 2)
    for token, others in similar(1.0).neighbours.items():
        words = [tokenizer.decode([other]) for other in others]
        assert words[0] == tokenizer.decode([token])
        assert len({word[1].isupper() for word in words}) == 1


def test_the_vectors_of_the_candidates_are_copied_once_and_not_for_each_word(tokenizer, cache, monkeypatch):
    class Counted(np.ndarray):
        copies = 0

        def __getitem__(self, index):
            Counted.copies += isinstance(index, np.ndarray)
            return super().__getitem__(index)

    monkeypatch.setattr(swapping, "COMMON", 0.6)
    vectors = np.random.default_rng(0).normal(size=(tokenizer.vocab_size, 8)).view(Counted)
    assert len(SimilarWords(tokenizer, cache, vectors, 1.0).neighbours) > len(swapping.WORDS) == Counted.copies


def test_the_beginning_of_a_longer_word_stays(similar, tokenizer):
    special = tokenizer.special
    said = [tokenizer.encode(text) for text in ("a catx met a cat", "a cat")]
    assert tokenizer.decode([said[0][1]]) == " cat"
    ids = np.array([0, special["<user>"], *said[0], special["<assistant>"], *said[1], 0]).astype(np.uint16)
    change = similar(1.0).swapped
    asked = [words_of(tokenizer, change(ids, np.random.default_rng(seed)))[0] for seed in range(40)]
    assert {words[1] for words in asked} == {"catx"} and {words[4] for words in asked} >= {"cat", "dog", "cow"}


def test_nothing_is_swapped_with_probability_0(similar, cache):
    assert (similar(0.0).swapped(cache.text(0), np.random.default_rng(0)) == cache.text(0)).all()


@pytest.mark.parametrize("packed", [True, False])
def test_rows_are_swapped_anew_in_each_epoch_and_equally_after_resuming(similar, tokenizer, cache, packed):
    change = similar(0.5).swapped
    rows = Rows(cache, 64, tokenizer.special, packed, seed=1, change=change)
    epochs = [rows.batch(epoch * rows.per_epoch, rows.per_epoch)[0] for epoch in range(3)]
    again = Rows(cache, 64, tokenizer.special, packed, seed=1, change=change)
    assert (again.batch(2 * rows.per_epoch, rows.per_epoch)[0] == epochs[2]).all()
    assert not (np.sort(epochs[0], axis=None) == np.sort(epochs[1], axis=None)).all()
