"""Before training, a device is compared with the CPU."""

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
def test_a_device_that_computes_what_the_cpu_computes_passes_and_no_random_number_is_used_up(dtype):
    state = torch.get_rng_state()
    check_device(CONFIG, precision_of(dtype))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_device_whose_attention_is_wrong_is_refused(dtype, monkeypatch):
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


def test_a_run_checks_its_device_before_it_writes_anything_and_a_cpu_needs_no_check(tmp_path, monkeypatch):
    def refuse(config, precision):
        raise UserError(f"{precision.device} computes wrongly")

    monkeypatch.setattr(loop, "check_device", refuse)
    train_in(tmp_path / "cpu", flags={"device_check": True})
    monkeypatch.setattr(tiny_runs, "Precision", on_mps)
    with pytest.raises(UserError, match="mps computes wrongly"):
        train_in(tmp_path / "mps", flags={"device_check": True})
    assert not (tmp_path / "mps").exists()


def test_no_device_check_goes_on_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "check_device", lambda *_: pytest.fail("checked all the same"))
    monkeypatch.setattr(loop, "Meter", lambda *_: 1 / 0)  # what comes after the check
    monkeypatch.setattr(tiny_runs, "Precision", on_mps)
    with pytest.raises(ZeroDivisionError):
        train_in(tmp_path, flags={"device_check": False})


def on_mps(*_):
    """A precision that names a device which is not there."""
    precision = Precision(CPU)
    precision.device = torch.device("mps")
    return precision
