"""Sampling: the probabilities of the next token, drawing from them, and which flags are refused."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import VOCAB, assert_same

from common.errors import UserError
from generation.sampling import Sampling, draw, penalize, probabilities

pytestmark = pytest.mark.usefixtures("no_gradients")


def spread(logits, **options):
    """Return the probabilities of all tokens (B, V), 0 for tokens that may not be drawn."""
    probs, tokens = probabilities(logits, **options)
    return torch.zeros_like(logits).scatter(-1, tokens.expand(len(logits), -1), probs)


def random_logits(rows=50):
    return 3 * torch.randn(rows, VOCAB, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 0}, {"temperature": 0.3}, {"top_k": 5}, {"top_p": 0.7}, {"top_k": 9, "top_p": 0.9}]
)
def test_probabilities_sum_to_1(options):
    probs = spread(random_logits(), **options)
    assert (probs >= 0).all()
    assert_same(probs.sum(-1), torch.ones(50))


def test_temperature_divides_the_logits_and_0_picks_the_likeliest_token():
    logits = random_logits()
    assert_same(spread(logits), logits.softmax(-1))
    assert_same(spread(logits, temperature=2.0), (logits / 2).softmax(-1))
    assert torch.equal(spread(logits, temperature=0), F.one_hot(logits.argmax(-1), VOCAB).float())


@pytest.mark.parametrize("k", [1, 4, VOCAB, VOCAB + 10])
def test_top_k_keeps_the_k_likeliest_tokens_in_proportion(k):
    logits = random_logits()
    probs, k = spread(logits, top_k=k), min(k, VOCAB)
    assert ((probs > 0).sum(-1) == k).all()
    kept = logits.softmax(-1).topk(k).values
    assert_same(probs.topk(k).values, kept / kept.sum(-1, keepdim=True))


@pytest.mark.parametrize("p", [0.01, 0.5, 0.9, 0.999])
def test_top_p_keeps_the_fewest_tokens_whose_probabilities_reach_p(p):
    logits = random_logits()
    for probs, full in zip(spread(logits, top_p=p), logits.softmax(-1), strict=True):
        kept = probs > 0
        assert full[kept].sum() >= p - 1e-6
        assert full[kept].sum() - full[kept].min() < p
        assert not kept.all() and full[kept].min() >= full[~kept].max()
        assert_same(probs[kept], full[kept] / full[kept].sum())


@pytest.mark.parametrize("p", [0.01, 0.3, 1.0])
def test_min_p_keeps_tokens_at_least_p_times_as_likely_as_the_likeliest(p):
    full = random_logits().softmax(-1)
    probs = spread(random_logits(), min_p=p)
    assert torch.equal(probs > 0, full >= p * full.amax(-1, keepdim=True))
    assert_same(probs.sum(-1), torch.ones(50))


def test_draw_picks_tokens_as_often_as_they_are_likely():
    count = 20_000
    probs = torch.tensor([0.0, 0.5, 0.0, 0.3, 0.15, 0.05, 0.0])
    uniform = torch.from_numpy(np.random.default_rng(0).random(count, np.float32))
    drawn = torch.bincount(draw(probs.expand(count, -1), torch.arange(7)[None], uniform), minlength=len(probs))
    spread = (count * probs * (1 - probs)).sqrt()
    assert ((drawn - count * probs).abs() <= 4 * spread).all()


@pytest.mark.parametrize("options", [{}, {"temperature": 0}, {"top_k": 3}, {"top_p": 0.6}])
def test_draw_never_picks_a_token_of_probability_0(options):
    logits = random_logits(500)
    logits[:, [0, 1, VOCAB - 1]] = -math.inf
    for uniform in (0.0, float(np.nextafter(np.float32(1), np.float32(0)))):  # the smallest and the largest
        drawn = draw(*probabilities(logits, **options), torch.full((500,), uniform))
        assert (spread(logits, **options)[range(500), drawn] > 0).all()


def test_the_repetition_penalty_lowers_the_logits_of_seen_tokens():
    logits = torch.tensor([[4.0, -1.0, 3.0, -2.0]])
    seen = torch.tensor([[True, True, False, False]])
    assert penalize(logits, seen, 2.0).tolist() == [[2.0, -2.0, 3.0, -2.0]]


# The flags ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags",
    [
        {"max_new_tokens": 0}, {"min_new_tokens": -1}, {"min_new_tokens": 9, "max_new_tokens": 8}, {"temperature": -1},
        {"temperature": float("nan")}, {"top_k": -1}, {"top_p": 0}, {"top_p": 1.1}, {"min_p": -0.1}, {"min_p": 2},
        {"repetition_penalty": 0}, {"num_beams": 0}, {"stop": [""]}, {"seed": -1}, {"num_beams": 2, "top_p": 0.5},
    ],
)  # fmt: skip
def test_flags_that_make_no_sense_are_refused_by_name(flags):
    with pytest.raises(UserError) as refusal:
        Sampling(**flags)
    assert all(f"--{name}" in str(refusal.value) for name in list(flags)[:1]) and "\n" not in str(refusal.value)


def test_min_new_tokens_above_the_default_raises_max_new_tokens():
    assert Sampling().max_new_tokens == 300
    assert Sampling(min_new_tokens=1300).max_new_tokens == 1300
