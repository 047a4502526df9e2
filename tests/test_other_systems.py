"""What differs on Windows and macOS, simulated on any system.

Files that cannot be moved while they are open, locks, code pages, names of files, processes that are spawned, and a Mac
whose GPU has no memory.
"""

import ast
import errno
import functools
import io
import multiprocessing
import os
import shutil
import sys
import types
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

import grade_runs
import pytest
import torch
from graded import grade
from programs import ROOT, SOURCES
from refusals import error_of

from common import devices, files
from common.errors import file_error
from common.files import check_can_be_written, locked, patiently, written_atomically
from common.program import prepare_streams, reader_has_left
from corpus.sources import Split
from corpus.token_cache import cache_stories, open_cache
from data import train_tokenizer

GOLDEN = ROOT / "tests/golden"
STORIES = ["Tom ran.", "The cat sat down."]


def in_use(*args):
    raise PermissionError(errno.EACCES, "in use")


def in_use_at_first(function, times=2):
    """Return the function, which refuses its first calls as Windows does while a file is open."""
    calls = []

    @functools.wraps(function)
    def called(*args):
        calls.append(args)
        return in_use() if len(calls) <= times else function(*args)

    return called


# Files that are open --------------------------------------------------------------------------------------------------


@pytest.fixture
def patient(monkeypatch):
    monkeypatch.setattr(files, "PATIENCE", 60)
    monkeypatch.setattr(files.time, "sleep", lambda seconds: None)


def test_a_file_that_another_program_reads_is_replaced_when_it_is_free(tmp_path, monkeypatch, patient):
    monkeypatch.setattr(os, "replace", in_use_at_first(os.replace))
    path = tmp_path / "best_model.pth"
    path.write_bytes(b"old")
    with written_atomically(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new" and [*tmp_path.iterdir()] == [path]


def test_a_file_that_stays_open_is_an_error_and_the_old_file_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PATIENCE", 0.2)
    monkeypatch.setattr(os, "replace", in_use)
    path = tmp_path / "best_model.pth"
    path.write_bytes(b"old")
    with pytest.raises(PermissionError) as refusal, written_atomically(path) as file:
        file.write(b"new")
    assert file_error(refusal.value).startswith(str(path))
    assert path.read_bytes() == b"old" and [*tmp_path.iterdir()] == [path]


@pytest.mark.skipif(os.name == "nt", reason="Windows waits")
def test_other_systems_do_not_wait_for_a_folder_that_is_not_writable(monkeypatch):
    monkeypatch.setattr(files.time, "sleep", lambda seconds: pytest.fail("it waits"))
    with pytest.raises(PermissionError):
        patiently(in_use, "one", "other")


def test_a_token_cache_gets_its_place_when_a_virus_scanner_has_read_it(tmp_path, monkeypatch, patient):
    tokenizer = train_tokenizer(STORIES, 290)
    monkeypatch.setattr(Path, "rename", in_use_at_first(Path.rename))
    split = Split("stories", lambda wanted, notes: (({"text": text}, "here") for text in STORIES), lambda: "stories")
    cache_stories(split, tokenizer, tmp_path)
    (folder,) = tmp_path.iterdir()
    assert len(open_cache(folder)) == len(STORIES)


@pytest.mark.parametrize(("number", "advice"), [(32, "close the program that has it open"), (None, None)])
def test_the_message_about_an_open_file_says_so(number, advice):
    error = PermissionError(errno.EACCES, "It is used by another process", "best_model.pth")
    error.winerror = number
    message = file_error(error)
    assert "choose a file or folder that you have access to" in message and "\n" not in message
    assert advice in message if advice else "close" not in message


# Locks, drives and pipes ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="Windows has the real locks")
def test_a_windows_lock_keeps_others_out_and_the_file_stays_where_it_was(tmp_path, monkeypatch):
    taken = set()

    def locking(descriptor, mode, count):
        place = os.lseek(descriptor, 0, os.SEEK_CUR)
        assert place + count < 1 << 31  # the C library's limit
        if place in taken:
            in_use()
        taken.add(place)

    monkeypatch.setitem(sys.modules, "msvcrt", types.SimpleNamespace(locking=locking, LK_NBLCK=2))
    with open(tmp_path / "train.log", "w+", encoding="utf-8") as one, open(tmp_path / "train.log", "r+b") as other:
        one.write("a line\n")
        one.flush()
        with monkeypatch.context() as patch:
            patch.setattr(os, "name", "nt")
            assert locked(one) is True
            assert locked(other) is False
        one.write("another line\n")
    assert (tmp_path / "train.log").read_text(encoding="utf-8") == "a line\nanother line\n"


def test_a_missing_drive_gets_one_line(monkeypatch):
    monkeypatch.setattr(os.path, "exists", lambda place: False)
    assert error_of(check_can_be_written, "--output_dir", ROOT / "no/drive").startswith("--output_dir: cannot create")


@pytest.mark.parametrize(
    ("error", "on_windows", "on_others"),
    [
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), True, True),
        (OSError(errno.EINVAL, "Invalid argument"), True, False),
        (OSError(errno.EINVAL, "Invalid argument", "stories.txt"), False, False),
        (OSError(errno.ENOSPC, "No space left on device"), False, False),
    ],
)
def test_a_reader_that_has_left_is_no_error(monkeypatch, error, on_windows, on_others):
    found = {}
    for name in ("nt", "posix"):
        with monkeypatch.context() as patch:
            patch.setattr(os, "name", name)
            found[name] = reader_has_left(error)
    assert found == {"nt": on_windows, "posix": on_others}


# Texts ----------------------------------------------------------------------------------------------------------------


def test_texts_are_printed_in_utf_8_whatever_the_code_page(monkeypatch):
    console = io.TextIOWrapper(io.BytesIO(), encoding="cp1252", newline="\n")
    typed = io.TextIOWrapper(io.BytesIO("A 🦊!\n".encode()), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", console)
    monkeypatch.setattr(sys, "stdin", typed)
    prepare_streams()
    print(sys.stdin.readline().strip(), "– “Zoë”")
    monkeypatch.undo()
    assert console.buffer.getvalue().decode() == "A 🦊! – “Zoë”\n"


def without_encoding(path):
    """Yield the calls in a source file that read or write text in the encoding of the system."""
    for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(call, ast.Call) or any(word.arg == "encoding" for word in call.keywords):
            continue
        if isinstance(call.func, ast.Attribute) and call.func.attr in ("read_text", "write_text"):
            yield ast.unparse(call)
        if isinstance(call.func, ast.Name) and call.func.id == "open":
            mode = call.args[1] if len(call.args) > 1 else None
            if not (isinstance(mode, ast.Constant) and "b" in mode.value):
                yield ast.unparse(call)


def test_each_text_file_is_opened_with_an_encoding():
    for path in (*SOURCES, *ROOT.glob("sample_data/*.py")):
        assert not [*without_encoding(path)], path


# Processes ------------------------------------------------------------------------------------------------------------


def test_submissions_are_graded_in_processes_that_are_spawned(tmp_path, monkeypatch):
    """Windows and macOS start a new Python for each process; it gets everything as a pickle."""
    for name in ("story", "early"):
        shutil.copytree(GOLDEN / name, tmp_path / name)
    spawned = functools.partial(ProcessPoolExecutor, mp_context=multiprocessing.get_context("spawn"))
    alone = grade(tmp_path)
    monkeypatch.setattr(grade_runs, "ProcessPoolExecutor", spawned)
    assert grade(tmp_path, "--processes", "2") == alone


def test_no_more_processes_are_started_than_windows_allows(monkeypatch):
    started = []

    class Pool:
        def __init__(self, processes):
            started.append(processes)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def submit(self, *args):
            result = Future()
            result.set_result([])
            return result

    monkeypatch.setattr(grade_runs, "ProcessPoolExecutor", Pool)
    args = types.SimpleNamespace(processes=128)
    assert len([*grade_runs.grade_each({str(n): Path() for n in range(200)}, args)]) == 200
    assert started == [61]


# A Mac's GPU ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="this Mac has a GPU")
def test_without_memory_on_the_mac_s_gpu_the_cpu_is_chosen(monkeypatch, said):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)  # but nothing can be put there
    assert devices.choose_device("auto").type == "cpu"
    assert said[0].startswith("mps cannot be used here: ") and said[1].startswith("device: cpu")
