"""How weights are updated: what Muon does to a matrix, and which weights go to which optimizer."""

import pytest
import torch

from model import ModelConfig, Transformer
from training import optimizer as optimizer_module
from training.optimizer import Muon, make_optimizers, orthogonal
from training.settings import TrainingSettings


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("shape", [(16, 16), (16, 48), (48, 16), (3, 16, 24)])
def test_an_orthogonal_update_keeps_directions_and_evens_out_their_sizes(shape, half, monkeypatch):
    monkeypatch.setattr(optimizer_module, "has_bfloat16", lambda device: half)
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    result = orthogonal(matrix)
    left, sizes, right = torch.linalg.svd(matrix, full_matrices=False)
    in_its_directions = left.mT @ result @ right.mT
    diagonal = in_its_directions.diagonal(dim1=-2, dim2=-1)
    clearly_there = sizes > 0.05 * sizes.max()  # the iteration lifts very small ones only in part
    assert ((diagonal > 0.6) & (diagonal < 1.3))[clearly_there].all()
    assert result.dtype == torch.float32
    rounding = (in_its_directions - torch.diag_embed(diagonal)).abs().max()
    assert 1e-3 < rounding < 0.05 if half else rounding < 1e-3


def test_fused_matrices_are_made_orthogonal_each_for_itself(monkeypatch):
    monkeypatch.setattr(optimizer_module, "has_bfloat16", lambda device: False)
    gradient = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    together, first, second = (torch.nn.Parameter(torch.zeros(rows, 4)) for rows in (6, 3, 3))
    together.grad, first.grad, second.grad = gradient, gradient[:3].clone(), gradient[3:].clone()
    Muon([{"params": [together], "parts": 2}], lr=0.1).step()
    Muon([{"params": [first, second]}], lr=0.1).step()
    assert torch.allclose(together, torch.cat([first, second]), atol=1e-6)


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
