"""The arithmetic of one step and one evaluation."""

import math

import numpy as np
import pytest
import torch
from tiny import SPECIAL
from tiny_runs import (
    CONTEXT,
    CPU,
    assert_equal_weights,
    at_call,
    make_model,
    make_rows,
    make_settings,
    make_validation,
    metrics,
    rows_of,
    train_in,
)

from common.devices import Precision
from model import IGNORED, Transformer
from training import loop
from training import step as step_module
from training.step import evaluate, micro_batches, training_step


def weights_after_steps(rows, steps=4, **settings):
    """Return weights, losses and norms after some steps of plain gradient descent.

    Plain gradient descent, since AdamW would hide a wrong factor of the gradient.
    """
    model = make_model()
    settings = make_settings(max_grad_norm=0, **settings)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    results = []
    for step in range(steps):
        batches = micro_batches(rows, step, settings, CPU)
        result = training_step(model, [optimizer], Precision(CPU), batches, settings)
        results.append([result.loss.item(), result.tokens, result.norm.item()])
    return {**model.state_dict(), "results": torch.tensor(results)}


def assert_close_weights(one, other):
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("packed", [True, False])
def test_accumulating_four_batches_equals_one_batch_four_times_as_large(packed, monkeypatch):
    monkeypatch.setattr(step_module, "CPU_TOKENS", 2 * CONTEXT)  # so that a micro-batch is two rows here, as on a GPU
    rows = make_rows(packed=packed)
    accumulated = weights_after_steps(rows, batch_size=2, gradient_accumulation_steps=4)
    monkeypatch.setattr(step_module, "CPU_TOKENS", 8 * CONTEXT)
    assert_close_weights(accumulated, weights_after_steps(rows, batch_size=8))


@pytest.mark.parametrize(("packed", "tokens"), [(True, 3 * CONTEXT), (False, 1)])
def test_splitting_into_micro_batches_on_a_cpu_changes_nothing(packed, tokens, monkeypatch):
    rows = make_rows(packed=packed)
    whole = weights_after_steps(rows, batch_size=8)
    assert len(micro_batches(rows, 0, make_settings(batch_size=8), CPU)) == 1
    monkeypatch.setattr(step_module, "CPU_TOKENS", tokens)
    assert len(micro_batches(rows, 0, make_settings(batch_size=8), CPU)) == (8 if tokens == 1 else 3)
    assert_close_weights(whole, weights_after_steps(rows, batch_size=8))


@pytest.mark.parametrize("accumulation", [1, 3])
def test_the_micro_batches_of_a_step_contain_its_rows(accumulation):
    rows = make_rows(packed=False)
    settings = make_settings(batch_size=2, gradient_accumulation_steps=accumulation)
    for step in (0, 1):
        first = step * settings.rows_per_step
        expected = rows_of([rows.batch(first + number, 1) for number in range(settings.rows_per_step)])
        assert sorted(rows_of(micro_batches(rows, step, settings, CPU))) == sorted(expected)


def test_on_a_cpu_rows_of_similar_length_are_grouped_and_no_wider_than_needed(monkeypatch):
    monkeypatch.setattr(step_module, "CPU_TOKENS", 24)
    monkeypatch.setattr(step_module, "WIDTHS", 4)
    lengths = [3, 16, 4, 9, 1, 15, 0]
    targets = np.full((len(lengths), 18), IGNORED)
    for row, length in enumerate(lengths):
        targets[row, length // 2 : length] = row
    parts = step_module.cut_for(CPU, np.arange(len(lengths) * 18).reshape(-1, 18), targets)
    assert [tuple(inputs.shape) for inputs, _ in parts] == [(4, 4), (1, 12), (1, 16), (1, 16)]
    assert sorted(rows_of(parts)) == sorted(rows_of([(None, torch.from_numpy(targets))]))
    for inputs, targets in parts:
        for row, wanted in zip(inputs[:, 0] // 18, targets, strict=True):
            assert {*wanted.tolist()} <= {IGNORED, row.item()}


def test_the_loss_and_the_gradient_are_means_over_predicted_tokens():
    rows = make_rows(packed=False)
    settings = make_settings(batch_size=6)
    model = make_model()
    inputs, targets = map(torch.from_numpy, rows.batch(0, 6))
    expected = torch.nn.functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
    gradient = torch.autograd.grad(expected, list(model.parameters()))
    batches = micro_batches(rows, 0, settings, CPU)
    still = torch.optim.SGD(model.parameters(), lr=0.0)
    loss, tokens, norm, *_ = training_step(model, [still], Precision(CPU), batches, settings)
    assert tokens == (targets != IGNORED).sum()
    assert loss.item() / tokens == pytest.approx(expected.item(), rel=1e-5)
    assert norm.item() == pytest.approx(math.sqrt(sum((g**2).sum().item() for g in gradient)), rel=1e-4)


@pytest.mark.parametrize(("longest", "factor"), [(1e-3, None), (0, 1), (1e9, 1)])
def test_a_long_gradient_is_scaled_down_and_a_short_one_is_not(longest, factor):
    model, settings = make_model(), make_settings(max_grad_norm=longest)
    before = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    batches = micro_batches(make_rows(), 0, settings, CPU)
    sgd = torch.optim.SGD(model.parameters(), lr=1.0)
    _, _, norm, *_ = training_step(model, [sgd], Precision(CPU), batches, settings)
    moved = torch.cat([parameter.detach().flatten() for parameter in model.parameters()]) - before
    assert norm > 0.1  # the norm before scaling
    assert moved.norm().item() == pytest.approx(norm.item() * factor if factor else longest, rel=1e-3)


# Evaluation -----------------------------------------------------------------------------------------------------------


def test_an_evaluation_scores_every_token_but_bos_once():
    model, rows = make_model(dropout=0.5), make_validation()
    model.tokens.weight.data *= 20  # so that its predictions differ
    result = evaluate(model, rows, Precision(CPU))
    assert model.training

    model.eval()
    nats = []
    right = []
    text = torch.from_numpy(rows.cache.tokens.astype(np.int64))
    for place in range(1, len(text)):
        if text[place] != SPECIAL["<bos>"]:
            first = (place - 1) // CONTEXT * CONTEXT  # rows do not overlap
            log_probs = model(text[None, first:place])[0, -1].double().log_softmax(-1)
            nats.append(-log_probs[text[place]].item())
            right.append(log_probs.argmax() == text[place])
    assert len(nats) == len(text) - len(rows.cache)
    assert result["val_loss"] == pytest.approx(np.mean(nats), rel=1e-5)
    assert result["perplexity"] == pytest.approx(math.exp(np.mean(nats)), rel=1e-4)
    assert result["bits_per_byte"] == pytest.approx(np.sum(nats) / math.log(2) / rows.cache.sizes.sum(), rel=1e-5)
    assert result["accuracy"] == pytest.approx(np.mean(right))
    assert 0 < np.mean(right) < 1


@pytest.mark.parametrize("packed", [True, False])
def test_an_evaluation_does_not_depend_on_the_batch_size(packed, monkeypatch):
    model, rows = make_model(), make_validation(packed=packed)
    expected = pytest.approx(evaluate(model, rows, Precision(CPU)), rel=1e-5)
    assert evaluate(model, rows, Precision(CPU), batch_size=1) == expected
    assert evaluate(model, rows, Precision(CPU), batch_size=5) == expected
    monkeypatch.setattr(step_module, "CPU_TOKENS", 3 * CONTEXT)
    assert evaluate(model, rows, Precision(CPU)) == expected


def test_an_evaluation_does_not_depend_on_how_training_rows_are_made(tmp_path):
    evaluations = []
    for number, options in enumerate(({}, {"packed": False}, {"seed": 5}, {"texts": 7})):
        train_in(tmp_path / str(number), make_rows(**options), lr=1e-30)  # too small to change a weight
        evaluations.append(metrics(tmp_path / str(number), "eval")[0]["val_loss"])
    assert len(set(evaluations)) == 1


def test_an_evaluation_changes_neither_weights_nor_random_state():
    model, rows = make_model(dropout=0.5), make_validation()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    with_gradients = []
    model.blocks[0].register_forward_hook(lambda *_: with_gradients.append(torch.is_grad_enabled()))
    evaluate(model, rows, Precision(CPU))
    assert_equal_weights(before, model.state_dict())
    assert torch.equal(state, torch.get_rng_state())
    assert with_gradients and not any(with_gradients)


def test_even_a_huge_loss_has_a_finite_perplexity():
    assert math.isfinite(step_module.perplexity(1e6))


def test_an_interrupted_evaluation_ends_after_its_batch(monkeypatch):
    batches = []
    at_call(monkeypatch, Transformer, "hidden", 1, lambda: batches.append("first"))
    at_call(monkeypatch, Transformer, "hidden", 2, lambda: batches.append("second"))
    stopped = lambda: bool(batches)
    assert loop.evaluate(make_model(), make_validation(), Precision(CPU), 4, stopped=stopped) is None
    assert batches == ["first"]
