"""The device check: before training, a device's results are compared with the CPU's."""

import pytest
import tiny_runs
import torch
from refusals import one_line
from tiny_runs import CPU, train_in

from common.devices import Precision
from common.errors import UserError
from model import ModelConfig
from training import device_check, loop
from training.device_check import check_device

CONFIG = ModelConfig(vocab_size=5000, num_layers=9, hidden_size=64, num_heads=4, max_seq_len=1000)


def precision_of(dtype):
    precision = Precision(CPU)
    precision.dtype = dtype
    return precision


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_correct_device_passes_and_no_random_number_is_used(dtype):
    state = torch.get_rng_state()
    check_device(CONFIG, precision_of(dtype))
    assert torch.equal(state, torch.get_rng_state())


def test_the_random_numbers_of_a_gpu_are_not_seeded_again(monkeypatch):
    for kind in (torch.cuda, torch.mps):
        monkeypatch.setattr(kind, "manual_seed_all" if kind is torch.cuda else "manual_seed", pytest.fail)
    check_device(CONFIG, precision_of(torch.float32))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_device_with_wrong_attention_is_refused(dtype, monkeypatch):
    compute = device_check.loss_and_gradients

    def of_a_device(model, ids, precision):
        result = compute(model, ids, precision)
        if precision.dtype == dtype and calls:
            name = "the gradient of blocks.0.attention.qkv.weight"
            result[name] = result[name].roll(1, 0)
        calls.append(precision)
        return result

    calls = []
    monkeypatch.setattr(device_check, "loss_and_gradients", of_a_device)
    with pytest.raises(UserError, match="attention.qkv.weight differs from the CPU's by .*%") as refusal:
        check_device(CONFIG, precision_of(dtype))
    assert "--no-device_check" in one_line(refusal) and len(calls) == 2


def test_a_run_checks_its_device_before_writing_anything_but_not_a_cpu(tmp_path, monkeypatch):
    def refuse(config, precision):
        raise UserError(f"{precision.device} computes wrongly")

    monkeypatch.setattr(loop, "check_device", refuse)
    train_in(tmp_path / "cpu", flags={"device_check": True})
    monkeypatch.setattr(tiny_runs, "Precision", on_mps)
    with pytest.raises(UserError, match="mps computes wrongly"):
        train_in(tmp_path / "mps", flags={"device_check": True})
    assert not (tmp_path / "mps").exists()


def test_with_no_device_check_the_check_is_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "check_device", lambda *_: pytest.fail("checked anyway"))
    monkeypatch.setattr(loop, "Meter", lambda *_: 1 / 0)  # runs right after the check
    monkeypatch.setattr(tiny_runs, "Precision", on_mps)
    with pytest.raises(ZeroDivisionError):
        train_in(tmp_path, flags={"device_check": False})


def on_mps(*_):
    """Return a precision with a device that does not exist here."""
    precision = Precision(CPU)
    precision.device = torch.device("mps")
    return precision
