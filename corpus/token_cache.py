"""Tokens on disk, whole or not at all."""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import re
import shutil
import sys
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common.console import say
from common.errors import UserError
from common.files import locked, naming, on_disk, write_json, written_atomically
from common.prefetch import computed_ahead
from corpus.dialogues import read_dialogues, render_dialogues
from corpus.sources import BadRows, read_stories

SINGLE_SPACE = re.compile(r"(?<=\S) (?=\S)")  # where byte-level BPE never merges across
BATCH_BYTES = 1 << 20  # text that is tokenized at a time: its tokens take some 80 times as much memory for a moment


# The token cache ------------------------------------------------------------------------------------------------------
@dataclass
class TokenCache:
    """Tokenized texts (stories or dialogues) on disk, one after the other.

    tokens: (all tokens,) uint16 or uint32, memory-mapped.  starts: int64 (texts + 1,), where each text begins, the end
    last.  sizes: int64 (texts,), the UTF-8 bytes of what is predicted of each text.  checksum: of the file's tokens.
    remarks: what is to be said of how the texts were read.
    """

    tokens: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray
    checksum: int = 0
    remarks: list = dataclasses.field(default_factory=list)

    def __len__(self):
        return len(self.sizes)

    def part(self, first, last):
        """The texts first, first + 1, ..., last - 1."""
        return dataclasses.replace(self, starts=self.starts[first : last + 1], sizes=self.sizes[first:last])

    def lengths(self):
        return np.diff(self.starts)

    def text(self, index):
        return np.asarray(self.tokens[self.starts[index] : self.starts[index + 1]])

    def chosen(self, seed, epoch):
        """The texts that an epoch has, by number: all of them."""
        return np.arange(len(self))

    def fingerprint(self):
        return [len(self), int(self.lengths().sum()), self.checksum]


def cache_stories(split, tokenizer, cache_dir, column="text", limit=None, say=say, skip_bad_rows=False):
    """Tokenize stories, each as `<bos> story <eos>`, into a TokenCache, or open the one that is already there."""
    begin, end = tokenizer.special["<bos>"], tokenizer.special["<eos>"]

    def encode(stories):
        if len(stories) == 1:  # perhaps a very long one: piece by piece, its tokens in an array
            (story,) = stories
            parts = [np.array(tokenizer.encode(piece), np.uint32) for piece in pieces(story)]
            yield np.concatenate([[begin], *parts, [end]]), len(story.encode())
            return
        for story, ids in zip(stories, tokenizer.encode_batch(stories), strict=True):
            yield [begin, *ids, end], len(story.encode())

    read = lambda bad: read_stories(split, column, limit, bad)
    return cached(split, tokenizer, cache_dir, ["stories", column, limit], read, encode, say, skip_bad_rows)


def cache_dialogues(split, tokenizer, cache_dir, max_tokens, limit=None, say=say, skip_bad_rows=False):
    """The same for dialogues, each rendered into at most max_tokens tokens, its oldest turns dropped where need be."""

    remarks, shortened, cut = [], [], []

    def encode(dialogues):
        for ids, dropped, size, question_cut, reply_cut in render_dialogues(tokenizer, dialogues, max_tokens):
            if size:
                shortened.extend([1] * (dropped > 0 or question_cut))  # in threads: a list, where += would lose some
                cut.extend([1] * reply_cut)
                yield ids, size

    def summary():
        left_out = (
            f"dialogues longer than {max_tokens:,} tokens, without their oldest turns or words: {len(shortened):,}"
        )
        too_long = f"replies longer than {max_tokens:,} tokens, learned as far as they fit: {len(cut):,}"
        return remarks + [left_out] * bool(shortened) + [too_long] * bool(cut)

    read = lambda bad: read_dialogues(split, limit, bad, remarks.append)
    settings = ["dialogues", max_tokens, limit]
    return cached(split, tokenizer, cache_dir, settings, read, encode, say, skip_bad_rows, summary)


def cached(split, tokenizer, cache_dir, settings, read, encode, say, skip_bad_rows, summary=list):
    """Open the cache of what read(a BadRows) yields, or make it, whole or not at all.

    It is found again by the fingerprints of the data and of the tokenizer and the settings.  encode turns a list of
    texts into (ids, bytes) for each; summary() gives a list of remarks on them, once they are read.
    """
    description = {"version": 3, "data": split.fingerprint(), "tokenizer": tokenizer.fingerprint, "settings": settings}
    description |= {"skip_bad_rows": True} if skip_bad_rows else {}
    key = hashlib.sha256(json.dumps(description).encode()).hexdigest()[:16]
    folder, bad = Path(cache_dir) / key, BadRows(skip_bad_rows)
    if cache := open_cache(folder):
        say_cached(cache, split.name, f"from the token cache {folder}", say)
        return cache
    dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(folder.parent.glob(f".{key}.*"))
    partial = Path(tempfile.mkdtemp(prefix=f".{key}.", dir=folder.parent))
    try:
        lengths, sizes, checksum = [], [], 0
        with open(partial / "tokens.bin", "wb") as file, tqdm(unit=" texts", disable=not sys.stderr.isatty()) as bar:
            locked(file)
            for encoded in computed_ahead(lambda texts: list(encode(texts)), batches_of_text(read(bad)), ahead=2):
                new_lengths = [len(ids) for ids, _ in encoded]
                tokens = itertools.chain.from_iterable(ids for ids, _ in encoded)
                content = np.fromiter(tokens, dtype, count=sum(new_lengths)).data
                with naming(folder):
                    file.write(content)
                checksum = zlib.crc32(content, checksum)
                lengths += new_lengths
                sizes += [size for _, size in encoded]
                bar.update(len(encoded))
            if not lengths:
                raise UserError(
                    f"nothing to predict in {split.name}: no dialogue in which the assistant answers the user"
                )
            description |= {"dtype": np.dtype(dtype).name, "tokens": sum(lengths), "crc32": checksum}
            description["remarks"] = [*summary(), *([bad.summary()] if bad.count else [])]
            with naming(folder):
                on_disk(file)
                with written_atomically(partial / "lengths.npz") as lengths_file:  # numpy's archives have check sums
                    np.savez(lengths_file, lengths=np.array(lengths), sizes=np.array(sizes))
                write_json(partial / "description.json", description)
            if os.name == "nt":
                file.close()  # Windows moves no folder that holds an open file
            shutil.rmtree(folder, ignore_errors=True)  # what open_cache did not find whole
            with contextlib.suppress(OSError):  # another run was faster
                partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    cache = open_cache(folder)
    if cache is None:
        raise UserError(f"the token cache {folder} cannot be written or read back; pass another --cache_dir", status=1)
    say_cached(cache, split.name, f"written to the token cache {folder}", say)
    return cache


def say_cached(cache, name, where, say):
    for remark in cache.remarks:
        say(f"{name}: {remark}")
    bytes_a_token = cache.sizes.sum() / cache.starts[-1]
    say(f"{name}: {len(cache):,} texts, {cache.starts[-1]:,} tokens ({bytes_a_token:.2f} bytes a token), {where}")


def remove_abandoned(folders):
    """Remove half-written caches whose process has ended: nobody holds the lock on their tokens."""
    for folder in folders:
        with contextlib.suppress(OSError):
            with open(folder / "tokens.bin", "r+b") as file:
                abandoned = locked(file)
            if abandoned:  # not None
                shutil.rmtree(folder, ignore_errors=True)


def open_cache(folder):
    """The TokenCache in a folder, or None if it is not there or not whole."""
    try:
        description = json.loads((folder / "description.json").read_text())
        tokens = np.memmap(folder / "tokens.bin", dtype=description["dtype"], mode="r")
        with np.load(folder / "lengths.npz") as counts:
            starts, sizes = np.concatenate([[0], counts["lengths"].cumsum()]), counts["sizes"]
        whole = len(starts) == len(sizes) + 1 and len(tokens) == description["tokens"] == starts[-1]
        whole = whole and zlib.crc32(tokens.data) == description["crc32"]
        cache = TokenCache(tokens, starts, sizes, description["crc32"], [*map(str, description["remarks"])])
    except Exception:  # damaged bytes raise nearly every kind
        return None
    return cache if whole else None


def pieces(text, size=BATCH_BYTES):
    """Cut a text before single spaces into pieces of about size characters; their tokens are those of the whole."""
    start = 0
    while len(text) - start > size and (cut := SINGLE_SPACE.search(text, start + size)):
        yield text[start : cut.start()]
        start = cut.start()
    yield text[start:]


def batches_of_text(texts):
    """Group an iterator of stories or dialogues into lists of about BATCH_BYTES characters."""
    batch, size = [], 0
    for text in texts:
        batch.append(text)
        size += len(text) if isinstance(text, str) else sum(len(turn) for _, turn in text)
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def default_cache_dir():
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tinystories_course"
