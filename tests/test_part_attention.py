"""The part attention of an assignment: scores, mask, softmax and heads, compared with sums in plain Python."""

import math

import pytest
import torch
import torch.nn.functional as F

import model
from model import Attention, ModelConfig, attend_in_bfloat16_on_cpu

ROWS = 2
HEADS = 3
LENGTH = 4
SIZE = 6


def attended(q, keys, values, allowed):
    """Return what one query q (D,) gets from keys and values (S, D), with plain numbers; allowed: bool (S,)."""
    scores = []
    for key, is_allowed in zip(keys.tolist(), allowed.tolist(), strict=True):
        product = sum(a * b for a, b in zip(q.tolist(), key, strict=True))
        scores.append(math.exp(product / math.sqrt(len(q))) if is_allowed else 0.0)
    weights = [score / sum(scores) for score in scores]
    return [sum(w * v for w, v in zip(weights, column, strict=True)) for column in values.T.tolist()]


def attended_by_all(q, k, v, allowed):
    """Do the same for q (B, H, T, D), k and v (B, H, S, D) and allowed, bool (B, H, T, S)."""
    result = torch.empty_like(q)
    for row in range(q.size(0)):
        for head in range(q.size(1)):
            for place in range(q.size(2)):
                query = q[row, head, place]
                seen = allowed[row, head, place]
                result[row, head, place] = torch.tensor(attended(query, k[row, head], v[row, head], seen))
    return result


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def queries_keys_values(earlier=0):
    """Return q (B, H, T, D), k and v (B, H, S, D), where `earlier` more tokens than T are seen."""
    seen = LENGTH + earlier
    return random(ROWS, HEADS, LENGTH, SIZE), *(random(ROWS, HEADS, seen, SIZE, seed=seed) for seed in (1, 2))


# attend_in_bfloat16_on_cpu --------------------------------------------------------------------------------------------


@pytest.fixture
def step_by_step(monkeypatch):
    """Refuse PyTorch's own attention: the function must do the steps itself."""

    def refuse(*args, **options):
        raise AssertionError("write the scores, the mask and the softmax yourself")

    monkeypatch.setattr(F, "scaled_dot_product_attention", refuse)


@pytest.mark.usefixtures("step_by_step")
@pytest.mark.parametrize("shape", [None, (LENGTH, LENGTH + 2), (ROWS, 1, LENGTH, LENGTH + 2)])
def test_the_steps_give_the_average_of_the_values_that_the_mask_allows(shape):
    q, k, v = queries_keys_values(earlier=2)
    mask = None
    allowed = torch.ones(ROWS, HEADS, LENGTH, LENGTH + 2, dtype=torch.bool)
    if shape is not None:
        mask = random(*shape, seed=3) > 0
        mask[..., 0] = True  # each token sees at least one
        allowed = mask.expand_as(allowed)
    result = attend_in_bfloat16_on_cpu(q, k, v, mask, causal=False)
    torch.testing.assert_close(result, attended_by_all(q, k, v, allowed))


@pytest.mark.usefixtures("step_by_step")
def test_causal_steps_see_no_later_token():
    q, k, v = queries_keys_values()
    allowed = torch.ones(ROWS, HEADS, LENGTH, LENGTH, dtype=torch.bool).tril()
    result = attend_in_bfloat16_on_cpu(q, k, v, None, causal=True)
    torch.testing.assert_close(result, attended_by_all(q, k, v, allowed))


@pytest.mark.usefixtures("step_by_step")
def test_the_steps_keep_bfloat16():
    q, k, v = (tensor.bfloat16() for tensor in queries_keys_values())
    allowed = torch.ones(ROWS, HEADS, LENGTH, LENGTH, dtype=torch.bool).tril()
    result = attend_in_bfloat16_on_cpu(q, k, v, None, causal=True)
    assert result.dtype == torch.bfloat16
    assert (result - attended_by_all(q.float(), k.float(), v.float(), allowed)).abs().max() < 0.05


# Attention.forward ----------------------------------------------------------------------------------------------------


def make_attention():
    """Return an Attention with random weights and biases."""
    config = ModelConfig(vocab_size=9, hidden_size=HEADS * SIZE, num_heads=HEADS, arch="gpt2")
    torch.manual_seed(0)
    return Attention(config, layer_number=1).requires_grad_(False)


def heads_of(attention, x):
    """Return the queries, keys and values of x (B, T, C), each (B, H, T, D): one slice of the weights for each head."""
    rows = attention.qkv.weight @ x.mT + attention.qkv.bias[:, None]  # (B, 3 x H x D, T)
    slices = rows.split(SIZE, dim=1)  # first the heads' queries, then their keys, then their values
    of_heads = [torch.stack(slices[first : first + HEADS], dim=1).mT for first in (0, HEADS, 2 * HEADS)]
    return tuple(of_heads)


def expected_output(attention, q, k, v, allowed):
    heads = attended_by_all(q, k, v, allowed)
    side_by_side = torch.cat([heads[:, head] for head in range(HEADS)], dim=-1)  # (B, T, C)
    return side_by_side @ attention.output.weight.T + attention.output.bias


def test_attention_splits_into_heads_and_sees_no_later_token():
    attention = make_attention()
    x = random(ROWS, LENGTH, HEADS * SIZE)
    allowed = torch.ones(ROWS, HEADS, LENGTH, LENGTH, dtype=torch.bool).tril()
    expected = expected_output(attention, *heads_of(attention, x), allowed)
    torch.testing.assert_close(attention(x), expected, rtol=1e-4, atol=1e-5)


def test_attention_sees_what_a_mask_allows():
    attention = make_attention()
    x = random(ROWS, LENGTH, HEADS * SIZE)
    mask = random(LENGTH, LENGTH, seed=3) > 0
    mask |= torch.eye(LENGTH, dtype=torch.bool)
    expected = expected_output(attention, *heads_of(attention, x), mask.expand(ROWS, HEADS, -1, -1))
    torch.testing.assert_close(attention(x, mask=mask), expected, rtol=1e-4, atol=1e-5)


def test_queries_and_keys_are_rotated_but_not_values(monkeypatch):
    monkeypatch.setattr(model, "rotate", lambda x, cos, sin: x * cos + sin)  # `rotate` is another part
    attention = make_attention()
    x = random(ROWS, LENGTH, HEADS * SIZE)
    cos = random(1, 1, LENGTH, SIZE, seed=4)
    sin = random(1, 1, LENGTH, SIZE, seed=5)
    q, k, v = heads_of(attention, x)
    allowed = torch.ones(ROWS, HEADS, LENGTH, LENGTH, dtype=torch.bool).tril()
    expected = expected_output(attention, q * cos + sin, k * cos + sin, v, allowed)
    torch.testing.assert_close(attention(x, rotary=(cos, sin)), expected, rtol=1e-4, atol=1e-5)


class Cache:
    """A cache with the keys and values of two earlier tokens; notes which layer asked."""

    def __init__(self):
        self.k = random(ROWS, HEADS, 2, SIZE, seed=6)
        self.v = random(ROWS, HEADS, 2, SIZE, seed=7)

    def extend(self, layer_number, k, v):
        self.layer_number = layer_number
        return torch.cat((self.k, k), dim=2), torch.cat((self.v, v), dim=2)


def test_a_new_token_sees_all_tokens_in_the_cache():
    attention = make_attention()
    x = random(ROWS, 1, HEADS * SIZE)
    cache = Cache()
    q, k, v = heads_of(attention, x)
    k = torch.cat((cache.k, k), dim=2)
    v = torch.cat((cache.v, v), dim=2)
    expected = expected_output(attention, q, k, v, torch.ones(ROWS, HEADS, 1, 3, dtype=torch.bool))
    torch.testing.assert_close(attention(x, cache=cache), expected, rtol=1e-4, atol=1e-5)
    assert cache.layer_number == 1
