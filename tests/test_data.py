"""From text to batches: the token cache on disk, and the rows that are cut from it."""

import json
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tiny import render_dialogue

from common.errors import UserError
from common.prefetch import computed_ahead
from corpus import token_cache
from corpus.sources import Split, open_dataset
from corpus.splits import training_and_validation
from corpus.token_cache import TokenCache, cache_dialogues, cache_stories
from data import IGNORED, SPECIAL_TOKENS, Rows, train_tokenizer

SPECIAL = {token: number for number, token in enumerate(SPECIAL_TOKENS)}
PAD, BOS, EOS = SPECIAL["<pad>"], SPECIAL["<bos>"], SPECIAL["<eos>"]
STORIES = ["Tom has a red ball.", "Zoé saw a fox! 🦊", "The end.", "It was late, so they slept.\n\nThe fox slept too."]

LONG = "Tom has a red ball. " * 9


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(STORIES * 2, 300)


# The token cache ------------------------------------------------------------------------------------------------------


class Counted(Split):
    """A split of stories in memory that counts how often it is read."""

    def __init__(self, stories):
        self.times_read = 0
        super().__init__("stories in memory", lambda: self.read(stories), lambda: repr(stories))

    def read(self, stories):
        self.times_read += 1
        yield from (({"text": story}, f"story {number}") for number, story in enumerate(stories))


def texts_of(cache):
    return [cache.text(index).tolist() for index in range(len(cache))]


def write_stories(path, stories, column="text"):
    path.write_text("".join(json.dumps({column: story}) + "\n" for story in stories), encoding="utf-8")
    return open_dataset(str(path))["train"]


def test_cached_stories_stand_between_bos_and_eos(tokenizer, tmp_path, said):
    cache = cache_stories(Counted(STORIES), tokenizer, tmp_path)
    assert texts_of(cache) == [[BOS, *tokenizer.encode(story), EOS] for story in STORIES]
    assert cache.lengths().tolist() == [len(text) for text in texts_of(cache)]
    assert len(said) == 1 and "4 texts" in said[0]


def test_the_sizes_of_cached_stories_are_their_utf_8_bytes(tokenizer, tmp_path, said):
    cache = cache_stories(Counted(STORIES), tokenizer, tmp_path)
    assert cache.sizes.tolist() == [len(story.encode()) for story in STORIES]


def test_a_story_with_a_lone_surrogate_has_the_size_of_what_is_scored(tokenizer, tmp_path, said):
    cache = cache_stories(Counted(["a\ud800b"]), tokenizer, tmp_path)
    assert tokenizer.decode(cache.text(0)) == "a\ufffdb"
    assert cache.sizes.tolist() == [len("a\ufffdb".encode())]


def test_the_batches_of_text_make_no_difference(tokenizer, tmp_path, monkeypatch, said):
    stories = [f"{number}. Tom ran." for number in range(40)]
    whole = cache_stories(Counted(stories), tokenizer, tmp_path / "whole")
    monkeypatch.setattr(token_cache, "BATCH_BYTES", 60)
    parts = cache_stories(Counted(stories), tokenizer, tmp_path / "parts")
    assert texts_of(whole) == texts_of(parts) and whole.sizes.tolist() == parts.sizes.tolist()


def test_cached_dialogues_are_those_that_are_rendered(tokenizer, tmp_path, said):
    spoken = [["Hi!", "Hello."], ["Tom ran? " * 9, "No."], ["Hi!", "Hello.", "You?", "Zoé 🦊"]]
    rows = [{"conversation": [{"text": text} for text in texts]} for texts in [*spoken, ["Hi!", "  "], ["Hi!"]]]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    split = open_dataset(str(tmp_path / "train.jsonl"))["train"]
    cache = cache_dialogues(split, tokenizer, tmp_path / "cache", 25)
    roles = ["user", "assistant"] * 2
    rendered = [render_dialogue(tokenizer, list(zip(roles, texts, strict=False)), 25) for texts in spoken]
    assert texts_of(cache) == [ids for ids, _, _ in rendered]
    assert cache.sizes.tolist() == [size for _, _, size in rendered]


@pytest.mark.parametrize(
    "turns",
    [[("assistant", "Hello.")], [("user", "Hi!"), ("assistant", " ")], [("assistant", "Hello."), ("user", "Hi!")]],
)
def test_dialogues_without_anything_to_predict_are_said(tokenizer, tmp_path, said, turns):
    row = {"conversation": [{"role": role, "text": text} for role, text in turns]}
    (tmp_path / "train.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError) as raised:
        cache_dialogues(open_dataset(str(tmp_path / "train.jsonl"))["train"], tokenizer, tmp_path, 50)
    assert str(tmp_path / "train.jsonl") in str(raised.value)


def test_a_cache_is_made_once_and_used_again(tokenizer, tmp_path, said):
    split = Counted(STORIES)
    first = cache_stories(split, tokenizer, tmp_path)
    second = cache_stories(split, tokenizer, tmp_path)
    assert split.times_read == 1
    assert texts_of(first) == texts_of(second) and first.sizes.tolist() == second.sizes.tolist()
    assert "written to" in said[0] and "from the token cache" in said[1]


def test_a_copy_of_the_data_under_another_name_uses_the_same_cache(tokenizer, tmp_path, said):
    for name in ("one.jsonl", "two.jsonl"):
        cache_stories(write_stories(tmp_path / name, STORIES), tokenizer, tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.parametrize("change", ["tokenizer", "limit", "column", "a story", "a letter", "kind of text"])
def test_another_anything_makes_another_cache(tokenizer, tmp_path, said, change):
    path, options = tmp_path / "train.jsonl", {}
    rows = [{"text": story, "title": "A fox.", "conversation": [{"text": "Hi!"}, {"text": story}]} for story in STORIES]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    make = lambda: cache_stories(open_dataset(str(path))["train"], tokenizer, tmp_path / "cache", **options)
    before = texts_of(make())
    if change == "tokenizer":
        tokenizer = train_tokenizer(STORIES * 2, 290)
    elif change == "limit":
        options["limit"] = 2
    elif change == "column":
        options["column"] = "title"
    elif change == "a story":
        path.write_text(path.read_text() + '{"text": "The end."}\n')
    elif change == "a letter":
        path.write_text(path.read_text().replace("Tom", "Tim"))
    else:
        make = lambda: cache_dialogues(open_dataset(str(path))["train"], tokenizer, tmp_path / "cache", 90, **options)
    assert texts_of(make()) != before
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize("limit", [1, 3, 9])
def test_a_limit_holds_in_the_cache(tokenizer, tmp_path, said, limit):
    cache = cache_stories(Counted(STORIES), tokenizer, tmp_path, limit=limit)
    assert texts_of(cache) == [[BOS, *tokenizer.encode(story), EOS] for story in STORIES[:limit]]


@pytest.mark.parametrize("vocab_size, dtype", [(300, np.uint16), (65_536, np.uint16), (65_537, np.uint32)])
def test_tokens_take_two_bytes_where_they_fit_and_four_where_not(tmp_path, said, vocab_size, dtype):
    last = vocab_size - 1
    stub = SimpleNamespace(special=SPECIAL, vocab_size=vocab_size, fingerprint="stub")
    stub.encode_batch = lambda texts: [[last] for _ in texts]
    cache = cache_stories(Counted(STORIES), stub, tmp_path)
    assert cache.tokens.dtype == dtype and texts_of(cache) == [[BOS, last, EOS]] * len(STORIES)


def test_a_broken_line_at_the_end_leaves_nothing_behind(tokenizer, tmp_path, monkeypatch, said):
    monkeypatch.setattr(token_cache, "BATCH_BYTES", 10)  # so that something was written before
    split = write_stories(tmp_path / "train.jsonl", STORIES)
    with open(tmp_path / "train.jsonl", "a") as file:
        file.write("broken\n")
    with pytest.raises(UserError, match="line 5"):
        cache_stories(split, tokenizer, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_ctrl_c_leaves_nothing_behind(tokenizer, tmp_path, monkeypatch, said):
    monkeypatch.setattr(token_cache, "BATCH_BYTES", 10)

    def read():
        yield {"text": STORIES[0]}, "story 1"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache_stories(Split("stories", read, lambda: "stories"), tokenizer, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("share", [0, 0.6])
@pytest.mark.parametrize("name", ["tokens.bin", "lengths.npz", "description.json"])
def test_a_damaged_cache_is_not_used_but_made_again(tokenizer, tmp_path, said, name, share):
    split = Counted(STORIES)
    before = texts_of(cache_stories(split, tokenizer, tmp_path))
    (path,) = tmp_path.glob(f"*/{name}")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert texts_of(cache_stories(split, tokenizer, tmp_path)) == before
    assert split.times_read == 2
    cache_stories(split, tokenizer, tmp_path)
    assert split.times_read == 2 and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["tokens.bin", "lengths.npz"])
def test_a_cache_in_which_a_bit_has_changed_is_made_again(tokenizer, tmp_path, said, name):
    split = Counted(STORIES)
    before = texts_of(cache_stories(split, tokenizer, tmp_path))
    (path,) = tmp_path.glob(f"*/{name}")
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 2
    path.write_bytes(content)
    assert texts_of(cache_stories(split, tokenizer, tmp_path)) == before
    assert split.times_read == 2


def test_a_run_that_was_faster_with_the_same_cache_does_no_harm(tokenizer, tmp_path, monkeypatch, said):
    rename = Path.rename

    def faster(self, target):
        shutil.copytree(self, target)  # another run's cache appears at the last moment
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", faster)
    cache = cache_stories(Counted(STORIES), tokenizer, tmp_path)
    assert len(cache) == len(STORIES) and len(list(tmp_path.iterdir())) == 1


# Training and validation ----------------------------------------------------------------------------------------------


def cache_of(texts, dtype=np.uint16):
    """A TokenCache in memory; the bytes of its texts are 100, 101, ..."""
    starts = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    tokens = np.array([token for text in texts for token in text], dtype=dtype)
    return TokenCache(tokens, starts, np.arange(100, 100 + len(texts)))


def numbered_texts(*lengths):
    """Texts of the given lengths, `<bos>` and `<eos>` included, no other token of which occurs twice."""
    numbers = iter(range(len(SPECIAL), 1 << 20))
    return [[BOS, *(next(numbers) for _ in range(length - 2)), EOS] for length in lengths]


def splits_of(training, validation=None):
    """Splits and the function that reads them: a split is a number of texts here."""
    splits = {"train": SimpleNamespace(name="training stories", texts=training)}
    if validation:
        splits["validation"] = SimpleNamespace(name="validation stories", texts=validation)
    read = lambda split, limit: cache_of(numbered_texts(*[4] * min(split.texts, limit or split.texts)))
    return splits, read


@pytest.mark.parametrize("texts, set_aside", [(2, 1), (10, 1), (99, 1), (300, 3), (1000, 10)])
def test_without_a_validation_split_the_last_hundredth_is_set_aside(said, texts, set_aside):
    train, validation = training_and_validation(*splits_of(texts))
    everything = texts_of(cache_of(numbered_texts(*[4] * texts)))
    assert texts_of(train) == everything[:-set_aside]
    assert texts_of(validation) == everything[-set_aside:]
    assert train.sizes.tolist() + validation.sizes.tolist() == list(range(100, 100 + texts))
    assert len(said) == 1 and f"last {set_aside} of {texts:,} " in said[0]


def test_a_validation_split_is_taken_as_it_is(said):
    train, validation = training_and_validation(*splits_of(50, 7))
    assert (len(train), len(validation), said) == (50, 7, [])


def test_one_text_cannot_be_divided(said):
    with pytest.raises(UserError, match="training stories has only one text"):
        training_and_validation(*splits_of(1))


@pytest.mark.parametrize("max_train, max_eval, lengths", [(9, 4, (9, 4)), (9, None, (9, 7)), (None, 99, (50, 7))])
def test_limits_hold_where_there_is_a_validation_split(said, max_train, max_eval, lengths):
    caches = training_and_validation(*splits_of(50, 7), max_train, max_eval)
    assert tuple(map(len, caches)) == lengths


@pytest.mark.parametrize("max_train, max_eval, lengths", [(400, 3, (396, 3)), (None, 5, (990, 5)), (400, 9, (396, 4))])
def test_limits_hold_where_validation_texts_are_set_aside(said, max_train, max_eval, lengths):
    train, validation = training_and_validation(*splits_of(1000), max_train, max_eval)
    assert (len(train), len(validation)) == lengths
    assert not set(train.text(len(train) - 1)[1:-1]) & set(validation.text(0)[1:-1])


def test_texts_set_aside_are_in_no_row_of_the_training(said):
    train, validation = training_and_validation(*splits_of(200))
    trained_on = set(Rows(train, 8, SPECIAL, seed=1).batch(0, 100)[0].flat) - set(SPECIAL.values())
    assert len(trained_on) == 2 * 198
    assert not trained_on & set(np.concatenate(texts_of(validation)).tolist())


# Rows -----------------------------------------------------------------------------------------------------------------


def predicted_of(rows, epoch=0):
    """The tokens that an epoch predicts, in order."""
    _, targets = rows.batch(epoch * rows.per_epoch, rows.per_epoch)
    return targets[targets != IGNORED].tolist()


LENGTHS = [9, 2, 30, 5, 5, 14, 3, 8, 8, 21]
TEXTS_OF_ROWS = numbered_texts(*LENGTHS)
ALL_BUT_BOS = [token for text in TEXTS_OF_ROWS for token in text[1:]]


@pytest.fixture(params=[1, 2, 7, 8, 104, 105, 200])
def row_length(request):
    """Shorter than a text, about as long as one, as long as all texts together (105 tokens), longer."""
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


def test_packed_rows_are_full_but_for_the_last(row_length):
    rows = Rows(cache_of(TEXTS_OF_ROWS), row_length, SPECIAL, seed=5)
    inputs, _ = rows.batch(0, rows.per_epoch)
    assert rows.per_epoch == -(-104 // row_length) and inputs.shape[1] == min(row_length, 104)
    assert (inputs[:-1] != PAD).all()


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("seed", [None, 5])
def test_targets_are_the_inputs_one_further(packed, seed, row_length):
    rows = Rows(cache_of(TEXTS_OF_ROWS), row_length, SPECIAL, packed, seed)
    inputs, targets = rows.batch(0, rows.per_epoch)
    assert inputs.dtype == targets.dtype == np.int64 and inputs.shape == targets.shape
    following, targets = inputs[:, 1:], targets[:, :-1]
    assert np.array_equal(np.where(following == BOS, IGNORED, following)[following != PAD], targets[following != PAD])


def test_the_order_is_the_same_for_a_seed_and_another_in_each_epoch_and_for_each_seed():
    make = lambda seed: Rows(cache_of(TEXTS_OF_ROWS), 8, SPECIAL, seed=seed)
    rows, again, other = make(5), make(5), make(6)
    epochs = [predicted_of(rows, epoch) for epoch in range(4)]
    assert epochs == [predicted_of(again, epoch) for epoch in (0, 1, 2, 3)]
    assert epochs[2] == predicted_of(make(5), 2)  # without the epochs before it, as after a resume
    assert len({tuple(epoch) for epoch in [*epochs, predicted_of(other)]}) == 5


@pytest.mark.parametrize("seed", [None, 0, 5])
@pytest.mark.parametrize("packed", [True, False])
def test_a_row_does_not_depend_on_the_batch_it_is_in(packed, seed):
    """Random batches, many of them across the ends of epochs, against three epochs cut row by row: 3,000 rows."""
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


def test_padded_rows_hold_a_text_each_cut_to_the_length():
    rows = Rows(cache_of(TEXTS_OF_ROWS), 8, SPECIAL, packed=False)
    inputs, targets = rows.batch(0, len(TEXTS_OF_ROWS))
    assert rows.per_epoch == len(TEXTS_OF_ROWS) and inputs.shape == (10, 8)
    for text, row, predicted in zip(TEXTS_OF_ROWS, inputs.tolist(), targets.tolist(), strict=True):
        padding = max(0, 8 - len(text[:-1]))
        assert row == text[:-1][:8] + [PAD] * padding
        assert predicted == text[1:][:8] + [IGNORED] * padding


def test_a_padded_batch_is_as_wide_as_its_longest_text():
    rows = Rows(cache_of(numbered_texts(3, 5, 4, 20)), 10, SPECIAL, packed=False)
    assert [rows.batch(first, 2)[0].shape for first in (0, 1, 2)] == [(2, 4), (2, 4), (2, 10)]


def test_a_shuffled_padded_epoch_holds_every_text_once():
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


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("length", [1, 2, 3, 5, 14, 40])
def test_only_replies_are_predicted_where_that_is_asked_for(packed, length):
    rows = Rows(cache_of(DIALOGUES), length, SPECIAL, packed, replies_only=True)
    everything = Rows(cache_of(DIALOGUES), length, SPECIAL, packed)
    if packed or length >= 14:
        assert predicted_of(rows) == REPLIES
    (inputs, targets), (same, all_targets) = rows.batch(0, rows.per_epoch), everything.batch(0, rows.per_epoch)
    assert np.array_equal(inputs, same)
    assert (targets == all_targets)[targets != IGNORED].all()
    assert set(targets[targets != IGNORED].tolist()) <= set(REPLIES)


def test_the_bytes_of_rows_are_those_of_their_texts():
    cache = cache_of(TEXTS_OF_ROWS)
    assert Rows(cache, 8, SPECIAL).bytes == sum(range(100, 110))
    assert Rows(cache.part(2, 4), 8, SPECIAL).bytes == 102 + 103
    assert predicted_of(Rows(cache.part(2, 4), 8, SPECIAL)) == TEXTS_OF_ROWS[2][1:] + TEXTS_OF_ROWS[3][1:]


def test_rows_of_cached_stories_spell_the_stories(tokenizer, tmp_path, said):
    """All of it together, through the disk."""
    cache = cache_stories(Counted(STORIES), tokenizer, tmp_path)
    predicted = predicted_of(Rows(cache, 16, tokenizer.special))
    assert tokenizer.decode(predicted) == "".join(STORIES) and predicted.count(EOS) == len(STORIES)


def test_a_long_story_cut_into_pieces_has_the_tokens_of_the_whole(tokenizer):
    text = "\n\n".join([LONG, "Tom  said:   no!\tYes ?  \n ", LONG]) * 3
    parts = list(token_cache.pieces(text, size=25))
    assert len(parts) > 10 and "".join(parts) == text
    assert [token for part in parts for token in tokenizer.encode(part)] == tokenizer.encode(text)


# Working ahead --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [1, 2])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_results_computed_ahead_come_in_order_and_not_too_early(ahead, count):
    taken = []

    def items():
        for number in range(count):
            taken.append(number)
            yield number

    for number, result in enumerate(computed_ahead(lambda number: number * 10, items(), ahead)):
        assert result == number * 10
        assert len(taken) <= number + 1 + ahead
    assert len(taken) == count


def test_an_error_while_computing_ahead_is_raised_where_the_result_is_used():
    results = computed_ahead(lambda number: 1 // number, [2, 1, 0, 1])
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
