"""The part sampling of an assignment: the probabilities of the tokens that are kept, and the draw, in plain Python."""

import math

import pytest
import torch

from generation.sampling import draw, probabilities

VOCAB = 12


def chances_by_hand(logits, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0):
    """Return {token: probability} of one row, a list of logits."""
    exponentials = {token: math.exp(logit / temperature) for token, logit in enumerate(logits)}
    likeliest_first = sorted(exponentials, key=exponentials.get, reverse=True)
    kept = likeliest_first[: top_k or VOCAB]
    total = sum(exponentials[token] for token in kept)
    chances = {}
    reached = 0.0
    for token in kept:
        if reached < top_p:
            chances[token] = exponentials[token] / total
            reached += chances[token]
    highest = max(chances.values())
    chances = {token: chance for token, chance in chances.items() if chance >= min_p * highest}
    return {token: chance / sum(chances.values()) for token, chance in chances.items()}


def random_logits(rows=20):
    return 2 * torch.randn(rows, VOCAB, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "options",
    [
        {}, {"temperature": 0.5}, {"temperature": 2.0}, {"top_k": 1}, {"top_k": 4}, {"top_k": VOCAB + 5},
        {"top_p": 0.01}, {"top_p": 0.7}, {"min_p": 0.2}, {"min_p": 1.0}, {"top_k": 5, "top_p": 0.8},
        {"temperature": 1.5, "top_k": 8, "top_p": 0.9, "min_p": 0.1},
    ],
)  # fmt: skip
def test_the_probabilities_are_those_of_plain_python(options):
    logits = random_logits()
    chances, tokens = probabilities(logits, **options)
    assert chances.dtype == torch.float32 and tokens.dtype == torch.int64
    for row, of_tokens, numbers in zip(logits.tolist(), chances, tokens.expand(len(logits), -1), strict=True):
        found = {token: chance for token, chance in zip(numbers.tolist(), of_tokens.tolist(), strict=True) if chance}
        assert found == pytest.approx(chances_by_hand(row, **options), abs=1e-6)


def test_a_temperature_of_0_keeps_only_the_likeliest_token():
    logits = random_logits()
    chances, tokens = probabilities(logits, temperature=0)
    assert chances.tolist() == [[1.0]] * len(logits)
    assert tokens.tolist() == [[max(range(VOCAB), key=row.__getitem__)] for row in logits.tolist()]


@pytest.mark.parametrize("options", [{"top_k": 4}, {"top_p": 0.7}])
def test_the_tokens_are_sorted_by_their_ids(options):
    _, tokens = probabilities(random_logits(), **options)
    assert tokens.tolist() == [sorted(row) for row in tokens.tolist()]


def test_without_top_k_and_top_p_one_row_of_tokens_is_returned():
    _, tokens = probabilities(random_logits(), min_p=0.1)
    assert tokens.tolist() == [[*range(VOCAB)]]


@pytest.mark.parametrize(
    ("number", "token"), [(0.0, 11), (0.24, 11), (0.26, 14), (0.74, 14), (0.76, 15), (1 - 2**-24, 15)]
)
def test_draw_returns_the_first_token_whose_cumulative_probability_is_greater(number, token):
    chances = torch.tensor([[0.0, 0.25, 0.0, 0.0, 0.5, 0.25, 0.0]])
    tokens = torch.arange(10, 17)[None]
    assert draw(chances, tokens, torch.tensor([number])).tolist() == [token]


def test_draw_chooses_in_each_row_from_its_own_tokens():
    chances = torch.tensor([[0.5, 0.5], [0.9, 0.1]])
    numbers = torch.tensor([0.6, 0.6])
    assert draw(chances, torch.tensor([[3, 4], [5, 6]]), numbers).tolist() == [4, 5]
    assert draw(chances, torch.tensor([[7, 8]]), numbers).tolist() == [8, 7]
