"""--minutes: how many steps a run has; otherwise it is like any other run.  All times come from a fake clock."""

import pytest
from grading.logs import read_log
from programs import TINY, main
from refusals import one_line
from tiny_runs import (
    LATEST,
    assert_nothing_is_lost,
    assert_same_models,
    at_call,
    interrupt,
    make_settings,
    make_validation,
    metrics,
    terminate,
    train_in,
    weights,
)

import train_tinystories_chat_model as step4
import train_tinystories_model as step2
from common.errors import Interrupted, UserError
from training import loop, time_limit
from training.optimizer import learning_rate
from training.time_limit import Times, steps_that_fit

MINUTES = {"epochs": None, "minutes": 3}
STEPS = 69  # of 2 s, and 3 evaluations of 5 s: 153 of the 180 s; measuring uses 23, the end needs 3


class Clock:
    """A clock that advances only with steps and with rows of evaluations: this many seconds for each."""

    def __init__(self):
        self.now = 0.0
        self.step = 2.0
        self.row = 5 / make_validation().per_epoch

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    training_step, evaluate = loop.training_step, loop.evaluate

    def slow_step(*args):
        clock.now += clock.step
        return training_step(*args)

    def slow_evaluation(model, rows, *args):
        clock.now += clock.row * rows.per_epoch
        return evaluate(model, rows, *args)

    monkeypatch.setattr(loop, "STARTED", 0.0)
    for module in (loop, time_limit):
        monkeypatch.setattr(module, "time", clock)
        monkeypatch.setattr(module, "training_step", slow_step)
        monkeypatch.setattr(module, "evaluate", slow_evaluation)
    return clock


# The number of steps --------------------------------------------------------------------------------------------------


def test_the_steps_fill_the_minutes_and_the_schedule_covers_them(tmp_path, clock):
    train_in(tmp_path, **MINUTES)
    assert 0.95 * 180 < clock.now <= 180
    assert metrics(tmp_path, "run")[0]["total_steps"] == STEPS
    rows = metrics(tmp_path, "train")
    assert [row["step"] for row in rows] == [*range(1, STEPS + 1)]
    settings = make_settings(**MINUTES)
    assert [row["lr"] for row in rows] == pytest.approx([learning_rate(step, STEPS, settings) for step in range(STEPS)])
    assert [row["step"] for row in metrics(tmp_path, "eval")] == [23, 46, 69]


def test_the_log_reports_the_number_of_steps(tmp_path, clock):
    train_in(tmp_path, **MINUTES)
    text = (tmp_path / "train.log").read_text(encoding="utf-8")
    assert "--minutes 3: a step takes 2 s, an evaluation 5 s" in text
    log = read_log(text, "train.log", [])
    assert log.total_steps == STEPS and {row["total_steps"] for row in log.rows} == {STEPS}


def test_time_before_the_first_step_counts_too(tmp_path, clock):
    clock.now = 60.0  # for imports, data and the compiler
    train_in(tmp_path, **MINUTES)
    assert metrics(tmp_path, "run")[0]["total_steps"] < STEPS - 20 and 0.95 * 180 < clock.now <= 180


def test_too_few_minutes_still_end_with_a_best_model(tmp_path, clock, said):
    clock.step = 100.0
    clock.row = 100.0
    summary = train_in(tmp_path, epochs=None, minutes=1)
    assert summary["step"] == summary["best_step"] == 1 and weights(tmp_path / "best_model.pth")
    assert any("--minutes 1 is too short for one evaluation" in line for line in said)


@pytest.mark.parametrize(
    ("evaluation", "eval_steps", "expected"),
    [
        (1, None, (977, 49)),  # 20 evaluations
        (20, None, (917, 230)),  # 4, a tenth of the time
        (600, None, (397, 397)),
        (2000, None, (1, 1)),
        (10, 100, (897, 100)),
        (2000, 100, (1, 100)),
    ],
)
def test_the_time_of_evaluations_is_included(evaluation, eval_steps, expected):
    assert steps_that_fit(1000, Times(1.0, evaluation, 0.0), eval_steps) == expected


def test_early_stopping_can_end_the_run_before_its_minutes_are_over(tmp_path, clock, val_losses):
    val_losses[:] = [1.0, 2.0, 3.0]
    summary = train_in(tmp_path, **MINUTES, early_stopping_patience=1)
    assert summary["ended"] == "stopped early" and summary["step"] == 46


# The same run ---------------------------------------------------------------------------------------------------------


def test_measuring_changes_nothing(tmp_path, clock):
    train_in(tmp_path / "minutes", **MINUTES)
    train_in(tmp_path / "steps", epochs=None, max_steps=STEPS, eval_steps=23)
    assert_same_models(tmp_path / "minutes", tmp_path / "steps")


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_resumed_run_has_the_same_steps_and_weights_as_the_uninterrupted_one(tmp_path, clock, optimizer):
    settings = MINUTES | {"optimizer": optimizer}
    train_in(tmp_path / "whole", **settings)
    clock.now = 0.0
    interrupt(tmp_path / "parts", 30, **settings)
    clock.step = 9.0  # another machine: the number of steps stays
    train_in(tmp_path / "parts", flags=LATEST, **settings)
    assert_nothing_is_lost(tmp_path / "parts", tmp_path / "whole")


def test_a_run_stopped_while_it_measures_resumes_to_the_same_end(tmp_path, clock, monkeypatch):
    train_in(tmp_path / "whole", **MINUTES)
    clock.now = 0.0
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        at_call(patch, time_limit, "training_step", 2, terminate)
        train_in(tmp_path / "parts", **MINUTES)
    train_in(tmp_path / "parts", flags=LATEST, **MINUTES)
    assert_nothing_is_lost(tmp_path / "parts", tmp_path / "whole")


def test_more_minutes_measure_again_and_resume_the_run(tmp_path, clock, said):
    train_in(tmp_path, **MINUTES)
    clock.now = 0.0
    train_in(tmp_path, flags=LATEST, **MINUTES | {"minutes": 6})
    assert "--minutes 6: the learning-rate schedule now covers the new length" in said
    steps = metrics(tmp_path, "train")[-1]["step"]
    assert STEPS + 70 < steps < 2 * STEPS + 30
    train_in(tmp_path, flags=LATEST, epochs=None, max_steps=steps + 5)  # then a number of steps is possible, too
    assert metrics(tmp_path, "train")[-1]["step"] == steps + 5


# The flag -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{"epochs": 2}, {"max_steps": 9}, {"epochs": 2, "max_steps": 9}])
def test_minutes_are_refused_together_with_another_length(more):
    with pytest.raises(UserError, match="--minutes 3: each sets the length of the run") as refusal:
        make_settings(**MINUTES | more)
    assert all(f"--{name} " in one_line(refusal) for name in more)


@pytest.mark.parametrize("lower", ["", "--pilot_run", "--preset baby_cpu", "--preset 8M", "--config"])
def test_minutes_of_a_higher_layer_replace_the_length_of_a_lower_one(tmp_path, lower):
    (tmp_path / "some.json").write_text('{"epochs": 2, "max_steps": 7}')
    lower = f"--config {tmp_path}/some.json" if lower == "--config" else lower
    args = step2.parse_args([*lower.split(), "--minutes", "45"])
    assert (args.epochs, args.max_steps, args.minutes) == (None, None, 45)


def test_a_length_at_the_shell_replaces_the_minutes_of_a_config(tmp_path):
    (tmp_path / "some.json").write_text('{"minutes": 45}')
    args = step2.parse_args(["--config", f"{tmp_path}/some.json", "--epochs", "2"])
    assert (args.epochs, args.max_steps, args.minutes) == (2, None, None)


@pytest.mark.parametrize("program", [step2, step4])
def test_a_pilot_run_accepts_minutes(course, tmp_path, clock, program):
    clock.row = 0.1
    flags = ["--pilot_run", "--minutes", 2, "--cache_dir", tmp_path / "cache", "--output_dir", tmp_path / "run"]
    if program is step2:
        flags += ["--dataset", "stories", *TINY[: TINY.index("--epochs")]]
    else:
        flags += ["--dataset", "talks", "--pretrained_model_path", "tinystories_model/best_model.pth"]
    main(program, *flags, folder=course)
    first = metrics(tmp_path / "run", "run")[0]
    assert metrics(tmp_path / "run", "train")[-1]["step"] == first["total_steps"] > 20 and 0.9 * 120 < clock.now <= 120
