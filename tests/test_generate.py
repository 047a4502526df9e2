"""Generation: the tokens that the sampling loop draws, when a row ends, and that rows are independent."""

import math

import pytest
import torch
from tiny import (
    CONTEXT,
    VOCAB,
    both,
    make_model,
    random_prompts,
    with_and_without_window,
    write,
)

pytestmark = pytest.mark.usefixtures("no_gradients")


def test_the_same_seed_writes_the_same_text_and_another_seed_does_not():
    model, prompts = make_model(), random_prompts(2, 5)
    text = write(model, prompts, 30, seed=1)
    assert text == write(model, prompts, 30, seed=1)
    other = write(model, prompts, 30, seed=2)
    assert text[0] != other[0] and text[1] != other[1]
    same_prompt_twice = write(model, [prompts[0]] * 2, 30, seed=1)
    assert same_prompt_twice[0] != same_prompt_twice[1]


@both
@with_and_without_window
def test_a_row_s_text_does_not_depend_on_the_other_rows(arch, window):
    model = make_model(arch, window_size=window)
    one, other, long, prompt = random_prompts(1, 6, CONTEXT, 4)
    alone = write(model, [one, prompt], 3 * CONTEXT)[1]
    assert alone == write(model, [other, prompt, long, one], 3 * CONTEXT)[1]
    assert alone == write(model, [prompt, prompt], 3 * CONTEXT)[1]


def test_a_row_s_text_depends_on_its_seed_and_not_on_its_place():
    model, (one, other) = make_model(), random_prompts(4, 6)
    alone = write(model, [one], 20, seed=3, row_seeds=[7])
    assert alone[0] == write(model, [other, one], 20, seed=3, row_seeds=[2, 7])[1]
    assert alone != write(model, [one], 20, seed=3, row_seeds=[8])


def test_temperature_top_k_and_top_p_have_an_effect():
    model, prompts = make_model(), random_prompts(3, 3)
    likeliest = write(model, prompts, 20, temperature=0)
    assert likeliest == write(model, prompts, 20, top_k=1) == write(model, prompts, 20, top_p=1e-6)
    assert likeliest != write(model, prompts, 20)


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_banned_tokens_never_appear(temperature):
    model, prompts = make_model(), random_prompts(3, 3)
    free = set(sum(write(model, prompts, 40, temperature=temperature), []))
    banned = set(sorted(free)[::2])
    text = set(sum(write(model, prompts, 40, temperature=temperature, banned=banned), []))
    assert text and not text & banned


def test_texts_are_drawn_as_often_as_they_are_likely():
    """Checks how often each pair of tokens is drawn, with all sampling flags in use, against the plain formulas."""
    model = make_model()
    (prompt,) = random_prompts(4)
    count = 4000
    options = {"temperature": 1.4, "top_k": 9, "top_p": 0.95, "min_p": 0.04, "repetition_penalty": 1.3, "banned": [3]}
    expected = {}
    next_chances = {}
    for length in (0, 1):
        for begun in list(next_chances) if length else [()]:
            text = [*prompt, *begun]
            logits = model(torch.tensor([text]))[0, -1]
            for token in set(text):
                logits[token] *= 1.3 if logits[token] < 0 else 1 / 1.3
            logits[3] = -math.inf
            chances = (logits / 1.4).softmax(-1)
            order = chances.argsort(descending=True)[:9]
            kept = chances[order] / chances[order].sum()
            kept = torch.where(kept.cumsum(0) - kept < 0.95, kept, 0)
            kept = torch.where(kept >= 0.04 * kept.max(), kept, 0)
            drawn = {(*begun, int(token)): float(p / kept.sum()) for token, p in zip(order, kept, strict=True) if p}
            before = next_chances.get(begun, 1.0)
            expected |= {pair: before * p for pair, p in drawn.items() if length}
            next_chances |= drawn if not length else {}
    found = list(map(tuple, write(model, [prompt] * count, 2, **options)))
    assert set(found) <= set(expected) and len(expected) > 20
    assert sum(expected.values()) == pytest.approx(1, abs=1e-4)
    for pair, p in expected.items():
        assert abs(found.count(pair) - count * p) <= 4.5 * math.sqrt(count * p * (1 - p)) + 1


def test_a_penalized_text_does_not_depend_on_rows_that_have_ended():
    model, prompts = make_model(), random_prompts(2, 3, 4, 5)
    alone = [
        write(model, [prompt], 25, row_seeds=[key], repetition_penalty=3.0)[0] for key, prompt in enumerate(prompts)
    ]
    stopped = lambda ids: any(ids == text[: number + 2] for number, text in enumerate(alone[:3]))
    together = write(model, prompts, 25, stopped=stopped, repetition_penalty=3.0)
    assert [len([t for t in text if t is not None]) for text in together] == [2, 3, 4, 25]
    assert together[3] == alone[3]


def test_a_high_repetition_penalty_prevents_all_repeats_but_not_the_end():
    model, (prompt,) = make_model(), [[1, 2]]
    (text,) = write(model, [prompt], 20, temperature=0, repetition_penalty=1e6)
    assert len(set(text) | set(prompt)) == 22
    (plain,) = write(model, [prompt], 20, temperature=0)
    assert len(set(plain)) < 20
    likeliest = lambda prompt, **options: write(model, [prompt], 1, temperature=0, **options)[0][0]
    prompt = next([1, token, 2] for token in range(VOCAB) if likeliest([1, token, 2]) == token)
    assert likeliest(prompt, repetition_penalty=1e6) != prompt[1]
    assert likeliest(prompt, repetition_penalty=1e6, end=prompt[1]) == prompt[1]


# The end --------------------------------------------------------------------------------------------------------------


def test_a_row_ends_at_its_end_token_and_generation_when_all_rows_have_ended():
    model, prompts = make_model(), random_prompts(2, 5, 7)
    endless = write(model, prompts, 60)
    end = next(token for token in range(VOCAB) if len({row.index(token) for row in endless if token in row}) == 3)
    lengths = [row.index(end) + 1 for row in endless]
    expected = [row[:n] + [None] * (max(lengths) - n) for row, n in zip(endless, lengths, strict=True)]
    assert write(model, prompts, 60, end=end) == expected


def test_a_row_ends_where_the_caller_stops_it():
    model, prompts = make_model(), random_prompts(2, 5, 7)
    endless = write(model, prompts, 30)
    wanted = [row[3 * number + 2] for number, row in enumerate(endless)]
    stopped = lambda ids: ids[-1] in wanted and len(ids) > 2
    lengths = [next(n for n in range(3, 31) if stopped(row[:n])) for row in endless]
    expected = [row[:n] + [None] * (max(lengths) - n) for row, n in zip(endless, lengths, strict=True)]
    assert write(model, prompts, 30, stopped=stopped) == expected


def test_min_new_tokens_delays_the_end():
    model, (prompt,) = make_model(), random_prompts(4)
    (text,) = write(model, [prompt], 20, temperature=0)
    end = text[0]
    assert write(model, [prompt], 20, temperature=0, end=end) == [[end]]
    (text,) = write(model, [prompt], 20, temperature=0, end=end, min_new_tokens=6)
    assert end not in text[:6] and len(text) > 6

    for parameter in model.parameters():  # now all tokens are equally likely, and the first allowed one is chosen
        parameter.zero_()
    assert write(model, [prompt], 20, temperature=0, end=0, banned=[1], min_new_tokens=6) == [[2] * 6 + [0]]


@pytest.mark.parametrize("count", [1, 5])
def test_no_more_than_max_new_tokens_are_written(count):
    assert len(write(make_model(), random_prompts(3), count)[0]) == count


@pytest.mark.parametrize("length", [0, CONTEXT + 1])
def test_a_prompt_that_is_empty_or_longer_than_the_context_is_refused(length):
    with pytest.raises(ValueError, match=f"1 to {CONTEXT} tokens"):
        write(make_model(), [[1, 2], [1] * length], 5)
