"""The part schedule of an assignment: the learning rate at steps where it is known."""

from types import SimpleNamespace

import pytest

from training.optimizer import learning_rate


def settings(**changes):
    usual = {"lr": 0.01, "min_lr": 0.0, "warmup_steps": 10, "scheduler": "cosine"}
    return SimpleNamespace(**usual | changes)


@pytest.mark.parametrize(("step", "rate"), [(0, 0.001), (4, 0.005), (9, 0.01)])
def test_it_rises_linearly_during_the_warm_up(step, rate):
    assert learning_rate(step, 110, settings()) == pytest.approx(rate)


@pytest.mark.parametrize(("step", "share"), [(10, 1), (35, 0.85355339), (60, 0.5), (85, 0.14644661), (110, 0)])
def test_it_falls_along_a_cosine_from_lr_to_min_lr(step, share):
    assert learning_rate(step, 110, settings()) == pytest.approx(0.01 * share)
    assert learning_rate(step, 110, settings(min_lr=0.002)) == pytest.approx(0.002 + 0.008 * share)


@pytest.mark.parametrize(("step", "share"), [(10, 1), (35, 0.75), (60, 0.5), (85, 0.25), (110, 0)])
def test_it_falls_along_a_line_from_lr_to_min_lr(step, share):
    assert learning_rate(step, 110, settings(scheduler="linear")) == pytest.approx(0.01 * share)
    assert learning_rate(step, 110, settings(scheduler="linear", min_lr=0.002)) == pytest.approx(0.002 + 0.008 * share)


@pytest.mark.parametrize(("total", "warmup"), [(100, 2), (5000, 100), (49_990, 1000), (80_000, 1000)])
def test_without_warmup_steps_it_warms_up_over_2_percent_of_the_steps_but_at_most_1000(total, warmup):
    chosen = settings(warmup_steps=None)
    assert learning_rate(0, total, chosen) == pytest.approx(0.01 / warmup)
    assert learning_rate(warmup - 1, total, chosen) == pytest.approx(0.01)
    assert learning_rate(warmup + 1, total, chosen) < 0.01


def test_without_a_warm_up_it_starts_at_lr():
    assert learning_rate(0, 100, settings(warmup_steps=0)) == 0.01


def test_a_warm_up_longer_than_the_run_is_possible():
    assert learning_rate(9, 10, settings(warmup_steps=10)) == pytest.approx(0.01)
    assert learning_rate(9, 10, settings(warmup_steps=50)) == pytest.approx(0.002)
