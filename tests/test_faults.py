"""Runs that are cut off at any moment, disks that fill up, files that change: nothing is lost or left half-written.

What takes minutes is marked `faults` and run by `make test-faults`; docs/reliability.md says what it found.
"""

import builtins
import contextlib
import errno
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time

import numpy as np
import pytest
import torch
from programs import ROOT, command, dialogue, run, story, write_rows
from test_ranks import free_port
from test_training import (
    CPU,
    LATEST,
    assert_equal_weights,
    files,
    interrupt,
    make_model,
    make_rows,
    make_run,
    make_settings,
    make_validation,
    metrics,
    one_line,
    outcome,
    signal_at,
    train_in,
    weights,
)

from common import weights_files
from common.console import log
from common.devices import Precision
from common.errors import Interrupted, UserError
from common.files import locked
from common.program import noted_signals
from common.weights_files import check_torch_file
from corpus.sources import file_split
from corpus.token_cache import cache_stories, remove_abandoned
from data import load_tokenizer, train_tokenizer
from model import Transformer
from training import loop, run_folder
from training import resume as resume_module
from training.reports import less_memory
from training.step import micro_batches, training_step

resource = pytest.importorskip("resource")  # what Windows lacks, and most of this file needs

AUTO = {"resume_from_checkpoint": "auto"}
SETTINGS = {"epochs": 1, "eval_steps": 2, "save_steps": 3, "logging_steps": 2, "keep_checkpoints": 2}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    train_in(folder, **SETTINGS)
    return folder


def assert_nothing_is_lost(folder, whole):
    """A run that went on to its end is the run that nothing disturbed: its weights, numbers, log and curves."""
    for name in ("final_model.pth", "best_model.pth"):
        assert_equal_weights(weights(folder / name), weights(whole / name))
    assert outcome(folder) == outcome(whole)
    assert steps_logged(folder) == steps_logged(whole)
    assert curves(folder) == curves(whole)


def steps_logged(folder):
    log = (folder / "train.log").read_text(encoding="utf-8")
    return re.findall(r" step (\d+)/\d+ epoch [\d.]+ (\w+) ([\d.]+)", log)


def curves(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    # TensorBoard reads event files in the order of their names: of the second, then of a number that comes as text
    in_order = sorted(folder.glob("events.out.*"), key=lambda path: (path.name.split(".")[3], int(path.suffix[1:])))
    with tempfile.TemporaryDirectory() as copies:
        for number, path in enumerate(in_order):
            shutil.copy(path, f"{copies}/events.out.tfevents.{number:04}")
        events = EventAccumulator(copies)
        events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not tag.startswith("Throughput")]
    return {tag: [(event.step, pytest.approx(event.value)) for event in events.Scalars(tag)] for tag in tags}


def assert_all_that_exists_loads(folder):
    for path in folder.rglob("*"):
        assert not path.name.endswith(".partial"), path
        if path.suffix == ".pth":
            check_torch_file(path)
        if path.suffix == ".json":
            json.loads(path.read_text())


# Going on -------------------------------------------------------------------------------------------------------------


def at_call(monkeypatch, owner, name, number, act):
    """Let act() happen at the n-th call of owner.name, before it does its work."""
    original, calls = getattr(owner, name), []

    def counted(*args, **kwargs):
        calls.append(name)
        if len(calls) == number:
            act()
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, counted)


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    ("owner", "name", "number"),
    [
        (Transformer, "forward", 2),  # between the micro-batches of an accumulation
        (Transformer, "hidden", 9),
        (loop, "evaluate", 1),
        (loop, "evaluate", 3),  # the last, after the last step
        (resume_module, "write_torch_file", 1),
        (loop, "save_model", 2),
        (loop.Trainer, "compile", 1),
    ],
)
@pytest.mark.parametrize("again", [1, 2])
def test_wherever_sigterm_comes_the_resumed_run_is_the_uninterrupted_one(
    tmp_path, whole, monkeypatch, owner, name, number, again
):
    settings = SETTINGS | {"batch_size": 2, "gradient_accumulation_steps": 2}
    train_in(tmp_path / "whole", **settings)
    for turn in range(again):  # in the second one, the signal may come when the last checkpoint is being saved
        stopped = contextlib.suppress(Interrupted) if turn else pytest.raises(Interrupted)
        with monkeypatch.context() as patch, stopped:
            at_call(patch, owner, name, 1 if turn else number, terminate)
            train_in(tmp_path / "parts", flags=AUTO, **settings)
    train_in(tmp_path / "parts", flags=AUTO, **settings)
    assert_nothing_is_lost(tmp_path / "parts", tmp_path / "whole")


def test_under_nohup_a_dropped_connection_ends_nothing():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with noted_signals() as noted:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN and noted == []
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_a_killed_run_left_half_written_is_removed(tmp_path, whole):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    (tmp_path / ".checkpoint-6.pth.123.partial").write_bytes(b"half")
    with signal_at(8, signal.SIGTERM):
        train_in(tmp_path, flags=LATEST, **SETTINGS | {"epochs": 2})
    assert not (tmp_path / "summary.json").exists(), "the run is no longer a finished one"
    assert_all_that_exists_loads(tmp_path)


def test_a_signal_breaks_off_an_evaluation_which_is_made_up_for(tmp_path, whole, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        at_call(patch, loop, "evaluate", 2, terminate)
        train_in(tmp_path, **SETTINGS)
    assert metrics(tmp_path, "train")[-1]["step"] == 4 and metrics(tmp_path, "eval")[-1]["step"] == 2
    train_in(tmp_path, flags=LATEST, **SETTINGS)
    assert_nothing_is_lost(tmp_path, whole)


def test_an_evaluation_that_is_broken_off_ends_after_its_batch(monkeypatch):
    batches = []
    at_call(monkeypatch, Transformer, "hidden", 1, lambda: batches.append("begun"))
    at_call(monkeypatch, Transformer, "hidden", 2, lambda: batches.append("and another"))
    stopped = lambda: bool(batches)
    assert loop.evaluate(make_model(), make_validation(), Precision(CPU), 4, stopped=stopped) is None
    assert batches == ["begun"]


@pytest.mark.parametrize("lost", ["checkpoint-6.pth", "checkpoint-6.pth best_model.pth", "summary.json"])
def test_a_run_that_lost_its_newest_files_ends_the_same(tmp_path, whole, lost):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    for name in lost.split():
        (tmp_path / name).unlink()
    train_in(tmp_path, flags=AUTO, **SETTINGS)
    assert_nothing_is_lost(tmp_path, whole)
    assert [row["step"] for row in metrics(tmp_path, "checkpoint")] == [3, 6]


@pytest.mark.parametrize("resume", ["latest", "auto"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_checkpoint_is_passed_over_and_said(tmp_path, whole, capsys, damage, resume):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    newest = tmp_path / "checkpoint-6.pth"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 4
    newest.write_bytes({"cut": content[:-50], "flipped": content, "empty": b""}[damage])
    train_in(tmp_path, flags={"resume_from_checkpoint": resume}, **SETTINGS)
    errors = capsys.readouterr().err
    assert "checkpoint-6.pth is " in errors and "passed over" in errors and "checkpoint-3.pth at step 3" in errors
    assert_nothing_is_lost(tmp_path, whole)


def test_where_all_checkpoints_are_damaged_latest_refuses_and_auto_starts_again(tmp_path, whole):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    (tmp_path / "summary.json").unlink()
    for path in tmp_path.glob("checkpoint-*"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="no whole checkpoint"):
        make_run(tmp_path, **LATEST)
    train_in(tmp_path, flags=AUTO, **SETTINGS)
    assert_nothing_is_lost(tmp_path, whole)


def test_a_finished_run_without_checkpoints_is_not_replaced_by_auto(tmp_path, whole):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    for path in tmp_path.glob("checkpoint-*"):
        path.unlink()
    with pytest.raises(UserError, match="already holds a run"):
        make_run(tmp_path, **AUTO)


def test_auto_after_a_pilot_run_starts_the_real_one(tmp_path):
    train_in(tmp_path, flags={"pilot_run": True}, **SETTINGS)
    assert make_run(tmp_path, **AUTO).checkpoint is None
    assert make_run(tmp_path, pilot_run=True, **AUTO).checkpoint is not None
    train_in(tmp_path, flags=AUTO, **SETTINGS | {"lr": 3e-3})


def test_more_epochs_lay_the_schedule_anew_and_fewer_than_are_done_are_refused(tmp_path, capsys):
    train_in(tmp_path, **SETTINGS)
    train_in(tmp_path, flags=LATEST, **SETTINGS | {"epochs": 3})
    assert "--epochs 3: the learning rate's course is laid anew" in capsys.readouterr().err
    assert metrics(tmp_path, "train")[-1]["step"] == 18
    with pytest.raises(UserError, match="--epochs 2 are 12 steps"):
        train_in(tmp_path, flags=LATEST, **SETTINGS | {"epochs": 2})


def test_the_pair_that_saves_memory_may_be_taken_on_resuming(tmp_path):
    interrupt(tmp_path, 2, batch_size=4)
    train_in(tmp_path, flags=LATEST, batch_size=2, gradient_accumulation_steps=2)
    with pytest.raises(UserError, match="--batch_size x --gradient_accumulation_steps: 8, and "):
        train_in(tmp_path, flags=LATEST, batch_size=2, gradient_accumulation_steps=4)


def test_a_run_cut_off_at_once_in_another_folder_can_be_gone_on_with_there(tmp_path, whole, monkeypatch):
    flags = {"resume_from_checkpoint": str(whole / "checkpoint-6.pth")}
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        at_call(patch, loop.Trainer, "compile", 1, terminate)
        train_in(tmp_path, flags=flags, **SETTINGS | {"epochs": 2})
    train_in(tmp_path, flags=LATEST, **SETTINGS | {"epochs": 2})
    assert metrics(tmp_path, "train")[0]["step"] == 8


def test_the_summary_says_what_the_best_model_is_even_if_it_came_after_the_checkpoint(tmp_path, monkeypatch):
    interrupt(tmp_path, 5, **SETTINGS | {"eval_steps": 1})
    later = make_model()
    weights_files.save_model(tmp_path / "best_model.pth", later, "of the tokenizer", step=99, val_loss=0.5)
    monkeypatch.setattr(loop.Trainer, "save_model", lambda self, name, loss: None)  # never surpassed
    summary = train_in(tmp_path, flags=LATEST, **SETTINGS | {"eval_steps": 1})
    expected = loop.evaluate(later.eval(), make_validation(), Precision(CPU))
    assert summary["best_step"] == 99 and summary["best_val_loss"] == pytest.approx(expected["val_loss"], rel=1e-4)


def test_other_flags_are_refused_before_any_work_is_done(course, tmp_path, monkeypatch):
    flags = ["--epochs", 1, "--save_steps", 20, "--output_dir", tmp_path]
    run(course, *STORIES, *flags)
    done = run(course, *STORIES, *flags, "--resume_from_checkpoint", "auto", "--lr", 1, "--seed", 1, status=2)
    lines = done.stderr.splitlines()
    assert [line[:14] for line in lines] == ["error: --lr: 1", "error: --seed:", "error: go on w"]


def test_the_command_to_go_on_is_torchrun_s_where_torchrun_started_it(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["step2.py", "--amp"])
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    expected = "torchrun --nproc_per_node=2 step2.py --amp --resume_from_checkpoint latest"
    assert run_folder.command_to_resume() == expected


# Losses that are not finite, memory that is full ----------------------------------------------------------------------


@contextlib.contextmanager
def losses_not_finite_at(*steps, value=float("nan")):
    """Make the loss of these steps (1, 2, ...) no number; a step is one call of the network."""
    forward, calls = Transformer.forward, []

    def broken(self, ids, targets=None):
        loss = forward(self, ids, targets)
        calls.append(1)
        return loss * value if len(calls) in steps else loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Transformer, "forward", broken)
        yield


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_step_whose_loss_is_not_finite_is_skipped_and_counted(tmp_path, optimizer, value, capsys):
    with losses_not_finite_at(2, 4, 5, value=value):
        summary = train_in(tmp_path, optimizer=optimizer, **SETTINGS | {"epochs": 2, "logging_steps": 1})
    assert summary["skipped_steps"] == 3 and summary["ended"] == "finished"
    assert [(row["step"], row["skipped"]) for row in metrics(tmp_path, "skip")] == [(2, 1), (4, 2), (5, 3)]
    assert [row["step"] for row in metrics(tmp_path, "train")] == [1, 3, 6, 7, 8, 9, 10, 11, 12]
    assert "step 5/12 skipped: loss not finite (1 new, 3 in all)" in capsys.readouterr().out
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "final_model.pth").values())
    assert not {"NaN", "Infinity"} & set(re.findall(r"\w+", (tmp_path / "metrics.jsonl").read_text()))


@pytest.mark.parametrize("precision", ["float32", "a scaler's"])
def test_a_skipped_step_changes_nothing(precision):
    """On CUDA the scaler leaves the step out on the device; here it is tried on the CPU."""
    model, settings, precision_ = make_model(), make_settings(), Precision(CPU)
    if precision == "a scaler's":
        precision_.scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    optimizers, rows = loop.make_optimizers(model, settings), make_rows()
    step = lambda: training_step(model, optimizers, precision_, micro_batches(rows, 0, settings, CPU), settings)
    assert step().good
    state = lambda: [t.clone() for o in optimizers for s in o.state.values() for t in s.values()]
    before, before_state = {name: tensor.clone() for name, tensor in model.state_dict().items()}, state()
    with losses_not_finite_at(1):
        result = step()
    assert not result.good and not result.norm.isfinite() and not result.loss.isfinite()
    assert_equal_weights(model.state_dict(), before)
    assert all(torch.equal(one, other) for one, other in zip(state(), before_state, strict=True))
    assert step().good and not torch.equal(model.state_dict()["norm.weight"], before["norm.weight"])


def test_an_overflow_of_float16_s_scaled_gradients_is_no_bad_step():
    model, settings, precision = make_model(), make_settings(), Precision(CPU)
    precision.dtype, precision.scale, precision.autocast = torch.float16, None, contextlib.nullcontext
    precision.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=1000)
    optimizers = loop.make_optimizers(model, settings)
    batches = micro_batches(make_rows(), 0, settings, CPU)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    result = training_step(model, optimizers, precision, batches, settings)
    assert result.good and not result.norm.isfinite() and precision.scaler.get_scale() == 2.0**126
    assert_equal_weights(model.state_dict(), before)


def test_too_many_bad_steps_in_a_row_stop_the_run_and_name_the_last_good_checkpoint(tmp_path):
    settings = SETTINGS | {"epochs": 3, "save_steps": 2, "max_bad_steps": 4}
    with losses_not_finite_at(3, *range(6, 20)), pytest.raises(UserError) as refusal:
        train_in(tmp_path, **settings)
    assert "4 steps in a row" in one_line(refusal) and "checkpoint-4.pth" in one_line(refusal)
    assert refusal.value.status == 1 and metrics(tmp_path, "skip")[-1]["step"] == 9
    assert [path.name for path in sorted(tmp_path.glob("checkpoint-*"))] == ["checkpoint-2.pth", "checkpoint-4.pth"]


def test_bad_steps_are_counted_across_resuming(tmp_path):
    settings = SETTINGS | {"epochs": 3, "max_bad_steps": 4}
    with losses_not_finite_at(2, 3):
        interrupt(tmp_path, 3, **settings)
    with losses_not_finite_at(1, 2), pytest.raises(UserError, match="4 steps in a row"):
        train_in(tmp_path, flags=LATEST, **settings)
    assert metrics(tmp_path, "skip")[-1]["skipped"] == 4


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
def test_a_full_memory_is_answered_with_smaller_batches_that_make_the_same_steps(size, count, ranks, advice):
    said = less_memory(make_settings(batch_size=size, gradient_accumulation_steps=count), ranks)
    assert f"--batch_size {size}" in said and advice in said


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("[...] DefaultCPUAllocator: can't allocate")]
)
def test_a_full_memory_ends_the_run_with_one_line(tmp_path, monkeypatch, error):
    def full(*args):
        raise error

    monkeypatch.setattr(loop, "training_step", full)
    with pytest.raises(UserError) as refusal:
        train_in(tmp_path)
    assert "--batch_size 2 --gradient_accumulation_steps 2" in one_line(refusal) and refusal.value.status == 1


# The disk -------------------------------------------------------------------------------------------------------------


class Failing:
    """A file whose writes are counted over all files; the n-th one fails, and with `stays` all after it."""

    def __init__(self, file, count):
        self.file, self.count = file, count

    def write(self, content):
        self.count["writes"] += 1
        since = self.count["writes"] - self.count["at"]
        if since == 0 or (since > 0 and self.count["stays"]):
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(content)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()


@contextlib.contextmanager
def full_disk(folder, at, stays):
    """Let the write number `at` (1, 2, ...; 0: none) to files below a folder fail; gives the count of writes."""
    count, real = {"writes": 0, "at": at or -1, "stays": stays}, io.open

    def opened(file, mode="r", *args, **kwargs):
        stream = real(file, mode, *args, **kwargs)
        below = not isinstance(file, int) and os.fsdecode(file).startswith(str(folder))
        return Failing(stream, count) if below and set(mode) & set("wax+") else stream

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builtins, "open", opened)
        patch.setattr(io, "open", opened)
        yield count


def try_full_disk(folder, whole, at, stays, settings, go_on=True):
    with full_disk(folder, at, stays) as count, pytest.raises(UserError) as refusal:
        train_in(folder, **settings)
    assert count["writes"] >= at
    assert refusal.value.status == 1 and "No space left on device" in one_line(refusal)
    assert_all_that_exists_loads(folder)
    if go_on:
        train_in(folder, flags=AUTO, **settings)
        assert_nothing_is_lost(folder, whole)


def writes_of_a_run(folder, settings):
    with full_disk(folder, 0, False) as count:
        train_in(folder, **settings)
    return count["writes"]


@pytest.fixture(scope="module")
def writes(tmp_path_factory):
    return writes_of_a_run(tmp_path_factory.mktemp("writes"), SETTINGS)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's own thread
@pytest.mark.parametrize("stays", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.1, 0.27, 0.45, 0.5, 0.73, 0.9, 0.96])
def test_a_disk_that_fills_up_costs_nothing_that_was_saved(tmp_path, whole, writes, share, stays):
    try_full_disk(tmp_path, whole, 1 + int(share * writes), stays, SETTINGS)


@pytest.mark.faults
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_every_write_may_fail(tmp_path):
    settings, whole = SETTINGS | {"eval_steps": 6}, tmp_path / "whole"
    writes = writes_of_a_run(whole, settings)
    for at in range(1, writes + 1):
        try_full_disk(tmp_path / str(at), whole, at, stays=bool(at % 2), settings=settings, go_on=at % 5 == 0)
        shutil.rmtree(tmp_path / str(at))
    print(f"{writes} writes failed in turn")


def test_a_disk_that_fills_up_leaves_no_tokenizer_and_no_cache(tmp_path):
    write_rows(tmp_path / "stories.jsonl", [{"text": story(n)} for n in range(300)])
    split, out = file_split(tmp_path / "stories.jsonl"), tmp_path / "out"

    def write_both():
        train_tokenizer(map(story, range(300)), 350).save(out / "a.pkl")
        return cache_stories(split, load_tokenizer(out / "a.pkl"), out / "cache")

    with full_disk(out, 0, False) as count:
        write_both()
    shutil.rmtree(out)
    for at in range(1, count["writes"] + 1):
        with full_disk(out, at, True), pytest.raises(OSError, match="No space left"):
            write_both()
        assert [path for path in out.rglob("*") if path.is_file() and path.name != "a.pkl"] == []
        if (out / "a.pkl").exists():
            load_tokenizer(out / "a.pkl")
    assert len(write_both()) == 300


def test_a_folder_that_is_deleted_under_the_run_ends_it_with_one_line(tmp_path, monkeypatch):
    at_call(monkeypatch, loop, "training_step", 2, lambda: shutil.rmtree(tmp_path / "run"))
    with pytest.raises(UserError) as refusal:
        train_in(tmp_path / "run", **SETTINGS)
    assert "run" in one_line(refusal) and "No such file" in one_line(refusal) and refusal.value.status == 1
    assert not (tmp_path / "run").exists()


def test_a_run_that_the_disk_has_no_room_for_is_refused_before_it_starts(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    with pytest.raises(UserError, match="needs about .* MB") as refusal:
        train_in(tmp_path / "run")
    assert "1 MB are free" in one_line(refusal) and not (tmp_path / "run").exists()


def test_a_checkpoint_that_was_not_written_well_never_takes_its_place(tmp_path, whole, monkeypatch):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    before = {path: content for path, content in files(tmp_path).items() if path.suffix == ".pth"}
    save = torch.save

    def badly(content, file):
        save(content, file)
        file.seek(2000)
        file.write(b"?")

    monkeypatch.setattr(torch, "save", badly)
    with pytest.raises(UserError, match="is damaged"):
        weights_files.save_model(tmp_path / "best_model.pth", make_model(), "a tokenizer's")
    assert {path: content for path, content in files(tmp_path).items() if path.suffix == ".pth"} == before


def test_two_runs_in_one_folder_are_refused_as_long_as_the_first_lives(tmp_path):
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


def test_half_written_caches_of_dead_processes_are_removed_and_those_of_live_ones_not(tmp_path):
    for name in ("dead", "alive"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokens.bin").write_bytes(b"half")
    with open(tmp_path / "alive/tokens.bin", "ab") as file:
        assert locked(file)
        remove_abandoned(tmp_path.iterdir())
        assert [path.name for path in tmp_path.iterdir()] == ["alive"]
    remove_abandoned(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())


def test_where_there_are_no_locks_no_cache_is_removed_and_no_run_refused(tmp_path, monkeypatch):
    import fcntl

    def no_locks(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    (tmp_path / "some").mkdir()
    (tmp_path / "some/tokens.bin").write_bytes(b"half")
    remove_abandoned(tmp_path.iterdir())
    assert (tmp_path / "some/tokens.bin").exists()
    train_in(tmp_path / "run", **SETTINGS)


def test_a_run_that_ended_while_this_one_was_starting_is_not_replaced(tmp_path):
    second = make_run(tmp_path / "run")
    train_in(tmp_path / "run", **SETTINGS)
    before = files(tmp_path / "run")
    with pytest.raises(UserError, match="another run has written into"):
        second.start()
    assert files(tmp_path / "run") == before


# Programs in processes of their own -----------------------------------------------------------------------------------

SMALL = ["--num_layers", 1, "--hidden_size", 32, "--num_heads", 2, "--intermediate_size", 64, "--max_seq_len", 48]
RUN = ["--cache_dir", "cache", "--batch_size", 4, "--gradient_accumulation_steps", 2, "--logging_steps", 20]


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A folder with stories, dialogues, a tokenizer and a small model."""
    folder = tmp_path_factory.mktemp("course")
    write_rows(folder / "stories/train.jsonl", [{"text": story(n)} for n in range(400)])
    write_rows(folder / "stories/validation.jsonl", [{"text": story(n)} for n in range(400, 430)])
    write_rows(folder / "talks/train.jsonl", [dialogue(n) for n in range(300)])
    write_rows(folder / "talks/valid.jsonl", [dialogue(n) for n in range(300, 320)])
    run(folder, "train_bpe_tokenizer_hf", "--dataset", "stories", "--vocab_size", 400)
    run(folder, "train_tinystories_model", "--dataset", "stories", *SMALL, "--epochs", 1, *RUN)
    return folder


STORIES = ["train_tinystories_model", "--dataset", "stories", *SMALL, *RUN]
TALKS = ["train_tinystories_chat_model", "--dataset", "talks", *RUN]
TALKS += ["--pretrained_model_path", "tinystories_model/best_model.pth", "--early_stopping_patience", 0]


def limited(kind, size):
    return lambda: resource.setrlimit(kind, (size, size))


@pytest.mark.parametrize("size", [1000, 100_000, 250_000])
def test_a_file_size_limit_ends_the_run_with_one_line(course, tmp_path, size):
    done = subprocess.run(
        command(*STORIES, "--epochs", 1, "--save_steps", 20, "--output_dir", tmp_path), cwd=course,
        preexec_fn=limited(resource.RLIMIT_FSIZE, size), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    errors = [line for line in done.stderr.splitlines() if "too large" in line]
    assert done.returncode == 1 and len(errors) == 1 and errors[0].startswith("error: "), done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    assert_all_that_exists_loads(tmp_path)


@contextlib.contextmanager
def small_disk(folder, options):
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder], capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize(
    ("options", "message"), [("size=21000k", "No space left"), ("size=1m", "needs about"), ("ro", "Read-only")]
)
def test_a_disk_that_is_small_or_read_only_ends_the_run_with_one_line(course, tmp_path, options, message):
    flags = ["--epochs", 1, "--save_steps", 20, "--output_dir", "disk/run", "--num_layers", 1]
    with small_disk(tmp_path / "disk", options):
        if options == "size=21000k":
            (tmp_path / "disk/ballast").write_bytes(bytes(20 << 20))
            flags += ["--keep_checkpoints", "1"]
        program = "import shutil, sys, runpy; sys.path.insert(0, sys.argv[1]); sys.argv = sys.argv[2:]\n"
        if options == "size=21000k":  # what fills the disk comes after the estimate
            program += "u = shutil.disk_usage; shutil.disk_usage = lambda p: u('/')\n"
        program += "runpy.run_path(sys.argv[0], run_name='__main__')"
        words = command(*STORIES, *flags)
        words = [words[0], "-c", program, str(ROOT), *words[1:]]
        words[words.index("disk/run")] = str(tmp_path / "disk/run")
        done = subprocess.run(words, cwd=course, capture_output=True, text=True, timeout=60)
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert done.returncode == (2 if "size=1m" in options else 1), done.stderr
        assert len(errors) == 1 and message in errors[0] and "Traceback" not in done.stderr
        assert_all_that_exists_loads(tmp_path / "disk")


def ended(process):
    """What a process printed until its end."""
    output, _ = process.communicate(timeout=120)
    assert "Traceback" not in output, output
    return output


def started(folder, words):
    return subprocess.Popen(
        [str(word) for word in words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def cut_off_again_and_again(folder, words, signum, times, seed, pick=lambda process: process.pid):
    """Start a run, end it by a signal at a random moment, start it again, and so on; then let it go to its end."""
    chance, moments = random.Random(seed), []
    for number in range(times):
        process = started(folder, words)
        if number % 3:  # while it trains, evaluates or saves
            while " step " not in (line := process.stdout.readline()):
                assert line, "the run has come to its end before it was cut off often enough"
            time.sleep(chance.random() * 0.7)
        else:  # while it starts
            time.sleep(chance.random() * 4)
        moments.append(process.poll())
        with contextlib.suppress(ProcessLookupError):
            os.kill(pick(process), signum)
        ended(process)
        assert signum == signal.SIGKILL or process.returncode in (-signum, 128 + signum)
    assert moments.count(None) == times, "some came after the end"
    process = started(folder, words)
    output = ended(process)
    assert process.returncode == 0, output


@pytest.mark.faults
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize(("program", "epochs", "times"), [(STORIES, 60, 30), (TALKS, 60, 12)], ids=["stories", "talks"])
def test_a_run_that_is_cut_off_again_and_again_is_the_one_that_was_left_alone(
    course, tmp_path, program, epochs, times, signum
):
    flags = [*program, "--epochs", epochs, "--save_steps", 7, "--eval_steps", 60, "--output_dir"]
    run(course, *flags, tmp_path / "whole")
    words = command(*flags, tmp_path / "parts", "--resume_from_checkpoint", "auto")
    cut_off_again_and_again(course, words, signum, times, seed=times + signum)
    assert_nothing_is_lost(tmp_path / "parts", tmp_path / "whole")
    assert_all_that_exists_loads(tmp_path / "parts")
    summary = json.loads((tmp_path / "parts/summary.json").read_text())
    print(f"cut off {times} times by {signal.Signals(signum).name}, gone on {summary['resumes']} times")


def children(process):
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    return [int(number) for number in found]


@pytest.mark.faults
def test_two_ranks_of_which_one_is_killed_go_on_as_if_nothing_had_been(course, tmp_path):
    launcher = [command("x")[0], "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port()}"]
    flags = [*command(*STORIES)[1:], "--epochs", "30", "--save_steps", "25", "--eval_steps", "60", "--output_dir"]
    whole = started(course, [*launcher, *flags, tmp_path / "whole"])
    ended_well = ended(whole)
    assert whole.returncode == 0, ended_well
    words = [*launcher, *flags, tmp_path / "parts", "--resume_from_checkpoint", "auto"]
    chance = np.random.default_rng(0)
    for _ in range(6):
        process = started(course, words)
        while " step " not in (line := process.stdout.readline()):
            assert line
        time.sleep(chance.random() * 0.7)
        os.kill(chance.choice(children(process)), signal.SIGKILL)
        process.communicate(timeout=120)
        assert process.returncode == 1
    process = started(course, words)
    output = ended(process)
    assert process.returncode == 0, output
    assert_nothing_is_lost(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.faults
def test_a_story_of_50_mb_on_one_line_is_tokenized_in_less_than_a_gigabyte(course, tmp_path):
    words = "Once upon a time there was a very small frog. "
    write_rows(tmp_path / "long.jsonl", [{"text": words * (50_000_000 // len(words))}, {"text": words}])
    code = "import resource, sys; sys.path.insert(0, sys.argv[1])\nfrom data import *\nfrom sources import file_split\n"
    code += "cache = cache_stories(file_split(Path('long.jsonl')), load_tokenizer(sys.argv[2]), 'cache')\n"
    code += "print(len(cache), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    words = [command("x")[0], "-c", code, ROOT, course / "bpe_tokenizer_tinystories.pkl"]
    texts, kilobytes = map(int, ended(started(tmp_path, words)).split()[-2:])
    assert texts == 2 and kilobytes < 1_000_000
    print(f"50 MB on one line: {kilobytes / 1000:.0f} MB of memory")
