"""The scaling law: the fit, the grid of runs, and the program with a stub instead of the trainer."""

import json
import math
import os
import re
import shutil
from pathlib import Path

import pytest
import scaling
from pages.svg_plots import Axes, log_ticks, plot
from programs import main
from refusals import error_of
from scaling import Run
from scoring import scaling_law
from scoring.scaling_law import Fit, Result

import train_tinystories_model as step2
from common.program import run_program

LAW = Fit(E=1.5, A=40.0, alpha=0.35, B=300.0, beta=0.4)
PARAMETERS = {(2, 32): 340_000, (2, 64): 720_000, (4, 96): 1_330_000, (4, 128): 1_940_000, (6, 160): 3_140_000}
SECONDS = (0.03, 0.05, 0.12, 0.2, 0.4)  # per step of each size
OVERHEAD = 6.0
MINUTES = (4, 20, 90)


def one_step(shape, *_):
    """Return what `measure_step` would return, without measuring."""
    return Run(*shape, PARAMETERS[shape], steps=1, seconds=SECONDS[scaling.SHAPES.index(shape)])


STEPS = [one_step(shape) for shape in scaling.SHAPES]


def results_of_the_law(budgets):
    """Return results with exactly the losses of the law, for three sizes on each compute budget."""
    runs = scaling.ladder(STEPS, budgets, 60 * MINUTES[1], OVERHEAD)
    tokens = [run.steps * scaling.STEP_TOKENS for run in runs]
    return [
        Result(
            f"{run.layers}x{run.width}", run.parameters, count, scaling_law.predicted_loss(LAW, run.parameters, count)
        )
        for run, count in zip(runs, tokens, strict=True)
    ]


# The law --------------------------------------------------------------------------------------------------------------


def test_the_fit_recovers_the_law_behind_the_losses():
    assert scaling_law.fit_law(results_of_the_law(4)) == pytest.approx(LAW, rel=0.02)


def test_each_run_is_left_out_of_one_fit_and_compared_with_that_fit(monkeypatch):
    results = results_of_the_law(3)
    fits = []
    monkeypatch.setattr(scaling_law, "fit_law", lambda others: fits.append(others) or LAW)
    results[2] = results[2]._replace(loss=2 * results[2].loss)
    assert scaling_law.leave_one_out_error(results) == pytest.approx(0.5 / 3)
    assert fits == [[run for run in results if run != left_out] for left_out in results]


def test_the_leave_one_out_error_is_small_if_the_law_holds_and_large_if_a_run_is_off(monkeypatch):
    monkeypatch.setattr(scaling_law, "STARTS", (0.5,))
    results = results_of_the_law(3)
    assert scaling_law.leave_one_out_error(results) < 1e-3
    results[4] = results[4]._replace(loss=1.1 * results[4].loss)
    assert scaling_law.leave_one_out_error(results) > 0.02


@pytest.mark.parametrize("compute", [1e12, 1e15])
def test_no_other_size_has_a_lower_loss_for_the_compute(compute):
    parameters, tokens = scaling_law.compute_optimal(LAW, compute)
    assert 6 * parameters * tokens == pytest.approx(compute)
    lowest = scaling_law.predicted_loss(LAW, parameters, tokens)
    for factor in (0.9, 1.1):
        assert scaling_law.predicted_loss(LAW, factor * parameters, tokens / factor) > lowest


# The grid -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("minutes", MINUTES)
def test_the_runs_of_a_grid_take_the_given_minutes(minutes):
    runs = scaling.lay_out(STEPS, 60 * minutes, OVERHEAD)
    assert sum(run.seconds for run in runs) == pytest.approx(60 * minutes, rel=0.02)
    for run in runs:
        step = SECONDS[scaling.SHAPES.index((run.layers, run.width))]
        assert run.seconds == pytest.approx(OVERHEAD + (run.steps + scaling.EVALUATION_STEPS) * step)
        assert run.steps >= scaling.ENOUGH_STEPS
    assert len({run.name for run in runs}) == len(runs)


def test_each_budget_has_twice_the_compute_and_three_sizes_and_more_time_gives_more_budgets():
    grids = [scaling.lay_out(STEPS, 60 * minutes, OVERHEAD) for minutes in MINUTES]
    assert [len(runs) for runs in grids] == sorted(len(runs) for runs in grids) and len(grids[0]) < len(grids[-1])
    for runs in grids:
        first = runs[0].compute
        for number, run in enumerate(runs):
            assert run.compute == pytest.approx(first * 2 ** (number // 3), rel=0.01)


def test_with_little_time_runs_take_longer_instead_of_learning_nothing():
    runs = scaling.lay_out(STEPS, 1, OVERHEAD)
    assert len(runs) >= scaling.ENOUGH_RUNS and min(run.steps for run in runs) == scaling.LEAST_STEPS
    assert len({run.name for run in runs}) == len(runs)


def test_a_size_is_counted_with_its_embeddings_and_measured():
    step = scaling.measure_step((2, 32), 500, scaling.choose_device("cpu"), 0.01)
    in_a_layer = 3 * 32**2 + 32**2 + 3 * 32 * 64 + 2 * 32
    assert step.parameters == 500 * 32 + 2 * in_a_layer + 32 and 0 < step.seconds < 10


# The program ----------------------------------------------------------------------------------------------------------

STUB = """
import json, os, pathlib, signal, sys, time
flags = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[1:])
folder = pathlib.Path(flags["output_dir"])
here = pathlib.Path(__file__).parent
with open(here / "calls", "a") as calls:
    print(folder.name, flags["resume_from_checkpoint"], file=calls)
if int(flags["hidden_size"]) >= int((here / "fails_from").read_text()):
    sys.exit("error: out of memory on cpu")
if (here / "refuses").exists():
    print("device: cpu\\nerror: no stories in data", file=sys.stderr)
    sys.exit(2)
if folder.name == (here / "interrupts_at").read_text():
    def save(*_):
        (here / "saved").touch()
        sys.exit(143)
    signal.signal(signal.SIGTERM, save)
    os.kill(os.getppid(), signal.SIGINT)
    time.sleep(30)
width, steps = int(flags["hidden_size"]), int(flags["max_steps"])
loss = 1 + 30 / width + 40 / steps**0.5
folder.mkdir(parents=True, exist_ok=True)
summary = {"tokens": 2040 * steps, "final_val_loss": loss, "epoch": steps / 1000}
(folder / "summary.json").write_text(json.dumps(summary))
"""


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """Return the folder of a trainer that trains nothing; files in this folder control what it does."""
    folder = tmp_path / "stub"
    folder.mkdir()
    (folder / "trainer.py").write_text(STUB)
    (folder / "calls").touch()
    (folder / "fails_from").write_text("1000")
    (folder / "interrupts_at").write_text("")
    monkeypatch.setattr(scaling, "TRAINER", folder / "trainer.py")
    monkeypatch.setattr(scaling, "measure_step", one_step)
    monkeypatch.setattr(scaling_law, "STARTS", (0.5,))
    monkeypatch.setattr(scaling, "leave_one_out_error", lambda results: 0.0123)
    return folder


def calls(stub):
    """Return the runs that the stub was started for since the last call, without the two that measure."""
    lines = (stub / "calls").read_text().splitlines()
    (stub / "calls").write_text("")
    return [line for line in lines if line.split()[0] not in ("tokenizes", "measured")]


def find_law(course, output_dir, *flags):
    main(scaling, "--minutes", 20, "--dataset", "stories", "--output_dir", output_dir, *flags, folder=course)


def rows(text):
    """Return the lines of a table that begin with a size, as lists of cells."""
    return [line.split() for line in re.findall(r"^\d+x\d+ .*", text, re.MULTILINE)]


def measured(text):
    """Return a table's cells about the runs, without the law, whose last digits vary."""
    return [cells[:5] for cells in rows(text)]


def test_a_grid_is_trained_fitted_and_drawn_and_finished_runs_are_not_repeated(course, tmp_path, stub, capsys, said):
    grid = tmp_path / "grid"
    find_law(course, grid)
    names = [Run(**run).name for run in json.loads((grid / "grid.json").read_text())["runs"]]
    assert calls(stub) == [f"{name} auto" for name in names] and len(names) >= 9
    table = capsys.readouterr().out
    assert len(rows(table)) == len(names) and all(cells[-1].endswith("%") for cells in rows(table))
    assert "L(N, D) = " in table and "1.23% at runs left out" in table and "approach 3 of Hoffmann et al. 2022" in table
    assert sum(" saw the data up to " in line for line in said) == 1
    svg = (grid / "scaling.svg").read_text()
    dots = re.findall(r'class="curve dots"[^>]* d="(.*?)"', svg)
    assert sum(path.count("M") for path in dots) == len(names)
    assert svg.startswith('<svg xmlns="') and "stroke-dasharray" in svg

    find_law(course, grid)
    assert calls(stub) == [] and measured(capsys.readouterr().out) == measured(table)
    (grid / names[3] / "summary.json").unlink()  # as if the run had been interrupted
    shutil.rmtree(grid / names[5])
    find_law(course, grid)
    assert calls(stub) == [f"{names[3]} auto", f"{names[5]} auto"]
    assert measured(capsys.readouterr().out) == measured(table)

    message = error_of(find_law, course, grid, "--seed", 7)
    assert "--seed 7" in message and "was made with 42" in message and calls(stub) == []
    (grid / "grid.json").write_text("{")
    assert "is damaged" in error_of(find_law, course, grid)


def test_fewer_than_six_runs_give_the_table_without_a_law(course, tmp_path, stub, capsys, said):
    (stub / "fails_from").write_text("64")
    find_law(course, tmp_path / "grid")
    table = capsys.readouterr().out
    assert 0 < len(rows(table)) < 6 and "%" not in table and "L(N, D)" not in table
    assert f"no law: {len(rows(table))} runs finished, but its 5 numbers need at least 6" in table
    left_out = [line for line in said if line.endswith(" skipped: out of memory on cpu")]
    assert len(left_out) + len(rows(table)) == len(calls(stub))
    assert (tmp_path / "grid/scaling.svg").exists()


def test_an_error_of_the_trainer_ends_the_program_with_its_message(course, tmp_path, stub):
    (stub / "refuses").touch()
    assert error_of(find_law, course, tmp_path / "grid") == "no stories in data"
    assert not (tmp_path / "grid").exists()
    assert "--minutes must be at least 1" in error_of(scaling.parse_args, ["--minutes", "0"])


@pytest.mark.skipif(os.name == "nt", reason="on Windows, SIGINT from another process kills")
def test_ctrl_c_lets_the_run_save_its_checkpoint_and_ends_in_one_line(course, tmp_path, stub, said):
    grid = tmp_path / "grid"
    runs = scaling.lay_out(STEPS, 60, OVERHEAD)
    grid.mkdir()
    args = scaling.parse_args(["--minutes", "20", "--dataset", "stories"])
    as_dicts = [vars(run) for run in runs]
    (grid / "grid.json").write_text(json.dumps({"flags": scaling.flags_of(args), "runs": as_dicts}))
    (stub / "interrupts_at").write_text(runs[1].name)
    with pytest.raises(SystemExit) as ended:
        run_program(lambda: find_law(course, grid))
    assert ended.value.code == 130 and said[-1] == "interrupted"
    assert (stub / "saved").exists() and len(calls(stub)) == 2


def test_the_trainer_accepts_the_commands_and_resumes_with_the_same_ones(course, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(scaling, "EVAL_STORIES", 2)
    run = Run(2, 32, 0, steps=2, seconds=0)
    args = scaling.parse_args(["--dataset", "stories", "--device", "cpu"])
    folder = tmp_path / "run"
    words = scaling.command(args, run, folder)
    assert Path(words[1]).name == f"{step2.__name__}.py"
    main(step2, *words[2:], folder=course)
    result = scaling.read_result(run, folder)
    assert 0 < result.tokens <= 2 * scaling.STEP_TOKENS and math.isfinite(result.loss)
    (folder / "summary.json").unlink()
    main(step2, *words[2:], folder=course)
    assert json.loads((folder / "summary.json").read_text())["resumes"] == 1
    assert scaling.read_result(run, folder) == result


# The logarithmic axis -------------------------------------------------------------------------------------------------


def test_on_a_logarithmic_axis_equal_factors_have_equal_distances_and_zero_is_a_gap():
    svg = plot("", [([(0, 1), (1, 2), (10, 3), (100, 4)], 'class="curve"', "")], 360, 200, Axes(log_x=True))
    xs = [float(x) for x in re.findall(r"[ML](\S+) ", re.search('class="curve" d="(.*?)"', svg)[1])]
    assert len(xs) == 3 and xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)


@pytest.mark.parametrize(
    ("low", "high", "numbers"),
    [(1.5, 30, [2, 5, 10, 20]), (1, 1e4, [1, 10, 100, 1000, 10_000]), (0.02, 0.1, [0.02, 0.05, 0.1]), (4, 4, [2, 5])],
)
def test_ticks_of_a_logarithmic_axis_are_round_numbers(low, high, numbers):
    assert log_ticks(low, high)[2] == numbers
