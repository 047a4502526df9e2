"""Training and validation texts: which are set aside, mixtures of data sets, and which texts an epoch has."""

import json
from argparse import Namespace
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from programs import write_rows
from tiny import SPECIAL
from tiny_data import cache_of, numbered_texts, predicted_of, texts_of

from common.errors import UserError
from common.flags import FlagParser, parse_flags
from corpus.splits import DIALOGUES_SET_ASIDE, Mixture, open_text, split_weight, training_and_validation
from corpus.token_cache import cache_dialogues
from data import IGNORED, Rows, train_tokenizer
from training.resume import fingerprints_of
from training.settings import add_data_flags

# Training and validation ----------------------------------------------------------------------------------------------


def splits_of(training, validation=None):
    """Return splits and a function that reads them; here a split is just a number of texts."""
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


def test_an_existing_validation_split_is_used_unchanged(said):
    train, validation = training_and_validation(*splits_of(50, 7))
    assert (len(train), len(validation), said) == (50, 7, [])


def test_one_text_cannot_be_divided(said):
    with pytest.raises(UserError, match="training stories has only one text"):
        training_and_validation(*splits_of(1))


@pytest.mark.parametrize("max_train, max_eval, lengths", [(9, 4, (9, 4)), (9, None, (9, 7)), (None, 99, (50, 7))])
def test_limits_apply_to_an_existing_validation_split(said, max_train, max_eval, lengths):
    caches = training_and_validation(*splits_of(50, 7), max_train, max_eval)
    assert tuple(map(len, caches)) == lengths


@pytest.mark.parametrize("max_train, max_eval, lengths", [(400, 3, (396, 3)), (None, 5, (990, 5)), (400, 9, (396, 4))])
def test_limits_apply_to_validation_texts_that_are_set_aside(said, max_train, max_eval, lengths):
    train, validation = training_and_validation(*splits_of(1000), max_train, max_eval)
    assert (len(train), len(validation)) == lengths
    assert not set(train.text(len(train) - 1)[1:-1]) & set(validation.text(0)[1:-1])


def test_texts_set_aside_are_in_no_training_row(said):
    train, validation = training_and_validation(*splits_of(200))
    trained_on = set(Rows(train, 8, SPECIAL, seed=1).batch(0, 100)[0].flat) - set(SPECIAL.values())
    assert len(trained_on) == 2 * 198
    assert not trained_on & set(np.concatenate(texts_of(validation)).tolist())


# The flag --dataset ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flag, expected",
    [
        ("a.jsonl", ("a.jsonl", None)), ("a.jsonl=0.5", ("a.jsonl", 0.5)), ("some/talks=2e1", ("some/talks", 20)),
        ("run=3/b.jsonl", ("run=3/b.jsonl", None)), ("run=3/b.jsonl=7", ("run=3/b.jsonl", 7)),
        ("c=0.5", ("c=0.5", None)),
    ],
)  # fmt: skip
def test_a_weight_follows_a_path_or_a_hub_name(tmp_path, monkeypatch, flag, expected):
    (tmp_path / "run=3").mkdir()
    for name in ("a.jsonl", "run=3/b.jsonl", "c=0.5"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert split_weight(flag) == expected


@pytest.mark.parametrize("flag", ["a=", "a=half", "a=0", "a=-1", "a=nan", "a=inf", "=0.5", "a=0.5.jsonl"])
def test_an_invalid_weight_is_refused_in_one_line(flag):
    with pytest.raises(UserError) as raised:
        split_weight(flag)
    assert f"--dataset {flag}: " in str(raised.value) and "\n" not in str(raised.value)


def test_the_flag_can_be_repeated_and_replaces_its_default():
    parser = FlagParser("")
    add_data_flags(parser, "a hub's")
    parser.add_argument("--config")
    parse = lambda *words: parse_flags(parser, lambda given: {}, words)
    assert parse().dataset == ["a hub's"]
    for _ in range(2):
        assert parse("--dataset", "one", "--dataset=two=0.5").dataset == ["one", "two=0.5"]


# An epoch of a mixture ------------------------------------------------------------------------------------------------


def mixture_of(counts, weights=None):
    """Return a Mixture of sets with these numbers of texts; their lengths vary, and no token occurs twice."""
    texts = iter(numbered_texts(*(3 + number % 7 for number in range(sum(counts)))))
    return Mixture([cache_of([next(texts) for _ in range(count)], np.uint32) for count in counts], weights)


@pytest.mark.parametrize(
    "counts, weights, shares",
    [
        ((300, 60_000), (0.7, 0.3), [300, 129]), ((300, 60_000), (7, 3), [300, 129]), ((10, 20), None, [10, 20]),
        ((10, 20), (1, 2), [10, 20]), ((10, 20), (1, 1), [10, 10]), ((10, 20), (1e9, 1e-9), [10, 1]),
        ((1, 1000), (1, 9), [1, 9]),
        ((10, 20, 30), (1, 1, 3), [10, 10, 30]), ((10, 20), (1, 4), [5, 20]), ((10, 20), (1e-300, 1e300), [1, 20]),
    ],
)  # fmt: skip
def test_an_epoch_is_as_long_as_the_shares_allow(counts, weights, shares):
    mixture = mixture_of(counts, weights)
    assert mixture.shares.tolist() == shares and len(mixture) == sum(counts)
    assert Rows(mixture, 8, SPECIAL, packed=False, seed=1).per_epoch == sum(shares)


@pytest.mark.parametrize("packed", [True, False])
def test_no_text_repeats_in_an_epoch_and_all_are_used_before_any_repeats(packed):
    mixture = mixture_of((6, 20), (2, 1))  # 6 and 3 per epoch
    rows = Rows(mixture, 8, SPECIAL, packed, seed=3)
    seen = Counter()
    for epoch in range(14):
        first, last = rows.rows_before(epoch), rows.rows_before(epoch + 1)
        _, targets = rows.batch(first, last - first)
        tokens = Counter(targets[targets != IGNORED].tolist()) - Counter([SPECIAL["<eos>"]] * 100)
        assert set(tokens.values()) == {1}
        texts = {n for n in range(26) if {*mixture.text(n).tolist()[1:-1]} & {*tokens}}
        assert {*range(6)} < texts and len(texts) == 9
        if packed:  # packed rows truncate no text
            assert set(tokens) == {token for n in texts for token in mixture.text(n).tolist()[1:-1]}
        seen.update(texts - {*range(6)})
        if epoch in (6, 13):
            assert set(seen) == {*range(6, 26)} and max(seen.values()) - min(seen.values()) <= 1


def test_the_order_depends_on_the_seed_and_not_on_earlier_epochs():
    make = lambda seed: Rows(mixture_of((6, 40), (2, 1)), 8, SPECIAL, seed=seed)
    epoch = lambda rows, number: rows.batch(rows.rows_before(number), 4)[0].tolist()
    one, other = make(5), make(6)
    assert [epoch(one, n) for n in range(4)] == [epoch(make(5), n) for n in range(4)]
    assert epoch(one, 2) != epoch(one, 1) and epoch(one, 1) != epoch(other, 1)


@pytest.mark.parametrize("seed", [0, 5])
def test_consecutive_epochs_repeat_one_order_of_the_texts(seed):
    """A run that resumes relies on this order."""
    mixture = mixture_of((6, 20, 7), (2, 1, 5 / 3))  # 6, 3 and 5 per epoch
    epochs = np.array([mixture.chosen(seed, epoch) for epoch in range(40)])
    whole, second, third = epochs[:, :6], epochs[:, 6:9], epochs[:, 9:]
    assert (whole == np.arange(6)).all()
    order = 6 + np.random.default_rng([seed, 1]).permutation(20)
    assert second.flatten().tolist() == np.tile(order, 6).tolist()
    order = 26 + np.random.default_rng([seed, 2]).permutation(7)
    assert third.flatten().tolist() == np.tile(order, 29)[:200].tolist()


def test_a_row_of_a_mixture_does_not_depend_on_the_batch_it_is_in():
    whole = Rows(mixture_of((6, 40), (2, 1)), 8, SPECIAL, seed=5).batch(0, 60)[0]
    for first in (59, 0, 17, 33):
        rows = Rows(mixture_of((6, 40), (2, 1)), 8, SPECIAL, seed=5)
        assert rows.batch(first, 1)[0][0].tolist() == whole[first][: rows.batch(first, 1)[0].shape[1]].tolist()


def test_sets_without_weights_are_joined():
    mixture = mixture_of((5, 7))
    assert texts_of(mixture) == numbered_texts(*(3 + number % 7 for number in range(12)))
    rows = Rows(mixture, 8, SPECIAL)
    assert predicted_of(rows) == [token for text in texts_of(mixture) for token in text[1:]]
    assert rows.bytes == mixture.sizes.sum() and mixture.lengths().tolist() == [len(text) for text in texts_of(mixture)]


# From the flags to the texts ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["Tom has a red ball.", "The fox slept."] * 2, 300)


def write(path, count):
    rows = [{"prompt": f"Question {number}?", "response": f"Answer {number}."} for number in range(count)]
    write_rows(path, rows)


def opened(tokenizer, *datasets, **limits):
    args = Namespace(dataset=[*datasets], **{"max_train_samples": None, "max_eval_samples": None} | limits)
    read = lambda split, limit: cache_dialogues(split, tokenizer, "cache", 60, limit=limit)
    return open_text(args, read, set_aside=DIALOGUES_SET_ASIDE)


@pytest.mark.parametrize("count, set_aside", [(2, 1), (100, 5), (30_000, 1000)])
def test_the_last_twentieth_of_dialogues_but_at_most_a_thousand_is_set_aside(
    tokenizer, tmp_path, monkeypatch, count, set_aside, said
):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.jsonl", count)
    train, validation = opened(tokenizer, "a.jsonl")
    assert (len(train), len(validation)) == (count - set_aside, set_aside)
    assert f"Answer {count - 1}." in tokenizer.decode(validation.text(set_aside - 1))
    assert any(f"the last {set_aside:,} of {count:,}" in line for line in said)


def test_weighted_sets_are_mixed_and_the_shares_are_reported(tokenizer, tmp_path, monkeypatch, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "general").mkdir()
    for name, count in (("persona.jsonl", 40), ("general/train.jsonl", 400), ("general/valid.jsonl", 7)):
        write(tmp_path / name, count)
    train, validation = opened(tokenizer, "persona.jsonl=0.7", "general=0.3")
    assert train.shares.tolist() == [38, 16] and len(train) == 438 and len(validation) == 9
    assert "an epoch: 38 of 38 from persona.jsonl, 16 of 400 from general" in said
    assert "validation: 2 of 2 from persona.jsonl, 1 of 7 from general" in said
    rows = Rows(validation, 64, tokenizer.special, packed=False, replies_only=True)
    measured = validation.chosen(0, 0)
    assert rows.per_epoch == 3 and rows.bytes == validation.sizes[measured].sum() < validation.sizes.sum()
    same, other = (
        opened(tokenizer, "persona.jsonl=0.7", f"general={weight}")[0].fingerprint() for weight in (0.3, 0.4)
    )
    assert same == train.fingerprint() != other
    assert fingerprints_of(tokenizer, train, validation)["data"] == json.loads(
        json.dumps(fingerprints_of(tokenizer, train, validation)["data"])
    )


@pytest.mark.parametrize(
    "datasets, parts",
    [
        (["a.jsonl=0.5", "b.jsonl"], ["b.jsonl has no weight", "b.jsonl=0.5"]),
        (["a.jsonl", "a.jsonl"], ["a.jsonl is given twice"]),
        (["a.jsonl=1", "a.jsonl=2"], ["a.jsonl is given twice"]),
        (["a.jsonl", "c.jsonl"], ["no file or folder c.jsonl"]),
    ],
)
def test_inconsistent_sets_are_refused(tokenizer, tmp_path, monkeypatch, datasets, parts):
    monkeypatch.chdir(tmp_path)
    for name in ("a.jsonl", "b.jsonl"):
        write(tmp_path / name, 5)
    with pytest.raises(UserError) as raised:
        opened(tokenizer, *datasets)
    assert "\n" not in str(raised.value) and all(part in str(raised.value) for part in parts)


def test_a_limit_counts_only_usable_dialogues(tokenizer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"Question {n}?", "response": "Answer." if n % 2 else "  "} for n in range(40)]
    write_rows(tmp_path / "a.jsonl", rows)
    train, validation = opened(tokenizer, "a.jsonl", max_train_samples=10)
    assert len(train) + len(validation) == 10


def test_truncated_dialogues_are_counted_even_when_they_come_from_the_cache(tokenizer, tmp_path, monkeypatch, said):
    monkeypatch.chdir(tmp_path)
    long, pair = "Tom has a red ball. " * 9, {"prompt": "Hi!", "response": "Hello."}
    rows = [pair, pair | {"response": long}, pair | {"prompt": long}, pair | {"prompt": long}, pair]
    write_rows(tmp_path / "a.jsonl", rows)
    for _ in range(2):
        said.clear()
        opened(tokenizer, "a.jsonl")
        assert said[0] == 'a.jsonl: dialogues in the form "prompt" (user), "response" (assistant)'
        assert said[1] == "a.jsonl: dialogues longer than 60 tokens, which lost their oldest turns or words: 2"
        assert said[2] == "a.jsonl: replies longer than 60 tokens, of which only the beginning is learned: 1"
    assert "from the token cache" in said[3]


def test_the_turns_that_long_dialogues_lose_are_counted(tokenizer, tmp_path, monkeypatch, said):
    monkeypatch.chdir(tmp_path)
    turns = [{"role": role, "content": "Tom has a red ball."} for role in ["user", "assistant"] * 9]
    write_rows(tmp_path / "a.jsonl", [{"messages": turns}] * 2)
    caches = opened(tokenizer, "a.jsonl")
    kept = sum((text == SPECIAL["<user>"]).sum() for cache in caches for text in map(cache.text, range(len(cache))))
    lost = f"oldest turns or words: 2 ({18 - kept} questions with their answers in all)"
    assert 0 < kept < 18 and any(line.endswith(lost) for line in said)
