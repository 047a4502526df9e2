"""How weights are updated: Muon's update of a matrix, which optimizer updates which weights, the learning rate."""

import math

import pytest
import torch
from tiny_runs import assert_equal_weights, make_model, make_settings, metrics, train_in, weights

from model import ModelConfig, Transformer
from training import loop
from training import optimizer as optimizer_module
from training.optimizer import Muon, learning_rate, make_optimizers, orthogonal
from training.settings import TrainingSettings


@pytest.mark.parametrize(
    ("shape", "half"), [((16, 16), False), ((16, 48), True), ((48, 16), False), ((3, 16, 24), True)]
)
def test_an_orthogonal_update_keeps_directions_and_makes_their_sizes_similar(shape, half, monkeypatch):
    monkeypatch.setattr(optimizer_module, "has_bfloat16", lambda device: half)
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    result = orthogonal(matrix)
    left, sizes, right = torch.linalg.svd(matrix, full_matrices=False)
    in_its_directions = left.mT @ result @ right.mT
    diagonal = in_its_directions.diagonal(dim1=-2, dim2=-1)
    clearly_there = sizes > 0.05 * sizes.max()  # the iteration raises very small ones only partly
    assert ((diagonal > 0.6) & (diagonal < 1.3))[clearly_there].all()
    assert result.dtype == torch.float32
    rounding = (in_its_directions - torch.diag_embed(diagonal)).abs().max()
    assert 1e-3 < rounding < 0.05 if half else rounding < 1e-3


def test_fused_matrices_are_orthogonalized_separately(monkeypatch):
    monkeypatch.setattr(optimizer_module, "has_bfloat16", lambda device: False)
    gradient = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    together, first, second = (torch.nn.Parameter(torch.zeros(rows, 4)) for rows in (6, 3, 3))
    together.grad = gradient
    first.grad = gradient[:3].clone()
    second.grad = gradient[3:].clone()
    Muon([{"params": [together], "parts": 2}], lr=0.1).step()
    Muon([{"params": [first, second]}], lr=0.1).step()
    assert torch.allclose(together, torch.cat([first, second]), atol=1e-6)


def test_matrices_of_one_shape_get_the_same_update_together_as_alone():
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=generator) for shape in ((6, 4), (6, 4), (8, 4), (6, 4))]
    gradients = [torch.randn(matrix.shape, generator=generator) for matrix in start]
    together = [torch.nn.Parameter(matrix.clone()) for matrix in start]
    alone = [torch.nn.Parameter(matrix.clone()) for matrix in start]
    optimizers = [Muon([{"params": together, "parts": 2}], lr=0.1)]
    optimizers += [Muon([{"params": [matrix], "parts": 2}], lr=0.1) for matrix in alone]
    for _ in range(3):
        for matrix, gradient in zip([*together, *alone], [*gradients, *gradients], strict=True):
            matrix.grad = gradient
        for optimizer in optimizers:
            optimizer.step()
    for one, other, before in zip(together, alone, start, strict=True):
        torch.testing.assert_close(one, other, rtol=0.02, atol=2e-3)  # bfloat16 if there are units
        assert (one - before).abs().max() > 0.1


@pytest.mark.parametrize("arch", ["gpt2", "llama"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_every_weight_is_updated_once_and_only_matrices_decay(arch, optimizer):
    model = Transformer(ModelConfig(50, num_layers=2, hidden_size=16, num_heads=2, intermediate_size=32, arch=arch))
    optimizers = make_optimizers(model, TrainingSettings(optimizer=optimizer, weight_decay=0.3))
    groups = [group for each in optimizers for group in each.param_groups]
    weights = [parameter for group in groups for parameter in group["params"]]
    assert len(weights) == len({id(weight) for weight in weights}) == len(list(model.parameters()))
    for group in groups:
        assert all(group["weight_decay"] == (0.3 if weight.dim() == 2 else 0.0) for weight in group["params"])
    by_muon = {id(w) for each in optimizers if isinstance(each, Muon) for g in each.param_groups for w in g["params"]}
    inside = {id(p) for name, p in model.named_parameters() if "blocks" in name and p.dim() == 2}
    assert by_muon == (inside if optimizer == "muon" else set())


def test_only_matrices_decay():
    model, settings = make_model(arch="gpt2"), make_settings(weight_decay=0.5)
    for parameter in model.parameters():
        parameter.data.fill_(1.0)
        parameter.grad = torch.zeros_like(parameter)
    for optimizer in make_optimizers(model, settings):
        optimizer.step()
    for parameter in model.parameters():
        expected = 1 - settings.lr * 0.5 if parameter.dim() == 2 else 1.0
        torch.testing.assert_close(parameter.data, torch.full_like(parameter, expected))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_tiny_model_learns_a_short_sequence(optimizer):
    torch.manual_seed(0)
    shape = {"num_layers": 1, "hidden_size": 32, "num_heads": 2, "intermediate_size": 64, "max_seq_len": 8}
    model = Transformer(ModelConfig(20, **shape, dropout=0.0))
    optimizers = make_optimizers(model, TrainingSettings(optimizer=optimizer, lr=0.01))
    ids = torch.tensor([[2, 7, 9, 4, 11, 5, 3, 8]])
    losses = []
    for _ in range(40):
        loss = model(ids[:, :-1], ids[:, 1:]) / 7
        loss.backward()
        for each in optimizers:
            each.step()
            each.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.1 < 2 < losses[0]


# The learning rate ----------------------------------------------------------------------------------------------------


def rates(total, **settings):
    return [learning_rate(step, total, make_settings(lr=0.01, **settings)) for step in range(total + 1)]


@pytest.mark.parametrize(
    ("scheduler", "total", "warmup"), [("cosine", 100, 2), ("linear", 5000, 100), ("cosine", 80_000, 1000)]
)
def test_the_learning_rate_warms_up_over_2_percent_of_the_run_but_at_most_1000_steps(scheduler, total, warmup):
    rate = rates(total, scheduler=scheduler)
    assert rate[: warmup + 1] == pytest.approx([0.01 * (step + 1) / warmup for step in range(warmup)] + [0.01])
    assert rate[warmup + 1] < 0.01


@pytest.mark.parametrize(
    ("scheduler", "min_lr", "warmup"),
    [  # every pair of values from two columns occurs
        ("cosine", 0.0, None), ("cosine", 0.001, 0), ("cosine", 0.0, 7),
        ("linear", 0.001, None), ("linear", 0.0, 0), ("linear", 0.001, 7),
    ],
)  # fmt: skip
def test_the_learning_rate_falls_from_lr_to_min_lr(scheduler, min_lr, warmup):
    rate = rates(200, scheduler=scheduler, min_lr=min_lr, warmup_steps=warmup)
    first = 4 if warmup is None else warmup
    assert max(rate) == rate[first] == pytest.approx(0.01)
    assert rate[first:] == sorted(rate[first:], reverse=True)
    assert rate[-1] == pytest.approx(min_lr, abs=1e-9)
    halfway = (200 + first) // 2
    assert rate[halfway] == pytest.approx((0.01 + min_lr) / 2, rel=0.02)
    quarter = min_lr + (0.01 - min_lr) * (0.75 if scheduler == "linear" else math.cos(math.pi / 8) ** 2)
    assert rate[(halfway + first) // 2] == pytest.approx(quarter, rel=0.02)


def test_a_warmup_longer_than_the_run_never_reaches_lr():
    assert max(rates(10, warmup_steps=50)) < 0.01


def test_the_run_uses_the_learning_rates_of_the_schedule(finished):
    rows = metrics(finished[0], "train")
    assert [row["lr"] for row in rows] == [learning_rate(step, len(rows), make_settings()) for step in range(len(rows))]


def test_at_a_learning_rate_of_0_no_weight_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "learning_rate", lambda *_: 0.0)
    train_in(tmp_path)
    assert_equal_weights(weights(tmp_path / "final_model.pth"), make_model().state_dict())
