"""Submissions: output folders are read completely, and anything else that is handed in does no harm."""

import dataclasses
import errno
import io
import json
import math
import os
import pickle
import shutil
import tarfile
import zipfile
from datetime import datetime
from pathlib import Path

import pytest
import torch
from grading import run_files, submissions, unpacking
from grading.submissions import find, opened
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_runs import LATEST, make_model, metrics, train_in

from common import weights_files
from common.errors import UserError
from common.weights_files import save_model

GOLDEN = Path(__file__).parent / "golden"
SETTINGS = {"eval_steps": 3, "save_steps": 3}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return the output folder of a resumed run, which has two event files."""
    folder = tmp_path_factory.mktemp("runs") / "tinystories_model"
    train_in(folder, epochs=1, **SETTINGS)
    train_in(folder, flags=LATEST, epochs=2, **SETTINGS)
    return folder


@pytest.fixture
def handed_in(tmp_path):
    folder = tmp_path / "handed_in"
    folder.mkdir()
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def write_zip(path, files, **options):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo(name), content, 8)
    return path


def write_tar(path, files, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def inside(folder, files):
    return {f"{folder}/{name}": content for name, content in files.items()}


def write_text(path, text, **options):
    path.write_text(text, **{"encoding": "utf-8"} | options)
    return path


def read(path):
    """Return the runs of a submission, pickled and unpickled as between processes."""
    with opened(path) as runs:
        return pickle.loads(pickle.dumps(runs))


def read_one(path):
    (run,) = read(path)
    return run


def facts(run):
    """Return the fields of a run that do not depend on where it was read."""
    return {name: value for name, value in vars(run).items() if name not in ("name", "person", "paths")}


def assert_said(problems, *words):
    """Check that there is one problem: a short line with all these words."""
    (problem,) = problems
    assert all(word in problem for word in words), problem
    assert problem.isprintable() and len(problem) < 300


# Whole runs -----------------------------------------------------------------------------------------------------------


def test_everything_in_an_output_folder_is_read(run):
    found = read_one(run)
    assert found.name == found.person == "tinystories_model" and not found.problems
    assert found.args == json.loads((run / "args.json").read_text())
    assert found.summary == json.loads((run / "summary.json").read_text())
    assert found.paths.keys() == {path.name for path in run.iterdir() if not path.name.startswith("checkpoint")}
    assert [row["event"] for row in found.rows] == [row["event"] for row in metrics(run)]
    for row, said in zip(found.rows, metrics(run), strict=True):
        assert row == {name: said[name] for name in row}
        assert row["event"] == "run" or row.keys() == said.keys()
    best, evaluations = found.models["best_model.pth"], [row for row in found.rows if row["event"] == "eval"]
    assert (best.step, best.val_loss) in [(row["step"], row["val_loss"]) for row in evaluations]
    assert best.run_id == found.summary["run_id"] and best.config["vocab_size"] == 24


def test_the_log_agrees_with_the_metrics(run):
    found = read_one(run)
    assert [row["event"] for row in found.log.rows].count("resume") == 1 and found.log.final and not found.log.error
    for event in ("train", "eval"):
        said = [row for row in found.log.rows if row["event"] == event]
        for row, of_metrics in zip(said, [row for row in found.rows if row["event"] == event], strict=True):
            if event == "eval":  # the mean speed so far
                assert row.pop("tokens_per_second") > 0
            assert row.keys() - {"time", "total_steps"} <= of_metrics.keys()
            for name in row.keys() - {"event", "time", "total_steps"}:
                assert math.isclose(row[name], of_metrics[name], rel_tol=0.01, abs_tol=0.01 if "_" in name else 1), name
            assert isinstance(row["time"], datetime) and row["total_steps"] in (6, 12)
    assert found.log.best["step"] == found.summary["best_step"]
    assert math.isclose(found.log.final["val_loss"], found.summary["final_val_loss"], abs_tol=1e-4)
    assert found.log.sample == "a sample" and found.log.tokens == found.summary["tokens"]
    assert found.log.parameters_in_layers == found.rows[0]["parameters_in_layers"] and not found.log.pilot


def in_a_folder(folder, files):
    for name, content in files.items():
        path = folder / "anna" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder / "anna"


def zip_in_a_folder(folder, files):
    (folder / "anna").mkdir()
    return write_zip(folder / "anna" / "run.zip", files).parent


ARCHIVED = {
    "a zip": lambda folder, files: write_zip(folder / "anna.zip", files),
    "a zip with a folder": lambda folder, files: write_zip(folder / "anna.zip", inside("tinystories_model", files)),
    "a zip of Windows": lambda folder, files: write_zip(folder / "anna.zip", {"run\\" + n: files[n] for n in files}),
    "a tar.gz": lambda folder, files: write_tar(folder / "anna.tar.gz", inside("./a/b", files)),
    "a tgz": lambda folder, files: write_tar(folder / "anna.TGZ", files),
    "a tar": lambda folder, files: write_tar(folder / "anna.tar", files, "w:"),
    "a folder": in_a_folder,
    "a folder in folders": lambda folder, files: in_a_folder(folder, inside("a/b/c", files)),
    "a zip in a folder": zip_in_a_folder,
}


@pytest.mark.parametrize("kind", ARCHIVED)
def test_a_run_is_read_the_same_however_it_was_packed(run, handed_in, kind):
    files = contents(run)
    junk = {"__MACOSX/._args.json": b"x", ".DS_Store": b"x"}
    ARCHIVED[kind](handed_in, files | junk)
    ((name, path),) = find(handed_in).items()
    found = read_one(path)
    assert found.name == found.person == name == "anna" and facts(found) == facts(read_one(run))
    assert found.paths.keys() == read_one(run).paths.keys()


def test_unpacked_files_can_be_used_and_are_deleted_afterwards(run, handed_in):
    with opened(write_zip(handed_in / "anna.zip", contents(run))) as (found,):
        path = found.paths["best_model.pth"]
        assert path.read_bytes() == (run / "best_model.pth").read_bytes()
    assert not path.exists() and not path.parent.exists()


def test_a_person_may_hand_in_several_runs(run, handed_in):
    files = contents(run)
    anna = in_a_folder(handed_in, inside("all/tinystories_model", files) | inside("all/chat", files))
    ben = write_zip(handed_in / "ben.zip", inside("x/one", files) | inside("x/two", files))
    assert [(found.name, found.person) for found in read(anna)] == [
        ("anna/chat", "anna"),
        ("anna/tinystories_model", "anna"),
    ]
    assert [found.name for found in read(ben)] == ["ben/one", "ben/two"]


def test_submissions_with_the_same_name_are_kept_apart(handed_in):
    for name in ("anna.zip", "anna.tar.gz", "anna.log", ".DS_Store"):
        (handed_in / name).touch()
    assert len(find(handed_in)) == 3 and all(path.exists() for path in find(handed_in).values())


def test_the_folder_of_a_run_itself_is_one_submission(run):
    assert list(find(run)) == ["tinystories_model"]


@pytest.mark.parametrize("name", [".hidden", "wandb", "model"])
def test_a_run_is_read_whatever_its_folder_is_called(run, handed_in, monkeypatch, name):
    folder = Path(shutil.copytree(run, handed_in / name))
    (folder / "inner").mkdir()
    monkeypatch.chdir(folder / "inner")
    for place in (folder, ".."):
        ((_, path),) = find(place).items()
        assert facts(read_one(path)) == facts(read_one(run))


def test_a_folder_without_submissions_is_an_error(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(UserError, match="submissions"):
            find(path)


# Console logs ---------------------------------------------------------------------------------------------------------

ANNOUNCED = """\
$ python train_tinystories_model.py --epochs 5
pilot run: with --epochs 5; a flag given at the shell wins
device: cuda:0 (Tesla T4, 15 GiB)
model: 1,234,567 parameters, 1,000 of them in the layers; 1 layers x 32
12,345 steps of 8 rows, 5 epochs, float32; run 3fa20123456789abcdef0123456789ab; records in out
\r 12%|███ | 50/12345\r2026-11-21 10:00:00 step 1,200/12,345 epoch 0.22 train_loss 5.1000 \
perplexity 164.02 lr 1.00e-03 grad_norm inf tokens/s 1,006,800 mfu 41% elapsed 30:00:05 left 0:00:10 end Sat 17:55
2026-11-21 10:00:09 step 12345/12345 epoch 1.12 val_loss 3.1 perplexity 22.2 bits_per_byte 1.1 accuracy 0.4 \
[tokens/s 6,700] (the best so far: best_model.pth)
2026-11-21 10:00:10 step 12345/12345 skipped: loss not finite (1 new, 1 in all)
a sample of best_model.pth:
Tom’s cat said “yes”.

It took a step 3/4 down.
2026-11-21 10:00:11 best: step 12345 loss 3.1000 perplexity 22.20 bits_per_byte 1.1000 accuracy 0.4000 -> out/best.pth
2026-11-21 10:00:11 final: step 12345 val_loss 3.2 perplexity 22.20 bits_per_byte 1.1 accuracy 0.4 -> out/final.pth
123,456 tokens in 0:00:22, evaluations included: 37,081 tokens/s, mfu 3%; records in out
"""
ENCODINGS = {
    "UTF-8": lambda text: text.encode(),
    "with a mark": lambda text: text.encode("utf-8-sig"),
    "with CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "PowerShell's": lambda text: text.replace("\n", "\r\n").encode("utf-16"),
    "big-endian": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "a code page": lambda text: text.replace("█", "x").encode("cp1252"),
    "coloured": lambda text: text.replace("device", "\x1b[32mdevice").encode(),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_console_log_can_be_read_in_the_encodings_of_all_shells(handed_in, encoding):
    path = handed_in / "anna.out"
    path.write_bytes(ENCODINGS[encoding](ANNOUNCED))
    found = read_one(path)
    log, (training, evaluation, skipped) = found.log, found.log.rows
    assert found.name == "anna" and not found.problems and not found.rows and log.final and log.pilot
    assert log.command == "python train_tinystories_model.py --epochs 5" and log.devices == [
        "cuda:0 (Tesla T4, 15 GiB)"
    ]
    assert log.run_id == "3fa20123456789abcdef0123456789ab"
    assert (log.parameters_in_layers, log.total_steps, log.tokens) == (1000, 12345, 123456)
    assert (training["step"], training["tokens_per_second"], training["seconds"]) == (1200, 1006800, 108005)
    assert training["grad_norm"] is None and training["time"] == datetime(2026, 11, 21, 10, 0, 0)
    assert (evaluation["event"], evaluation["val_loss"], evaluation["tokens_per_second"]) == ("eval", 3.1, 6700)
    assert skipped["event"] == "skip" and log.best["val_loss"] == 3.1 and log.final["val_loss"] == 3.2
    sample = log.sample.replace("\ufffds", "’s").replace("\ufffdyes\ufffd", "“yes”")  # of the code page
    assert sample == "Tom’s cat said “yes”.\n\nIt took a step 3/4 down."


def test_a_log_is_found_in_folders_and_archives(handed_in):
    names = ("console.log", "notes/readme.txt")
    files = dict(zip(names, (ANNOUNCED.encode(), b"I took one step after the other."), strict=True))
    for path in (in_a_folder(handed_in, files), write_zip(handed_in / "ben.zip", files)):
        found = read_one(path)
        assert len(found.log.rows) == 3 and found.name == path.stem and not found.problems


def test_a_console_log_next_to_a_run_without_a_log_is_used(run, handed_in):
    files = inside("model", contents(run))
    log = files.pop("model/train.log")
    found = read_one(in_a_folder(handed_in, files | {"console.txt": log}))
    assert found.log == read_one(run).log


@pytest.mark.parametrize("resuming", ["resuming from", "going on from"])  # the wording of today and of older logs
def test_a_log_of_two_runs_counts_as_two_and_that_of_a_resumed_run_as_one(handed_in, resuming):
    chat = ANNOUNCED.replace("train_tinystories_model", "train_tinystories_chat_model")
    two = read(write_text(handed_in / "two.log", ANNOUNCED + chat))
    assert [found.name for found in two] == ["two/two-1", "two/two-2"]
    assert "chat" in two[1].log.command and [len(found.log.rows) for found in two] == [3, 3]
    on = ANNOUNCED.replace("device:", f"{resuming} out/checkpoint-1200.pth at step 1,200 of 12,345\ndevice:")
    killed = ANNOUNCED[: ANNOUNCED.index("a sample")] + "error: the disk is full\n"
    found = read_one(write_text(handed_in / "on.log", killed + on))
    assert [row["event"] for row in found.log.rows] == ["train", "eval", "skip", "resume", "train", "eval", "skip"]
    assert found.log.final and not found.log.error


def test_a_log_that_ends_early_says_why(handed_in):
    killed = ANNOUNCED[: ANNOUNCED.index("a sample")]
    stopped = ("stopped after step 3 of 9; checkpoint saved", "stopped after step 3 of 9, with a checkpoint saved")
    for line in ("error: the disk is full", "torch.OutOfMemoryError: CUDA out of memory", "interrupted", *stopped):
        found = read_one(write_text(handed_in / "anna.log", killed + line + "\n"))
        assert found.log.error == line and not found.log.final and found.log.sample is None


def test_a_log_without_steps_counts_as_a_run_unless_the_run_was_refused(handed_in):
    cut = ANNOUNCED[: ANNOUNCED.index("2026-11-21")]
    found = read_one(write_text(handed_in / "anna.log", cut))
    assert not found.problems and found.log.devices and found.log.parameters_in_layers == 1000
    refused = cut[: cut.index("model: ")] + "error: out already holds a run\n"
    assert_said(read_one(write_text(handed_in / "ben.log", refused)).problems, "no run found")


def test_unreadable_lines_of_steps_are_counted(handed_in):
    broken = ANNOUNCED.replace("train_loss 5.1000", "train_loss 5.1.0").replace("val_loss 3.1 ", "val_loss nan ")
    found = read_one(write_text(handed_in / "anna.log", broken))
    assert_said(found.problems, "anna.log", "2 lines")
    assert [row["event"] for row in found.log.rows] == ["skip"]


@pytest.mark.parametrize("width", [60, 72, 80, 90, 91, 104, 120, 122, 160, 200])
def test_a_log_that_a_terminal_has_wrapped_is_read_like_the_log_itself(handed_in, width):
    log = ANNOUNCED.replace("\r 12%|███ | 50/12345\r", "").replace("train_loss 5.1000 \\\n", "train_loss 5.1000 ")
    for number, cut in enumerate((lambda piece: piece, str.rstrip)):  # some terminals drop the space at a line's end
        lines = [cut(line[at : at + width]) for line in log.split("\n") for at in range(0, max(1, len(line)), width)]
        wrapped = read_one(write_text(handed_in / f"wrapped{number}.log", "\n".join(lines)))
        whole = read_one(write_text(handed_in / "whole.log", log))
        assert not wrapped.problems
        for name in ("rows", "best", "final", "tokens", "run_id"):
            assert getattr(wrapped.log, name) == getattr(whole.log, name), name


def test_a_line_that_is_cut_off_at_the_end_does_not_join_others(handed_in):
    log = (GOLDEN / "story/train.log").read_text(encoding="utf-8")
    whole = read_one(write_text(handed_in / "whole.log", log)).log
    cut = read_one(write_text(handed_in / "cut.log", log[: log.rindex(" train_loss") + 20])).log
    assert cut.unreadable == 1 and (cut.command, cut.devices) == (whole.command, whole.devices)
    for width in (80, 100):
        lines = [line[at : at + width] for line in log.split("\n") for at in range(0, max(1, len(line)), width)]
        wrapped = read_one(write_text(handed_in / "wrapped.log", "\n".join(lines))).log
        assert wrapped == whole


def test_a_line_that_is_cut_off_gives_no_number(handed_in):
    cut = ANNOUNCED.replace("bits_per_byte 1.1 accuracy 0.4 [tokens/s 6,700]", "bits_per_byte 1.")
    found = read_one(write_text(handed_in / "anna.log", cut))
    assert_said(found.problems, "1 line about steps", "cut off")
    assert "eval" not in [row["event"] for row in found.log.rows]


def test_a_process_that_the_system_ended_says_so(handed_in):
    killed = ANNOUNCED[: ANNOUNCED.index("a sample")]
    for line in ("Killed", "bash: line 7:  4711 Killed      python train.py"):
        error = read_one(write_text(handed_in / "anna.log", f"{killed}{line}\n")).log.error
        assert error == line[line.index("Killed") :]


def test_the_logs_of_a_run_that_was_resumed_are_one_run(handed_in):
    later = ANNOUNCED.replace("device:", "resuming from out/checkpoint-1200.pth at step 1,200 of 12,345\ndevice:")
    later = later.replace("2026-11-21 10", "2026-11-21 12").replace("Tesla T4", "NVIDIA L4")
    parts = {"b.log": ANNOUNCED[: ANNOUNCED.index("a sample")].encode(), "a.log": later.encode()}
    found = read_one(in_a_folder(handed_in, parts))
    assert [row["event"] for row in found.log.rows] == ["train", "eval", "skip", "resume", "train", "eval", "skip"]
    assert found.log.final and found.log.devices == ["cuda:0 (Tesla T4, 15 GiB)", "cuda:0 (NVIDIA L4, 15 GiB)"]
    twice = in_a_folder(handed_in / "same", {"b.log": ANNOUNCED.encode(), "a.log": ANNOUNCED.encode()})
    assert len(read(twice)) == 2  # two copies of one log are not joined


def test_a_log_in_a_notebook_is_read(handed_in):
    outputs = [{"output_type": "stream", "text": ANNOUNCED.splitlines(keepends=True)}, {"output_type": "display_data"}]
    cells = [{"cell_type": "markdown", "source": "# x"}, {"cell_type": "code", "outputs": outputs}]
    found = read_one(write_text(handed_in / "anna.ipynb", json.dumps({"cells": cells})))
    assert len(found.log.rows) == 3 and found.log.final and not found.problems
    for content in ("{", "[]", '{"cells": [{"outputs": [{"text": [1]}]}]}'):
        assert_said(read_one(write_text(handed_in / "ben.ipynb", content)).problems, "no run found", "ben.ipynb")


def test_runs_of_the_project_itself_are_not_the_student_s(run, handed_in):
    files = inside("course/tests/golden/story", contents(run)) | inside("course/mine", contents(run))
    for path in (in_a_folder(handed_in, files), write_zip(handed_in / "ben.zip", files)):
        assert read_one(path).name == path.stem


def test_ignored_files_do_not_count(run, handed_in, monkeypatch):
    monkeypatch.setattr(unpacking, "MOST_FILES", 30)
    files = {f".venv/{number}.py": b"" for number in range(60)} | contents(run)
    for path in (write_zip(handed_in / "a.zip", files), write_tar(handed_in / "b.tar.gz", files)):
        assert not read_one(path).problems
    monkeypatch.setattr(unpacking, "MOST_IGNORED", 50)
    assert any("more than 30 files" in problem for problem in read_one(handed_in / "a.zip").problems)


def test_metrics_in_the_encoding_of_powershell_are_read(run, handed_in):
    folder = Path(shutil.copytree(run, handed_in / "anna"))
    text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    (folder / "metrics.jsonl").write_text(text, encoding="utf-16")
    assert facts(read_one(folder)) == facts(read_one(run))


def test_a_record_next_to_submissions_is_an_error(run, handed_in):
    write_zip(handed_in / "anna.zip", contents(run))
    write_text(handed_in / "args.json", "{}")
    with pytest.raises(UserError, match=r"args.json lies next to anna.zip"):
        find(handed_in)


def test_a_submission_without_a_run_names_what_it_has(handed_in):
    files = {f"essay{number}.docx": b"PK" for number in range(7)}
    assert_said(read_one(write_zip(handed_in / "a.zip", files)).problems, "essay0.docx", "essay4.docx, 2 more")
    (handed_in / "b").mkdir()
    assert_said(read_one(handed_in / "b").problems, "no run found", "it is empty")


# Hostile archives -----------------------------------------------------------------------------------------------------


def linked(name, kind=tarfile.SYMTYPE):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/passwd"
    return member


def symlink_in_zip(name):
    member = zipfile.ZipInfo(name)
    member.create_system, member.external_attr = 3, 0o120777 << 16
    return member


OUTSIDE = ("../train.log", "/train.log", "a/../../train.log", "C:\\train.log", "\\train.log", "..\\..\\train.log")


@pytest.mark.parametrize("pack", [write_zip, write_tar])
@pytest.mark.parametrize("name", OUTSIDE)
def test_no_file_of_an_archive_is_written_outside_its_folder(run, handed_in, pack, name):
    suffix = ".zip" if pack is write_zip else ".tgz"
    path = pack(handed_in / ("anna" + suffix), {name: b"EVIL"} | contents(run))
    before = sorted(path.parent.parent.rglob("*"))
    with opened(path) as (found,):
        assert_said(found.problems, Path(name.replace("\\", "/")).name, "leads out of the archive")
        assert not any(b"EVIL" in place.read_bytes() for place in found.paths.values())
        assert found.summary and found.log.final
    assert sorted(path.parent.parent.rglob("*")) == before and not Path("/train.log").exists()


def encrypted_zip(path, name):
    write_zip(path, {name: b"secret"})
    content = bytearray(path.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)
    return path


def oddly_compressed_zip(path, name):
    write_zip(path, {name: b"x"})
    content = bytearray(path.read_bytes())
    content[8] = content[content.index(b"PK\1\2") + 10] = 99
    path.write_bytes(content)
    return path


REFUSED = {
    "a link": lambda folder: write_zip(folder / "a.zip", {symlink_in_zip("args.json"): b"/etc/passwd"}),
    "skipped (a link)": lambda folder: write_tar(folder / "a.tgz", {linked("args.json"): b""}),
    "link": lambda folder: write_tar(folder / "a.tgz", {linked("args.json", tarfile.LNKTYPE): b""}),
    "not a regular file": lambda folder: write_tar(folder / "a.tgz", {linked("args.json", tarfile.CHRTYPE): b""}),
    "regular file": lambda folder: write_tar(folder / "a.tgz", {linked("args.json", tarfile.FIFOTYPE): b""}),
    "password": lambda folder: encrypted_zip(folder / "a.zip", "args.json"),
    "an unknown method": lambda folder: oddly_compressed_zip(folder / "a.zip", "args.json"),
    "archive inside the archive": lambda folder: write_zip(folder / "a.zip", {"args.json.zip": b"PK"}),
}


@pytest.mark.parametrize("words", REFUSED)
def test_anything_but_a_plain_file_is_refused_and_named(handed_in, words):
    found = read_one(REFUSED[words](handed_in))
    assert found.args is None
    assert_said(found.problems[:1], "args.json", words)
    assert_said(found.problems[1:], "no run found")


def test_a_duplicate_file_is_reported(handed_in):
    with pytest.warns(UserWarning), zipfile.ZipFile(handed_in / "a.zip", "w") as archive:
        archive.writestr("args.json", '{"lr": 1}')
        archive.writestr("args.json", '{"lr": 2}')
    found = read_one(handed_in / "a.zip")
    assert found.args == {"lr": 1}
    assert_said(found.problems, "second file with this name")


@pytest.mark.parametrize("pack", [write_zip, write_tar])
def test_unpacking_of_a_bomb_stops_early(handed_in, pack, monkeypatch):
    monkeypatch.setattr(unpacking, "MOST_BYTES", 1 << 20)
    path = pack(
        handed_in / ("a.zip" if pack is write_zip else "a.tgz"), {"args.json": b'{"lr": 1}', "b.log": bytes(1 << 26)}
    )
    assert path.stat().st_size < 1 << 20
    with opened(path) as (found,):
        written = sum(file.stat().st_size for file in found.paths["args.json"].parent.iterdir())
    assert found.args == {"lr": 1} and written <= 1 << 20
    assert_said(found.problems, path.name, "the rest was not read")


def test_a_wrong_size_in_a_header_does_no_harm(handed_in, monkeypatch):
    monkeypatch.setattr(unpacking, "MOST_BYTES", 1 << 20)
    path = write_zip(handed_in / "a.zip", {"b.log": bytes(1 << 26)})
    content, size = path.read_bytes(), (1 << 26).to_bytes(4, "little")
    assert content.count(size) == 2
    path.write_bytes(content.replace(size, (100).to_bytes(4, "little")))
    with opened(path) as (found,):
        assert found.problems


@pytest.mark.parametrize("pack", [write_zip, write_tar])
def test_unpacking_of_too_many_files_stops_early(handed_in, pack, monkeypatch):
    monkeypatch.setattr(unpacking, "MOST_FILES", 100)
    path = handed_in / ("a.zip" if pack is write_zip else "a.tgz")
    found = read_one(pack(path, {"args.json": b"{}"} | {f"{n}.py": b"" for n in range(200)}))
    assert found.args == {}
    assert_said(found.problems, path.name, "100 files")


def test_a_zip_with_a_huge_list_of_files_is_refused(run, handed_in, monkeypatch):
    monkeypatch.setattr(unpacking, "LARGEST_INDEX", 1 << 12)
    countless = {f"a/data/{number}": b"" for number in range(200)}
    found = read_one(write_zip(handed_in / "a.zip", {"args.json": b"{}"} | countless))
    assert_said(found.problems[:1], "a.zip", "more than 20,000 files")
    assert found.args is None
    anna = Path(shutil.copytree(run, handed_in / "anna"))
    write_zip(anna / "best_model.pth", countless)
    found = read_one(anna)
    assert_said(found.problems, "best_model.pth", "more than 20,000 files")
    assert "final_model.pth" in found.models


def test_a_tar_with_a_huge_header_is_refused(handed_in, monkeypatch):
    monkeypatch.setattr(unpacking, "LARGEST_HEADER", 1 << 20)
    member = tarfile.TarInfo("args.json")
    member.pax_headers = {"comment": "x" * (1 << 22)}
    found = read_one(write_tar(handed_in / "a.tgz", {member: b"{}"}))
    assert_said(found.problems[:1], "a header that is too long")


@pytest.mark.parametrize("pack", [write_zip, write_tar])
def test_a_truncated_archive_is_reported(run, handed_in, pack):
    path = pack(handed_in / ("a.zip" if pack is write_zip else "a.tgz"), contents(run))
    content = path.read_bytes()
    for size in (0, 1, 10, len(content) // 2, len(content) - 30):
        path.write_bytes(content[:size])
        problems = read_one(path).problems
        assert any(path.name in problem and "damaged" in problem for problem in problems)
        assert all(problem.isprintable() for problem in problems)


def test_a_truncated_tar_is_read_as_far_as_possible(run, handed_in):
    path = write_tar(handed_in / "a.tgz", contents(run))
    path.write_bytes(path.read_bytes()[:-30])
    found, whole = read_one(path), read_one(run)
    assert (found.args, found.rows, found.log) == (whole.args, whole.rows, whole.log)


def test_a_tar_with_a_wrong_checksum_is_reported_and_read(run, handed_in):
    path = write_tar(handed_in / "a.tgz", contents(run))
    content = bytearray(path.read_bytes())
    content[-8] ^= 1  # gzip's checksum
    path.write_bytes(content)
    found = read_one(path)
    assert_said(found.problems, "a.tgz", "damaged")
    assert facts(found) == facts(read_one(run)) | {"problems": found.problems}


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_member_with_changed_bytes_is_reported(handed_in, method):
    path = handed_in / "a.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("args.json", '{"lr": 1}')
        archive.writestr("train.log", bytes(range(256)) * 40)
    content = bytearray(path.read_bytes())
    content[content.index(b"train.log") + 60] ^= 255
    path.write_bytes(content)
    found = read_one(path)
    assert found.args == {"lr": 1}
    assert_said(found.problems[:1], "train.log", "damaged")


def test_a_zip_that_is_not_a_zip_is_reported(handed_in):
    for content in (b"", b"Rar!\x1a\7\0 nothing", b"\x1f\x8bnothing", b"PK", os.urandom(3000)):
        (handed_in / "a.zip").write_bytes(content)
        assert any("a.zip" in problem for problem in read_one(handed_in / "a.zip").problems)


def test_a_file_that_is_not_a_submission_is_reported(handed_in):
    for name in ("report.pdf", "notes.txt", "model.rar"):
        (handed_in / name).write_bytes(b"\x25PDF \xff\xfe\0 step by step")
        assert_said(read_one(handed_in / name).problems, "no run found")


# Hostile folders ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="on Windows, creating links needs special rights")
def test_links_and_pipes_in_a_folder_are_refused(run, handed_in):
    shutil.copytree(run, handed_in / "anna")
    (handed_in / "anna" / "args.json").unlink()
    (handed_in / "anna" / "args.json").symlink_to(run / "args.json")
    (handed_in / "anna" / "other").symlink_to(run)
    os.mkfifo(handed_in / "anna" / "pipe.log")
    found = read_one(handed_in / "anna")
    assert found.args is None and found.summary and found.log.final
    assert_said(found.problems[:1], "args.json (and 1 more)", "a link")
    assert_said(found.problems[1:], "pipe.log", "not a regular file")
    (handed_in / "ben").symlink_to(run)
    assert_said(read_one(handed_in / "ben").problems[:1], "ben", "a link")


@pytest.mark.parametrize(
    ("name", "module", "function"),
    [
        ("other", Path, "iterdir"),
        ("other.zip", unpacking, "unpack_zip"),
        ("train.log", run_files, "open"),
        ("args.json", Path, "read_bytes"),
        ("best_model.pth", weights_files, "open"),
    ],
)
def test_unreadable_files_are_reported_and_the_rest_is_read(run, handed_in, monkeypatch, name, module, function):
    anna = Path(shutil.copytree(run, handed_in / "anna"))
    if name == "other":
        (anna / name).mkdir()
    elif name == "other.zip":
        (anna / name).touch()
    allowed = getattr(module, function, open)

    def refuse_one(path, *more):
        if path.name == name:
            raise PermissionError(errno.EACCES, "Permission denied")
        return allowed(path, *more)

    monkeypatch.setattr(module, function, refuse_one, raising=False)
    found = read_one(anna)
    assert_said(found.problems, name, "Permission denied")
    assert found.summary and found.rows and "final_model.pth" in found.models


def test_only_the_beginning_of_a_huge_file_is_read(run, handed_in, monkeypatch):
    monkeypatch.setattr(run_files, "LARGEST_RECORD", 3000)
    found = read_one(run)
    assert len(found.rows) > 3 and len(found.log.rows) > 3
    for name in ("train.log", "metrics.jsonl"):
        assert any(f"{name} is larger than" in problem for problem in found.problems)


def test_a_completely_unreadable_submission_is_reported(handed_in, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(submissions, "read", fail)
    assert_said(read_one(handed_in).problems, "handed_in", "cannot be read")


# Records --------------------------------------------------------------------------------------------------------------

TRAIN = {"event": "train", "step": 5, "epoch": 0.5, "tokens": 9, "seconds": 1.5, "train_loss": 2.5, "perplexity": 12.2}
TRAIN |= {"lr": 0.001, "grad_norm": 0.5, "tokens_per_second": 6.0}


def with_metrics(folder, lines):
    folder.mkdir(exist_ok=True)
    (folder / "metrics.jsonl").write_bytes(b"\n".join(lines))
    return read_one(folder)


BAD_ROWS = {
    "not JSON": b"{event: train}",
    "not UTF-8": b'{"event": "\xff"}',
    "a list": b"[1]",
    "an unknown event": json.dumps(TRAIN | {"event": "party"}).encode(),
    "a missing field": json.dumps({"event": "train", "step": 1}).encode(),
    "a text for a number": json.dumps(TRAIN | {"train_loss": "2.5"}).encode(),
    "true for a number": json.dumps(TRAIN | {"step": True}).encode(),
    "half a step": json.dumps(TRAIN | {"step": 5.5}).encode(),
    "a step below 0": json.dumps(TRAIN | {"step": -5}).encode(),
    "null for a loss": json.dumps(TRAIN | {"train_loss": None}).encode(),
    "NaN": json.dumps(TRAIN | {"train_loss": math.nan}).encode(),
    "infinity": json.dumps(TRAIN | {"lr": -math.inf}).encode(),
    "a number out of range": json.dumps(TRAIN).replace("2.5", "1e999").encode(),
    "a count out of range": json.dumps(TRAIN).replace("5,", "9" * 400 + ",", 1).encode(),
    "thousands of digits": json.dumps(TRAIN).replace("5,", "9" * 9000 + ",", 1).encode(),
    "endless lists": b'{"event": ' + b"[" * 100_000,
    "closed lists": b'{"event": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "lists in a row": json.dumps(
        {"event": "run", "step": 0, "run_id": "a", "time": "b", "dataset": [[[[[[[[]]]]]]]]}
    ).encode(),
}


@pytest.mark.parametrize("bad", BAD_ROWS)
def test_rows_that_no_run_wrote_are_skipped_and_reported_once(handed_in, bad):
    good = json.dumps(TRAIN).encode()
    found = with_metrics(handed_in / "anna", [good, BAD_ROWS[bad], good, b"", BAD_ROWS[bad], good, b""])
    assert found.rows == [TRAIN] * 3
    assert_said(found.problems, "metrics.jsonl", "2 rows", "line 2")


def test_an_incomplete_last_row_is_reported(handed_in):
    good = json.dumps(TRAIN).encode()
    found = with_metrics(handed_in / "anna", [good, good[:50]])
    assert found.rows == [TRAIN]
    assert_said(found.problems, "metrics.jsonl", "in the middle of a line")


@pytest.mark.parametrize("name", ["args.json", "summary.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\0", b'{"a": NaN}', b'{"a": 1e999}', b"[" * 100_000])
def test_an_unusable_object_is_reported(run, handed_in, name, content):
    shutil.copytree(run, handed_in / "anna")
    (handed_in / "anna" / name).write_bytes(content)
    found = read_one(handed_in / "anna")
    assert_said(found.problems, name, "cannot be used")
    assert found.rows and found.log.final


def test_control_characters_and_lone_surrogates_are_replaced(handed_in):
    name = "a" if os.name == "nt" else "a\x1b[31m"  # Windows has no such names
    found = with_metrics(handed_in / name, [b'{"event": "sample", "step": 1, "text": "\\u001b[31m \\ud800"}'])
    assert found.rows[0]["text"] == "\ufffd[31m \ufffd" and found.name == name.replace("\x1b", "?")


# TensorBoard ----------------------------------------------------------------------------------------------------------


def as_tensorboard_reads(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {
        tag: [(point.step, point.wall_time, point.value) for point in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def test_event_files_are_read_as_tensorboard_reads_them(run):
    assert len(list(run.glob("events.out.tfevents.*"))) == 2
    board = read_one(run).board
    assert board == as_tensorboard_reads(run) and len(board["Loss/val"]) >= 3


def test_points_that_a_resumed_run_discards_are_discarded(handed_in):
    from torch.utils.tensorboard import SummaryWriter

    folder = handed_in / "anna"
    for purge_step, steps in ((None, range(10)), (4, range(4, 7))):
        with SummaryWriter(folder, purge_step=purge_step, filename_suffix=f".{purge_step or 0}") as writer:
            for step in steps:
                writer.add_scalar("Loss/train", step + (purge_step or 0), step)
                writer.add_text("Sample", "x" * 5000, step)
    (folder / "args.json").write_text("{}")
    found = read_one(folder)
    assert [step for step, _, _ in found.board["Loss/train"]] == list(range(7))
    assert found.board == as_tensorboard_reads(folder) and not found.problems


def test_numbers_stored_as_tensors_are_read(handed_in):
    from torch.utils.tensorboard import SummaryWriter

    folder = handed_in / "anna"
    with SummaryWriter(folder) as writer:
        writer.add_scalar("Loss/val", 1.5, 3, new_style=True)
        writer.add_scalar("Loss/val", math.nan, 4)
    (folder / "args.json").write_text("{}")
    ((step, _, value),) = read_one(folder).board["Loss/val"]
    assert (step, value) == (3, 1.5)


def test_an_event_file_is_read_up_to_the_first_damage(run, handed_in):
    shutil.copytree(run, handed_in / "anna")
    whole, path = read_one(run).board, sorted((handed_in / "anna").glob("events.*"))[-1]
    content = path.read_bytes()
    for changed in (content[:-5], content[:-60] + b"\0" + content[-59:], content + b"\xff" * 12):
        path.write_bytes(changed)
        found = read_one(handed_in / "anna")
        assert_said(found.problems, "events.out", "damaged")
        for tag, points in found.board.items():
            assert points == whole[tag][: len(points)] and len(points) > len(whole[tag]) - 2


# Models ---------------------------------------------------------------------------------------------------------------


def model_in(folder, seed=0, **facts):
    folder.mkdir(exist_ok=True)
    torch.manual_seed(seed)
    model = make_model(num_layers=2)
    with torch.no_grad():
        next(iter(model.parameters()))[0, 0] += seed * 1e-3
    save_model(folder / "best_model.pth", model, "of the tokenizer", **facts)
    return read_one(folder).models["best_model.pth"]


def test_equal_weights_have_equal_fingerprints_whatever_else_is_in_the_file(handed_in):
    one = model_in(handed_in / "one", step=1, val_loss=1.5, run_id="a")
    same = model_in(handed_in / "same", step=20_000, val_loss=None, run_id="b")
    other = model_in(handed_in / "other", seed=1, step=1, val_loss=1.5, run_id="a")
    assert one.weights == same.weights != other.weights
    assert dataclasses.replace(one, weights="") == dataclasses.replace(other, weights="")
    assert (same.step, same.val_loss, same.run_id, same.tokenizer_fingerprint) == (
        20_000,
        None,
        "b",
        "of the tokenizer",
    )


def foreign(path, **changes):
    content = {"format": "tinystories-model", "version": 1, "config": {"num_layers": 1}, "model": {}, "step": 1}
    torch.save(content | {"val_loss": 1.5, "run_id": "a", "tokenizer_fingerprint": "b"} | changes, path)


def with_another_weight(path):
    weights = next(iter(torch.load(path, weights_only=True)["model"].values())).numpy().tobytes()
    return path.read_bytes().replace(weights, weights[:-1] + b"\0")


BAD_MODELS = {
    "damaged": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "bytes in it have changed": lambda path: path.write_bytes(with_another_weight(path)),
    "is empty": lambda path: path.write_bytes(b""),
    "not a model file": lambda path: foreign(path, format="of others"),
    "model file": lambda path: foreign(path, val_loss=math.nan),
    "config": lambda path: foreign(path, config={"num_layers": [1]}),
    "a fact in it is missing or has the wrong type": lambda path: foreign(path, step="x"),
    "more than weights": lambda path: foreign(path, config=Path("x")),
    "too long": lambda path: foreign(path, config={"x": "y" * (2 << 20)}),
}


@pytest.mark.parametrize("words", BAD_MODELS)
def test_an_unusable_model_is_reported(run, handed_in, words):
    shutil.copytree(run, handed_in / "anna")
    BAD_MODELS[words](handed_in / "anna" / "best_model.pth")
    found = read_one(handed_in / "anna")
    assert list(found.models) == ["final_model.pth"] and found.log.final
    assert_said(found.problems, "best_model.pth", words)


# Arbitrary bytes ------------------------------------------------------------------------------------------------------

CUTS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 64), st.binary(max_size=64)), min_size=1, max_size=4)


def changed(content, cuts):
    for place, length, new in cuts:
        at = int(place * len(content))
        content = content[:at] + new + content[at + length :]
    return content


def assert_sound(run):
    """Check that all numbers are finite and all texts can be written to a report."""
    assert all(problem.isprintable() and len(problem) < 400 for problem in run.problems), run.problems
    board = [point for points in run.board.values() for point in points]
    told = [run.args, run.summary, run.rows, board, [vars(model) for model in run.models.values()], run.name]
    told.append({name: value for name, value in vars(run.log).items() if name != "rows"})
    told += [row | {"time": None} for row in run.log.rows]
    json.dumps(told, allow_nan=False, ensure_ascii=False).encode()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_run_of_any_bytes_is_read_or_refused(run, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("any") / "anna"
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("checkpoint*"))
    path = data.draw(st.sampled_from(sorted(folder.iterdir())))
    path.write_bytes(data.draw(st.binary() | CUTS.map(lambda cuts: changed(path.read_bytes(), cuts))))
    (found,) = read(folder)
    assert_sound(found)
    shutil.rmtree(folder)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=CUTS, kind=st.sampled_from([".zip", ".tar", ".tgz", ".log"]), junk=st.binary(), whole=st.booleans())
def test_an_archive_of_any_bytes_is_read_or_refused(run, tmp_path_factory, cuts, kind, junk, whole):
    path = tmp_path_factory.mktemp("any") / ("anna" + kind)
    files = {name: content for name, content in contents(run).items() if not name.endswith(".pth")}
    if kind == ".zip":
        write_zip(path, files)
    elif kind != ".log":
        write_tar(path, files, "w:gz" if kind == ".tgz" else "w:")
    else:
        path.write_bytes(files["train.log"])
    path.write_bytes(changed(path.read_bytes(), cuts) if whole else path.read_bytes()[:4] + junk)
    for found in read(path):
        assert_sound(found)
    path.unlink()
