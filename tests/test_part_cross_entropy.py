"""The part cross_entropy of an assignment: the loss and the gradients that PyTorch computes by itself."""

import pytest
import torch
import torch.nn.functional as F

import model
from model import IGNORED, CrossEntropy

POSITIONS = 20
SIZE = 8
VOCAB = 11


def loss_and_gradients(loss_of):
    """Return the loss of 20 positions, two of them ignored, and the gradients of half of it."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(POSITIONS, SIZE, generator=generator, requires_grad=True)
    weight = torch.randn(VOCAB, SIZE, generator=generator, requires_grad=True)
    targets = torch.randint(VOCAB, (POSITIONS,), generator=generator)
    targets[[3, 19]] = IGNORED
    loss = loss_of(hidden, weight, targets)
    (0.5 * loss).backward()
    return loss.detach(), hidden.grad, weight.grad


def plain_cross_entropy(hidden, weight, targets):
    return F.cross_entropy(hidden @ weight.T, targets, ignore_index=IGNORED, reduction="sum")


def test_the_loss_is_the_sum_over_the_targets_that_are_not_ignored():
    loss, _, _ = loss_and_gradients(CrossEntropy.apply)
    expected, _, _ = loss_and_gradients(plain_cross_entropy)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("positions", [1, 7, POSITIONS])
def test_the_gradients_are_those_of_autograd_whatever_the_size_of_a_chunk(positions, monkeypatch):
    monkeypatch.setattr(model, "CPU_LOGITS", positions * VOCAB)
    results = loss_and_gradients(CrossEntropy.apply)
    for result, expected in zip(results, loss_and_gradients(plain_cross_entropy), strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)


def test_a_weight_that_is_not_trained_needs_no_gradient():
    hidden = torch.randn(5, SIZE, generator=torch.Generator().manual_seed(0), requires_grad=True)
    weight = torch.ones(VOCAB, SIZE).tril()
    targets = torch.arange(5)
    (gradient,) = torch.autograd.grad(CrossEntropy.apply(hidden, weight, targets), hidden)
    (expected,) = torch.autograd.grad(plain_cross_entropy(hidden, weight, targets), hidden)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-4)


def test_the_loss_of_logits_that_are_far_apart_is_finite():
    hidden = torch.tensor([[300.0]], requires_grad=True)
    loss = CrossEntropy.apply(hidden, torch.tensor([[1.0], [-1.0]]), torch.tensor([1]))
    assert loss == 600
