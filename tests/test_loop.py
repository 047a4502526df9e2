"""The loop: when a run evaluates, saves and stops, and which model is the best one."""

import math
import re

import pytest
import torch
from tiny_runs import CPU, VOCAB, assert_equal_weights, make_rows, make_validation, metrics, train_in, weights

from common.devices import Precision
from common.errors import UserError
from common.weights_files import load_model
from training import loop
from training.run_folder import Run
from training.step import evaluate


def test_training_lowers_the_validation_loss(finished):
    first, *_, last = metrics(finished[0], "eval")
    assert last["val_loss"] < first["val_loss"] < math.log(VOCAB) + 0.1


def test_the_best_model_is_the_one_with_the_lowest_validation_loss(tmp_path, val_losses, monkeypatch):
    val_losses[:] = [4.0, 2.0, 3.0, 2.0] + [5.0] * 20
    seen = []
    evaluate = loop.evaluate

    def watched(model, *args, **options):
        seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return evaluate(model, *args, **options)

    monkeypatch.setattr(loop, "evaluate", watched)
    summary = train_in(tmp_path, eval_steps=1)
    assert len(seen) > 4
    assert_equal_weights(weights(tmp_path / "best_model.pth"), seen[1])
    assert_equal_weights(weights(tmp_path / "final_model.pth"), seen[-1])
    assert (summary["best_step"], summary["best_val_loss"]) == (2, 2.0)
    content = torch.load(tmp_path / "best_model.pth", weights_only=True)
    assert (content["step"], content["val_loss"], content["run_id"]) == (2, 2.0, summary["run_id"])
    content = torch.load(tmp_path / "final_model.pth", weights_only=True)
    assert (content["step"], content["val_loss"]) == (len(seen), 5.0)


def test_the_saved_models_have_the_losses_in_the_summary(finished):
    folder, summary = finished
    for kind in ("best", "final"):
        model, _ = load_model(folder / f"{kind}_model.pth")
        result = evaluate(model, make_validation(), Precision(CPU))
        assert result["val_loss"] == pytest.approx(summary[f"{kind}_val_loss"], rel=1e-6)


def test_every_epoch_ends_with_an_evaluation(tmp_path):
    rows = make_rows()
    train_in(tmp_path, rows, eval_steps=10_000, epochs=3)
    ends = [math.ceil(epoch * rows.per_epoch / 4) for epoch in (1, 2, 3)]
    assert [row["step"] for row in metrics(tmp_path, "eval")] == ends
    assert metrics(tmp_path, "train")[-1]["step"] == ends[-1]


def test_a_run_of_few_steps_warns_unless_max_steps_was_given(tmp_path, capsys):
    train_in(tmp_path / "few", batch_size=30, epochs=2)
    told = capsys.readouterr().err
    assert "a step has 30 rows, an epoch only 24; " in told and "too few steps to learn much (2);" in told
    train_in(tmp_path / "asked", batch_size=4, epochs=None, max_steps=2)
    train_in(tmp_path / "many", batch_size=4, epochs=4)
    assert not re.search("a step has|too few steps|warm-up", capsys.readouterr().err)


def test_a_warm_up_that_takes_the_whole_run_is_named(tmp_path, capsys):
    train_in(tmp_path, epochs=None, max_steps=3, warmup_steps=3)
    assert (
        "the warm-up (3 steps) takes the whole run (3 steps); pass a smaller --warmup_steps" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"batch_size": 4000}, "a step of 4,000 rows .*--batch_size.* would use the 24 rows of an epoch 167 times"),
        ({"max_steps": 99_999_999_999_999, "epochs": None}, "--max_steps 99999999999999 would be more than"),
        ({"epochs": 99_999_999_999_999}, "--epochs 99999999999999 would be more than"),
    ],
)
def test_a_run_that_would_never_end_is_refused_before_its_first_step(tmp_path, settings, reason):
    with pytest.raises(UserError, match=reason):
        train_in(tmp_path, **settings)
    assert not list(tmp_path.iterdir())


def test_the_newest_checkpoints_are_kept(tmp_path):
    train_in(tmp_path, save_steps=1, keep_checkpoints=3)
    last = metrics(tmp_path, "train")[-1]["step"]
    kept = {f"checkpoint-{step}.pth" for step in (last - 2, last - 1, last)}
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == kept
    assert {row["step"] for row in metrics(tmp_path, "checkpoint")} == set(range(1, last + 1))


def test_weights_are_kept_at_evaluations_spread_over_the_run(tmp_path):
    train_in(tmp_path, save_steps=1, keep_checkpoints=99, keep_models=3, eval_steps=2, epochs=None, max_steps=12)
    kept = {path.name for path in tmp_path.glob("model-*")}
    assert kept == {"model-4.pth", "model-8.pth", "model-12.pth"}
    for step in (4, 8, 12):
        assert_equal_weights(weights(tmp_path / f"model-{step}.pth"), weights(tmp_path / f"checkpoint-{step}.pth"))
    (tmp_path / "model-2b.pth").write_text("of the student")
    train_in(tmp_path, flags={"overwrite": True}, keep_models=99, eval_steps=5, epochs=None, max_steps=7)
    assert {path.name for path in tmp_path.glob("model-*")} == {"model-5.pth", "model-7.pth", "model-2b.pth"}
    train_in(tmp_path, flags={"overwrite": True}, keep_models=1, lora_rank=2, epochs=None, max_steps=3)
    assert_equal_weights(weights(tmp_path / "model-3.pth"), weights(tmp_path / "final_model.pth"))


def test_kept_models_count_in_the_space_that_a_run_needs(tmp_path, monkeypatch):
    needed = []
    monkeypatch.setattr(Run, "check_space", lambda run, size: needed.append(size))
    for keep in (0, 5):
        train_in(tmp_path, flags={"overwrite": True}, keep_models=keep, epochs=None, max_steps=6)
    size = sum(tensor.nbytes for tensor in weights(tmp_path / "final_model.pth").values())
    assert needed[1] - needed[0] == 5 * size


def test_early_stopping_waits_as_many_evaluations_as_its_patience(tmp_path, val_losses):
    val_losses[:] = [3.0, 2.0, 2.5, 1.0, 1.5, 1.0, 9.0]
    summary = train_in(tmp_path, eval_steps=1, epochs=4, early_stopping_patience=2)
    assert summary["ended"] == metrics(tmp_path, "end")[-1]["ended"] == "stopped early"
    assert metrics(tmp_path, "train")[-1]["step"] == 6
    assert (summary["best_step"], summary["best_val_loss"], summary["final_val_loss"]) == (4, 1.0, 1.0)
    assert "early stop" in (tmp_path / "train.log").read_text()
    assert (tmp_path / "final_model.pth").exists()
