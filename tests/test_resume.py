"""Exact resume: a stopped and resumed run ends exactly like an uninterrupted one, or is refused."""

import contextlib
import json
import math
import shutil
import signal

import pytest
import torch
from programs import TINY, run
from refusals import one_line
from tiny import SPECIAL
from tiny_runs import (
    AUTO,
    CONTEXT,
    CPU,
    FINGERPRINTS,
    LATEST,
    SIX_STEPS,
    assert_all_that_exists_loads,
    assert_equal_weights,
    assert_nothing_is_lost,
    assert_same_models,
    at_call,
    files,
    interrupt,
    make_cache,
    make_model,
    make_rows,
    make_run,
    make_validation,
    metrics,
    outcome,
    signal_at,
    terminate,
    train_in,
    weights,
)

from common import devices, weights_files
from common.devices import Precision
from common.errors import Interrupted, UserError
from common.program import noted_signals
from corpus.splits import Mixture
from data import Rows
from model import Transformer
from training import loop
from training import resume as resume_module

# Stopping -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_after_its_step_with_a_checkpoint(tmp_path, signum):
    before = signal.getsignal(signum)
    assert interrupt(tmp_path, 3, signum) == signum
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-3.pth"]
    assert metrics(tmp_path, "train")[-1]["step"] == 3
    assert not (tmp_path / "summary.json").exists()
    assert "--resume_from_checkpoint latest" in (tmp_path / "train.log").read_text()
    assert signal.getsignal(signum) == before


def test_a_second_ctrl_c_ends_the_program_at_once():
    with pytest.raises(KeyboardInterrupt), noted_signals() as noted:
        signal.raise_signal(signal.SIGINT)
        assert noted == [signal.SIGINT]
        signal.raise_signal(signal.SIGINT)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
def test_under_nohup_a_dropped_connection_is_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with noted_signals() as noted:
            signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN and noted == []
    finally:
        signal.signal(signal.SIGHUP, before)


# The same end ---------------------------------------------------------------------------------------------------------


def train_whole_and_in_parts(folder, *steps, rows=None, **options):
    """Train an uninterrupted run and one stopped at these steps; compare the models; return the second summary."""
    train_in(folder / "whole", rows, **options)
    flags = {}
    for step in steps:
        interrupt(folder / "parts", step, rows=rows, flags=flags, **options)
        flags = LATEST
    summary = train_in(folder / "parts", rows, LATEST, **options)
    assert_same_models(folder / "parts", folder / "whole")
    return summary


@pytest.mark.parametrize(
    ("steps", "speed"),
    [  # each single stop once (12 is the last step), and three stops at each speed
        ((1,), {}), ((4,), {"amp": True}), ((5,), {"compile": "on"}), ((12,), {}),
        ((2, 3, 6), {}), ((2, 3, 6), {"amp": True}), ((2, 3, 6), {"compile": "on"}),
    ],
    ids=str,
)  # fmt: skip
def test_a_resumed_run_ends_like_the_uninterrupted_one(tmp_path, steps, speed, monkeypatch):
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network, **options: compile_(network, backend="eager", **options))
    summary = train_whole_and_in_parts(tmp_path, *steps, logging_steps=2, eval_steps=3, **speed)
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")
    whole = json.loads((tmp_path / "whole/summary.json").read_text())
    assert {name: summary[name] for name in summary if name.startswith(("best_", "final_"))} == {
        name: whole[name] for name in whole if name.startswith(("best_", "final_"))
    }
    assert summary["tokens"] == whole["tokens"] and summary["resumes"] == len(steps)
    assert summary["run_id"] == metrics(tmp_path / "parts", "run")[0]["run_id"] != whole["run_id"]


@pytest.mark.parametrize("packed", [True, False])
def test_a_resumed_run_on_a_mixture_ends_like_the_uninterrupted_one(tmp_path, packed):
    mixture = Mixture([make_cache(8, seed=1), make_cache(30, seed=4)], (2, 1))
    rows = Rows(mixture, CONTEXT, SPECIAL, packed, seed=1)
    summary = train_whole_and_in_parts(tmp_path, 3, 9, rows=rows, epochs=5)
    assert summary["epoch"] == 5


def test_only_a_loss_may_be_negative_in_a_checkpoint():
    resume_module.Progress(step=3, loss_since_log=-1.5).check()  # as with rewards
    for wrong in ({"loss_since_log": math.nan}, {"loss_since_log": math.inf}, {"tokens": -1}):
        with pytest.raises(ValueError, match="a loss that is not finite|a count that no run reaches"):
            resume_module.Progress(**wrong).check()


@pytest.mark.parametrize("speed", [{}, {"amp": True, "amp_dtype": "bfloat16"}], ids=["float32", "bfloat16"])
def test_a_resumed_run_with_adapters_ends_like_the_uninterrupted_one(tmp_path, monkeypatch, speed):
    monkeypatch.setattr(devices, "has_bfloat16", lambda device: True)
    train_whole_and_in_parts(tmp_path, 4, 7, lora_rank=2, eval_steps=3, **speed)


@pytest.mark.parametrize(
    ("owner", "name", "number", "again"),
    [
        (Transformer, "forward", 2, 0),  # between the micro-batches of an accumulation
        (Transformer, "hidden", 9, 1),
        (loop, "evaluate", 1, 0),
        (loop, "evaluate", 3, 1),  # the final evaluation, after the last step
        (resume_module, "write_torch_file", 1, 1),
        (loop, "save_model", 2, 0),
        (loop.Trainer, "compile", 1, 1),
    ],
)
def test_wherever_sigterm_arrives_the_resumed_run_ends_like_the_uninterrupted_one(
    tmp_path, monkeypatch, owner, name, number, again
):
    settings = SIX_STEPS | {"batch_size": 2, "gradient_accumulation_steps": 2}
    train_in(tmp_path / "whole", **settings)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        at_call(patch, owner, name, number, terminate)
        train_in(tmp_path / "parts", flags=AUTO, **settings)
    if again:  # now the signal may arrive while the last checkpoint is being saved
        with monkeypatch.context() as patch, contextlib.suppress(Interrupted):
            at_call(patch, owner, name, 1, terminate)
            train_in(tmp_path / "parts", flags=AUTO, **settings)
    train_in(tmp_path / "parts", flags=AUTO, **settings)
    assert_nothing_is_lost(tmp_path / "parts", tmp_path / "whole")


def test_an_evaluation_interrupted_by_a_signal_is_repeated_after_resuming(tmp_path, uninterrupted, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        at_call(patch, loop, "evaluate", 2, terminate)
        train_in(tmp_path, **SIX_STEPS)
    assert metrics(tmp_path, "train")[-1]["step"] == 4 and metrics(tmp_path, "eval")[-1]["step"] == 2
    train_in(tmp_path, flags=LATEST, **SIX_STEPS)
    assert_nothing_is_lost(tmp_path, uninterrupted)


def test_steps_after_the_checkpoint_are_not_recorded_twice(tmp_path):
    train_in(tmp_path / "whole")
    interrupt(tmp_path / "parts", 5, save_steps=3, keep_checkpoints=9)
    (tmp_path / "parts/checkpoint-5.pth").unlink()  # as if the power had failed before it was written
    with open(tmp_path / "parts/metrics.jsonl", "a") as file:
        file.write('{"event": "train", "ste')
    train_in(tmp_path / "parts", None, LATEST)
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")


@pytest.mark.parametrize("lost", ["checkpoint-6.pth", "checkpoint-6.pth best_model.pth", "summary.json"])
def test_a_run_that_lost_its_newest_files_still_ends_the_same(tmp_path, uninterrupted, lost):
    shutil.copytree(uninterrupted, tmp_path, dirs_exist_ok=True)
    for name in lost.split():
        (tmp_path / name).unlink()
    train_in(tmp_path, flags=AUTO, **SIX_STEPS)
    assert_nothing_is_lost(tmp_path, uninterrupted)
    assert [row["step"] for row in metrics(tmp_path, "checkpoint")] == [3, 6]


@pytest.mark.parametrize("patience", [0, 2])
def test_a_finished_run_can_be_resumed_and_ends_the_same(tmp_path, val_losses, patience):
    val_losses[:] = [3.0, 2.0] + [2.5] * 20
    first = train_in(tmp_path, early_stopping_patience=patience)
    before = weights(tmp_path / "final_model.pth")
    again = train_in(tmp_path, None, LATEST, early_stopping_patience=patience)
    assert_equal_weights(weights(tmp_path / "final_model.pth"), before)
    assert again["final_step"] == first["final_step"] and again["best_step"] == first["best_step"]


def test_an_old_checkpoint_without_newer_flags_can_be_resumed(tmp_path):
    interrupt(tmp_path, 2)
    (path,) = tmp_path.glob("checkpoint-*")
    content = torch.load(path, weights_only=True)
    del content["flags"]["norm_epsilon"], content["flags"]["rotary_base"]
    torch.save(content, path)
    assert train_in(tmp_path, None, LATEST)["ended"] == "finished"


# Flags that must match ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"lr": 3e-3}, "--lr"),
        ({"batch_size": 2}, "--batch_size"),
        ({"seed": 7}, "--seed"),
        ({"fingerprints": FINGERPRINTS | {"tokenizer": "of another"}}, "tokenizer"),
        ({"fingerprints": FINGERPRINTS | {"data": [[21, 210]]}}, "data"),
        ({"rows": make_rows(packed=False)}, "batching"),
    ],
)
def test_resuming_with_a_flag_that_must_match_is_refused(tmp_path, change, named):
    interrupt(tmp_path, 2)
    before = files(tmp_path)
    with pytest.raises(UserError, match=named) as refusal:
        train_in(tmp_path, **{"flags": LATEST} | change)
    first, *more, last = str(refusal.value).splitlines()
    assert "checkpoint-2.pth" in first and not more and "resume with the same flags" in last
    assert files(tmp_path) == before


def test_each_flag_that_must_match_gets_its_own_line(tmp_path):
    interrupt(tmp_path, 2)
    with pytest.raises(UserError) as refusal:
        train_in(tmp_path, None, LATEST, lr=0.5, seed=7, weight_decay=0.3)
    first_words = [line.split()[0] for line in str(refusal.value).splitlines()]
    assert first_words == ["--lr:", "--seed:", "--weight_decay:", "resume"]


@pytest.mark.parametrize(("swapped", "is_refused"), [(0.0, False), (0.8, True)])
def test_a_run_with_a_removed_flag_can_be_resumed_only_if_it_had_no_effect(tmp_path, swapped, is_refused):
    interrupt(tmp_path, 2)
    path = tmp_path / "checkpoint-2.pth"
    content = torch.load(path)
    content["flags"]["swap_words"] = swapped
    torch.save(content, path)
    if is_refused:
        with pytest.raises(UserError, match="--swap_words: .* was trained with this flag, which no longer exists"):
            train_in(tmp_path, None, LATEST)
    else:
        assert train_in(tmp_path, None, LATEST)["ended"] == "finished"


def test_flags_that_do_not_affect_training_may_change_on_resuming(tmp_path):
    interrupt(tmp_path, 2)
    train_in(tmp_path, None, LATEST, logging_steps=3, save_steps=2, keep_checkpoints=1, eval_steps=2)
    assert (tmp_path / "summary.json").exists()


def test_a_resumed_run_keeps_the_same_models(tmp_path):
    settings = {"keep_models": 3, "eval_steps": 2, "epochs": None, "max_steps": 6}
    train_in(tmp_path / "whole", **settings)
    interrupt(tmp_path / "parts", 3, **settings)
    for name in ("model-4.pth", "model-6.pth"):  # as from a run that went on after its last checkpoint, and was killed
        (tmp_path / "parts" / name).write_text("of the killed run")
    (tmp_path / "parts/model-9.pth").write_text("of a longer run")
    train_in(tmp_path / "parts", None, LATEST, **settings)
    names = {path.name for path in (tmp_path / "parts").glob("model-*")}
    assert names == {"model-2.pth", "model-4.pth", "model-6.pth"}
    for name in names:
        assert_equal_weights(weights(tmp_path / "whole" / name), weights(tmp_path / "parts" / name))


def test_a_run_resumes_in_its_own_precision_and_another_one_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "has_bfloat16", lambda device: True)
    interrupt(tmp_path, 3, amp=None)
    monkeypatch.setattr(devices, "has_bfloat16", lambda device: False)  # another machine
    with pytest.raises(UserError, match="--amp, --amp_dtype: float32, but .* was trained with bfloat16"):
        train_in(tmp_path, None, LATEST, amp=False)
    assert train_in(tmp_path, None, LATEST, amp=None)["ended"] == "finished"


def test_more_epochs_stretch_the_schedule_and_fewer_than_done_are_refused(tmp_path, capsys):
    train_in(tmp_path, **SIX_STEPS)
    train_in(tmp_path, flags=LATEST, **SIX_STEPS | {"epochs": 3})
    assert "--epochs 3: the learning-rate schedule now covers the new length" in capsys.readouterr().err
    assert metrics(tmp_path, "train")[-1]["step"] == 18
    with pytest.raises(UserError, match="--epochs 2 gives 12 steps"):
        train_in(tmp_path, flags=LATEST, **SIX_STEPS | {"epochs": 2})


def test_smaller_batches_are_allowed_on_resuming_if_the_rows_per_step_are_the_same(tmp_path):
    interrupt(tmp_path, 2, batch_size=4)
    train_in(tmp_path, flags=LATEST, batch_size=2, gradient_accumulation_steps=2)
    with pytest.raises(UserError, match="--batch_size x --gradient_accumulation_steps: 8, but "):
        train_in(tmp_path, flags=LATEST, batch_size=2, gradient_accumulation_steps=4)


def test_changed_flags_are_refused_before_any_work_is_done(course, tmp_path):
    flags = ["--dataset", "stories", *TINY, "--cache_dir", tmp_path / "cache", "--output_dir", tmp_path / "run"]
    run(course, "train_tinystories_model", *flags)
    others = ["--resume_from_checkpoint", "auto", "--lr", 1, "--seed", 1]
    done = run(course, "train_tinystories_model", *flags, *others, status=2)
    lines = done.stderr.splitlines()
    assert [line[:14] for line in lines] == ["error: --lr: 1", "error: --seed:", "error: resume "]


# Which checkpoint -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["garbage", "truncated", "empty", "model"])
def test_a_file_that_is_not_a_checkpoint_is_refused_by_name(finished, tmp_path, kind):
    path = tmp_path / "some.pth"
    checkpoint = next(finished[0].glob("checkpoint-*")).read_bytes()
    contents = {
        "garbage": b'{"this": "is json"}',
        "truncated": checkpoint[: len(checkpoint) // 2],
        "empty": b"",
        "model": (finished[0] / "best_model.pth").read_bytes(),
    }
    path.write_bytes(contents[kind])
    with pytest.raises(UserError) as refusal:
        train_in(tmp_path / "run", None, {"resume_from_checkpoint": str(path)})
    assert str(path) in one_line(refusal)
    assert not (tmp_path / "run").exists()


def test_latest_without_a_checkpoint_is_refused_and_auto_starts_a_run(tmp_path):
    with pytest.raises(UserError, match="no checkpoint") as refusal:
        make_run(tmp_path, **LATEST)
    assert str(tmp_path) in one_line(refusal)
    with pytest.raises(UserError, match="missing.pth"):
        make_run(tmp_path, resume_from_checkpoint="missing.pth")
    assert make_run(tmp_path, **AUTO).checkpoint is None


def test_auto_resumes_from_the_newest_checkpoint_or_starts_again(tmp_path):
    (tmp_path / "metrics.jsonl").touch()  # from a run that was killed before its first checkpoint
    assert make_run(tmp_path, **AUTO).checkpoint is None
    train_in(tmp_path, flags={"overwrite": True}, save_steps=5)
    (tmp_path / "checkpoint-12.pth").rename(tmp_path / "checkpoint-100.pth")
    (tmp_path / "checkpoint-10.pth").rename(tmp_path / "checkpoint-99.pth")
    assert make_run(tmp_path, **AUTO).checkpoint == tmp_path / "checkpoint-100.pth"


@pytest.mark.parametrize(("damage", "resume"), [("cut", "latest"), ("flipped", "auto"), ("empty", "latest")])
def test_a_damaged_checkpoint_is_skipped_and_reported(tmp_path, uninterrupted, capsys, damage, resume):
    shutil.copytree(uninterrupted, tmp_path, dirs_exist_ok=True)
    newest = tmp_path / "checkpoint-6.pth"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 4
    newest.write_bytes({"cut": content[:-50], "flipped": content, "empty": b""}[damage])
    train_in(tmp_path, flags={"resume_from_checkpoint": resume}, **SIX_STEPS)
    errors = capsys.readouterr().err
    assert "checkpoint-6.pth is " in errors and "skipped" in errors and "checkpoint-3.pth at step 3" in errors
    assert_nothing_is_lost(tmp_path, uninterrupted)


def test_if_all_checkpoints_are_damaged_latest_refuses_and_auto_starts_again(tmp_path, uninterrupted):
    shutil.copytree(uninterrupted, tmp_path, dirs_exist_ok=True)
    (tmp_path / "summary.json").unlink()
    for path in tmp_path.glob("checkpoint-*"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="no undamaged checkpoint"):
        make_run(tmp_path, **LATEST)
    train_in(tmp_path, flags=AUTO, **SIX_STEPS)
    assert_nothing_is_lost(tmp_path, uninterrupted)


def test_a_finished_run_without_checkpoints_is_not_replaced_by_auto(tmp_path, uninterrupted):
    shutil.copytree(uninterrupted, tmp_path, dirs_exist_ok=True)
    for path in tmp_path.glob("checkpoint-*"):
        path.unlink()
    with pytest.raises(UserError, match="already contains a run"):
        make_run(tmp_path, **AUTO)


def test_after_a_pilot_run_auto_starts_the_real_run(tmp_path):
    train_in(tmp_path, flags={"pilot_run": True}, **SIX_STEPS)
    assert make_run(tmp_path, **AUTO).checkpoint is None
    assert make_run(tmp_path, pilot_run=True, **AUTO).checkpoint is not None
    train_in(tmp_path, flags=AUTO, **SIX_STEPS | {"lr": 3e-3})


def test_half_written_files_of_a_killed_run_are_removed(tmp_path, uninterrupted):
    shutil.copytree(uninterrupted, tmp_path, dirs_exist_ok=True)
    (tmp_path / ".checkpoint-6.pth.123.partial").write_bytes(b"half")
    with signal_at(8, signal.SIGTERM):
        train_in(tmp_path, flags=LATEST, **SIX_STEPS | {"epochs": 2})
    assert not (tmp_path / "summary.json").exists(), "the run is no longer a finished one"
    assert_all_that_exists_loads(tmp_path)


def test_a_run_resumed_from_an_older_checkpoint_keeps_its_own_newest_ones(tmp_path):
    train_in(tmp_path, save_steps=1, keep_checkpoints=5)
    oldest = min(int(path.stem.split("-")[1]) for path in tmp_path.glob("checkpoint-*"))
    with pytest.raises(UserError, match="checkpoint-12.pth is newer than .* and would be lost"):
        train_in(tmp_path, None, {"resume_from_checkpoint": str(tmp_path / f"checkpoint-{oldest}.pth")})
    for step in range(oldest + 1, 13):
        (tmp_path / f"checkpoint-{step}.pth").unlink()
    with signal_at(oldest + 1, signal.SIGTERM):
        train_in(tmp_path, None, {"resume_from_checkpoint": str(tmp_path / f"checkpoint-{oldest}.pth")})
    assert make_run(tmp_path, **LATEST).checkpoint == tmp_path / f"checkpoint-{oldest + 1}.pth"
    assert make_run(tmp_path, **LATEST).checkpoint.exists()


def test_the_summary_names_the_best_model_even_if_it_came_after_the_checkpoint(tmp_path, monkeypatch):
    interrupt(tmp_path, 5, **SIX_STEPS | {"eval_steps": 1})
    later = make_model()
    weights_files.save_model(tmp_path / "best_model.pth", later, "of the tokenizer", step=99, val_loss=0.5)
    monkeypatch.setattr(loop.Trainer, "save_model", lambda self, name, loss: None)  # so that no later model replaces it
    summary = train_in(tmp_path, flags=LATEST, **SIX_STEPS | {"eval_steps": 1})
    expected = loop.evaluate(later.eval(), make_validation(), Precision(CPU))
    assert summary["best_step"] == 99 and summary["best_val_loss"] == pytest.approx(expected["val_loss"], rel=1e-4)


# Another folder -------------------------------------------------------------------------------------------------------


def test_a_run_resumed_into_another_folder_ends_with_a_best_model(tmp_path, val_losses):
    val_losses[:] = [1.0] + [2.0] * 20
    interrupt(tmp_path / "one", 5, eval_steps=2)
    train_in(tmp_path / "other", None, {"resume_from_checkpoint": str(tmp_path / "one/checkpoint-5.pth")})
    assert weights(tmp_path / "other/best_model.pth")


def test_a_run_is_not_resumed_into_the_folder_of_another_one(finished, tmp_path):
    train_in(tmp_path, seed=9, epochs=1)
    before, checkpoint = files(tmp_path), next(finished[0].glob("checkpoint-*.pth"))
    with pytest.raises(UserError) as refusal:
        train_in(tmp_path, None, {"resume_from_checkpoint": str(checkpoint)})
    assert str(tmp_path) in one_line(refusal)
    assert files(tmp_path) == before


def test_a_run_stopped_at_once_in_another_folder_can_be_resumed_there(tmp_path, uninterrupted, monkeypatch):
    flags = {"resume_from_checkpoint": str(uninterrupted / "checkpoint-6.pth")}
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        at_call(patch, loop.Trainer, "compile", 1, terminate)
        train_in(tmp_path, flags=flags, **SIX_STEPS | {"epochs": 2})
    train_in(tmp_path, flags=LATEST, **SIX_STEPS | {"epochs": 2})
    assert metrics(tmp_path, "train")[0]["step"] == 8
