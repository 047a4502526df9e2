"""Hostile files: a reader works with any file or refuses it in short lines, quickly and with little memory.

Files are made from valid ones with a random seed; a failure names the seed.  `pytest -m faults` reads 10,000 of them,
and 50 more through the programs.
"""

import collections
import copyreg
import functools
import itertools
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hostile import (
    CHECKPOINTS,
    CLAIMS,
    HARMLESS,
    PLANTS,
    TOKENIZERS,
    Planted,
    hostile,
    model_file,
    payloads,
    scaled,
    with_members,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from programs import TINY, command, dialogue, run, story, write_rows
from tiny_runs import make_model, make_rows, train_in

from common.errors import UserError
from common.weights_files import load_model, save_model
from corpus.dialogue_rows import read_dialogues
from corpus.notes import ReadingFlags
from corpus.sources import open_dataset
from corpus.stories import read_stories
from corpus.token_cache import cache_stories, open_cache
from data import load_tokenizer, train_tokenizer
from generation.generate import generate
from generation.sampling import Sampling

resource = pytest.importorskip("resource", reason="Windows does not report how much memory a process used")
SECONDS = 5  # that reading a file may take
MEMORY = 1 << 30  # bytes that reading a file may use
TEXT = "Once upon a time, Tom had a cat. 5 \u20ac, na\u00efve " + "a" * 60 + "!"
FORGET_PEAK = Path("/proc/self/clear_refs")  # Linux: resets the process's peak memory
quiet = lambda *_: None


# The readers ----------------------------------------------------------------------------------------------------------


@functools.cache
def small_tokenizer():
    return train_tokenizer(map(story, range(20)), 300)


def read_tokenizer(path):
    tokenizer = load_tokenizer(path)
    assert isinstance(tokenizer.decode(tokenizer.encode(TEXT)), str)


def read_model(path):
    model, _ = load_model(path)
    for options in ({"temperature": 0}, {"temperature": 0.8, "top_k": 5}, {"top_p": 0.9}):
        assert len(list(generate(model, [[0, 0]], Sampling(max_new_tokens=3, **options)))) == 3


def read_checkpoint(path):
    """Resume the run in the file's folder."""
    for newer in {*path.parent.glob("checkpoint-*.pth")} - {path}:
        newer.unlink()
    assert train_in(path.parent, make_rows(texts=5), {"resume_from_checkpoint": str(path)}, eval_steps=2)["step"] > 2


def read_data(path):
    """Read as the tokenizer and both trainers do; what one of them refuses, another may accept."""
    split = open_dataset(str(path))["train"]
    cache = path.parent / "made"
    messages = []
    readings = [lambda: cache_stories(split, small_tokenizer(), cache, ReadingFlags(skip_bad_rows=True))]
    for read in (read_stories, read_dialogues):
        for skip in (False, True):
            how = ReadingFlags(skip_bad_rows=skip)
            readings.append(lambda how=how, read=read: list(read(split, how)))
    for reading in readings:
        try:
            reading()
        except UserError as error:
            messages.append(str(error))
    shutil.rmtree(cache, ignore_errors=True)
    if messages:
        raise UserError("\n".join(messages))


def read_cache(path):
    """Open the token cache that contains the file; an incomplete cache counts as none."""
    cache = open_cache(path.parent)
    assert cache is None or (len(cache.text(0)) and cache.sizes.sum())


READERS = {
    "tokenizer.pkl": read_tokenizer, "tokenizer.json": read_tokenizer, "model.pth": read_model,
    "run/checkpoint-2.pth": read_checkpoint, "stories.jsonl": read_data, "talks.jsonl": read_data,
    "stories.json": read_data, "stories.txt": read_data, "stories.csv": read_data, "stories.parquet": read_data,
    "cache/description.json": read_cache, "cache/lengths.npz": read_cache, "cache/tokens.bin": read_cache,
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return a folder with a valid file of each kind."""
    folder = tmp_path_factory.mktemp("whole")
    rows = [{"text": story(number)} for number in range(12)]
    small_tokenizer().save(folder / "tokenizer.pkl")
    small_tokenizer().backend.save(str(folder / "tokenizer.json"))
    save_model(folder / "model.pth", make_model(), "a fingerprint", val_loss=1.5)
    train_in(folder / "run", make_rows(texts=5), eval_steps=2, save_steps=2, keep_checkpoints=9)
    write_rows(folder / "stories.jsonl", rows)
    write_rows(folder / "talks.jsonl", [dialogue(number) for number in range(8)])
    (folder / "stories.json").write_text(json.dumps(rows))
    (folder / "stories.txt").write_text("\n<|endoftext|>\n".join(row["text"] for row in rows))
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    datasets.Dataset.from_list(rows).to_csv(str(folder / "stories.csv"))
    datasets.Dataset.from_list(rows).to_parquet(str(folder / "stories.parquet"))
    cache_stories(open_dataset(str(folder / "stories.jsonl"))["train"], small_tokenizer(), folder / "first")
    next((folder / "first").iterdir()).rename(folder / "cache")
    return folder


@pytest.fixture(scope="module", autouse=True)
def limited():
    """Limit memory, so that a bomb fails only its test, and stop readers that hang."""
    size = Path("/proc/self/statm")
    now = int(size.read_text().split()[0]) * resource.getpagesize() if size.exists() else 0
    before = resource.getrlimit(resource.RLIMIT_AS)
    if now:
        resource.setrlimit(resource.RLIMIT_AS, (now + 8 * MEMORY, before[1]))

    def wake(signum, frame):
        raise TimeoutError("it hangs")

    handler = signal.signal(signal.SIGALRM, wake)
    yield
    signal.signal(signal.SIGALRM, handler)
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture
def no_waiting(monkeypatch):
    """Make fsync do nothing: these files need not reach the disk."""
    monkeypatch.setattr(os, "fsync", quiet)


def peak_memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << (0 if sys.platform == "darwin" else 10)


def place_for(name, whole, folder):
    """Return the path for a file of this name, with copies of its companion files around it."""
    if "/" in name:
        shutil.rmtree(folder / Path(name).parent, ignore_errors=True)
        shutil.copytree((whole / name).parent, folder / Path(name).parent)
        (folder / name).unlink()
    return folder / name


def outcome(path, read, capfd):
    """Return "works" or the message of a refusal; raise AssertionError for anything that must not happen."""
    if FORGET_PEAK.exists():
        FORGET_PEAK.write_text("5")
    began = time.perf_counter()
    memory = peak_memory()
    message = "works"
    trouble = []
    signal.setitimer(signal.ITIMER_REAL, 3 * SECONDS)
    try:
        with warnings.catch_warnings(action="ignore"):
            read(path)
    except KeyboardInterrupt:
        raise
    except UserError as error:
        message = str(error)
    except BaseException as error:  # panics of Rust code are not Exceptions
        last = traceback.extract_tb(error.__traceback__)[-1]
        trouble.append(f"{type(error).__name__} in {last.name}: {str(error)[:200]}")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    seconds, memory = time.perf_counter() - began, peak_memory() - memory
    printed = "".join(capfd.readouterr())
    trouble += [f"{word} in the output" for word in ("Traceback", "panicked") if word in printed]
    trouble += [f"a line like {line[:80]!a}" for line in message.splitlines() if not (line and is_short(line))][:1]
    trouble += [f"{seconds:.1f} s"] if seconds > SECONDS else []
    trouble += [f"{memory / 1e6:.0f} MB"] if memory > MEMORY else []
    assert not trouble, "; ".join(trouble)
    return message


def is_short(line):
    return len(line) < 500 and line.isprintable()


def read_hostile(name, seeds, whole, folder, capfd):
    """Read a hostile file for each seed; return how many worked, and a list of what went wrong with others."""
    content = (whole / name).read_bytes()
    others = (whole / "model.pth").read_bytes()
    works = 0
    troubles = []
    for seed in seeds:
        path = place_for(name, whole, folder)
        path.write_bytes(hostile(name, content, np.random.default_rng(seed), others))
        try:
            works += outcome(path, READERS[name], capfd) == "works"
        except AssertionError as error:
            troubles.append(f"{name} of seed {seed}: {error}")
    return works, troubles


# Changed files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", READERS)
def test_a_file_of_changed_bytes_or_contents_is_read_or_refused(name, whole, tmp_path, capfd, no_waiting):
    assert outcome(whole / name, READERS[name], capfd) == "works" or "stories" in name or "talks" in name
    _, troubles = read_hostile(name, range(6 if "run" in name else 25), whole, tmp_path, capfd)
    assert not troubles, "\n".join(troubles)


@pytest.mark.parametrize("name", ["model.pth", "run/checkpoint-2.pth", "tokenizer.pkl"])
def test_a_flipped_bit_in_a_saved_file_is_refused(name, whole, tmp_path, capfd):
    content = bytearray((whole / name).read_bytes())
    if name.endswith(".pth"):
        place = content.index(torch.load(whole / name)["model"]["tokens.weight"].numpy().tobytes()) + 100
    else:
        place = content.index(b"vocab") + 100
    content[place] ^= 1
    place_for(name, whole, tmp_path).write_bytes(content)
    assert outcome(tmp_path / name, READERS[name], capfd) != "works"


def test_huge_weights_are_refused_or_generate_text(whole, tmp_path, capfd):
    for factor in (1e20, 1e30, 1e36):
        (tmp_path / "model.pth").write_bytes(model_file(whole, model=scaled(whole, factor)))
        outcome(tmp_path / "model.pth", read_model, capfd)


def test_a_model_with_fewer_tokens_than_its_tokenizer_is_refused(whole, tmp_path, capfd):
    (tmp_path / "model.pth").write_bytes(model_file(whole, tokenizer_fingerprint=small_tokenizer().fingerprint))
    read = lambda path: load_model(path, small_tokenizer())
    assert outcome(tmp_path / "model.pth", read, capfd) != "works"


# Claims and planted code ----------------------------------------------------------------------------------------------


def hostile_case(name, files):
    return [pytest.param(name, file, id=case) for case, file in files.items()]


@pytest.mark.parametrize(
    ("name", "file"),
    [
        *hostile_case("model.pth", CLAIMS),
        *hostile_case("run/checkpoint-2.pth", CHECKPOINTS),
        *hostile_case("tokenizer.pkl", TOKENIZERS),
    ],
)
def test_a_file_with_impossible_claims_gets_one_line(name, file, whole, tmp_path, capfd, no_waiting):
    path, content = place_for(name, whole, tmp_path), file(whole)
    path.write_bytes(content or b"")
    if content is None:
        os.truncate(path, 1 << 30)
    del content
    message = outcome(path, READERS[name], capfd)
    assert message != "works" or file in HARMLESS


@pytest.mark.parametrize("plant", [*PLANTS, *range(6)])
def test_code_planted_in_a_file_is_not_run(plant, whole, tmp_path, capfd, no_waiting):
    marker = tmp_path / "marker"
    copyreg.add_extension("hostile", "touch", 0xF0)
    try:
        if isinstance(plant, int):
            bare = pickle.dumps(Planted(str(marker)), plant)
            saved = {"format": "tinystories-bpe-tokenizer", "version": 1, "tokenizer": Planted(str(marker))}
            inside = pickle.dumps(saved, plant)
        else:
            body = payloads(marker)[plant]
            bare = b"\x80\x04" + body + b"."
            inside = b"\x80\x04}(V" + b"format\nVtinystories-bpe-tokenizer\nVversion\nK\x01Vtokenizer\n" + body + b"u."
        for content in (bare, inside):
            pickle.loads(content)
            assert marker.exists()  # the planted code would have worked
            marker.unlink()
            change = lambda name, member, content=content: [(name, content if name.endswith("data.pkl") else member)]
            for name in ("tokenizer.pkl", "tokenizer.json", "model.pth", "run/checkpoint-2.pth"):
                path = place_for(name, whole, tmp_path)
                for file in (content, with_members((whole / "model.pth").read_bytes(), change)):
                    path.write_bytes(file)
                    assert outcome(path, READERS[name], capfd) != "works"
                    assert not marker.exists()
    finally:
        copyreg.remove_extension("hostile", "touch", 0xF0)


# Rows -----------------------------------------------------------------------------------------------------------------


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inside: (
        st.lists(inside, max_size=3)
        | st.dictionaries(st.sampled_from(["text", "role", "conversation"]) | st.text(), inside, max_size=3)
    ),
    max_leaves=6,
)
turns = st.lists(st.fixed_dictionaries({"text": values | st.text()}, optional={"role": values}) | values, max_size=4)
rows_of_anything = st.lists(
    values | st.fixed_dictionaries({"text": values}) | st.fixed_dictionaries({"conversation": turns | values}),
    max_size=4,
)


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=rows_of_anything, lines=st.booleans())
def test_rows_of_any_json_are_read_or_refused(rows, lines, tmp_path, capfd):
    path = tmp_path / ("rows.jsonl" if lines else "rows.json")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) if lines else json.dumps(rows))
    outcome(path, read_data, capfd)


@pytest.mark.parametrize("row", [
    b'{"text": ' + b"[" * 100_000, b'{"text": ' + b"[" * 900 + b"]" * 900 + b"}", b'{"text": ' + b"9" * 10_000 + b"}",
    b'{"a\\u001b[31m\\nb": 1}', b'{"text": {"\\u001b": "\\ud800"}}', b'{"%s": 1}' % (b"x" * 10_000), b"\x00" * 10_000,
    b'{"conversation": {"text": [1], "role": [[]]}}', b'{"conversation": [{"text": "a", "role": {}}]}',
], ids=lambda row: ascii(row[:20].decode()))  # fmt: skip
def test_a_row_that_is_not_a_story_is_refused_in_a_short_line(row, tmp_path, capfd):
    (tmp_path / "rows.jsonl").write_bytes(row)
    assert outcome(tmp_path / "rows.jsonl", read_data, capfd) != "works"
    (tmp_path / "rows.json").write_bytes(b"[" + row + b"]")
    assert outcome(tmp_path / "rows.json", read_data, capfd) != "works"


# The long part --------------------------------------------------------------------------------------------------------


@pytest.mark.faults
def test_10_000_hostile_files_are_read_or_refused(whole, tmp_path, capfd, no_waiting):
    slow = {"stories.csv": 300, "stories.parquet": 300}
    rest = (10_000 - sum(slow.values())) // (len(READERS) - len(slow)) + 1
    troubles = []
    for name in READERS:
        count, began = slow.get(name, rest), time.perf_counter()
        works, new = read_hostile(name, range(1000, 1000 + count), whole, tmp_path, capfd)
        troubles += new
        with capfd.disabled():
            print(f"{name}: {count} files, {works} work, {len(new)} in trouble, {time.perf_counter() - began:.0f} s")
    assert not troubles, "\n".join(troubles)


def measured(folder, program, *flags):
    """Run a program, killed if it hangs, and return (exit status, output, seconds, peak memory)."""
    shutil.rmtree(folder / "second", ignore_errors=True)
    began = time.perf_counter()
    with open(folder / "output", "w+b") as output, open(folder / "question") as question:
        process = subprocess.Popen(command(program, *flags), cwd=folder, stdin=question, stdout=output, stderr=output)
        timer = threading.Timer(60, process.kill)
        timer.start()
        _, status, usage = os.wait4(process.pid, 0)
        timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read().decode("utf-8", "replace")
    return process.returncode, text, time.perf_counter() - began, usage.ru_maxrss << 10


@pytest.mark.faults
def test_50_hostile_files_are_read_or_refused_by_the_programs(tmp_path, capfd):
    folder = tmp_path
    model = "first/best_model.pth"
    cache = ["--cache_dir", "cache"]
    write_rows(folder / "stories.jsonl", [{"text": story(number)} for number in range(30)])
    write_rows(folder / "talks.jsonl", [dialogue(number) for number in range(20)])
    (folder / "question").write_text("Hello!\nTell me a story.\n")
    run(
        folder, "train_bpe_tokenizer_hf", "--dataset", "stories.jsonl", "--vocab_size", 300, "--output", "tokenizer.pkl"
    )
    first = ["--dataset", "stories.jsonl", "--tokenizer_path", "tokenizer.pkl", *cache, *TINY]
    run(folder, "train_tinystories_model", *first, "--save_steps", 3, "--output_dir", "first", "--keep_checkpoints", 9)
    shutil.copy(folder / "first/checkpoint-3.pth", folder / "checkpoint.pth")
    shutil.copy(folder / model, folder / "model.pth")
    small_tokenizer()
    import datasets

    datasets.Dataset.from_list([{"text": story(n)} for n in range(30)]).to_parquet(str(folder / "stories.parquet"))
    tuning = ["--tokenizer_path", "tokenizer.pkl", *cache, "--epochs", 1, "--overwrite"]
    first_step = ["--vocab_size", 300, "--output", "new.pkl", "--overwrite", "--dataset"]
    writing = ["--max_new_tokens", 5]
    calls = {  # the command that reads each file; the file's path is added at the end
        "stories.jsonl": ("train_bpe_tokenizer_hf", *first_step),
        "stories.parquet": ("train_bpe_tokenizer_hf", *first_step),
        "checkpoint.pth": ("train_tinystories_model", *first, "--output_dir", "second", "--resume_from_checkpoint"),
        "model.pth": ("generate_tinystories_text", *writing, "--tokenizer_path", "tokenizer.pkl", "--model_path"),
        "tokenizer.pkl": ("generate_tinystories_text", *writing, "--model_path", model, "--tokenizer_path"),
        "talks.jsonl": ("train_tinystories_chat_model", "--pretrained_model_path", model, *tuning, "--dataset"),
        "model.pth ": ("train_tinystories_chat_model", "--dataset", "talks.jsonl", *tuning, "--pretrained_model_path"),
        "tokenizer.pkl ": ("chat_with_tinystories_model", *writing, "--model_path", model, "--tokenizer_path"),
        "model.pth  ": ("chat_with_tinystories_model", *writing, "--tokenizer_path", "tokenizer.pkl", "--model_path"),
    }  # fmt: skip
    troubles = []
    statuses = collections.Counter()
    (folder / "hostile").mkdir()
    honest = {name: measured(folder, *call, name.strip()) for name, call in calls.items()}
    assert not [(name, found) for name, found in honest.items() if found[0]]
    for seed, (name, call) in enumerate(itertools.islice(itertools.cycle(calls.items()), 50)):
        path = folder / "hostile" / name.strip()
        content = (folder / name.strip()).read_bytes()
        path.write_bytes(hostile(name.strip(), content, np.random.default_rng(seed), b"x" * 300))
        status, output, seconds, memory = measured(folder, *call, path)
        statuses[status] += 1
        wrong = [word for word in ("Traceback", "panicked") if word in output]
        if wrong or status not in (0, 1, 2) or seconds > honest[name][2] + SECONDS or memory > honest[name][3] + MEMORY:
            troubles.append(f"{name} of seed {seed}: {status} {seconds:.1f} s {memory >> 20} MB {output[-300:]!a}")
    with capfd.disabled():
        print(f"exit statuses {dict(statuses)}")
    assert not troubles, "\n".join(troubles)
