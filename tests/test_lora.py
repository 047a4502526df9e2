"""LoRA: adapters change nothing at first, only they are trained, and they merge into an ordinary model."""

import pytest
import torch
from refusals import one_line
from tiny_runs import assert_equal_weights, make_model, metrics, train_in, weights

from common.errors import UserError
from common.weights_files import load_model, save_model
from model import ARCHITECTURES
from training.lora import Adapted, add_adapters, merge, merged_weights

IDS = torch.arange(32).reshape(2, 16) % 24


def adapted(rank=2, trained=True, **changes):
    """Return a tiny model with adapters, and its logits without them."""
    model = make_model(**changes).eval()
    before = model(IDS).detach()
    add_adapters(model, rank)
    if trained:
        for name, parameter in model.named_parameters():
            if name.endswith(".up"):
                torch.nn.init.normal_(parameter, std=0.1)
    return model, before


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_untrained_adapters_change_nothing(arch):
    model, before = adapted(trained=False, arch=arch)
    assert torch.equal(model(IDS), before)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_merged_model_computes_the_same_as_the_adapted_one(arch, tmp_path):
    model, before = adapted(arch=arch)
    logits = model(IDS).detach()
    save_model(tmp_path / "model.pth", model, "a fingerprint", weights=merged_weights(model))
    loaded, _ = load_model(tmp_path / "model.pth")
    merge(model)
    assert not any(isinstance(module, Adapted) for module in model.modules())
    for ordinary in (model, loaded):
        assert (ordinary(IDS) - logits).abs().max() < 1e-5 < (logits - before).abs().max()


def test_merging_a_model_without_adapters_changes_nothing():
    model = make_model()
    assert_equal_weights(merged_weights(model), model.state_dict())


@pytest.mark.parametrize("rank", [1, 3])
def test_only_adapters_are_trained_and_all_are_counted(rank, tmp_path):
    model = make_model()
    inside = [p for name, p in model.named_parameters() if "blocks." in name and p.dim() == 2]
    expected = sum(rank * sum(p.shape) for p in inside), sum(p.numel() for p in model.parameters())
    assert add_adapters(model, rank) == expected
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * len(inside) and all(name.endswith((".down", ".up")) for name in trained)


def test_a_rank_above_the_rank_of_a_matrix_is_refused():
    with pytest.raises(UserError) as raised:
        add_adapters(make_model(), 17)
    assert "--lora_rank 17" in one_line(raised)


def test_a_run_with_adapters_learns_and_writes_ordinary_models(tmp_path):
    summary = train_in(tmp_path, lora_rank=2, epochs=4, lr=5e-2)
    before = make_model().state_dict()
    after = weights(tmp_path / "final_model.pth")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if "blocks." in name and before[name].dim() == 2}
    rows = metrics(tmp_path, "eval")
    assert summary["final_val_loss"] < rows[0]["val_loss"]
