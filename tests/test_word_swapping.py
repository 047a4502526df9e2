"""Word swapping: what may stand for what, in the whole text, and the same again after resuming."""

import numpy as np
import pytest

from corpus.token_cache import TokenCache
from data import Rows, train_tokenizer
from training import word_swapping as swapping
from training.word_swapping import SimilarWords

TEXTS = [
    f"a {animal} met a {animal} and {name} met {name}" for animal in ("cat", "dog", "cow") for name in ("Tim", "Bob")
]


@pytest.fixture
def tokenizer():
    return train_tokenizer([text for text in TEXTS for _ in range(20)], 400)


@pytest.fixture
def cache(tokenizer):
    ids = [[tokenizer.special["<bos>"], *tokenizer.encode(text), tokenizer.special["<eos>"]] for text in TEXTS]
    starts = np.cumsum([0, *map(len, ids)])
    return TokenCache(np.concatenate(ids).astype(np.uint16), starts, np.array([len(text) for text in TEXTS]))


@pytest.fixture
def similar(tokenizer, cache, monkeypatch):
    monkeypatch.setattr(swapping, "COMMON", 0.6)
    vectors = np.random.default_rng(0).normal(size=(tokenizer.vocab_size, 8))
    return lambda probability: SimilarWords(tokenizer, cache, vectors, probability)


def test_a_word_becomes_the_same_other_word_everywhere_in_a_text(similar, tokenizer, cache):
    change = similar(1.0).swapped
    seen = set()
    for seed in range(40):
        words = tokenizer.decode(change(cache.text(0), np.random.default_rng(seed))[1:-1]).split()
        assert words[1] == words[4] and words[6] == words[8]
        assert [words[n] for n in (0, 2, 3, 5, 7)] == ["a", "met", "a", "and", "met"]  # in every text: they stay
        seen |= {words[1], words[6]}
    assert seen >= {"cat", "dog", "cow", "Tim", "Bob"}


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


def test_the_beginning_of_a_longer_word_stays(similar, tokenizer, cache):
    ids = np.array(tokenizer.encode("a catx met a cat")).astype(np.uint16)
    assert tokenizer.decode([ids[1]]) == " cat"
    change = similar(1.0).swapped
    words = [tokenizer.decode(change(ids, np.random.default_rng(seed))).split() for seed in range(40)]
    assert {word[1] for word in words} == {"catx"} and {word[4] for word in words} >= {"cat", "dog", "cow"}


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
