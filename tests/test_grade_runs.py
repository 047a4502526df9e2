"""Grading: honest, broken and edited submissions all get true findings."""

import contextlib
import csv
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
import zipfile
from argparse import Namespace
from pathlib import Path

import grade_runs
import pytest
import torch
from graded import grade
from grading import rubric
from grading.copies import pairs
from grading.edited_records import log_and_metrics, summary_and_metrics
from grading.facts import samples
from grading.findings import problem, question
from grading.impossible_numbers import too_fast, within_rows
from grading.logs import Log, read_log
from grading.submissions import Submission
from pages.report import Entry
from programs import ROOT, TINY, command, main, run, write_data

import train_tinystories_chat_model as step4
import train_tinystories_model as step2
from common.errors import UserError
from common.numbers import perplexity

GOLDEN = ROOT / "tests/golden"
DATA = ["--cache_dir", "cache", "--eval_steps", "4"]
STORIES = ["--dataset", "stories", *TINY, *DATA]
TALKS = ["--dataset", "talks", *DATA, "--epochs", "1", "--batch_size", "8", "--logging_steps", "2"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a folder with real runs: 1 to 6 with different seeds, twin (like 1), chat, pilot, killed, stopped."""
    folder = tmp_path_factory.mktemp("made")
    write_data(folder)
    run(folder, "train_bpe_tokenizer_hf", "--dataset", "stories", "--vocab_size", 400)
    with contextlib.chdir(folder):
        for seed in range(1, 7):
            main(step2, *STORIES, "--seed", seed, "--output_dir", str(seed))
        main(step2, *STORIES, "--seed", 1, "--output_dir", "twin")
        main(step2, *STORIES, "--seed", 7, "--output_dir", "pilot", "--pilot_run")
        main(step4, *TALKS, "--pretrained_model_path", "1/best_model.pth", "--output_dir", "chat")
    for name, seed in (("killed", 8), ("stopped", 9)):
        flags = [*STORIES, "--seed", seed, "--output_dir", name, "--save_steps", 2, "--epochs", 30]
        process = subprocess.Popen(command("train_tinystories_model", *flags), cwd=folder, stdout=subprocess.PIPE)
        with process:
            while b" step 20/" not in process.stdout.readline():
                assert process.poll() is None
            process.kill() if name == "killed" else process.terminate()  # the same on Windows
            process.stdout.read()
    again = ["--epochs", 30, "--resume_from_checkpoint", "latest"]
    for log, flags in (("killed.log", ["--seed", 8, "--output_dir", "killed", *again]), ("alone.log", ["--seed", 10])):
        words = command("train_tinystories_model", *STORIES, *flags)
        with open(folder / log, "wb") as out:
            subprocess.run(words, cwd=folder, stdout=out, stderr=subprocess.STDOUT, check=True, timeout=120)
    return folder


def edit(path, change):
    """Replace the text of a file by change(text)."""
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")


def edit_rows(folder, change):
    """Let change(row) edit the rows of a metrics.jsonl."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    for row in rows:
        change(row)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def edit_json(path, **changes):
    edit(path, lambda text: json.dumps(json.loads(text) | changes))


def edit_model(path, **changes):
    torch.save(torch.load(path, weights_only=True) | changes, path)


def evaluations(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if row["event"] == "eval"]


def lower_everywhere(folder):
    """Lower the loss of the last evaluation in all text files."""
    last = evaluations(folder)[-1]
    loss, lower = last["val_loss"], last["val_loss"] - 1
    share = lower / loss
    values = {"val_loss": lower, "perplexity": 2.718281828459045**lower, "bits_per_byte": last["bits_per_byte"] * share}

    def change(row):
        if row["event"] == "eval" and row["step"] == last["step"]:
            row.update(values)

    edit_rows(folder, change)
    edit_json(folder / "summary.json", **{f"{kind}_{n}": v for kind in ("best", "final") for n, v in values.items()})
    edit(folder / "train.log", lambda log: log.replace(
        f"{loss:.4f} perplexity {last['perplexity']:.2f} bits_per_byte {last['bits_per_byte']:.4f}",
        f"{lower:.4f} perplexity {values['perplexity']:.2f} bits_per_byte {values['bits_per_byte']:.4f}",
    ))  # fmt: skip


# A class --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def graded(made, tmp_path_factory):
    """Return (folder, findings) of the submissions of a class; each is named after what was done to it."""
    folder = tmp_path_factory.mktemp("class")
    copy = lambda name, to: Path(shutil.copytree(made / name, folder / to))
    copy("1", "good")
    copy("killed", "killed_and_resumed")
    copy("stopped", "unfinished")
    copy("twin", "same_seed")
    lower_everywhere(copy("2", "lowered_in_all_texts"))
    last = evaluations(made / "3")[-1]
    edit(copy("3", "lowered_in_the_log") / "train.log", lambda log: log.replace(f"{last['val_loss']:.4f}", "1.2345"))
    edit_json(copy("4", "lowered_in_the_summary") / "summary.json", best_val_loss=1.2345)
    edit_model(copy("5", "lowered_in_the_model") / "best_model.pth", val_loss=1.2345)
    edit_json(copy("pilot", "pilot_as_full") / "args.json", pilot_run=False)
    copy("6", "copied_from")
    copied = copy("6", "copy")
    for path in copied.iterdir():
        if path.suffix in (".json", ".jsonl", ".log"):
            edit(path, lambda text: text.replace(json.loads((made / "6/summary.json").read_text())["run_id"], "0" * 32))
    shutil.copy(made / "alone.log", folder / "log_only.log")
    shutil.make_archive(str(folder / "chat"), "gztar", made, "chat")
    shutil.make_archive(str(folder / "broken"), "zip", made / "2")
    (folder / "broken.zip").write_bytes((folder / "broken.zip").read_bytes()[:5000])
    with zipfile.ZipFile(folder / "climbing.zip", "w") as archive:
        archive.write(made / "alone.log", "../../climbed.log")
        archive.writestr("train.log", "nothing\n")
    return folder, grade(folder)


@pytest.mark.parametrize("name", ["good", "killed_and_resumed", "chat"])
def test_an_honest_run_has_no_problem(made, graded, name):
    facts, problems, questions = graded[1][name]
    assert not problems and facts["state"] == "finished"
    assert questions == [] or name == "good"
    assert facts["steps"] and facts["tokens"] and facts["validation loss"] and facts["perplexity"]
    assert facts["bits per byte"] and facts["hours"] is not None and facts["sample"]
    assert facts["vocabulary"] == torch.load(made / "1/best_model.pth", weights_only=True)["config"]["vocab_size"]
    assert facts["device"].startswith("cpu")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("unfinished", "not finished: the records end at step "),
        ("unfinished", "(they do not say why)" if os.name == "nt" else "(SIGTERM)"),
        ("unfinished", "summary.json and final_model.pth were not handed in"),
        ("lowered_in_all_texts", " in TensorBoard's file but "),
        ("lowered_in_all_texts", "the validation loss at step "),
        ("lowered_in_all_texts", "best_model.pth records the validation loss"),
        ("lowered_in_the_log", " is 1.2345 in train.log but "),
        ("lowered_in_the_summary", "summary.json: best_val_loss is 1.2345, but metrics.jsonl gives "),
        ("lowered_in_the_model", "best_model.pth records the validation loss 1.2345 at step "),
        ("pilot_as_full", "a pilot run, not a full run, according to the log"),
        ("pilot_as_full", "--pilot_run is False in args.json but True in the command in the log"),
        ("copy", "the same timestamps as copied_from: these are copies of one run"),
        ("copied_from", "the same timestamps as copy: these are copies of one run"),
        ("log_only", "only a console log was handed in"),
        ("broken", "broken.zip: damaged"),
        ("climbing", "its path leads out of the archive"),
    ],
)
def test_each_fault_of_a_submission_is_found(graded, name, said):
    problems = graded[1][name][1]
    assert any(said in problem for problem in problems), problems


def test_equal_curves_are_a_question_and_nothing_more(graded):
    for one, other in (("good", "same_seed"), ("same_seed", "good")):
        _, problems, questions = graded[1][one]
        assert not problems and len(questions) == 1
        assert questions[0].startswith(f"the same validation curve and the same weights as {other}: the same seed")


@pytest.mark.parametrize("name", ["lowered_in_the_log", "lowered_in_the_summary", "lowered_in_the_model"])
def test_one_edit_does_not_cause_many_findings(graded, name):
    assert 1 <= len(graded[1][name][1]) <= 3


def test_nothing_is_unpacked_next_to_the_submissions(graded):
    folder, _ = graded
    assert not list(folder.parent.glob("*climbed*")) and not list(folder.parent.parent.glob("*climbed*"))


def test_a_console_log_alone_has_the_same_facts_as_the_output_folder(made, graded, tmp_path):
    shutil.copytree(made / "tinystories_model", tmp_path / "whole")
    ((whole, _, _),), (log, _, _) = grade(tmp_path).values(), graded[1]["log_only"]
    for name in ("state", "steps", "tokens", "validation loss", "perplexity", "bits per byte", "device", "model"):
        assert log[name] == whole[name] is not None, name


def test_differences_from_the_default_flags_are_named(graded):
    differs = graded[1]["good"][0]["differs from the default flags"]
    assert "--num_layers 1" in differs and "--dataset stories" in differs
    assert "--output_dir" not in differs and "--lr" not in differs
    assert graded[1]["pilot_as_full"][0]["model"] == "story" and graded[1]["chat"][0]["model"] == "chat"


def test_a_pilot_run_is_told_from_a_full_run(made, graded, tmp_path):
    is_pilot = {name: facts["pilot run"] for name, (facts, _, _) in graded[1].items()}
    assert is_pilot["good"] is is_pilot["chat"] is is_pilot["log_only"] is False
    assert is_pilot["pilot_as_full"] is True and is_pilot["climbing"] is None
    (tmp_path / "class/one").mkdir(parents=True)
    shutil.copy(made / "pilot/args.json", tmp_path / "class/one")
    assert grade(tmp_path / "class")["one"][0]["pilot run"] is True


def test_a_sample_that_was_written_twice_is_shown_once():
    row = lambda step, text: {"event": "sample", "step": step, "text": text}
    run = Submission(rows=[row(4, "A cat."), row(8, "A cat."), row(8, "A dog."), row(8, "A dog.")])
    assert samples(run) == [(4, "A cat."), (8, "A cat."), (8, "A dog.")]


# One edit at a time ---------------------------------------------------------------------------------------------------


def set_rows(event, **values):
    """Return an edit of metrics.jsonl: set these values in every row of an event."""
    return lambda folder: edit_rows(folder, lambda row: row.update(values) if row["event"] == event else None)


def lower_the_summary_a_little(folder):
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    edit_json(folder / "summary.json", final_val_loss=summary["final_val_loss"] - 5e-5)


def backwards(name):
    """Return an edit of metrics.jsonl: a field of the last evaluation goes back to 0."""

    def change(folder):
        last = evaluations(folder)[-1]["step"]
        edit_rows(folder, lambda row: row.update({name: 0}) if row["event"] == "eval" and row["step"] == last else None)

    return change


def fast_gpu(folder):
    set_rows("run", hardware={"device": "cuda:0 (Tesla T4, 15 GiB)", "processes": 1})(folder)
    set_rows("train", tokens_per_second=1e12)(folder)


def drop(line_with, file):
    return lambda folder: edit(folder / file, lambda text: "".join(
        line for line in text.splitlines(keepends=True) if line_with not in line
    ))  # fmt: skip


def times_back(folder):
    lines = (folder / "train.log").read_text(encoding="utf-8").splitlines(keepends=True)
    last = max(place for place, line in enumerate(lines) if " train_loss " in line)
    lines[last] = "2001" + lines[last][4:]
    (folder / "train.log").write_text("".join(lines), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (set_rows("train", lr=0.5), "the learning rate at step "),
        (set_rows("train", tokens_per_second=12345.6), "the number of tokens per second at step "),
        (set_rows("eval", perplexity=3.0), "is not e^loss"),
        (set_rows("eval", bits_per_byte=0.5), "the ratio of bits per byte to validation loss must be constant"),
        (set_rows("run", run_id="0" * 32), "train.log and metrics.jsonl have different run ids"),
        (set_rows("run", run_id="0" * 32), "summary.json and metrics.jsonl have different run ids"),
        (set_rows("run", run_id="0" * 32), "best_model.pth and metrics.jsonl have different run ids"),
        (set_rows("run", fingerprints={"tokenizer": "0" * 64}), "a different tokenizer from the one in metrics.jsonl"),
        (backwards("step"), "metrics.jsonl: the step field goes back"),
        (backwards("tokens"), "metrics.jsonl: the tokens field goes back"),
        (backwards("seconds"), "metrics.jsonl: the seconds field goes back"),
        (times_back, "the log: the time field goes back"),
        (fast_gpu, "is too fast: with this model, 1 x T4 can reach at most "),
        (drop('"event": "eval"', "metrics.jsonl"), "metrics.jsonl is missing the validation loss of step 4"),
        (drop("val_loss", "train.log"), "train.log is missing the validation loss of step 4"),
        (drop('"event": "end"', "metrics.jsonl"), "metrics.jsonl shows an unfinished run"),
        (drop('"event": "run"', "metrics.jsonl"), "metrics.jsonl is missing its first row"),
        (drop("$ python", "train.log"), "train.log does not contain the command"),
        (lambda f: (f / "metrics.jsonl").write_bytes(b""), "metrics.jsonl is missing its first row"),
        (lambda f: next(f.glob("events*")).write_bytes(b""),
         "TensorBoard's file is missing the validation loss of step 4"),
        (set_rows("end", ended="stopped early"), "not finished: the records end at step 10"),
        (lambda f: edit(f / "train.log", lambda log: log.replace("10 steps of", "19 steps of")), "at step 10 of 19"),
        (lambda f: edit(f / "train.log", lambda log: re.sub(r"(best: step \d+ loss) \S+", r"\1 1.2643", log)),
         "according to the end of the log, the best model has the validation loss 1.2643"),
        (lower_the_summary_a_little, "summary.json: final_val_loss is "),
        (lambda f: edit_json(f / "summary.json", tokens=10**9), "summary.json: tokens is 1e+09, but metrics.jsonl "),
        (lambda f: edit_json(f / "summary.json", seconds=36000), "summary.json: seconds is "),
        (lambda f: edit_json(f / "args.json", num_layers=12), "--num_layers is 12 in args.json but 1 in "),
        (lambda f: edit_json(f / "args.json", epochs=9), "--epochs is 9 in args.json but 2 in the command in the log"),
        (lambda f: edit_json(f / "args.json", dataset=["roneneldan/TinyStories"]),
         "--dataset is roneneldan/TinyStories in args.json but stories in metrics.jsonl"),
        (set_rows("run", hardware={"device": "cuda:0 (Tesla T4, 15 GiB)", "processes": 1}),
         "the device is cuda:0 (Tesla T4, 15 GiB) in metrics.jsonl but cpu"),
        (lambda f: edit_model(f / "final_model.pth", step=3), "final_model.pth records"),
        (lambda f: (f / "best_model.pth").write_bytes(b"no"),
         "best_model.pth is damaged, or not a weights file of this course"),
        (lambda f: next(f.glob("events*")).unlink(), "TensorBoard's event file was not handed in"),
        (lambda f: (f / "metrics.jsonl").write_text("[]\n"), "metrics.jsonl: 1 row cannot be used"),
        (lambda f: (f / "summary.json").write_text("{"), "summary.json cannot be used"),
        (lambda f: (f / "args.json").write_text("[1]"), "args.json cannot be used"),
    ],
)  # fmt: skip
def test_an_edit_is_found(made, tmp_path, change, said):
    folder = Path(shutil.copytree(made / "1", tmp_path / "class/one"))
    change(folder)
    ((_, problems, questions),) = grade(tmp_path / "class").values()
    assert any(said in flag for flag in problems + questions), problems


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["metrics.jsonl"], "metrics.jsonl was not handed in; the numbers come from train.log"),
        (["args.json"], "args.json was not handed in; the flags come from the command in train.log"),
        (["train.log"], "train.log was not handed in"),
        (["args.json", "train.log", "metrics.jsonl"], "args.json, train.log and metrics.jsonl were not handed in"),
        (["summary.json", "best_model.pth"], "summary.json and best_model.pth were not handed in"),
    ],
)
def test_missing_files_are_named_with_what_is_used_instead(made, tmp_path, names, said):
    folder = Path(shutil.copytree(made / "1", tmp_path / "class/one"))
    for name in names:
        (folder / name).unlink()
    ((facts, problems, _),) = grade(tmp_path / "class").values()
    assert problems == [said]
    if len(names) < 3:
        assert facts["validation loss"] and "--num_layers 1" in facts["differs from the default flags"]


def stdout_alone(folder):
    """Leave only the stdout in a console log, of a run that was resumed."""
    log = (folder / "out.log").read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in log if line.startswith("20")]
    (folder / "out.log").write_text("".join(kept[:4] + kept), encoding="utf-8")


def refused_pilot_before(folder):
    text = "$ python train_tinystories_model.py --pilot_run\npilot run: with --lr 1\nerror: no file there.pkl\n"
    edit(folder / "out.log", lambda log: text + log)


def typed_on_windows(folder):
    """Type the names of the dataset and the output folder with backslashes."""
    edit(folder / "train.log", lambda log: log.replace("--dataset stories", r"--dataset sample_data\stories"))
    edit(folder / "train.log", lambda log: log.replace("--output_dir 1", r"--output_dir runs\one"))
    edit_json(folder / "args.json", dataset=[r"sample_data\stories"], output_dir=r"runs\one")
    set_rows("run", dataset=[r"sample_data\stories"])(folder)


def typed_in_quotes(folder):
    """Type the dataset as a Windows folder that ends with a backslash, in quotes."""
    edit(folder / "train.log", lambda log: log.replace("--dataset stories", '--dataset "my data\\\\"'))
    edit_json(folder / "args.json", dataset=["my data\\"])
    set_rows("run", dataset=["my data\\"])(folder)


def records_of(board):
    """Yield the records of an event file: a length in 8 bytes, its checksum in 4, the event, its checksum."""
    while board:
        size = 16 + int.from_bytes(board[:8], "little")
        yield board[:size]
        board = board[size:]


def killed_at_an_evaluation(*files):
    """Return an edit of an unfinished run: its last evaluation is in the log, but not in these files."""

    def change(folder):
        last = evaluations(folder)[-1]["step"]
        log = (folder / "train.log").read_text(encoding="utf-8").splitlines(keepends=True)
        place = max(number for number, line in enumerate(log) if f" step {last}/" in line and "val_loss" in line)
        (folder / "train.log").write_text("".join(log[: place + 1]), encoding="utf-8")
        rows = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        place = max(number for number, row in enumerate(rows) if f'"eval", "step": {last},' in row)
        train = json.dumps(json.loads(rows[place]) | {"event": "checkpoint"}) + "\n"
        kept = rows[:place] + [train] + ([] if "metrics.jsonl" in files else [rows[place]])
        (folder / "metrics.jsonl").write_text("".join(kept), encoding="utf-8")
        path = next(folder.glob("events*"))
        events = list(records_of(path.read_bytes()))
        place = max(number for number, event in enumerate(events) if b"Loss/val" in event)
        path.write_bytes(b"".join(events[:place]))

    return change


@pytest.mark.parametrize(
    ("name", "change", "left"),
    [
        ("1", lambda f: edit_json(f / "args.json", weight_decay=0.3), []),  # the student's copy has another default
        ("stopped", killed_at_an_evaluation("metrics.jsonl", "events"), ["not finished", "were not handed in"]),
        ("stopped", killed_at_an_evaluation("events"), ["not finished", "were not handed in"]),
        ("killed", lambda f: edit(f / "train.log", lambda log: log.replace("\n2026-", "\n2025-", 3)), []),
        ("1", typed_on_windows, []),
        ("1", typed_in_quotes, []),
        ("alone", refused_pilot_before, ["only a console log"]),
        ("alone", stdout_alone, ["only a console log"]),
    ],
)
def test_an_honest_run_is_not_accused(made, tmp_path, name, change, left):
    folder = tmp_path / "class/one"
    if name == "alone":
        folder.mkdir(parents=True)
        shutil.copy(made / "alone.log", folder / "out.log")
    else:
        shutil.copytree(made / name, folder)
    change(folder)
    ((_, problems, _),) = grade(tmp_path / "class").values()
    assert all(any(start in problem for start in left) for problem in problems), problems


def test_copies_need_two_persons_and_more_than_the_same_second():
    nothing = {"validation curve": set(), "weights": set(), "speeds": set()}
    moment = lambda loss: {("the log's", step, "12:00:00", loss) for step in range(9)}
    traces = lambda person, run_id, moments=(): nothing | {
        "person": {person}, "run id": {run_id * 32}, "timestamps": set(moments),
    }  # fmt: skip
    named = {
        "anna/one": traces("anna", "1"), "anna/two": traces("anna", "1"), "bert": traces("bert", "2", moment(1.5)),
        "carl": traces("carl", "3", moment(1.6)), "dora": traces("dora", "4", moment(1.6)),
    }  # fmt: skip
    flags = pairs(named)
    assert flags.keys() == {"carl", "dora"} and "the same timestamps as dora" in flags["carl"][0].text


def test_a_run_that_diverged_is_not_accused():
    scores = {"val_loss": 800.0, "perplexity": perplexity(800), "bits_per_byte": 300.0, "accuracy": 0.0}
    end = {"step": 9, "tokens": 9, "seconds": 1.0}
    rows = [{"event": "eval"} | end | scores, {"event": "end", "ended": "finished"} | end]
    summary = end | {f"{kind}_{name}": value for kind in ("best", "final") for name, value in scores.items()}
    line = f"2026-11-21 10:00:09 step 9/9 epoch 1.00 val_loss 800.0000 perplexity {scores['perplexity']:.2f}"
    line += " bits_per_byte 300.0000 accuracy 0.0000 tokens/s 9"
    problems = []
    log = read_log(line, "train.log", problems)
    diverged = Submission(rows=rows, summary=summary, log=log, log_name="the log")
    assert [*problems, *summary_and_metrics(diverged), *log_and_metrics(diverged)] == []


def console(folder, change):
    """Hand in only the log of the finished run, after a change."""
    folder.mkdir(parents=True)
    log = (GOLDEN / "story/train.log").read_text(encoding="utf-8")
    (folder / "anna.log").write_text(change(log), encoding="utf-8")
    ((facts, problems, questions),) = grade(folder).values()
    return facts, [problem for problem in problems if "only a console log" not in problem], questions


def test_a_console_log_is_not_finished_by_its_last_lines_alone(tmp_path):
    facts, problems, _ = console(tmp_path / "whole", lambda log: log)
    assert facts["state"] == "finished" and not problems
    without_end = lambda log: re.sub(r"^.* step (1[4-9]|2\d)/22 .*\n", "", log, flags=re.MULTILINE)
    facts, problems, _ = console(tmp_path / "cut", without_end)
    assert facts["state"] == "stopped at 12 of 22"
    assert problems == ["not finished: the records end at step 12 of 22, although they say that it is finished"]


def test_a_console_log_of_a_run_that_stopped_early_is_finished(tmp_path):
    (tmp_path / "anna.log").write_text((GOLDEN / "early/train.log").read_text(encoding="utf-8"), encoding="utf-8")
    ((facts, problems, _),) = grade(tmp_path).values()
    assert facts["state"] == "finished" and len(problems) == 1 and "only a console log" in problems[0]


def test_rounded_numbers_of_a_log_are_not_accused():
    numbers = random.Random(1)
    for _ in range(2000):
        loss = numbers.uniform(0.05, 10)
        row = {"event": "eval", "step": 1, "val_loss": round(loss, 4), "perplexity": round(math.exp(loss), 2)}
        row["bits_per_byte"] = round(0.4 * loss, 4)
        assert not [*within_rows(Submission(log=Log(rows=[row, row | {"step": 2}]), log_name="the log"))]


def test_losses_that_are_edited_in_a_log_do_not_fit_its_other_numbers(tmp_path):
    _, problems, _ = console(tmp_path / "one", lambda log: log.replace("val_loss 5.4841", "val_loss 5.2841"))
    assert any("is not e^loss" in problem for problem in problems)
    lower = lambda log: log.replace("bits_per_byte 3.9382", "bits_per_byte 3.6382")
    _, problems, _ = console(tmp_path / "two", lower)
    assert any("ratio of bits per byte" in problem for problem in problems)


def test_a_copied_log_with_another_date_and_run_id_has_the_same_speeds(tmp_path):
    log = (GOLDEN / "story/train.log").read_text(encoding="utf-8")
    run_id = re.search(r"run ([0-9a-f]{32})", log)[1]
    (tmp_path / "anna.log").write_text(log, encoding="utf-8")
    copy = log.replace("2026-11-28", "2026-11-29").replace(run_id, run_id[::-1])
    (tmp_path / "ben.log").write_text(copy, encoding="utf-8")
    for _, problems, _ in grade(tmp_path).values():
        assert any(problem.startswith("the same speeds as") for problem in problems)


def test_a_resumed_run_may_have_had_a_faster_gpu():
    row = {"event": "train", "step": 1, "tokens_per_second": 4e6}
    hardware = {"device": "cuda:0 (Tesla T4, 15 GiB)", "processes": 1}
    run = Submission(rows=[row], first_row={"hardware": hardware, "parameters_in_layers": 4_200_000})
    assert [flag.kind for flag in too_fast(run)] == ["problem"]
    run.rows.append({"event": "resume", "step": 1})
    assert [flag.kind for flag in too_fast(run)] == ["question"]
    run.log.devices = ["cuda:0 (Tesla T4, 15 GiB)", "cuda:0 (NVIDIA H100 80GB HBM3, 80 GiB)"]
    assert not [*too_fast(run)]


def test_a_clock_that_contradicts_the_records_is_found(made, tmp_path):
    folder = Path(shutil.copytree(made / "1", tmp_path / "class/one"))
    edit_rows(folder, lambda row: row.update(seconds=row["seconds"] * 1000))
    edit_json(folder / "summary.json", seconds=json.loads((folder / "summary.json").read_text())["seconds"] * 1000)
    ((_, problems, _),) = grade(tmp_path / "class").values()
    assert len(problems) == 1 and " s pass in the log, but " in problems[0]


def test_a_console_log_of_a_killed_and_resumed_run_agrees_with_its_metrics(made, tmp_path):
    """The steps after the last checkpoint are in it twice: before and after the resume."""
    folder = Path(shutil.copytree(made / "killed", tmp_path / "class/one"))
    (folder / "train.log").unlink()
    log = (made / "killed.log").read_text(encoding="utf-8")
    first = [line for line in log.splitlines() if " step " in line][0]
    (folder / "out.log").write_text("\n".join([first.replace("train_loss ", "train_loss 9"), log]), encoding="utf-8")
    ((facts, problems, _),) = grade(tmp_path / "class").values()
    assert problems == ["train.log was not handed in; the console log is used instead"] and facts["state"] == "finished"


# Verifying ------------------------------------------------------------------------------------------------------------


def test_a_claimed_loss_is_recomputed(made, tmp_path):
    flags = ["--verify", "--dataset", made / "stories", "--chat_dataset", made / "talks", "--cache_dir", tmp_path / "c"]
    (tmp_path / "class/own").mkdir(parents=True)
    shutil.copy(made / "bpe_tokenizer_tinystories.pkl", tmp_path / "class/own")
    for name, to in (("1", "honest"), ("chat", "chat"), ("2", "liar"), ("3", "own/model")):
        shutil.copytree(made / name, tmp_path / "class" / to)
    state = torch.load(tmp_path / "class/liar/best_model.pth", weights_only=True)["model"]
    edit_model(tmp_path / "class/liar/best_model.pth", model={name: 0.9 * tensor for name, tensor in state.items()})
    assert grade(tmp_path / "class", *flags)["own"][1:] == ([], [])
    said = grade(tmp_path / "class", *flags, "--tokenizer_path", made / "bpe_tokenizer_tinystories.pkl")
    assert said["honest"][1:] == said["chat"][1:] == ([], [])
    assert len(said["liar"][1]) == 1 and "the recomputed validation loss is " in said["liar"][1][0]


@pytest.mark.parametrize("data", [[], [[1, 2, 3]], [1, 2], [[1, 2, 3], []]])
def test_invalid_fingerprints_of_the_texts_are_a_question(made, tmp_path, data):
    folder = Path(shutil.copytree(made / "1", tmp_path / "class/one"))
    set_rows("run", fingerprints={"data": data})(folder)
    flags = ["--verify", "--dataset", made / "stories", "--cache_dir", tmp_path / "cache"]
    flags += ["--tokenizer_path", made / "bpe_tokenizer_tinystories.pkl"]
    ((_, problems, questions),) = grade(tmp_path / "class", *flags).values()
    assert not problems and len(questions) == 1 and "was evaluated on unknown texts" in questions[0]


def test_a_loss_that_cannot_be_recomputed_is_a_question(made, tmp_path):
    shutil.copytree(made / "1", tmp_path / "class/one")
    shutil.copytree(made / "stories", tmp_path / "stories")
    edit(tmp_path / "stories/validation.jsonl", lambda text: text + text)
    flags = ["--verify", "--dataset", tmp_path / "stories", "--cache_dir", tmp_path / "cache"]
    for tokenizer, said in (
        (made / "bpe_tokenizer_tinystories.pkl", "was evaluated on 10 texts"),
        ("none.pkl", "none.pkl"),
    ):
        ((_, problems, (question,)),) = grade(tmp_path / "class", *flags, "--tokenizer_path", tokenizer).values()
        assert not problems and "could not be recomputed" in question and said in question


def test_a_bad_row_of_the_texts_is_named_without_a_flag_that_does_not_exist_here(made, tmp_path):
    shutil.copytree(made / "1", tmp_path / "class/one")
    shutil.copytree(made / "stories", tmp_path / "stories")
    edit(tmp_path / "stories/validation.jsonl", lambda text: text + "{")
    flags = ["--verify", "--dataset", tmp_path / "stories", "--cache_dir", tmp_path / "cache"]
    flags += ["--tokenizer_path", made / "bpe_tokenizer_tinystories.pkl"]
    ((_, problems, (question,)),) = grade(tmp_path / "class", *flags).values()
    assert not problems and "line 11: not JSON" in question and "skip_bad_rows" not in question


# Points, files and the command ----------------------------------------------------------------------------------------


def example_rubric(folder):
    """Write the example from docs/grading.md to a file, and return its path."""
    text = (ROOT / "docs/grading.md").read_text(encoding="utf-8")
    path = folder / "rubric.toml"
    path.write_text(text.split("```toml\n")[1].split("```")[0], encoding="utf-8")
    return path


def test_the_example_rubric_gives_points(graded, tmp_path):
    criteria = rubric.read_rubric(example_rubric(tmp_path))
    assert sum(one.points for one in criteria) == 100
    facts = graded[1]["good"][0] | {"who": "good", "finished": True, "problems": 0, "questions": 0}
    total = lambda facts: sum(one.points_for(facts)[1] for one in criteria)
    assert total(facts | {"bits per byte": 0.5}) == 100
    assert total(facts | {"finished": False, "bits per byte": None, "problems": 3}) < 50
    pilot, high = {"bits per byte": 0.1, "pilot run": True}, {"bits per byte": 3.0}
    assert total(facts | pilot) == total(facts | high) == 70


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[criterion", "is not TOML"),
        ("points = 3", "has no [[criterion]]"),
        ("[[criterion]]\nfact = 'steps'\npoints = 3", "give exactly one of below, above, is"),
        ("[[criterion]]\nfact = 'steps'\npoints = 3\nabove = 1\nbelow = 2", "give exactly one of below, above, is"),
        ("[[criterion]]\nfact = 'steps'\npoints = 'many'\nabove = 1", "points must be a number"),
        ("[[criterion]]\nfact = 'steps'\npoints = 3\nabove = 'x'", "above must be a number"),
        ("[[criterion]]\nfact = 'steps'\npoints = 3\nover = 3", "unknown field over; use what, "),
        ("[[criterion]]\nfact = 'steps'\npoints = 3\nabove = 1\nunless = true", "unless must be the name of a column"),
    ],
)
def test_an_invalid_rubric_is_refused_in_one_line(tmp_path, text, said):
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(UserError) as refusal:
        rubric.read_rubric(tmp_path / "r.toml")
    assert said in str(refusal.value) and "r.toml" in str(refusal.value) and "\n" not in str(refusal.value)


def test_an_unknown_fact_in_a_rubric_is_refused_and_the_known_ones_are_named():
    with pytest.raises(UserError, match="unknown fact, beauty; use one of who, steps"):
        rubric.Criterion("x", "beauty", "above", 1, 5).points_for({"who": "a", "steps": 3})
    with pytest.raises(UserError, match="unknown fact, beauty; use one of who, steps"):
        rubric.Criterion("x", "steps", "above", 1, 5, "beauty").points_for({"who": "a", "steps": 3})


def test_the_command_prints_a_table_and_writes_its_files(graded, tmp_path):
    folder, said = graded
    flags = ["--csv", tmp_path / "g.csv", "--report", tmp_path / "r.html", "--rubric", example_rubric(tmp_path)]
    words = [sys.executable, ROOT / "tools/grade_runs.py", folder, "--processes", 2, *flags]
    done = subprocess.run(list(map(str, words)), capture_output=True, encoding="utf-8", timeout=120)
    assert done.returncode == 0, done.stderr
    head, *lines = done.stdout.splitlines()[: len(said) + 1]
    assert head.split()[:3] == ["who", "model", "state"] and [line.split()[0] for line in lines] == sorted(said)
    with open(tmp_path / "g.csv", encoding="utf-8-sig", newline="") as file:
        rows = {row["who"]: row for row in csv.DictReader(file)}
    assert rows.keys() == said.keys()
    assert (
        rows["good"]["problems"] == "0" and float(rows["good"]["validation loss"]) == said["good"][0]["validation loss"]
    )
    assert rows["good"]["differs from the handout"] == f"'{said['good'][0]['differs from the default flags']}"
    assert rows["copy"]["problem texts"] and float(rows["good"]["points"]) > float(rows["broken"]["points"])
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert all(name in page for name in said) and "these are copies of one run" in page
    assert f"<title>Grading of the folder {folder.name}</title>" in page


def test_findings_are_printed_completely_and_samples_truncated(capsys):
    words = " ".join(map(str, range(500)))
    facts = {"differs from the default flags": words, "sample": words}
    entry = Entry("anna", facts, [problem(words), question(words)])
    grade_runs.print_details(entry)
    assert capsys.readouterr().out.count(" 499") == 2


def test_points_are_printed_with_the_possible_points(capsys):
    points = [("ran to its end", 40, 40), ("no problem found", 0, 12.5)]
    entry = Entry("anna", {"differs from the default flags": None, "sample": None}, points=points)
    grade_runs.print_details(entry)
    lines = ["  points: 40 of 52.5", "  40 of 40: ran to its end", "  0 of 12.5: no problem found"]
    assert capsys.readouterr().out.splitlines() == ["", "anna", *lines]
    grade_runs.print_table([entry])
    assert capsys.readouterr().out.splitlines()[1].endswith("  40 of 52.5")


def test_a_cell_is_never_a_formula():
    assert grade_runs.harmless("=1+1") == "'=1+1" and grade_runs.harmless(-1.5) == -1.5


def test_the_instructor_s_own_files_are_not_submissions(tmp_path):
    (tmp_path / "anna").mkdir()
    for name in ("report.html", "grades.csv", "rubric.toml", "bpe_tokenizer_tinystories.pkl", ".DS_Store"):
        (tmp_path / name).touch()
    assert list(grade_runs.find(tmp_path)) == ["anna"]


def test_nonsense_is_refused_in_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    for words, said in (
        ([str(tmp_path / "missing")], "missing"),
        ([str(tmp_path / "empty")], "empty"),
    ):
        with pytest.raises(UserError, match=said):
            grade_runs.find(Namespace(**vars(grade_runs.parse_args(words))).folder)
    for words, said in (
        (["x", "--verify"], "--verify needs the texts"),
        (["x", "--dataset", "stories"], "--dataset is for --verify"),
        (["x", "--processes", "0"], "--processes"),
        (["x", "--csv", str(tmp_path / "none/g.csv")], "there is no folder"),
        (["x", "--report", str(tmp_path)], "must end in .html"),
        (["x", "--csv", "anna/args.json"], "must end in .csv"),
        (["x", "--leaderboard", str(tmp_path)], "no file"),
        (["x", "--rubric", "none.toml"], "no file none.toml"),
    ):
        with pytest.raises(UserError, match=said):
            grade_runs.parse_args(words)
