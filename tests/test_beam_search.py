"""Beam search: with many beams it finds the likeliest text; with few it agrees with a simple implementation."""

import itertools
import math

import pytest
import torch
from tiny import (
    CONTEXT,
    both,
    make_model,
    random_prompts,
    search,
    write,
)

pytestmark = pytest.mark.usefixtures("no_gradients")


def likeliest_of_all(model, prompt, length, *, end=None, banned=(), min_new_tokens=0, repetition_penalty=1.0, stop=()):
    """Try every text and return the one with the highest log-probability; stop: ids that end a text."""
    size = model.config.vocab_size
    texts = []

    def score(text):
        total = 0.0
        seen = set(prompt)
        for place, token in enumerate(text):
            logits = model(torch.tensor([prompt + list(text[:place])]))[0, -1]
            for old in seen - set(banned) - {end}:
                logits[old] *= repetition_penalty if logits[old] < 0 else 1 / repetition_penalty
            logits[list(banned) + ([end] if end is not None and place < min_new_tokens else [])] = -math.inf
            total += logits.log_softmax(-1)[token].item()
            seen.add(token)
        return total

    ends = {end, *stop}
    for count in range(1, length + 1):
        for text in itertools.product(range(size), repeat=count):
            over = text[-1] in ends or count == length
            if over and not ends & set(text[:-1]):
                texts.append(text)
    return list(max(texts, key=score))


@both
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"end": 0},
        {"end": 0, "min_new_tokens": 2},
        {"end": 1, "banned": [2]},
        {"end": 1, "repetition_penalty": 1.5},
        {"end": 2, "stop": [0]},
    ],
)
def test_with_enough_beams_the_search_finds_the_likeliest_text(arch, options):
    model = make_model(arch, vocab_size=4)
    prompts = [[1, 3], [2], [0, 1, 3, 3, 2]]
    expected = [likeliest_of_all(model, prompt, 3, **options) for prompt in prompts]
    options = dict(options)
    stop = options.pop("stop", ())
    found = search(model, prompts, 3, 16, stopped=lambda ids: ids[-1] in stop, **options)
    assert found == expected


def plain_beam_search(model, prompt, length, beams, end, penalty):
    """Search for one prompt in the simple way: recompute every text and look at all candidates."""
    live = [(0.0, [])]
    over = []
    for _ in range(length):
        longer = []
        for score, text in live:
            logits = model(torch.tensor([prompt + text]))[0, -1]
            for token in {*prompt, *text} - {end}:
                logits[token] *= penalty if logits[token] < 0 else 1 / penalty
            longer += [(score + p, [*text, token]) for token, p in enumerate(logits.log_softmax(-1).tolist())]
        longer.sort(reverse=True)
        over += [(score, text) for score, text in longer[: 2 * beams] if text[-1] == end]
        live = [(score, text) for score, text in longer if text[-1] != end][:beams]
    return max(over + live)[1]


@pytest.mark.parametrize("beams", [1, 2, 5])
@pytest.mark.parametrize("penalty", [1.0, 1.7])
def test_a_search_with_few_beams_equals_the_simple_one(beams, penalty):
    for seed in range(4):
        model, prompts = make_model(seed=seed, vocab_size=6), [[1, 3], [2, 2, 4], [5]]
        expected = [plain_beam_search(model, prompt, 7, beams, 0, penalty) for prompt in prompts]
        assert search(model, prompts, 7, beams, end=0, repetition_penalty=penalty) == expected


def test_one_beam_is_greedy_and_many_find_a_likelier_text():
    model, prompts = make_model(), random_prompts(3, 7, CONTEXT)
    assert search(model, prompts, 30, 1) == write(model, prompts, 30, temperature=0)

    def score(prompt, text):
        logits = model(torch.tensor([prompt + text]))[0].log_softmax(-1)
        return sum(logits[len(prompt) - 1 + place, token].item() for place, token in enumerate(text))

    few, many = (search(model, prompts[:1], 8, beams)[0] for beams in (1, 40))
    assert score(prompts[0], many) > score(prompts[0], few)


def test_a_search_does_not_depend_on_the_other_prompts_and_may_exceed_the_context():
    model, prompts = make_model(), random_prompts(2, 6, CONTEXT)
    end = search(model, prompts[:1], 9, 3)[0][6]
    options = {"end": end, "min_new_tokens": CONTEXT + 2}
    together = search(model, prompts, 3 * CONTEXT, 3, **options)
    assert together == [search(model, [prompt], 3 * CONTEXT, 3, **options)[0] for prompt in prompts]
    assert min(map(len, together)) > CONTEXT
