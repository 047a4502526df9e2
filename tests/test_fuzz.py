"""Hostile files: whatever a file holds, a reader works with it or refuses it in short lines, soon and in little memory.

Files are made of whole ones by a seed, which a failure names.  `pytest -m faults` reads 10,000 of them, and 50 more
through the programs.
"""

import collections
import copy
import copyreg
import functools
import hashlib
import io
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
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from programs import TINY, command, dialogue, run, story, write_rows
from test_training import make_model, make_rows, train_in

from common.errors import UserError
from common.weights_files import load_model, save_model
from corpus.dialogues import read_dialogues
from corpus.sources import BadRows, open_dataset, read_stories
from corpus.token_cache import cache_stories, open_cache
from data import load_tokenizer, train_tokenizer
from generation.generate import generate
from generation.sampling import Sampling

resource = pytest.importorskip("resource", reason="Windows does not say how much memory a process took")
SECONDS, MEMORY = 5, 1 << 30  # that a file may take
TEXT = "Once upon a time, Tom had a cat. 5 \u20ac, na\u00efve " + "a" * 60 + "!"
FORGET_PEAK = Path("/proc/self/clear_refs")  # Linux: the process's peak is counted anew
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
    """Go on with the run in the file's folder."""
    for newer in {*path.parent.glob("checkpoint-*.pth")} - {path}:
        newer.unlink()
    assert train_in(path.parent, make_rows(texts=5), {"resume_from_checkpoint": str(path)}, eval_steps=2)["step"] > 2


def read_data(path):
    """As the tokenizer and both trainers do; what one of them refuses, another may take."""
    split, cache, messages = open_dataset(str(path))["train"], path.parent / "made", []
    readings = [lambda: cache_stories(split, small_tokenizer(), cache, skip_bad_rows=True)]
    for read in (read_stories, read_dialogues):
        readings += [lambda skip=skip, read=read: list(read(split, bad=BadRows(skip))) for skip in (False, True)]
    for reading in readings:
        try:
            reading()
        except UserError as error:
            messages.append(str(error))
    shutil.rmtree(cache, ignore_errors=True)
    if messages:
        raise UserError("\n".join(messages))


def read_cache(path):
    """One file of a token cache, beside its others; one that is not whole is made anew."""
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
    """A folder with a whole file of each kind."""
    folder, rows = tmp_path_factory.mktemp("whole"), [{"text": story(number)} for number in range(12)]
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
    """A bomb shall end its test and not the computer; and a reader that waits shall be woken up."""
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


def peak_memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << (0 if sys.platform == "darwin" else 10)


def place_for(name, whole, folder):
    """Where the file of that name is to be written, its companions around it."""
    if "/" in name:
        shutil.rmtree(folder / Path(name).parent, ignore_errors=True)
        shutil.copytree((whole / name).parent, folder / Path(name).parent)
        (folder / name).unlink()
    return folder / name


def outcome(path, read, capfd):
    """ "works", or the message with which a reader refuses a file; AssertionError for all that must not be."""
    if FORGET_PEAK.exists():
        FORGET_PEAK.write_text("5")
    began, memory, message, trouble = time.perf_counter(), peak_memory(), "works", []
    signal.setitimer(signal.ITIMER_REAL, 3 * SECONDS)
    try:
        with warnings.catch_warnings(action="ignore"):
            read(path)
    except KeyboardInterrupt:
        raise
    except UserError as error:
        message = str(error)
    except BaseException as error:  # what Rust code raises is no Exception
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


# Mutations ------------------------------------------------------------------------------------------------------------


def mutated(content, random, others=b""):
    """Bytes changed in one to four places, as a broken disk or a stranger would; random: numpy's generator."""
    data = bytearray(content)
    for _ in range(random.integers(1, 5)):
        at, size = int(random.integers(len(data) + 1)), int(2 ** random.uniform(0, 8))
        part = data[at : at + size]
        match random.integers(9):
            case 0 if at < len(data):
                data[at] ^= 1 << random.integers(8)
            case 1:
                data[at : at + size] = random.bytes(len(part))
            case 2:
                data[at:at] = random.bytes(size)
            case 3:
                del data[at : at + size]
            case 4:
                data[at:at] = part
            case 5 if random.random() < 0.3:
                del data[at:]
            case 6:
                data += random.bytes(size)
            case 7:
                data[at : at + size] = bytes(len(part))
            case 8:
                start = int(random.integers(len(others) + 1))
                data[at : at + size] = others[start : start + size]
    return bytes(data)


laughs = []
for _ in range(40):
    laughs = [laughs, laughs]  # a trillion lists, to who writes them out
JUNK = [
    None, True, False, -1, 0, 1, 2, 1.5, 1e300, -1e-9, float("nan"), float("inf"), 1 << 20, 1 << 31, 1 << 40, 1 << 63,
    -(1 << 63), 1 << 300, "", "x", "x" * 5000, "a\x1b[31m\nb", "\u2028", "\ud800", "<pad>", "ByteLevel", "BPE", [], {},
    [[]], [None], {"a": 1}, {"": {}}, [1, "2", [3.0]], {"type": "Sequence", "pretokenizers": []},
]  # fmt: skip
TORCH_JUNK = [
    *JUNK, (), (1, 2), {1: 2}, {None: []}, laughs, collections.OrderedDict(a=1), torch.zeros(0), torch.zeros(()),
    torch.ones(3), torch.full((16, 16), torch.nan), torch.full((24, 16), 3e38), torch.ones(16, dtype=torch.int64),
    torch.ones(16, dtype=torch.complex64), torch.ones(16, dtype=torch.bool), torch.ones(()).expand(1 << 40),
    torch.ones(16, 16).t(), torch.ones(5056, dtype=torch.uint8), torch.zeros(5056, dtype=torch.uint8),
    torch.ones(16, dtype=torch.float8_e5m2), torch.eye(3).to_sparse(), torch.empty(9, device="meta"),
]  # fmt: skip


def changed(value, random, junk=JUNK):
    """A deep copy of dicts and lists within each other, with one to three places of it changed."""
    value = copy.deepcopy(value)
    for _ in range(random.integers(1, 4)):
        inside, key = value, None
        while isinstance(inside, (dict, list)) and inside and (key is None or random.random() < 0.8):
            holder = inside
            keys = list(holder) if isinstance(holder, dict) else range(len(holder))
            key = keys[random.integers(len(keys))]
            inside = holder[key]
        new = copy.deepcopy(junk[random.integers(len(junk))])
        if key is None:
            return new
        match random.integers(6):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[str(key)[1:]] = holder.pop(key)
            case 2 if isinstance(inside, torch.Tensor):
                holder[key] = changed_tensor(inside, random)
            case 3 if isinstance(inside, (int, float)):
                holder[key] = [-inside, inside + 1, float(inside), str(inside), inside * 10**9][random.integers(5)]
            case _:
                holder[key] = new
    return value


def changed_tensor(tensor, random):
    ways = [
        lambda t: t[None], lambda t: t[:-1], lambda t: t.double(), lambda t: t.bfloat16(), lambda t: t.long(),
        lambda t: t * torch.inf, lambda t: t * 1e38, lambda t: -t, lambda t: t.flatten(), lambda t: t.tolist(),
        lambda t: t.flatten()[:1].expand(1 << 40), lambda t: torch.nn.Parameter(t.float()), lambda t: t.t().t()[::2],
        lambda t: t[..., :1].expand(t.shape), lambda t: t.cfloat(), lambda t: t.flatten()[0],
    ]  # fmt: skip
    try:
        return ways[random.integers(len(ways))](tensor)
    except (IndexError, RuntimeError):
        return tensor.sum()


def torch_bytes(content):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def with_members(content, change, **options):
    """A zip of another one's members, each with a right check sum; change(name, bytes) -> [(name, bytes), ...]."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w", **options) as new:
        for name in old.namelist():
            for new_name, member in change(name, old.read(name)):
                new.writestr(new_name, member)
    return file.getvalue()


def changed_members(content, random):
    way, chosen = random.integers(6), random.random(9)

    def change(name, member):
        if not name.endswith("data.pkl") and random.random() < 0.7:
            return [(name, member)]
        mixed = mutated(member, random, content)
        return [
            [(name, mixed)], [(name, mixed)], [(name, member), (name, mixed)], [(name + "x", member)], [],
            [(name, member.replace(b"J", b"K", 1) if chosen[0] < 0.5 else member[: len(member) // 2])],
        ][way]  # fmt: skip

    compression = zipfile.ZIP_DEFLATED if chosen[1] < 0.05 else zipfile.ZIP_STORED
    return with_members(content, change, compression=compression)


def tokenizer_pickle(text, **changes):
    """A tokenizer's file around any text, with a right check sum."""
    saved = {"format": "tinystories-bpe-tokenizer", "version": 1, "tokenizer": text}
    return pickle.dumps(saved | {"sha256": hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()} | changes, 4)


def hostile(name, content, random, others=b""):
    """A file that was made of a whole one: by bytes, or by what is in it, so that check sums and syntax are right."""
    way = random.random()
    if way < 0.35:
        return mutated(content, random, others)
    if name.endswith(".pth"):
        if way < 0.55:
            return changed_members(content, random)
        return torch_bytes(changed(torch.load(io.BytesIO(content), weights_only=True), random, TORCH_JUNK))
    if name.endswith(".pkl"):
        saved = pickle.loads(content)
        if way < 0.5:
            return pickle.dumps(changed(saved, random), int(random.integers(6)))
        if way < 0.65:
            return tokenizer_pickle(mutated(saved["tokenizer"].encode(), random, others).decode("utf-8", "replace"))
        return tokenizer_pickle(json.dumps(changed(json.loads(saved["tokenizer"]), random)))
    if name.endswith(".json"):
        return json.dumps(changed(json.loads(content), random)).encode()
    if name.endswith(".jsonl"):
        rows = changed([json.loads(line) for line in content.splitlines()], random)
        return "".join(json.dumps(row) + "\n" for row in (rows if isinstance(rows, list) else [rows])).encode()
    if name.endswith(".npz"):
        return changed_members(content, random)
    return mutated(content, random, others)


def read_hostile(name, seeds, whole, folder, capfd):
    """Read a hostile file for each seed: how many of them worked, and the troubles of those that were no right end."""
    content, others, works, troubles = (whole / name).read_bytes(), (whole / "model.pth").read_bytes(), 0, []
    for seed in seeds:
        path = place_for(name, whole, folder)
        path.write_bytes(hostile(name, content, np.random.default_rng(seed), others))
        try:
            works += outcome(path, READERS[name], capfd) == "works"
        except AssertionError as error:
            troubles.append(f"{name} of seed {seed}: {error}")
    return works, troubles


@pytest.fixture
def no_waiting(monkeypatch):
    """A file that is read once need not be on the disk."""
    monkeypatch.setattr(os, "fsync", quiet)


@pytest.mark.parametrize("name", READERS)
def test_a_file_of_changed_bytes_or_contents_is_read_or_refused(name, whole, tmp_path, capfd, no_waiting):
    assert outcome(whole / name, READERS[name], capfd) == "works" or "stories" in name or "talks" in name
    _, troubles = read_hostile(name, range(6 if "run" in name else 25), whole, tmp_path, capfd)
    assert not troubles, "\n".join(troubles)


# Named files ----------------------------------------------------------------------------------------------------------


def model_file(whole, config=None, **changes):
    content = torch.load(whole / "model.pth", weights_only=True)
    return torch_bytes(content | {"config": content["config"] | (config or {})} | changes)


def scaled(whole, factor):
    return {name: tensor * factor for name, tensor in torch.load(whole / "model.pth")["model"].items()}


def zip_bomb(whole):
    """Two gigabytes of zeros in two megabytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("archive/data.pkl", "w", force_zip64=True) as member:
            for _ in range(1 << 11):
                member.write(bytes(1 << 20))
        archive.writestr("archive/version", "3\n")
    return file.getvalue()


def larger_storage(whole):
    """A tensor whose storage is said to be larger than the numbers in the file."""
    change = lambda name, member: [(name, member.replace(b"M\x80\x01", b"J\x80\x01\x00\x40"))]
    return with_members((whole / "model.pth").read_bytes(), change)


def checkpoint(whole, part, **changes):
    content = torch.load(whole / "run/checkpoint-2.pth", weights_only=True)
    inside = content[part] | changes if isinstance(content[part], dict) else changes["instead"]
    return torch_bytes(content | {part: inside})


def without_moments(whole):
    saved = torch.load(whole / "run/checkpoint-2.pth", weights_only=True)["optimizers"]
    for state in saved[0]["state"].values():
        del state["exp_avg_sq"]
    return checkpoint(whole, "optimizers", instead=saved)


def tokenizer_json(whole, **changes):
    """The tokenizer's JSON with other parts; those of the model are named model_..."""
    content = json.loads((whole / "tokenizer.json").read_text())
    content["model"] |= {name[6:]: value for name, value in changes.items() if name.startswith("model_")}
    return json.dumps(content | {name: value for name, value in changes.items() if "model_" not in name}).encode()


def with_token(whole, number):
    vocabulary = json.loads((whole / "tokenizer.json").read_text())["model"]["vocab"]
    return tokenizer_json(whole, model_vocab=vocabulary | {"zz": number})


CLAIMS = {
    "a billion layers": lambda whole: model_file(whole, {"num_layers": 10**9}),
    "a huge hidden size": lambda whole: model_file(whole, {"hidden_size": 1 << 40}),
    "a huge vocabulary": lambda whole: model_file(whole, {"vocab_size": 1 << 62}),
    "a huge context": lambda whole: model_file(whole, {"max_seq_len": 1 << 40}),
    "a context of a gigabyte": lambda whole: model_file(whole, {"max_seq_len": 1 << 25}),
    "a huge number of heads": lambda whole: model_file(whole, {"num_heads": 1 << 70}),
    "a tensor of stride 0": lambda whole: model_file(
        whole, {"vocab_size": 1 << 25}, model=scaled(whole, 1) | {"tokens.weight": torch.ones(1).expand(1 << 25, 16)}),
    "a larger storage": larger_storage,
    "a window that is a list": lambda whole: model_file(whole, {"window_size": [4]}),
    "a window of 2 to the 70": lambda whole: model_file(whole, {"window_size": 1 << 70}),
    "a window of half a token": lambda whole: model_file(whole, {"window_size": 1.5}),
    "a norm of a trillion lists": lambda whole: model_file(whole, {"norm": laughs}),
    "a version that is a tensor": lambda whole: model_file(whole, version=torch.ones(3)),
    "a format that is a tensor": lambda whole: model_file(whole, format=torch.ones(3)),
    "a step that is a word with an escape": lambda whole: model_file(whole, step="\x1b[31m"),
    "a zip bomb": zip_bomb,
}  # fmt: skip
CHECKPOINTS = {
    "seconds without end": lambda whole: checkpoint(whole, "progress", seconds=float("inf")),
    "seconds that are none": lambda whole: checkpoint(whole, "progress", seconds=float("nan")),
    "centuries": lambda whole: checkpoint(whole, "progress", seconds=1e18),
    "an infinite step": lambda whole: checkpoint(whole, "progress", step=float("inf")),
    "10 to the 300 tokens": lambda whole: checkpoint(whole, "progress", tokens=10**300),
    "a log as long as a word": lambda whole: checkpoint(whole, "progress", record_sizes={"train.log": "x"}),
    "a best loss that is a tensor": lambda whole: checkpoint(whole, "progress", best=dict.fromkeys(
        ("val_loss", "perplexity", "bits_per_byte", "accuracy", "step"), torch.ones(()))),
    "no random states": lambda whole: checkpoint(whole, "random", instead=[]),
    "an optimizer without second moments": without_moments,
    "a learning rate that is a long word": lambda whole: checkpoint(whole, "flags", lr="x\x1b\n" * 100_000),
    "a learning rate of a trillion lists": lambda whole: checkpoint(whole, "flags", lr=laughs),
    "a learning rate that is a tensor": lambda whole: checkpoint(whole, "flags", lr=torch.ones(3)),
}  # fmt: skip
TOKENIZERS = {
    "a token of id 4,000,000,000": lambda whole: with_token(whole, 4_000_000_000),
    "a negative id": lambda whole: with_token(whole, -1),
    "a prefix longer than its tokens": lambda whole: tokenizer_json(whole, model_continuing_subword_prefix="#" * 99),
    "a decoder that strips": lambda whole: tokenizer_json(whole, decoder={
        "type": "Strip", "content": "a", "start": 10**15, "stop": 10**15}),
    "a normalizer of broken bytes": lambda whole: tokenizer_json(whole, normalizer={
        "type": "Precompiled", "precompiled_charsmap": "AAAA"}),
    "a normalizer that makes texts longer": lambda whole: tokenizer_json(whole, normalizer={
        "type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10**7}),
    "an expression that takes for ever": lambda whole: tokenizer_json(whole, pre_tokenizer={
        "type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}),
    "such an expression before the bytes": lambda whole: tokenizer_json(whole, pre_tokenizer={
        "type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]}),
    "padding to a trillion": lambda whole: tokenizer_json(whole, padding={
        "strategy": {"Fixed": 10**12}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
        "pad_type_id": 0, "pad_token": "x"}),
    "100,000 brackets": lambda whole: b'{"model":' + b"[" * 100_000,
    "a memo of 32 gigabytes": lambda whole: b"\x80\x04]r\xff\xff\xff\xff.",
    "32 gigabytes of bytes": lambda whole: b"\x80\x05\x96" + (1 << 35).to_bytes(8, "little") + b"x.",
    "32 gigabytes of text": lambda whole: b"\x80\x04\x8d" + (1 << 35).to_bytes(8, "little") + b"x.",
    "a number of 2 gigabytes": lambda whole: b"\x80\x04\x8b" + (1 << 31).to_bytes(4, "little") + b"x.",
    "a version of a trillion lists": lambda whole: tokenizer_pickle("", version=laughs),
    "a version with an escape": lambda whole: tokenizer_pickle("", version="\x1b[31m\n" * 99),
    "a gigabyte of zeros": lambda whole: None,
}  # fmt: skip


HARMLESS = [TOKENIZERS["padding to a trillion"], TOKENIZERS["a prefix longer than its tokens"]]  # no use is made of it


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
def test_a_file_that_claims_what_cannot_be_gets_one_line(name, file, whole, tmp_path, capfd, no_waiting):
    path, content = place_for(name, whole, tmp_path), file(whole)
    path.write_bytes(content or b"")
    if content is None:
        os.truncate(path, 1 << 30)
    del content
    message = outcome(path, READERS[name], capfd)
    assert message != "works" or file in HARMLESS


@pytest.mark.parametrize("name", ["model.pth", "run/checkpoint-2.pth", "tokenizer.pkl"])
def test_a_changed_bit_of_what_was_saved_is_refused(name, whole, tmp_path, capfd):
    content = bytearray((whole / name).read_bytes())
    if name.endswith(".pth"):
        place = content.index(torch.load(whole / name)["model"]["tokens.weight"].numpy().tobytes()) + 100
    else:
        place = content.index(b"vocab") + 100
    content[place] ^= 1
    place_for(name, whole, tmp_path).write_bytes(content)
    assert outcome(tmp_path / name, READERS[name], capfd) != "works"


def test_weights_so_large_that_nothing_can_be_computed_are_told_or_written_with(whole, tmp_path, capfd):
    for factor in (1e20, 1e30, 1e36):
        (tmp_path / "model.pth").write_bytes(model_file(whole, model=scaled(whole, factor)))
        outcome(tmp_path / "model.pth", read_model, capfd)


def test_a_model_of_fewer_tokens_than_the_tokenizer_it_names_is_refused(whole, tmp_path, capfd):
    (tmp_path / "model.pth").write_bytes(model_file(whole, tokenizer_fingerprint=small_tokenizer().fingerprint))
    read = lambda path: load_model(path, small_tokenizer())
    assert outcome(tmp_path / "model.pth", read, capfd) != "works"


# Planted payloads -----------------------------------------------------------------------------------------------------


def touch(path):
    Path(path).touch()


class Made:
    """Its pickle makes a file: by being made, or by being given its state."""

    def __new__(cls, path=None):
        if path:
            touch(path)
        return super().__new__(cls)

    def __setstate__(self, state):
        touch(state)


def payloads(marker):
    """Pickles that make a file, each by another operation."""
    word = f"V{marker}\n".encode()
    short = b"\x8c" + bytes([len(str(marker))]) + str(marker).encode()
    bodies = {
        "REDUCE": b"ctest_fuzz\ntouch\n(" + word + b"tR",
        "STACK_GLOBAL": b"\x8c\x09test_fuzz\x8c\x05touch\x93" + short + b"\x85R",
        "INST": b"(" + word + b"itest_fuzz\ntouch\n",
        "OBJ": b"(ctest_fuzz\ntouch\n" + word + b"o",
        "NEWOBJ": b"ctest_fuzz\nMade\n(" + word + b"t\x81",
        "NEWOBJ_EX": b"ctest_fuzz\nMade\n(" + word + b"t}\x92",
        "BUILD": b"ctest_fuzz\nMade\n(t\x81" + word + b"b",
        "EXT1": b"\x82\xf0(" + word + b"tR",
        "os.system": b"cos\nsystem\n(Vtouch '" + word[1:-1] + b"'\ntR",
        "exec": b"cbuiltins\nexec\n(Vopen(" + repr(str(marker)).encode() + b", 'w')\ntR",
    }  # fmt: skip
    return bodies


PLANTS = ["REDUCE", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD", "EXT1", "os.system", "exec"]


@pytest.mark.parametrize("plant", [*PLANTS, *range(6)])
def test_what_is_planted_in_a_file_is_not_run(plant, whole, tmp_path, capfd, no_waiting):
    marker = tmp_path / "marker"
    copyreg.add_extension("test_fuzz", "touch", 0xF0)
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
            assert marker.exists()  # it would have worked
            marker.unlink()
            change = lambda name, member, content=content: [(name, content if name.endswith("data.pkl") else member)]
            for name in ("tokenizer.pkl", "tokenizer.json", "model.pth", "run/checkpoint-2.pth"):
                path = place_for(name, whole, tmp_path)
                for file in (content, with_members((whole / "model.pth").read_bytes(), change)):
                    path.write_bytes(file)
                    assert outcome(path, READERS[name], capfd) != "works"
                    assert not marker.exists()
    finally:
        copyreg.remove_extension("test_fuzz", "touch", 0xF0)


class Planted:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return touch, (self.path,)


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
def test_a_row_that_is_no_story_is_refused_in_a_short_line(row, tmp_path, capfd):
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
    """(exit status, output, seconds, peak memory) of a program, which is ended when it hangs."""
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
    folder, model, cache = tmp_path, "first/best_model.pth", ["--cache_dir", "cache"]
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
    tuning = ["--dataset", "talks.jsonl", "--tokenizer_path", "tokenizer.pkl", *cache, "--epochs", 1, "--overwrite"]
    first_step = ["--vocab_size", 300, "--output", "new.pkl", "--overwrite", "--dataset"]
    writing = ["--max_new_tokens", 5]
    calls = {  # what reads the file that stands in the first place
        "stories.jsonl": ("train_bpe_tokenizer_hf", *first_step),
        "stories.parquet": ("train_bpe_tokenizer_hf", *first_step),
        "checkpoint.pth": ("train_tinystories_model", *first, "--output_dir", "second", "--resume_from_checkpoint"),
        "model.pth": ("generate_tinystories_text", *writing, "--tokenizer_path", "tokenizer.pkl", "--model_path"),
        "tokenizer.pkl": ("generate_tinystories_text", *writing, "--model_path", model, "--tokenizer_path"),
        "talks.jsonl": ("train_tinystories_chat_model", "--pretrained_model_path", model, *tuning, "--dataset"),
        "model.pth ": ("train_tinystories_chat_model", *tuning, "--pretrained_model_path"),
        "tokenizer.pkl ": ("chat_with_tinystories_model", *writing, "--model_path", model, "--tokenizer_path"),
        "model.pth  ": ("chat_with_tinystories_model", *writing, "--tokenizer_path", "tokenizer.pkl", "--model_path"),
    }  # fmt: skip
    troubles, statuses = [], collections.Counter()
    (folder / "hostile").mkdir()
    honest = {name: measured(folder, *call, name.strip()) for name, call in calls.items()}
    assert not [(name, found) for name, found in honest.items() if found[0]]
    for seed, (name, call) in enumerate(itertools.islice(itertools.cycle(calls.items()), 50)):
        path, content = folder / "hostile" / name.strip(), (folder / name.strip()).read_bytes()
        path.write_bytes(hostile(name.strip(), content, np.random.default_rng(seed), b"x" * 300))
        status, output, seconds, memory = measured(folder, *call, path)
        statuses[status] += 1
        wrong = [word for word in ("Traceback", "panicked") if word in output]
        if wrong or status not in (0, 1, 2) or seconds > honest[name][2] + SECONDS or memory > honest[name][3] + MEMORY:
            troubles.append(f"{name} of seed {seed}: {status} {seconds:.1f} s {memory >> 20} MB {output[-300:]!a}")
    with capfd.disabled():
        print(f"exit statuses {dict(statuses)}")
    assert not troubles, "\n".join(troubles)
