"""Tokens on disk, complete or not at all: a data set is tokenized once, and then used for many runs.

In reading order: `TokenCache`; `cache_stories` and `cache_dialogues`, which open the cache of a split or make it;
`TokenCacheWriter`, which makes one; `open_cache`.
"""

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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common.console import log
from common.errors import UserError
from common.files import cache_folder, locked, naming, on_disk, patiently, write_json, written_atomically
from common.prefetch import computed_ahead
from corpus.dialogue_rows import read_dialogues
from corpus.dialogues import render_dialogues
from corpus.notes import Notes, ReadingFlags
from corpus.sources import Split
from corpus.stories import read_stories

VERSION = 5  # increased whenever the same files are read differently
SINGLE_SPACE = re.compile(r"(?<=\S) (?=\S)")  # byte-level BPE never merges across it
BATCH_BYTES = 1 << 20  # text that is tokenized at a time: for a moment, its tokens take about 80 times as much memory


def default_cache_dir() -> Path:
    """Return the folder for caches, unless --cache_dir names another one."""
    return cache_folder("tinystories_course")


@dataclass
class TokenCache:
    """Tokenized texts (stories or dialogues) on disk, one after the other.

    tokens: (all tokens,) uint16 or uint32, memory-mapped.  starts: int64 (texts + 1,), where each text begins, and the
    end of the last one.  sizes: int64 (texts,), the UTF-8 bytes of each text's predicted part.  checksum: of the file's
    tokens.
    remarks: how the texts were read, as lines for the log.
    """

    tokens: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray
    checksum: int = 0
    remarks: list[str] = dataclasses.field(default_factory=list)

    def __len__(self) -> int:
        return len(self.sizes)

    def part(self, first: int, last: int) -> "TokenCache":
        """Return a cache with the texts first, first + 1, ..., last - 1."""
        return dataclasses.replace(self, starts=self.starts[first : last + 1], sizes=self.sizes[first:last])

    def lengths(self) -> np.ndarray:
        """Return the number of tokens of each text, int64 (texts,)."""
        return np.diff(self.starts)

    def text(self, index: int) -> np.ndarray:
        return np.asarray(self.tokens[self.starts[index] : self.starts[index + 1]])

    def chosen(self, seed: int, epoch: int) -> np.ndarray:
        """Return the numbers of the texts in an epoch: all of them."""
        return np.arange(len(self))

    def fingerprint(self) -> list[int]:
        """Return numbers that are the same for another cache of the same texts."""
        return [len(self), int(self.lengths().sum()), self.checksum]


# Stories and dialogues ------------------------------------------------------------------------------------------------


def cache_stories(
    split: Split, tokenizer, cache_dir: str | Path, how: ReadingFlags | None = None, limit: int | None = None
) -> TokenCache:  # fmt: skip
    """Open the TokenCache of a split's stories, or make it: each is tokenized as `<bos> story <eos>`."""
    begin, end = tokenizer.special["<bos>"], tokenizer.special["<eos>"]

    def encode(stories):
        if len(stories) == 1:  # it may be very long: tokenize it in pieces, and keep its tokens in an array
            (story,) = stories
            parts = [np.array(tokenizer.encode(piece), np.uint32) for piece in pieces(story)]
            return [(np.concatenate([[begin], *parts, [end]]), len(story.encode()))]
        encoded = zip(stories, tokenizer.encode_batch(stories), strict=True)
        return [([begin, *ids, end], len(story.encode())) for story, ids in encoded]

    how = how or ReadingFlags()
    writer = TokenCacheWriter(split, tokenizer, cache_dir, ["stories", dataclasses.asdict(how), limit])
    if cache := writer.existing():
        return cache
    with writer:
        notes = Notes()
        stories = read_stories(split, how, limit, notes)
        for encoded in computed_ahead(encode, batches_of_text(stories), ahead=2):
            writer.add(encoded)
        writer.remarks = notes.lines()
    return writer.result()


def cache_dialogues(
    split: Split, tokenizer, cache_dir: str | Path, max_tokens: int, how: ReadingFlags | None = None,
    limit: int | None = None,
) -> TokenCache:  # fmt: skip
    """Do the same for dialogues; one that is longer than max_tokens tokens loses its oldest turns."""

    def render(dialogues):
        return [dialogue for dialogue in render_dialogues(tokenizer, dialogues, max_tokens) if dialogue.size]

    how = how or ReadingFlags()
    writer = TokenCacheWriter(split, tokenizer, cache_dir, ["dialogues", max_tokens, dataclasses.asdict(how), limit])
    if cache := writer.existing():
        return cache
    with writer:
        notes = Notes()
        shortened = pairs = cut = 0
        dialogues = read_dialogues(split, how, limit, notes)
        for rendered in computed_ahead(render, batches_of_text(dialogues), ahead=2):
            shortened += sum(dialogue.dropped > 0 or dialogue.question_cut for dialogue in rendered)
            pairs += sum(dialogue.dropped for dialogue in rendered)
            cut += sum(dialogue.reply_cut for dialogue in rendered)
            writer.add([(dialogue.ids, dialogue.size) for dialogue in rendered])
        writer.remarks = notes.lines()
        longer = f"longer than {max_tokens:,} tokens"
        if shortened:
            lost = f" ({pairs:,} questions with their answers in all)" if pairs else ""
            writer.remarks.append(f"dialogues {longer}, which lost their oldest turns or words: {shortened:,}{lost}")
        if cut:
            writer.remarks.append(f"replies {longer}, of which only the beginning is learned: {cut:,}")
    return writer.result()


def pieces(text: str, size: int = BATCH_BYTES) -> Iterator[str]:
    """Cut a text before single spaces into pieces of about size characters; this does not change its tokens."""
    start = 0
    while len(text) - start > size and (cut := SINGLE_SPACE.search(text, start + size)):
        yield text[start : cut.start()]
        start = cut.start()
    yield text[start:]


def batches_of_text(texts: Iterable) -> Iterator[list]:
    """Group stories or dialogues into lists of about BATCH_BYTES characters."""
    batch = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text) if isinstance(text, str) else sum(len(turn) for _, turn in text)
        if size >= BATCH_BYTES:
            yield batch
            batch = []
            size = 0
    if batch:
        yield batch


# The files ------------------------------------------------------------------------------------------------------------


class TokenCacheWriter:
    """Makes a cache in a `with` block: when the block ends, the cache is complete, or it is not there.

    The fingerprints of the data, the tokenizer and the settings identify it.
    """

    def __init__(self, split: Split, tokenizer, cache_dir: str | Path, settings: list):
        self.name = split.name
        self.dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
        self.description = {
            "version": VERSION,
            "data": split.fingerprint(),
            "tokenizer": tokenizer.fingerprint,
            "settings": settings,
        }
        self.key = hashlib.sha256(json.dumps(self.description).encode()).hexdigest()[:16]
        self.folder = Path(cache_dir) / self.key
        self.remarks = []

    def existing(self) -> TokenCache | None:
        cache = open_cache(self.folder)
        if cache:
            report(cache, self.name, f"from the token cache {self.folder}")
        return cache

    def __enter__(self) -> "TokenCacheWriter":
        parent = self.folder.parent
        parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(parent.glob(f".{self.key}.*"))
        self.partial = Path(tempfile.mkdtemp(prefix=f".{self.key}.", dir=parent))
        try:
            self.file = open(self.partial / "tokens.bin", "wb")
        except OSError:
            shutil.rmtree(self.partial, ignore_errors=True)
            raise
        locked(self.file)
        self.bar = tqdm(unit=" texts", disable=not sys.stderr.isatty())
        self.lengths = []
        self.sizes = []
        self.checksum = 0
        return self

    def add(self, encoded: list[tuple]) -> None:
        """Write texts, each (ids, bytes of its predicted part)."""
        lengths = [len(ids) for ids, _ in encoded]
        tokens = itertools.chain.from_iterable(ids for ids, _ in encoded)
        content = np.fromiter(tokens, self.dtype, count=sum(lengths)).data
        with naming(self.folder):
            self.file.write(content)
        self.checksum = zlib.crc32(content, self.checksum)
        self.lengths += lengths
        self.sizes += [size for _, size in encoded]
        self.bar.update(len(encoded))

    def __exit__(self, kind, error, trace) -> None:
        try:
            if error is None:
                self.finish()
        finally:
            self.bar.close()
            with contextlib.suppress(OSError):  # a full disk: that error was already raised
                self.file.close()
            shutil.rmtree(self.partial, ignore_errors=True)

    def finish(self) -> None:
        """Write the description of the tokens, and move the folder to its place."""
        if not self.lengths:
            raise UserError(f"nothing to predict in {self.name}: no dialogue in which the assistant answers the user")
        tokens = {"dtype": np.dtype(self.dtype).name, "tokens": sum(self.lengths), "crc32": self.checksum}
        with naming(self.folder):
            on_disk(self.file)
            with written_atomically(self.partial / "lengths.npz") as file:  # numpy's archives have checksums
                np.savez(file, lengths=np.array(self.lengths), sizes=np.array(self.sizes))
            write_json(self.partial / "description.json", self.description | tokens | {"remarks": self.remarks})
        if os.name == "nt":
            self.file.close()  # Windows cannot move a folder with an open file
        shutil.rmtree(self.folder, ignore_errors=True)  # an incomplete cache, which `open_cache` refused
        with contextlib.suppress(OSError):  # another run was faster
            patiently(self.partial.rename, self.folder)

    def result(self) -> TokenCache:
        """Open the finished cache.  Raises UserError if it cannot be read back."""
        cache = open_cache(self.folder)
        if cache is None:
            message = f"the token cache {self.folder} cannot be written or read back; pass another --cache_dir"
            raise UserError(message, status=1)
        report(cache, self.name, f"written to the token cache {self.folder}")
        return cache


def report(cache: TokenCache, name: str, where: str) -> None:
    """Log how a cache's texts were read, and what the cache contains."""
    for remark in cache.remarks:
        log.info(f"{name}: {remark}")
    tokens = cache.starts[-1]
    bytes_per_token = cache.sizes.sum() / tokens
    log.info(f"{name}: {len(cache):,} texts, {tokens:,} tokens ({bytes_per_token:.2f} bytes per token), {where}")


def remove_abandoned(folders: Iterable[Path]) -> None:
    """Remove half-written caches of processes that have ended: their tokens are not locked."""
    for folder in folders:
        with contextlib.suppress(OSError):
            with open(folder / "tokens.bin", "r+b") as file:
                abandoned = locked(file)
            if abandoned:  # not None: without file locks, nobody knows
                shutil.rmtree(folder, ignore_errors=True)


def open_cache(folder: Path) -> TokenCache | None:
    """Return the TokenCache in a folder, or None if it is missing or incomplete."""
    try:
        description = json.loads((folder / "description.json").read_text(encoding="utf-8"))
        tokens = np.memmap(folder / "tokens.bin", dtype=description["dtype"], mode="r")
        with np.load(folder / "lengths.npz") as counts:
            starts, sizes = np.concatenate([[0], counts["lengths"].cumsum()]), counts["sizes"]
        whole = (
            len(starts) == len(sizes) + 1
            and len(tokens) == description["tokens"] == starts[-1]
            and zlib.crc32(tokens.data) == description["crc32"]
        )
        cache = TokenCache(tokens, starts, sizes, description["crc32"], [*map(str, description["remarks"])])
    except Exception:  # damaged bytes raise nearly every kind of error
        return None
    return cache if whole else None
