"""Tokens on disk, whole or not at all: what a data set became under a tokenizer, to be trained on many times.

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
from common.files import cache_folder, locked, naming, on_disk, write_json, written_atomically
from common.prefetch import computed_ahead
from corpus.dialogue_rows import read_dialogues
from corpus.dialogues import render_dialogues
from corpus.notes import Notes, ReadingFlags
from corpus.sources import Split
from corpus.stories import read_stories

VERSION = 4  # raised where the same files are read otherwise
SINGLE_SPACE = re.compile(r"(?<=\S) (?=\S)")  # where byte-level BPE never merges across
BATCH_BYTES = 1 << 20  # text that is tokenized at a time: its tokens take some 80 times as much memory for a moment


def default_cache_dir() -> Path:
    """Where caches lie unless --cache_dir says otherwise."""
    return cache_folder("tinystories_course")


@dataclass
class TokenCache:
    """Tokenized texts (stories or dialogues) on disk, one after the other.

    tokens: (all tokens,) uint16 or uint32, memory-mapped.  starts: int64 (texts + 1,), where each text begins, the end
    last.  sizes: int64 (texts,), the UTF-8 bytes of what is predicted of each text.  checksum: of the file's tokens.
    remarks: how the texts were read, in lines for the log.
    """

    tokens: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray
    checksum: int = 0
    remarks: list[str] = dataclasses.field(default_factory=list)

    def __len__(self) -> int:
        return len(self.sizes)

    def part(self, first: int, last: int) -> "TokenCache":
        """The texts first, first + 1, ..., last - 1."""
        return dataclasses.replace(self, starts=self.starts[first : last + 1], sizes=self.sizes[first:last])

    def lengths(self) -> np.ndarray:
        """int64 (texts,): the tokens of each text."""
        return np.diff(self.starts)

    def text(self, index: int) -> np.ndarray:
        return np.asarray(self.tokens[self.starts[index] : self.starts[index + 1]])

    def chosen(self, seed: int, epoch: int) -> np.ndarray:
        """The texts that an epoch has, by number: all of them."""
        return np.arange(len(self))

    def fingerprint(self) -> list[int]:
        """What another cache of the same texts has in common with this one."""
        return [len(self), int(self.lengths().sum()), self.checksum]


# Stories and dialogues ------------------------------------------------------------------------------------------------


def cache_stories(
    split: Split, tokenizer, cache_dir: str | Path, how: ReadingFlags | None = None, limit: int | None = None
) -> TokenCache:  # fmt: skip
    """Tokenize stories, each as `<bos> story <eos>`, into a TokenCache, or open the one that is already there."""
    begin, end = tokenizer.special["<bos>"], tokenizer.special["<eos>"]

    def encode(stories):
        if len(stories) == 1:  # perhaps a very long one: piece by piece, its tokens in an array
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
    """The same for dialogues, each rendered into at most max_tokens tokens, its oldest turns dropped where need be."""

    def render(dialogues):
        return [dialogue for dialogue in render_dialogues(tokenizer, dialogues, max_tokens) if dialogue.size]

    how = how or ReadingFlags()
    writer = TokenCacheWriter(split, tokenizer, cache_dir, ["dialogues", max_tokens, dataclasses.asdict(how), limit])
    if cache := writer.existing():
        return cache
    with writer:
        notes = Notes()
        shortened = cut = 0
        dialogues = read_dialogues(split, how, limit, notes)
        for rendered in computed_ahead(render, batches_of_text(dialogues), ahead=2):
            shortened += sum(dialogue.dropped > 0 or dialogue.question_cut for dialogue in rendered)
            cut += sum(dialogue.reply_cut for dialogue in rendered)
            writer.add([(dialogue.ids, dialogue.size) for dialogue in rendered])
        writer.remarks = notes.lines()
        longer = f"longer than {max_tokens:,} tokens"
        if shortened:
            writer.remarks.append(f"dialogues {longer}, without their oldest turns or words: {shortened:,}")
        if cut:
            writer.remarks.append(f"replies {longer}, learned as far as they fit: {cut:,}")
    return writer.result()


def pieces(text: str, size: int = BATCH_BYTES) -> Iterator[str]:
    """Cut a text before single spaces into pieces of about size characters; their tokens are those of the whole."""
    start = 0
    while len(text) - start > size and (cut := SINGLE_SPACE.search(text, start + size)):
        yield text[start : cut.start()]
        start = cut.start()
    yield text[start:]


def batches_of_text(texts: Iterable) -> Iterator[list]:
    """Group an iterator of stories or dialogues into lists of about BATCH_BYTES characters."""
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
    """Makes a cache in a `with` block: it is there, complete, when the block ends, or it is not there.

    It is found again by the fingerprints of the data and of the tokenizer and the settings.
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
        """Write texts, each (ids, bytes of what is predicted)."""
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
            with contextlib.suppress(OSError):  # of a full disk, which was raised already
                self.file.close()
            shutil.rmtree(self.partial, ignore_errors=True)

    def finish(self) -> None:
        """Write what describes the tokens, and move the folder into its place."""
        if not self.lengths:
            raise UserError(f"nothing to predict in {self.name}: no dialogue in which the assistant answers the user")
        tokens = {"dtype": np.dtype(self.dtype).name, "tokens": sum(self.lengths), "crc32": self.checksum}
        with naming(self.folder):
            on_disk(self.file)
            with written_atomically(self.partial / "lengths.npz") as file:  # numpy's archives have check sums
                np.savez(file, lengths=np.array(self.lengths), sizes=np.array(self.sizes))
            write_json(self.partial / "description.json", self.description | tokens | {"remarks": self.remarks})
        if os.name == "nt":
            self.file.close()  # Windows moves no folder that holds an open file
        shutil.rmtree(self.folder, ignore_errors=True)  # what `open_cache` did not find whole
        with contextlib.suppress(OSError):  # another run was faster
            self.partial.rename(self.folder)

    def result(self) -> TokenCache:
        """What was made, opened.  Raises UserError if it cannot be read back."""
        cache = open_cache(self.folder)
        if cache is None:
            message = f"the token cache {self.folder} cannot be written or read back; pass another --cache_dir"
            raise UserError(message, status=1)
        report(cache, self.name, f"written to the token cache {self.folder}")
        return cache


def report(cache: TokenCache, name: str, where: str) -> None:
    """Log how a cache's texts were read and what it holds."""
    for remark in cache.remarks:
        log.info(f"{name}: {remark}")
    tokens = cache.starts[-1]
    bytes_per_token = cache.sizes.sum() / tokens
    log.info(f"{name}: {len(cache):,} texts, {tokens:,} tokens ({bytes_per_token:.2f} bytes a token), {where}")


def remove_abandoned(folders: Iterable[Path]) -> None:
    """Remove half-written caches whose process has ended: nobody holds the lock on their tokens."""
    for folder in folders:
        with contextlib.suppress(OSError):
            with open(folder / "tokens.bin", "r+b") as file:
                abandoned = locked(file)
            if abandoned:  # not None
                shutil.rmtree(folder, ignore_errors=True)


def open_cache(folder: Path) -> TokenCache | None:
    """The TokenCache in a folder, or None if it is not there or not whole."""
    try:
        description = json.loads((folder / "description.json").read_text())
        tokens = np.memmap(folder / "tokens.bin", dtype=description["dtype"], mode="r")
        with np.load(folder / "lengths.npz") as counts:
            starts, sizes = np.concatenate([[0], counts["lengths"].cumsum()]), counts["sizes"]
        whole = (
            len(starts) == len(sizes) + 1
            and len(tokens) == description["tokens"] == starts[-1]
            and zlib.crc32(tokens.data) == description["crc32"]
        )
        cache = TokenCache(tokens, starts, sizes, description["crc32"], [*map(str, description["remarks"])])
    except Exception:  # damaged bytes raise nearly every kind
        return None
    return cache if whole else None
