"""Rows: how texts are packed, padded and shuffled, and which of their tokens are predicted."""

from collections import Counter

import numpy as np
import pytest
from tiny import SPECIAL
from tiny_data import BOS, EOS, PAD, cache_of, numbered_texts, predicted_of

from data import IGNORED, Rows

LENGTHS = [9, 2, 30, 5, 5, 14, 3, 8, 8, 21]
TEXTS_OF_ROWS = numbered_texts(*LENGTHS)
ALL_BUT_BOS = [token for text in TEXTS_OF_ROWS for token in text[1:]]


@pytest.fixture(params=[1, 2, 7, 8, 104, 105, 200])
def row_length(request):
    """Return a row length: shorter than a text, about one text, all texts (105 tokens), longer."""
    return request.param


def test_an_epoch_in_file_order_predicts_every_token_but_bos_in_order(row_length):
    assert sum(LENGTHS) == 105
    rows = Rows(cache_of(TEXTS_OF_ROWS), row_length, SPECIAL)
    assert predicted_of(rows) == predicted_of(rows, epoch=3) == ALL_BUT_BOS


def test_a_shuffled_epoch_predicts_every_token_but_bos_once(row_length):
    rows = Rows(cache_of(TEXTS_OF_ROWS), row_length, SPECIAL, seed=5)
    for epoch in range(3):
        predicted = predicted_of(rows, epoch)
        assert Counter(predicted) == Counter(ALL_BUT_BOS) and predicted != ALL_BUT_BOS


def test_shuffling_leaves_texts_whole(row_length):
    rows = Rows(cache_of(TEXTS_OF_ROWS), row_length, SPECIAL, seed=5)
    stream, texts = predicted_of(rows, 1), {text[1]: text[1:] for text in TEXTS_OF_ROWS}
    while stream:
        text = texts.pop(stream[0])
        assert stream[: len(text)] == text
        stream = stream[len(text) :]
    assert not texts


def test_all_packed_rows_except_the_last_are_full(row_length):
    rows = Rows(cache_of(TEXTS_OF_ROWS), row_length, SPECIAL, seed=5)
    inputs, _ = rows.batch(0, rows.per_epoch)
    assert rows.per_epoch == -(-104 // row_length) and inputs.shape[1] == min(row_length, 104)
    assert (inputs[:-1] != PAD).all()


def test_targets_are_the_inputs_shifted_by_one(row_length):
    for packed, seed in ((True, None), (True, 5), (False, None), (False, 5)):
        rows = Rows(cache_of(TEXTS_OF_ROWS), row_length, SPECIAL, packed, seed)
        inputs, targets = rows.batch(0, rows.per_epoch)
        assert inputs.dtype == targets.dtype == np.int64 and inputs.shape == targets.shape
        following = inputs[:, 1:]
        expected = np.where(following == BOS, IGNORED, following)
        assert np.array_equal(expected[following != PAD], targets[:, :-1][following != PAD])


def test_the_order_depends_only_on_the_seed_and_the_epoch():
    make = lambda seed: Rows(cache_of(TEXTS_OF_ROWS), 8, SPECIAL, seed=seed)
    rows = make(5)
    again = make(5)
    other = make(6)
    epochs = [predicted_of(rows, epoch) for epoch in range(4)]
    assert epochs == [predicted_of(again, epoch) for epoch in (0, 1, 2, 3)]
    assert epochs[2] == predicted_of(make(5), 2)  # without the epochs before it, as after a resume
    assert len({tuple(epoch) for epoch in [*epochs, predicted_of(other)]}) == 5


@pytest.mark.parametrize(("packed", "seed"), [(True, 5), (True, None), (False, 0), (False, None)])
def test_a_row_does_not_depend_on_the_batch_it_is_in(packed, seed):
    """Compares random batches, many of them across the ends of epochs, with one batch of three epochs."""
    random = np.random.default_rng(0)
    texts = numbered_texts(*random.integers(2, 12, size=1000 if not packed else 1400))
    rows = Rows(cache_of(texts, np.uint32), 8, SPECIAL, packed, seed)
    whole_inputs, whole_targets = rows.batch(0, 3 * rows.per_epoch)
    assert len(whole_inputs) >= 3000
    for first in [0, rows.per_epoch - 2, *random.integers(0, 3 * rows.per_epoch - 40, size=60)]:
        count = int(random.integers(1, 40))
        inputs, targets = rows.batch(int(first), count)
        width = inputs.shape[1]
        assert (inputs == whole_inputs[first : first + count, :width]).all()
        assert (targets == whole_targets[first : first + count, :width]).all()
        assert (whole_inputs[first : first + count, width:] == PAD).all()


def test_a_batch_across_epochs_ends_one_and_begins_the_next():
    rows = Rows(cache_of(TEXTS_OF_ROWS), 8, SPECIAL, seed=5)
    inputs, _ = rows.batch(rows.per_epoch - 1, 2)
    assert inputs[0].tolist() == rows.batch(rows.per_epoch - 1, 1)[0][0].tolist() and inputs[1, 0] == BOS
    begun, again = predicted_of(rows, 1), rows.batch(rows.per_epoch, 1)[1][0]
    assert again[again != IGNORED].tolist() == begun[: (again != IGNORED).sum()]


def test_each_padded_row_is_one_text_truncated_to_the_row_length():
    rows = Rows(cache_of(TEXTS_OF_ROWS), 8, SPECIAL, packed=False)
    inputs, targets = rows.batch(0, len(TEXTS_OF_ROWS))
    assert rows.per_epoch == len(TEXTS_OF_ROWS) and inputs.shape == (10, 8)
    for text, row, predicted in zip(TEXTS_OF_ROWS, inputs.tolist(), targets.tolist(), strict=True):
        padding = max(0, 8 - len(text[:-1]))
        assert row == text[:-1][:8] + [PAD] * padding
        assert predicted == text[1:][:8] + [IGNORED] * padding
    assert rows.texts_cut() == sum(len(text) > 9 for text in TEXTS_OF_ROWS) > 0
    assert Rows(cache_of(TEXTS_OF_ROWS), 8, SPECIAL).texts_cut() == 0


def test_a_padded_batch_is_as_wide_as_its_longest_text():
    rows = Rows(cache_of(numbered_texts(3, 5, 4, 20)), 10, SPECIAL, packed=False)
    assert [rows.batch(first, 2)[0].shape for first in (0, 1, 2)] == [(2, 4), (2, 4), (2, 10)]


def test_a_shuffled_padded_epoch_has_every_text_once():
    rows = Rows(cache_of(TEXTS_OF_ROWS), 40, SPECIAL, packed=False, seed=5)
    for epoch in range(3):
        assert Counter(predicted_of(rows, epoch)) == Counter(ALL_BUT_BOS)
    assert predicted_of(rows, 0) != predicted_of(rows, 1)


def test_one_story_of_exactly_a_rows_length_is_the_same_packed_or_padded():
    cache = cache_of(numbered_texts(9))
    packed, padded = (Rows(cache, 8, SPECIAL, packed).batch(0, 1) for packed in (True, False))
    assert np.array_equal(packed, padded) and packed[0].shape == (1, 8)
    assert packed[1].tolist() == [cache.text(0)[1:].tolist()]


DIALOGUES = [
    [BOS, SPECIAL["<user>"], 10, 11, SPECIAL["<assistant>"], 12, 13, EOS],
    [BOS, SPECIAL["<system>"], 20, SPECIAL["<user>"], 21, SPECIAL["<assistant>"], 22, EOS]
    + [SPECIAL["<user>"], 23, SPECIAL["<assistant>"], 24, 25, 26, EOS],
]
REPLIES = [12, 13, EOS, 22, EOS, 24, 25, 26, EOS]


@pytest.mark.parametrize(  # rows are shorter than a dialogue, as long as the longer one, and longer
    ("packed", "length"),
    [(True, 1), (False, 2), (True, 3), (False, 5), (True, 14), (False, 14), (True, 40), (False, 40)],
)
def test_with_replies_only_just_replies_are_predicted(packed, length):
    rows = Rows(cache_of(DIALOGUES), length, SPECIAL, packed, replies_only=True)
    everything = Rows(cache_of(DIALOGUES), length, SPECIAL, packed)
    if packed or length >= 14:
        assert predicted_of(rows) == REPLIES
    (inputs, targets) = rows.batch(0, rows.per_epoch)
    (same, all_targets) = everything.batch(0, rows.per_epoch)
    assert np.array_equal(inputs, same)
    assert (targets == all_targets)[targets != IGNORED].all()
    assert set(targets[targets != IGNORED].tolist()) <= set(REPLIES)


def test_the_bytes_of_rows_are_the_bytes_of_their_texts():
    cache = cache_of(TEXTS_OF_ROWS)
    assert Rows(cache, 8, SPECIAL).bytes == sum(range(100, 110))
    assert Rows(cache.part(2, 4), 8, SPECIAL).bytes == 102 + 103
    assert predicted_of(Rows(cache.part(2, 4), 8, SPECIAL)) == TEXTS_OF_ROWS[2][1:] + TEXTS_OF_ROWS[3][1:]
