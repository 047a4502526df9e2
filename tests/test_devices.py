"""Device, precision and compiling: what is chosen, what is printed, and that a run learns the same."""

import pytest
import torch
from refusals import one_line
from tiny_runs import CPU, make_model, train_in

from common import devices
from common.devices import Precision
from common.errors import UserError


def test_a_device_is_chosen_and_printed_and_an_impossible_one_refused(said):
    assert devices.choose_device("cpu") == CPU
    assert len(said) == 1 and "cpu" in said[0]
    for name in ("toaster", "cuda:999"):
        with pytest.raises(UserError, match=f"--device {name}") as refusal:
            devices.choose_device(name)
        assert one_line(refusal)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_on_a_cpu_without_it_becomes_float32_and_is_reported(dtype, monkeypatch, said):
    monkeypatch.setattr(devices, "has_bfloat16", lambda device: False)
    precision = Precision(CPU, amp=True, amp_dtype=dtype)
    assert len(said) == 1 and "--amp" in said[0] and "float32" in said[0]
    assert precision.name() == "float32"
    with precision.autocast():
        assert make_model()(torch.zeros(1, 3, dtype=torch.int64)).dtype == torch.float32


def test_half_precision_is_the_default_where_a_cpu_has_bfloat16_units_and_nowhere_else(monkeypatch, said):
    for able, name in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(devices, "has_bfloat16", lambda device, able=able: able)
        precision = Precision(CPU, amp=None)
        assert precision.name() == name and not said and not precision.scaler.is_enabled()
        with precision.autocast():
            assert make_model()(torch.zeros(1, 3, dtype=torch.int64)).dtype == precision.dtype
        assert Precision(CPU, amp=False).name() == "float32"
        assert devices.ready_to_write(make_model()).tokens.weight.dtype == precision.dtype


def test_the_peak_of_a_card_is_found_by_its_name(monkeypatch):
    cards = {"Tesla T4": 65, "NVIDIA L4": 121, "NVIDIA A100-SXM4-40GB": 312, "NVIDIA H100 80GB HBM3": 990}
    for name, peak in (cards | {"NVIDIA H200": 990, "NVIDIA L40S": None, "NVIDIA T400": None}).items():
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=name: name)
        assert devices.peak_flops(torch.device("cuda"), torch.float16) == (peak and peak * 1e12)
    assert 1e8 < devices.peak_flops(CPU, torch.float32) < 1e14


# Compiling ------------------------------------------------------------------------------------------------------------


def test_only_a_long_run_is_worth_compiling():
    cuda = torch.device("cuda")
    half = torch.float16
    hour = 3600 * 0.2  # in seconds at the peak, of which a run reaches a fifth
    pays = devices.compiling_pays
    assert pays(cuda, 65e12, half, hour * 65e12) and not pays(cuda, 65e12, half, 1e12)
    assert pays(cuda, 65e12, torch.float32, 5e15) and not pays(cuda, 65e12, half, 5e15)  # slower, so sooner worth it
    assert pays(cuda, None, half, 7e15) and not pays(cuda, None, half, 5e15)  # a card that is not in the table
    assert pays(cuda, 990e12, half, 1e17)  # the five epochs of the course
    assert not pays(CPU, 2e11, half, 1e18)  # where a resumed run must end with exactly the same weights
    assert not pays(torch.device("mps"), None, half, 1e18)


def test_a_compiled_run_is_the_same_run_and_compiles_once(tmp_path, monkeypatch):
    graphs = []
    compile_ = torch.compile

    def keep(graph, example):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda network, **options: compile_(network, backend=keep, **options))
    plain = train_in(tmp_path / "plain")
    assert not graphs  # so short a run is not worth it
    compiled = train_in(tmp_path / "compiled", compile="on")
    assert len(graphs) == 1  # though evaluations came between
    assert compiled["final_val_loss"] == pytest.approx(plain["final_val_loss"], rel=1e-4)
    assert "compiled in" in (tmp_path / "compiled" / "train.log").read_text()


def test_where_compiling_fails_the_run_trains_without(tmp_path, monkeypatch):
    def fail(network, **options):
        raise RuntimeError("no C compiler was found\nand much more")

    monkeypatch.setattr(torch, "compile", fail)
    plain = train_in(tmp_path / "plain")
    failed = train_in(tmp_path / "failed", compile="on")
    assert failed["final_val_loss"] == plain["final_val_loss"]
    log = (tmp_path / "failed" / "train.log").read_text()
    assert "compiling failed, the run goes on without: no C compiler was found\n" in log and "much more" not in log
