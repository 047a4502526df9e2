"""tools/gpu_check.py on a CPU with tiny networks: its output, and that a failing check does not stop it."""

import sys

import gpu_check
import pytest
import torch
from gpu import speed
from tiny_runs import CPU


@pytest.fixture
def no_time(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--device", "cpu", "--minutes", "0"])


def test_checks_that_do_not_fit_the_time_are_listed(no_time, monkeypatch, capsys):
    monkeypatch.setattr(gpu_check.os, "cpu_count", lambda: 2)
    gpu_check.main()
    *_, last = capsys.readouterr().out.splitlines()
    for title in (
        "gradients",
        "same loss in each precision",
        "SIGTERM and resuming",
        "training course, float32",
        "writing",
    ):
        assert title in last


def test_a_failing_check_prints_a_line_and_the_next_ones_still_run(capsys):
    checks = [("one", 0, lambda: 1 / 0), ("two", 0, lambda: ["right"])]
    found = dict(gpu_check.side_by_side(checks, float("inf"), []))
    assert found == {"one": ["FAILED: ZeroDivisionError: division by zero"], "two": ["right"]}


def test_a_wrong_gradient_is_reported(monkeypatch):
    """Each precision gets a different gradient."""
    monkeypatch.setattr(gpu_check, "dtypes", lambda device: ["float32", "bfloat16"])
    gradients = {"float32": torch.tensor([3.0, 4.0]), "bfloat16": torch.tensor([4.0, 3.0])}
    monkeypatch.setattr(gpu_check, "first_gradient", lambda device, dtype, compiling: (9.2, gradients[dtype]))
    lines = gpu_check.check_gradients(CPU)
    assert [line.split(",")[0] for line in lines] == ["float32: right", "float32", "bfloat16: WRONG"]


@pytest.mark.parametrize(
    "losses", [{"float32": (2.0, 0), "bfloat16": (2.01, 0)}, {"float32": (2.0, 0), "bfloat16": (2.1, 3)}]
)
def test_losses_that_differ_by_more_than_one_percent_are_reported(losses, monkeypatch):
    monkeypatch.setattr(gpu_check, "dtypes", lambda device: list(losses))
    monkeypatch.setattr(gpu_check, "final_loss", lambda device, folder, name, *_: losses[name])
    lines = gpu_check.check_precisions(CPU, None, 1)
    assert ["WRONG" in line for line in lines] == [False, losses["bfloat16"][0] > 2.02]


def test_the_speed_of_training_is_measured():
    (line,) = speed.measure_training(speed.Trial(CPU, "course", "float32"), profiled=True)
    assert "tokens/s" in line and "ms per step" in line and "SKIPPED" not in line


def test_kernels_are_counted_by_kind():
    names = {"sm90_xmma_gemm_f16": "products", "triton_red_fused_7": "compiled", "fmha_cutlassF": "attention"}
    names |= {"multi_tensor_apply_kernel": "optimizer", "vectorized_elementwise": "other", "Memcpy HtoD": "copies"}
    assert {name: speed.kind_of(name) for name in names} == names
