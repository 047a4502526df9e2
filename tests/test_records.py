"""A run's records: every row as docs/records.md describes it, the log, TensorBoard's event file, Weights & Biases."""

import json
import math
import os
import re
import subprocess
from argparse import Namespace
from datetime import datetime

import pytest
from programs import ROOT, TINY, command, run, write_data
from tiny_runs import metrics

from training import run_folder

KINDS = {
    "text": lambda value: isinstance(value, str),
    "integer": lambda value: type(value) is int,
    "number": lambda value: type(value) in (int, float) and math.isfinite(value),
    "boolean": lambda value: isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
    "list": lambda value: isinstance(value, list),
    "null": lambda value: value is None,
    "time": lambda value: datetime.fromisoformat(value).tzinfo is not None,
}


def schema():
    """Return {heading of docs/records.md: {name: kinds}} for its tables with types; "" is the table for all rows."""
    tables = {}
    heading = None
    for line in (ROOT / "docs/records.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            heading = {"metrics.jsonl": ""}.get(line.strip("#` "), line.strip("#` "))
        elif line == "| name | type | what it is |":
            tables[heading] = {}
        elif heading in tables and line.startswith("| `"):
            names, kinds = line.split("|")[1:3]
            tables[heading] |= {name: kinds.strip().split(" or ") for name in re.findall(r"`(\w+)`", names)}
    return tables


def misfits(content, kinds):
    """Return the names in content that are missing, unexpected or of the wrong kind."""
    wrong = {name for name in kinds if name in content and not any(KINDS[kind](content[name]) for kind in kinds[name])}
    return wrong | (content.keys() ^ kinds.keys())


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return (folder, [console output before and after a resume]): a run interrupted once, and a chat run after it."""
    if os.name == "nt":
        pytest.skip("on Windows, SIGTERM ends another process at once, without a checkpoint")
    folder = tmp_path_factory.mktemp("runs")
    write_data(folder)
    data = ["--cache_dir", "cache", "--logging_steps", 2]
    stories = ["--dataset", "stories", *TINY, *data, "--eval_steps", 4]
    talks = ["--dataset", "talks", *data, "--pretrained_model_path", "tinystories_model/best_model.pth"]
    run(folder, "train_bpe_tokenizer_hf", "--dataset", "stories", "--vocab_size", 400)
    outputs = []
    with subprocess.Popen(
        command("train_tinystories_model", *stories), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        encoding="utf-8",
    ) as process:  # fmt: skip
        while " val_loss " not in (line := process.stdout.readline()):
            outputs.append(line)
        process.terminate()
        outputs = ["".join([*outputs, line, process.stdout.read()])]
    assert process.returncode == 143
    with open(folder / "out.log", "wb") as out:
        words = command("train_tinystories_model", *stories, "--resume_from_checkpoint", "latest")
        subprocess.run(words, cwd=folder, stdout=out, stderr=subprocess.STDOUT, check=True, timeout=120)
    outputs.append((folder / "out.log").read_text(encoding="utf-8"))
    run(folder, "train_tinystories_chat_model", *talks, "--epochs", 1, "--batch_size", 8)
    return folder, outputs


def test_every_row_of_a_real_run_matches_docs_records_md(runs):
    folder, _ = runs
    tables = schema()
    seen = set()
    for name in ("tinystories_model", "tinystories_chat_model"):
        for row in metrics(folder / name):
            assert not misfits(row, tables[""] | tables[row["event"]]), row
            seen.add(row["event"])
        summary = json.loads((folder / name / "summary.json").read_text(encoding="utf-8"))
        assert not misfits(summary, tables["summary.json"])
    assert seen == {"run", "train", "eval", "sample", "checkpoint", "resume", "end"} == tables.keys() - {
        "", "summary.json", "skip",
    }  # fmt: skip


def test_the_first_row_describes_the_run(runs):
    folder, _ = runs
    rows = metrics(folder / "tinystories_model")
    first = rows[0]
    summary = json.loads((folder / "tinystories_model/summary.json").read_text(encoding="utf-8"))
    assert first["event"] == "run" and [row["event"] for row in rows].count("run") == 1
    assert first["run_id"] == summary["run_id"] and re.fullmatch("[0-9a-f]{32}", first["run_id"])
    assert first["dataset"] == ["stories"] and first["program"] == "train_tinystories_model.py"
    assert first["hardware"]["device"].startswith("cpu") and first["hardware"]["processes"] == 1
    assert first["fingerprints"]["data"][0][0] == 60 and len(first["fingerprints"]["tokenizer"]) == 64
    assert first["total_steps"] == summary["step"] == summary["final_step"]
    assert first["parameters"] > first["parameters_in_layers"] > 0
    assert first["time"] <= summary["time"] == rows[-1]["time"]


def test_steps_and_times_never_go_back_even_after_a_resume(runs):
    folder, _ = runs
    rows = metrics(folder / "tinystories_model")
    for name in ("step", "tokens", "seconds"):
        values = [row[name] for row in rows]
        assert values == sorted(values)
    (place,) = [index for index, row in enumerate(rows) if row["event"] == "resume"]
    assert rows[place - 1]["event"] == "checkpoint" and rows[place - 1]["step"] == rows[place]["step"]


def test_each_evaluation_is_followed_by_a_sample(runs):
    folder, _ = runs
    rows = metrics(folder / "tinystories_model")
    places = [index for index, row in enumerate(rows) if row["event"] == "eval"]
    assert len(places) > 2
    for index in places:
        assert rows[index + 1]["event"] == "sample" and rows[index + 1]["step"] == rows[index]["step"]
        assert rows[index + 1]["text"].startswith("Once upon a time")
    chat = [row["text"] for row in metrics(folder / "tinystories_chat_model", "sample")]
    assert chat and all(text.startswith("user: ") and "\nassistant: " in text for text in chat)


def test_grep_val_loss_in_the_log_gives_the_curve(runs):
    folder, _ = runs
    log = (folder / "tinystories_model/train.log").read_text(encoding="utf-8")
    curve = [re.search(r" step (\d+)/\d+ .* val_loss (\S+) ", line) for line in log.splitlines() if "val_loss" in line]
    evaluations = metrics(folder / "tinystories_model", "eval")
    assert [(int(found[1]), float(found[2])) for found in curve] == [
        (row["step"], round(row["val_loss"], 4)) for row in evaluations
    ]


def test_a_redirected_log_has_plain_lines_with_time_step_loss_and_speed(runs):
    _, (first, second) = runs
    for output in (first, second):
        lines = [line for line in output.splitlines() if " step " in line and "_loss " in line]
        pattern = (
            r"\d{4}(-\d\d){2} \d\d(:\d\d){2} step \d+/\d+ epoch \d+\.\d\d (train|val)_loss \d+\.\d{4} .*tokens/s [\d,]+"
        )
        assert lines and all(re.match(pattern, line) for line in lines)
        assert output.startswith("$ python ") and "\r" not in output and "\x1b" not in output
    assert "resuming from" in second and re.search(r"checkpoint-\d+\.pth saved", first)


def test_the_end_is_recorded_whether_finished_or_failed(runs, tmp_path):
    folder, _ = runs
    assert [row["ended"] for row in metrics(folder / "tinystories_model", "end")] == ["finished"]
    flags = ["--dataset", "stories", "--cache_dir", "cache", *TINY, "--output_dir", tmp_path]
    run(folder, "train_tinystories_model", *flags, "--lr", 1e30, "--max_grad_norm", 0, "--max_bad_steps", 2, status=1)
    rows, log = metrics(tmp_path), (tmp_path / "train.log").read_text(encoding="utf-8")
    assert rows[-1]["event"] == "end" and rows[-1]["ended"].startswith("failed: 2 steps in a row")
    assert not misfits(rows[-2], schema()[""] | schema()["skip"])
    assert log.splitlines()[-1].startswith("error: 2 steps in a row") and not (tmp_path / "summary.json").exists()


def test_the_event_file_has_a_sample_per_evaluation_and_the_flags(runs):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    folder, _ = runs
    chat = folder / "tinystories_chat_model"
    assert len(list(chat.rglob("events.out.tfevents.*"))) == 1  # hparams have no separate file or folder
    board = EventAccumulator(str(chat), size_guidance={"tensors": 0}).Reload()
    texts = [
        "\n".join(line[4:] for line in event.tensor_proto.string_val[0].decode().splitlines())
        for event in board.Tensors("Sample/text_summary")
    ]
    assert texts == [row["text"] for row in metrics(chat, "sample")]
    content = board.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    flags = HParamsPluginData.FromString(content).session_start_info.hparams
    assert flags["lr"].number_value == 5e-4 and flags["dataset"].string_value == "['talks']"
    assert "_hparams_/session_end_info" in board.summary_metadata


def test_a_picture_that_cannot_be_drawn_is_reported_and_does_no_harm(runs, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    flags = {"overwrite": False, "resume_from_checkpoint": None, "pilot_run": False}
    left = run_folder.Run(Namespace(output_dir=str(tmp_path), **flags))
    left.draw_curves()
    assert "loss_curve.png could not be drawn: " in capsys.readouterr().err
    assert not (tmp_path / "loss_curve.png").exists()


def test_wandb_gets_the_curves_without_a_network(runs, tmp_path):
    pytest.importorskip("wandb")
    folder, _ = runs
    flags = ["--dataset", "stories", "--cache_dir", "cache", *TINY, "--output_dir", tmp_path, "--wandb"]
    printed = run(folder, "train_tinystories_model", *flags, environment={"WANDB_MODE": "offline"})
    assert "Traceback" not in printed.stderr
    (kept,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert all(tag in kept.read_bytes() for tag in (b"Loss/val", b"Loss/train", b"LearningRate"))
