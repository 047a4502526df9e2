"""Losses that are not finite, and runs out of memory: nothing is lost, and the message says what to do."""

import contextlib
import math
import re

import pytest
import tiny_runs
import torch
from refusals import one_line
from tiny_runs import (
    CPU,
    LATEST,
    SIX_STEPS,
    assert_equal_weights,
    interrupt,
    losses_not_finite_at,
    make_model,
    make_rows,
    make_settings,
    metrics,
    train_in,
    weights,
)

from common.devices import Precision
from common.errors import UserError
from training import loop
from training.reports import less_memory
from training.step import micro_batches, training_step


@pytest.mark.parametrize(("optimizer", "value"), [("adamw", math.nan), ("muon", math.inf)])
def test_a_step_whose_loss_is_not_finite_is_skipped_and_counted(tmp_path, optimizer, value, capsys):
    with losses_not_finite_at(2, 4, 5, value=value):
        summary = train_in(tmp_path, optimizer=optimizer, **SIX_STEPS | {"epochs": 2, "logging_steps": 1})
    assert summary["skipped_steps"] == 3 and summary["ended"] == "finished"
    assert [(row["step"], row["skipped"]) for row in metrics(tmp_path, "skip")] == [(2, 1), (4, 2), (5, 3)]
    assert [row["step"] for row in metrics(tmp_path, "train")] == [1, 3, 6, 7, 8, 9, 10, 11, 12]
    assert "step 5/12 skipped: loss or gradient not finite (1 new, 3 in all)" in capsys.readouterr().out
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "final_model.pth").values())
    assert not {"NaN", "Infinity"} & set(re.findall(r"\w+", (tmp_path / "metrics.jsonl").read_text()))


@pytest.mark.parametrize("scaled", [False, True])
def test_a_skipped_step_changes_nothing(scaled):
    """On CUDA the scaler skips the step on the device; here the CPU does the same."""
    model = make_model()
    settings = make_settings()
    precision = Precision(CPU)
    if scaled:
        precision.scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    optimizers = loop.make_optimizers(model, settings)
    batches = micro_batches(make_rows(), 0, settings, CPU)
    step = lambda: training_step(model, optimizers, precision, batches, settings)
    assert step().good
    state = lambda: [t.clone() for o in optimizers for s in o.state.values() for t in s.values()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    before_state = state()
    with losses_not_finite_at(1):
        result = step()
    assert not result.good and not result.norm.isfinite() and not result.loss.isfinite()
    assert_equal_weights(model.state_dict(), before)
    assert all(torch.equal(one, other) for one, other in zip(state(), before_state, strict=True))
    assert step().good and not torch.equal(model.state_dict()["norm.weight"], before["norm.weight"])


def scaled_precision(scale):
    """Return a precision like float16 on CUDA: the loss is scaled, and the scale adapts to the gradients."""
    precision = Precision(CPU)
    precision.dtype = torch.float16
    precision.scale = None
    precision.autocast = contextlib.nullcontext
    precision.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1000)
    return precision


def test_an_overflow_of_scaled_float16_gradients_is_not_a_bad_step():
    model = make_model()
    settings = make_settings()
    precision = scaled_precision(2.0**127)
    optimizers = loop.make_optimizers(model, settings)
    batches = micro_batches(make_rows(), 0, settings, CPU)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    result = training_step(model, optimizers, precision, batches, settings)
    assert result.good and not result.norm.isfinite() and precision.scaler.get_scale() == 2.0**126
    assert_equal_weights(model.state_dict(), before)


def test_a_float16_run_that_overflows_at_every_scale_stops_and_says_what_helps(tmp_path, monkeypatch):
    """The loss is finite, but no step updates the weights: only the scale falls."""
    monkeypatch.setattr(tiny_runs, "Precision", lambda *_: scaled_precision(4.0))
    monkeypatch.setattr(loop, "has_bfloat16", lambda device: True)
    make_model = tiny_runs.make_model

    def overflowing(**changes):
        model = make_model(**changes)
        model.norm.weight.register_hook(lambda gradient: gradient + math.inf)
        return model

    monkeypatch.setattr(tiny_runs, "make_model", overflowing)
    with pytest.raises(UserError) as refusal:
        train_in(tmp_path, epochs=9, max_bad_steps=4)
    assert "4 steps in a row" in one_line(refusal)
    assert "--amp_dtype bfloat16" in one_line(refusal) and "--no-amp" in one_line(refusal)
    scales = [row["loss_scale"] for row in metrics(tmp_path, "train")]
    assert scales == [4.0, 2.0, 1.0]  # the steps after that are skipped and counted
    assert [row["skipped"] for row in metrics(tmp_path, "skip")] == [1, 2, 3, 4]
    assert " loss_scale 4 tokens/s " in (tmp_path / "train.log").read_text()


def test_too_many_bad_steps_in_a_row_stop_the_run_and_the_last_good_checkpoint_is_named(tmp_path):
    settings = SIX_STEPS | {"epochs": 3, "save_steps": 2, "max_bad_steps": 4}
    with losses_not_finite_at(3, *range(6, 20)), pytest.raises(UserError) as refusal:
        train_in(tmp_path, **settings)
    assert "4 steps in a row" in one_line(refusal) and "checkpoint-4.pth" in one_line(refusal)
    assert refusal.value.status == 1 and metrics(tmp_path, "skip")[-1]["step"] == 9
    assert [path.name for path in sorted(tmp_path.glob("checkpoint-*"))] == ["checkpoint-2.pth", "checkpoint-4.pth"]


def test_bad_steps_are_counted_across_a_resume(tmp_path):
    settings = SIX_STEPS | {"epochs": 3, "max_bad_steps": 4}
    with losses_not_finite_at(2, 3):
        interrupt(tmp_path, 3, **settings)
    with losses_not_finite_at(1, 2), pytest.raises(UserError, match="4 steps in a row"):
        train_in(tmp_path, flags=LATEST, **settings)
    assert metrics(tmp_path, "skip")[-1]["skipped"] == 4


# Out of memory --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "count", "ranks", "advice"),
    [
        (64, 1, 1, "--batch_size 32 --gradient_accumulation_steps 2"),
        (9, 2, 1, "--batch_size 3 --gradient_accumulation_steps 6"),
        (7, 1, 1, "--batch_size 1 --gradient_accumulation_steps 7"),
        (6, 1, 2, "--batch_size 2 --gradient_accumulation_steps 3"),
        (2, 1, 2, "smaller model"),
        (1, 4, 1, "smaller model"),
    ],
)
def test_when_out_of_memory_the_advice_is_smaller_batches_with_the_same_rows_per_step(size, count, ranks, advice):
    said = less_memory(make_settings(batch_size=size, gradient_accumulation_steps=count), ranks)
    assert f"--batch_size {size}" in said and advice in said


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("[...] DefaultCPUAllocator: can't allocate")]
)
def test_a_run_out_of_memory_ends_with_one_line(tmp_path, monkeypatch, error):
    def full(*args):
        raise error

    monkeypatch.setattr(loop, "training_step", full)
    with pytest.raises(UserError) as refusal:
        train_in(tmp_path)
    assert "--batch_size 2 --gradient_accumulation_steps 2" in one_line(refusal) and refusal.value.status == 1
