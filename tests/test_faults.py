"""Full disks and killed processes: nothing is lost or left half-written.

Tests that take minutes are marked `faults` and run with `make test-faults`; docs/reliability.md has their results.
"""

import builtins
import contextlib
import errno
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from programs import ROOT, command, dialogue, free_port, run, story, write_rows
from refusals import one_line
from tiny_runs import (
    AUTO,
    SIX_STEPS,
    assert_all_that_exists_loads,
    assert_nothing_is_lost,
    at_call,
    files,
    make_model,
    train_in,
)

from common import weights_files
from common.errors import UserError
from common.files import locked
from corpus.sources import file_split
from corpus.token_cache import cache_stories, remove_abandoned
from data import load_tokenizer, train_tokenizer
from training import loop

resource = pytest.importorskip("resource")  # most of this file needs it; Windows lacks it


# The disk -------------------------------------------------------------------------------------------------------------


class Failing:
    """A file whose n-th write fails, counted over all files; with `stays`, all later writes fail, too."""

    def __init__(self, file, count):
        self.file = file
        self.count = count

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
    """Let write number `at` (1, 2, ...; 0: none) to the files in a folder fail; yield the count of writes."""
    count = {"writes": 0, "at": at or -1, "stays": stays}
    real = io.open

    def opened(file, mode="r", *args, **kwargs):
        stream = real(file, mode, *args, **kwargs)
        below = not isinstance(file, int) and os.fsdecode(file).startswith(str(folder))
        return Failing(stream, count) if below and set(mode) & set("wax+") else stream

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builtins, "open", opened)
        patch.setattr(io, "open", opened)
        yield count


def try_full_disk(folder, at, stays, settings, resumed_as=None):
    """Let a write fail during a run; with `resumed_as`, resume the run and compare it with the one in that folder."""
    with full_disk(folder, at, stays) as count, pytest.raises(UserError) as refusal:
        train_in(folder, **settings)
    assert count["writes"] >= at
    assert refusal.value.status == 1 and "No space left on device" in one_line(refusal)
    assert_all_that_exists_loads(folder)
    if resumed_as:
        train_in(folder, flags=AUTO, **settings)
        assert_nothing_is_lost(folder, resumed_as)


def writes_of_a_run(folder, settings):
    with full_disk(folder, 0, False) as count:
        train_in(folder, **settings)
    return count["writes"]


@pytest.fixture(scope="module")
def writes(tmp_path_factory):
    return writes_of_a_run(tmp_path_factory.mktemp("writes"), SIX_STEPS)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # from TensorBoard's own thread
@pytest.mark.parametrize(  # alternately: only one write fails, or all from this one on
    ("share", "stays"),
    [(0.0, True), (0.02, False), (0.1, True), (0.27, False), (0.45, True), (0.5, False), (0.73, True), (0.9, False),
     (0.96, True)],
)  # fmt: skip
def test_a_disk_that_fills_up_destroys_nothing_that_was_saved(tmp_path, uninterrupted, writes, share, stays):
    try_full_disk(tmp_path, 1 + int(share * writes), stays, SIX_STEPS, uninterrupted)


@pytest.mark.faults
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_every_write_may_fail(tmp_path):
    settings = SIX_STEPS | {"eval_steps": 6}
    writes = writes_of_a_run(tmp_path / "whole", settings)
    for at in range(1, writes + 1):
        resumed_as = None if at % 5 else tmp_path / "whole"
        try_full_disk(tmp_path / str(at), at, bool(at % 2), settings, resumed_as)
        shutil.rmtree(tmp_path / str(at))
    print(f"{writes} writes failed in turn")


def test_a_disk_that_fills_up_leaves_no_tokenizer_and_no_cache(tmp_path):
    write_rows(tmp_path / "stories.jsonl", [{"text": story(n)} for n in range(300)])
    split = file_split(tmp_path / "stories.jsonl")
    out = tmp_path / "out"

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


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_folder_deleted_under_the_run_ends_it_with_one_line(tmp_path, monkeypatch):
    at_call(monkeypatch, loop, "training_step", 2, lambda: shutil.rmtree(tmp_path / "run"))
    with pytest.raises(UserError) as refusal:
        train_in(tmp_path / "run", **SIX_STEPS)
    assert "run" in one_line(refusal) and "No such file" in one_line(refusal) and refusal.value.status == 1
    assert not (tmp_path / "run").exists()


def test_a_run_without_enough_disk_space_is_refused_before_it_starts(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    with pytest.raises(UserError, match="needs about .* MB") as refusal:
        train_in(tmp_path / "run")
    assert "1 MB are free" in one_line(refusal) and not (tmp_path / "run").exists()


def test_a_badly_written_model_never_replaces_the_old_one(tmp_path, uninterrupted, monkeypatch):
    shutil.copytree(uninterrupted, tmp_path, dirs_exist_ok=True)
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


def test_half_written_caches_are_removed_unless_their_process_is_alive(tmp_path):
    for name in ("dead", "alive"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokens.bin").write_bytes(b"half")
    with open(tmp_path / "alive/tokens.bin", "ab") as file:
        assert locked(file)
        remove_abandoned(tmp_path.iterdir())
        assert [path.name for path in tmp_path.iterdir()] == ["alive"]
    remove_abandoned(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())


def test_without_file_locks_no_cache_is_removed_and_no_run_refused(tmp_path, monkeypatch):
    import fcntl

    def no_locks(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    (tmp_path / "some").mkdir()
    (tmp_path / "some/tokens.bin").write_bytes(b"half")
    remove_abandoned(tmp_path.iterdir())
    assert (tmp_path / "some/tokens.bin").exists()
    train_in(tmp_path / "run", **SIX_STEPS)


# Programs in separate processes ---------------------------------------------------------------------------------------


SMALL = ["--num_layers", 1, "--hidden_size", 32, "--num_heads", 2, "--intermediate_size", 64, "--max_seq_len", 48]
RUN = ["--cache_dir", "cache", "--batch_size", 4, "--gradient_accumulation_steps", 2, "--logging_steps", 20]
STORIES = ["train_tinystories_model", "--dataset", "stories", *SMALL, *RUN]
TALKS = ["train_tinystories_chat_model", "--dataset", "talks", *RUN]
TALKS += ["--pretrained_model_path", "tinystories_model/best_model.pth", "--early_stopping_patience", 0]


@pytest.fixture(scope="module")
def large_course(tmp_path_factory):
    """Return a folder with stories, dialogues, a tokenizer and a small model."""
    folder = tmp_path_factory.mktemp("course")
    write_rows(folder / "stories/train.jsonl", [{"text": story(n)} for n in range(400)])
    write_rows(folder / "stories/validation.jsonl", [{"text": story(n)} for n in range(400, 430)])
    write_rows(folder / "talks/train.jsonl", [dialogue(n) for n in range(300)])
    write_rows(folder / "talks/valid.jsonl", [dialogue(n) for n in range(300, 320)])
    run(folder, "train_bpe_tokenizer_hf", "--dataset", "stories", "--vocab_size", 400)
    run(folder, "train_tinystories_model", "--dataset", "stories", *SMALL, "--epochs", 1, *RUN)
    return folder


def limited(kind, size):
    return lambda: resource.setrlimit(kind, (size, size))


@pytest.mark.parametrize("size", [1000, 100_000, 250_000])
def test_a_file_size_limit_ends_the_run_with_one_line(large_course, tmp_path, size):
    done = subprocess.run(
        command(*STORIES, "--epochs", 1, "--save_steps", 20, "--output_dir", tmp_path), cwd=large_course,
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
def test_a_small_or_read_only_disk_ends_the_run_with_one_line(large_course, tmp_path, options, message):
    flags = ["--epochs", 1, "--save_steps", 20, "--output_dir", tmp_path / "disk/run"]
    with small_disk(tmp_path / "disk", options):
        if options == "size=21000k":
            (tmp_path / "disk/ballast").write_bytes(bytes(20 << 20))
            flags += ["--keep_checkpoints", "1"]
        program = "import shutil, sys, runpy; sys.path.insert(0, sys.argv[1]); sys.argv = sys.argv[2:]\n"
        if options == "size=21000k":  # so that the estimate does not see the small disk
            program += "u = shutil.disk_usage; shutil.disk_usage = lambda p: u('/')\n"
        program += "runpy.run_path(sys.argv[0], run_name='__main__')"
        words = command(*STORIES, *flags)
        words = [words[0], "-c", program, str(ROOT), *words[1:]]
        done = subprocess.run(words, cwd=large_course, capture_output=True, text=True, timeout=60)
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert done.returncode == (1 if options == "size=21000k" else 2), done.stderr
        assert len(errors) == 1 and message in errors[0] and "Traceback" not in done.stderr
        assert_all_that_exists_loads(tmp_path / "disk")


def ended(process):
    """Wait for the end of a process and return what it printed."""
    output, _ = process.communicate(timeout=120)
    assert "Traceback" not in output, output
    return output


def started(folder, words):
    return subprocess.Popen(
        [str(word) for word in words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def cut_off_again_and_again(folder, words, signum, times, seed):
    """Start a run and end it with a signal at a random moment, this many times; then let it finish."""
    chance = random.Random(seed)
    moments = []
    for number in range(times):
        process = started(folder, words)
        if number % 3:  # while it trains, evaluates or saves
            while " step " not in (line := process.stdout.readline()):
                assert line, "the run finished before it was interrupted often enough"
            time.sleep(chance.random() * 0.7)
        else:  # while it starts
            time.sleep(chance.random() * 4)
        moments.append(process.poll())
        process.send_signal(signum)
        ended(process)
        assert signum == signal.SIGKILL or process.returncode in (-signum, 128 + signum)
    assert moments.count(None) == times, "some signals came after the end"
    process = started(folder, words)
    output = ended(process)
    assert process.returncode == 0, output


@pytest.mark.faults
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize(("program", "epochs", "times"), [(STORIES, 60, 30), (TALKS, 60, 12)], ids=["stories", "talks"])
def test_a_run_interrupted_again_and_again_ends_like_the_uninterrupted_one(
    large_course, tmp_path, program, epochs, times, signum
):
    flags = [*program, "--epochs", epochs, "--save_steps", 7, "--eval_steps", 60, "--output_dir"]
    run(large_course, *flags, tmp_path / "whole")
    words = command(*flags, tmp_path / "parts", "--resume_from_checkpoint", "auto")
    cut_off_again_and_again(large_course, words, signum, times, seed=times + signum)
    assert_nothing_is_lost(tmp_path / "parts", tmp_path / "whole")
    assert_all_that_exists_loads(tmp_path / "parts")
    summary = json.loads((tmp_path / "parts/summary.json").read_text())
    print(f"interrupted {times} times by {signal.Signals(signum).name}, resumed {summary['resumes']} times")


def children(process):
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    return [int(number) for number in found]


@pytest.mark.faults
def test_if_one_of_two_ranks_is_killed_the_run_resumes_to_the_same_end(large_course, tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port()}"]
    flags = [*command(*STORIES)[1:], "--epochs", "30", "--save_steps", "25", "--eval_steps", "60", "--output_dir"]
    whole = started(large_course, [*launcher, *flags, tmp_path / "whole"])
    ended_well = ended(whole)
    assert whole.returncode == 0, ended_well
    words = [*launcher, *flags, tmp_path / "parts", "--resume_from_checkpoint", "auto"]
    chance = np.random.default_rng(0)
    for _ in range(6):
        process = started(large_course, words)
        while " step " not in (line := process.stdout.readline()):
            assert line
        time.sleep(chance.random() * 0.7)
        os.kill(chance.choice(children(process)), signal.SIGKILL)
        process.communicate(timeout=120)
        assert process.returncode == 1
    process = started(large_course, words)
    output = ended(process)
    assert process.returncode == 0, output
    assert_nothing_is_lost(tmp_path / "parts", tmp_path / "whole")


TOKENIZE_AND_MEASURE = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from corpus.sources import file_split
from corpus.token_cache import cache_stories
from data import load_tokenizer
cache = cache_stories(file_split(Path("long.jsonl")), load_tokenizer(sys.argv[2]), "cache")
print(len(cache), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.faults
def test_a_story_of_50_mb_on_one_line_is_tokenized_in_less_than_a_gigabyte(large_course, tmp_path):
    words = "Once upon a time there was a very small frog. "
    write_rows(tmp_path / "long.jsonl", [{"text": words * (50_000_000 // len(words))}, {"text": words}])
    words = [sys.executable, "-c", TOKENIZE_AND_MEASURE, ROOT, large_course / "bpe_tokenizer_tinystories.pkl"]
    texts, kilobytes = map(int, ended(started(tmp_path, words)).split()[-2:])
    assert texts == 2 and kilobytes < 1_000_000
    print(f"50 MB on one line: {kilobytes / 1000:.0f} MB of memory")
