"""Hostile files, made from valid ones: with changed bytes, changed contents, or impossible claims."""

import collections
import copy
import hashlib
import io
import json
import pickle
import zipfile
from pathlib import Path

import torch

# Random changes -------------------------------------------------------------------------------------------------------


def mutated(content, random, others=b""):
    """Change bytes in one to four places, as a broken disk or an attacker would; random: a NumPy generator."""
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
    laughs = [laughs, laughs]  # a trillion lists if written out
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
    """Return a deep copy of nested dicts and lists, with one to three places changed."""
    value = copy.deepcopy(value)
    for _ in range(random.integers(1, 4)):
        inside = value
        key = None
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
    """Return a zip of changed members with correct checksums; change(name, bytes) -> [(name, bytes), ...]."""
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
    """Return a tokenizer file around any text, with a correct checksum."""
    saved = {"format": "tinystories-bpe-tokenizer", "version": 1, "tokenizer": text}
    return pickle.dumps(saved | {"sha256": hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()} | changes, 4)


def hostile(name, content, random, others=b""):
    """Change a valid file: its bytes, or its contents with correct checksums and syntax."""
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


# Claims ---------------------------------------------------------------------------------------------------------------


def model_file(whole, config=None, **changes):
    content = torch.load(whole / "model.pth", weights_only=True)
    return torch_bytes(content | {"config": content["config"] | (config or {})} | changes)


def scaled(whole, factor):
    return {name: tensor * factor for name, tensor in torch.load(whole / "model.pth")["model"].items()}


def zip_bomb(whole):
    """Return two gigabytes of zeros in a zip of two megabytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("archive/data.pkl", "w", force_zip64=True) as member:
            for _ in range(1 << 11):
                member.write(bytes(1 << 20))
        archive.writestr("archive/version", "3\n")
    return file.getvalue()


def larger_storage(whole):
    """Return a model file that claims a larger storage for a tensor than it contains."""
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
    """Return the tokenizer's JSON with changed entries (model_...: those of its model)."""
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
    "infinite seconds": lambda whole: checkpoint(whole, "progress", seconds=float("inf")),
    "seconds that are NaN": lambda whole: checkpoint(whole, "progress", seconds=float("nan")),
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
    "a regular expression that takes forever": lambda whole: tokenizer_json(whole, pre_tokenizer={
        "type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}),
    "the same expression before ByteLevel": lambda whole: tokenizer_json(whole, pre_tokenizer={
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
HARMLESS = [TOKENIZERS["padding to a trillion"], TOKENIZERS["a prefix longer than its tokens"]]  # they are not used


# Planted code ---------------------------------------------------------------------------------------------------------


def touch(path):
    Path(path).touch()


class Made:
    """Creates a file when an object is made, or when its state is set."""

    def __new__(cls, path=None):
        if path:
            touch(path)
        return super().__new__(cls)

    def __setstate__(self, state):
        touch(state)


class Planted:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return touch, (self.path,)


def payloads(marker):
    """Return pickles that create a file, each with another operation."""
    word = f"V{marker}\n".encode()
    short = b"\x8c" + bytes([len(str(marker))]) + str(marker).encode()
    return {
        "REDUCE": b"chostile\ntouch\n(" + word + b"tR",
        "STACK_GLOBAL": b"\x8c\x07hostile\x8c\x05touch\x93" + short + b"\x85R",
        "INST": b"(" + word + b"ihostile\ntouch\n",
        "OBJ": b"(chostile\ntouch\n" + word + b"o",
        "NEWOBJ": b"chostile\nMade\n(" + word + b"t\x81",
        "NEWOBJ_EX": b"chostile\nMade\n(" + word + b"t}\x92",
        "BUILD": b"chostile\nMade\n(t\x81" + word + b"b",
        "EXT1": b"\x82\xf0(" + word + b"tR",
        "os.system": b"cos\nsystem\n(Vtouch '" + word[1:-1] + b"'\ntR",
        "exec": b"cbuiltins\nexec\n(Vopen(" + repr(str(marker)).encode() + b", 'w')\ntR",
    }  # fmt: skip


PLANTS = ["REDUCE", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD", "EXT1", "os.system", "exec"]
