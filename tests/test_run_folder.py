"""The output folder: its files, their contents, and when a folder is refused."""

import errno
import json
import math
import os
import re
import sys
from argparse import Namespace

import pytest
from refusals import one_line
from tiny_runs import AUTO, LATEST, SIX_STEPS, at_call, files, make_rows, make_run, metrics, rows_of, train_in
from torch.utils.tensorboard import SummaryWriter

from common.console import log
from common.errors import UserError
from training import loop, run_folder
from training.run_folder import Run

# Records --------------------------------------------------------------------------------------------------------------


def test_a_run_writes_its_records_and_nothing_else(finished):
    names = {path.name for path in finished[0].iterdir() if not path.name.startswith("events.out.tfevents.")}
    checkpoints = {name for name in names if name.startswith("checkpoint-")}
    last = metrics(finished[0], "train")[-1]["step"]
    assert f"checkpoint-{last}.pth" in checkpoints
    kept = {"args.json", "train.log", "metrics.jsonl", "best_model.pth", "final_model.pth", "summary.json"}
    assert names - checkpoints == kept


def test_windows_accepts_the_names_of_the_files(finished):
    for path in finished[0].iterdir():
        assert not set('<>:"/\\|?*') & set(path.name) and not path.name.endswith((".", " ")), path.name


def test_args_json_contains_the_flags(finished):
    args = json.loads((finished[0] / "args.json").read_text())
    assert args["output_dir"] == str(finished[0]) and args["overwrite"] is False


def test_the_metrics_have_the_specified_names_and_steps_in_order(finished):
    rows = metrics(finished[0])
    places = {"event", "step", "epoch", "tokens", "seconds"}
    train_names = places | {"train_loss", "perplexity", "lr", "grad_norm", "loss_scale", "tokens_per_second"}
    eval_names = places | {"val_loss", "perplexity", "bits_per_byte", "accuracy"}
    assert all(row.keys() == train_names for row in rows if row["event"] == "train")
    assert all(row.keys() == eval_names for row in rows if row["event"] == "eval")
    steps = [row["step"] for row in rows]
    assert steps == sorted(steps)
    assert [row["step"] for row in rows if row["event"] == "train"] == list(range(1, steps[-1] + 1))
    assert rows[0]["event"] == "run" and rows[0]["run_id"]


def test_the_metrics_count_tokens_and_epochs(finished):
    rows, trained = make_rows(), metrics(finished[0], "train")
    predicted = sum(len(row) for row in rows_of([rows.batch(number, 1) for number in range(4 * len(trained))]))
    assert trained[-1]["tokens"] == predicted
    assert [row["epoch"] for row in trained[:-1]] == [
        pytest.approx(4 * row["step"] / rows.per_epoch, abs=1e-3) for row in trained[:-1]
    ]
    assert trained[-1]["epoch"] == 2
    assert trained[0]["perplexity"] == pytest.approx(math.exp(trained[0]["train_loss"]))


def test_the_summary_contains_the_best_and_the_final_evaluation(finished):
    folder, returned = finished
    summary = json.loads((folder / "summary.json").read_text())
    evaluations = metrics(folder, "eval")
    assert summary == returned
    best, final = min(evaluations, key=lambda row: row["val_loss"]), evaluations[-1]
    for name in ("step", "val_loss", "perplexity", "bits_per_byte", "accuracy"):
        assert summary[f"best_{name}"] == best[name] and summary[f"final_{name}"] == final[name]
    assert summary["tokens"] == metrics(folder, "train")[-1]["tokens"]
    assert summary["run_id"] == metrics(folder, "run")[0]["run_id"]
    assert summary.keys() >= {"seconds", "tokens_per_second"}


def test_the_logged_losses_are_means_since_the_previous_line(finished, tmp_path):
    train_in(tmp_path, logging_steps=3)
    single, logged = metrics(finished[0], "train"), metrics(tmp_path, "train")
    last = len(single)
    assert [row["step"] for row in logged] == sorted({1, last, *range(3, last, 3)})
    places = [0] + [row["step"] for row in logged]
    before = {0: 0} | {row["step"]: row["tokens"] for row in single}
    for first, row in zip(places, logged, strict=False):
        part = single[first : row["step"]]
        nats = sum(one["train_loss"] * (one["tokens"] - before[one["step"] - 1]) for one in part)
        assert row["train_loss"] == pytest.approx(nats / (row["tokens"] - before[first]), rel=1e-4)


def test_the_log_contains_the_lines_of_the_console_without_a_bar(tmp_path, capsys):
    train_in(tmp_path)
    log, console = (tmp_path / "train.log").read_text(), capsys.readouterr()
    assert "train_loss" in log and "val_loss" in log and "\r" not in log and "\x1b" not in log
    assert sorted(log.splitlines()) == sorted((console.out + console.err).splitlines())
    assert "train_loss" in console.out and "train_loss" not in console.err


def test_a_log_line_shows_how_fast_the_run_is_and_when_it_ends(finished):
    line = next(line for line in (finished[0] / "train.log").read_text().splitlines() if "train_loss" in line)
    assert re.search(r"tokens/s [\d,]+ mfu \d+% elapsed 0:00:\d\d left 0:00:\d\d end [A-Z][a-z][a-z] \d\d:\d\d$", line)


def test_the_event_file_contains_the_curves(finished):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(finished[0])).Reload()
    for event, curves in {
        "train": {"Loss/train": "train_loss", "Perplexity/train": "perplexity", "LearningRate": "lr"},
        "eval": {"Loss/val": "val_loss", "Perplexity/val": "perplexity", "BitsPerByte/val": "bits_per_byte"},
    }.items():
        for tag, name in curves.items():
            points = [(point.step, point.value) for point in board.Scalars(tag)]
            rows = [(row["step"], pytest.approx(row[name], rel=1e-5)) for row in metrics(finished[0], event)]
            assert points == rows
    assert board.Scalars("Throughput/tokens_per_second")


def test_a_run_without_tensorboard_reports_it_and_writes_the_rest(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    train_in(tmp_path)
    assert "tensorboard is not installed" in (tmp_path / "train.log").read_text()
    assert metrics(tmp_path, "end") and not list(tmp_path.glob("events*"))


@pytest.mark.parametrize("since", [1, 6, -1])
def test_if_tensorboard_cannot_write_the_other_records_say_why_the_run_ended(tmp_path, monkeypatch, since):
    """Each later call raises the same error; -1: only the call that ends the event file fails."""
    flush = SummaryWriter.flush
    calls = []

    def failing(board):
        calls.append(board)
        if 0 < since <= len(calls):
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(board)

    def fail(run):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(SummaryWriter, "flush", failing)
    if since == -1:
        monkeypatch.setattr(Run, "end_board", fail)
    with pytest.raises(UserError, match="No space left on device"):
        train_in(tmp_path)
    assert (tmp_path / "train.log").read_text().splitlines()[-1].startswith("error: ")
    ends = [row["ended"] for row in metrics(tmp_path, "end")]
    assert len(ends) == 1 and ends[0].startswith("failed: ")
    assert not (tmp_path / "summary.json").exists()


def test_a_log_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    def full(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    at_call(monkeypatch, loop, "training_step", 2, lambda: monkeypatch.setattr("builtins.print", full))
    with pytest.raises(UserError, match=r"train\.log"):
        train_in(tmp_path)


# The folder -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["args.json", "metrics.jsonl", "best_model.pth", "checkpoint-3.pth", "train.log"])
def test_a_folder_that_contains_a_run_is_refused(tmp_path, name):
    (tmp_path / name).write_text("{}")
    before = files(tmp_path)
    with pytest.raises(UserError, match="--overwrite") as refusal:
        train_in(tmp_path)
    assert str(tmp_path) in one_line(refusal) and "--resume_from_checkpoint" in one_line(refusal)
    assert files(tmp_path) == before


def test_only_the_rank_that_writes_refuses_an_occupied_folder(tmp_path):
    (tmp_path / "args.json").write_text("{}")
    flags = {"output_dir": str(tmp_path), "overwrite": False, "resume_from_checkpoint": None, "pilot_run": False}
    Run(Namespace(**flags), writes=False)


def test_an_empty_checkpoint_name_starts_a_new_run(tmp_path):
    assert train_in(tmp_path, flags={"resume_from_checkpoint": ""})["ended"] == "finished"


def test_a_file_where_the_folder_should_be_is_refused(tmp_path):
    (tmp_path / "run").write_text("notes")
    with pytest.raises(UserError, match="--output_dir"):
        train_in(tmp_path / "run")


@pytest.mark.parametrize(
    ("first", "second"),
    [({}, {"overwrite": True}), ({"pilot_run": True}, {}), ({"pilot_run": True}, {"pilot_run": True})],
)
def test_overwrite_replaces_a_run_and_any_run_replaces_a_pilot_run(tmp_path, first, second):
    train_in(tmp_path, flags=first, epochs=3)
    (tmp_path / "notes.txt").write_text("mine")
    summary = train_in(tmp_path, flags=second, epochs=1)
    assert len(metrics(tmp_path, "run")) == 1 and metrics(tmp_path, "run")[0]["run_id"] == summary["run_id"]
    steps = metrics(tmp_path, "train")[-1]["step"]
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == [f"checkpoint-{steps}.pth"]
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) <= 1
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_folder_with_other_files_can_be_used_for_a_run(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    make_run(tmp_path)


def test_no_two_runs_have_the_same_id(tmp_path):
    assert make_run(tmp_path).run_id != make_run(tmp_path).run_id


def test_the_command_to_resume_repeats_the_user_s_flags(tmp_path, monkeypatch):
    words = ["step2.py", "--dataset", "my stories", "--overwrite", "--resume_from_checkpoint", "auto", "--amp"]
    monkeypatch.setattr(sys, "argv", words)
    quoted = '"my stories"' if os.name == "nt" else "'my stories'"
    expected = f"python step2.py --dataset {quoted} --amp --resume_from_checkpoint latest"
    assert run_folder.command_to_resume() == expected


def test_the_command_to_resume_uses_torchrun_if_the_run_did(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["step2.py", "--amp"])
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    expected = "torchrun --nproc_per_node=2 step2.py --amp --resume_from_checkpoint latest"
    assert run_folder.command_to_resume() == expected


# Two runs in one folder -----------------------------------------------------------------------------------------------


def test_two_runs_in_one_folder_are_refused_while_the_first_one_lives(tmp_path):
    first = make_run(tmp_path)
    first.start()
    for flags in ({}, {"overwrite": True}, AUTO, LATEST):
        with pytest.raises(UserError, match="another run is writing into"):
            make_run(tmp_path, **flags)
    first.close()
    make_run(tmp_path, overwrite=True)


def test_two_runs_that_start_at_the_same_moment_do_not_both_write(tmp_path):
    first, second = make_run(tmp_path), make_run(tmp_path)
    first.start()
    log.info("mine")
    with pytest.raises(UserError, match="another run is writing into"):
        second.start()
    first.close()
    assert (tmp_path / "train.log").read_text() == "mine\n"


def test_a_run_that_ended_while_this_one_was_starting_is_not_replaced(tmp_path):
    second = make_run(tmp_path / "run")
    train_in(tmp_path / "run", **SIX_STEPS)
    before = files(tmp_path / "run")
    with pytest.raises(UserError, match="another run has written into"):
        second.start()
    assert files(tmp_path / "run") == before
