"""Where stories and dialogues come from: local files, folders, and data sets of the hub.

`.jsonl`, `.json` and `.txt` are read here, row by row, so that a broken line can be named and nothing else needs
installing; hub names, csv and parquet go through the `datasets` library, which is imported only for them.

In reading order: `open_dataset`, which finds the splits of a name; local files and folders; the hub; the readers of
each kind of file; `read_stories`, from rows to stories.
"""

import hashlib
import json
import mmap
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError, one_line, reason_of
from common.text import without_surrogates
from corpus.hub import HUB_SECONDS, hub_errors, within

VALIDATION_NAMES = ("validation", "valid", "val", "test")
OWN_SUFFIXES = (".jsonl", ".json", ".txt")
LIBRARY_SUFFIXES = {".csv": "csv", ".parquet": "parquet"}
FOLDER_SUFFIXES = (".jsonl", ".parquet", ".csv", ".json", ".txt")  # the first found is taken, not a README beside it
SPLIT_NAME = re.compile(r"(?<![a-z])(train|validation|valid|val|test)(?![a-z])")  # as in data/train-00000-of-00004
STORY_SEPARATOR = "<|endoftext|>"
SKIP_ADVICE = ", or pass --skip_bad_rows"  # at the end of an error that `BadRows` raises


@dataclass
class Split:
    """One split of a data set: `rows()` yields (row, place) anew at each call; place says where a row stands.

    In the place of a row that cannot be read stands the UserError that says why, so that reading can go on after it.
    """

    name: str
    rows: Callable[[], Iterator[tuple[dict | UserError, str]]]
    fingerprint: Callable[[], str]


def open_dataset(name: str, streaming: bool = True, example: str = "sample_data/stories") -> dict[str, Split]:
    """Find the splits of a data set: {"train": Split, maybe "validation": Split}.

    name: a `.jsonl`, `.json`, `.txt`, `.csv` or `.parquet` file, a folder of such files, or a data set of the hub.
    streaming: read from the hub only what is used, instead of downloading all of it first.
    example: what to name as a way to go on where the hub cannot be reached.
    Raises UserError if there is no such thing, or the hub does not answer.
    """
    path = Path(name)
    if path.is_file():
        splits = {"train": file_split(path)}
    elif path.is_dir():
        splits = folder_splits(path)
    elif path.suffix in (*OWN_SUFFIXES, *LIBRARY_SUFFIXES) or path.is_absolute() or len(path.parts) > 2 or "\\" in name:
        raise UserError(f"no file or folder {name}; pass --dataset the path of your data")
    else:
        splits = hub_splits(name, streaming, example)
    if "train" not in splits:
        raise UserError(f"{name} has no split named train, only {', '.join(splits) or 'none'}")
    found = {"train": splits["train"]}
    for known in VALIDATION_NAMES:
        if known in splits:
            return found | {"validation": splits[known]}
    return found


# Local files and folders ----------------------------------------------------------------------------------------------


def file_split(*paths: Path) -> Split:
    """A split made of local files that have one suffix."""
    suffix = paths[0].suffix
    if suffix not in (*OWN_SUFFIXES, *LIBRARY_SUFFIXES):
        known = " ".join((*OWN_SUFFIXES, *LIBRARY_SUFFIXES))
        raise UserError(f"{paths[0]}: cannot read {suffix or 'a file without a suffix'}; known are {known}")

    def rows():
        if suffix in LIBRARY_SUFFIXES:
            yield from library_rows(lambda: load_files(LIBRARY_SUFFIXES[suffix], paths), paths[0])
            return
        reader = {".jsonl": json_lines, ".json": json_list, ".txt": text_stories}[suffix]
        for path in paths:
            yield from reader(path)

    return Split(str(paths[0]), rows, lambda: hash_files(paths))


def load_files(kind: str, paths: Iterable[Path]) -> Any:
    """The `datasets` data set of local files; kind: csv or parquet."""
    options = {"keep_default_na": False} if kind == "csv" else {}  # a story may be the word "null"
    return load_with_library(kind, data_files=[str(path) for path in paths], streaming=True, **options)["train"]


def folder_splits(folder: Path) -> dict[str, Split]:
    """The splits of a local folder: `train.jsonl`, `validation.jsonl` and the like, or the hub's layout below it."""
    named = {}
    for suffix in FOLDER_SUFFIXES:
        for path in sorted(folder.rglob(f"*{suffix}")):
            names = SPLIT_NAME.findall(path.relative_to(folder).as_posix().lower())
            named.setdefault(names[0] if names else None, []).append(path)
    if not named:
        raise UserError(f"no data in the folder {folder}: it should hold train.jsonl, or .json, .txt, .csv or .parquet")
    nameless = named.pop(None, [])
    if nameless:
        named.setdefault("train", nameless)
    splits = {}
    for name, paths in named.items():
        of_one_suffix = [path for path in paths if path.suffix == paths[0].suffix]
        splits[name] = file_split(*of_one_suffix)
    return splits


def hash_files(paths: Iterable[Path]) -> str:
    """A fingerprint of what files hold."""
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        digest.update(path.suffix.encode())
    return digest.hexdigest()


# The hub --------------------------------------------------------------------------------------------------------------


def hub_splits(name: str, streaming: bool, example: str) -> dict[str, Split]:
    """The splits of a data set on the Hugging Face hub."""
    advice = f"to go on without it: --dataset {example}"
    try:
        import datasets
        import huggingface_hub
    except ImportError:
        raise UserError(f"{name} is on the hub, which needs the package datasets; install it, or {advice}") from None
    offline = huggingface_hub.constants.HF_HUB_OFFLINE
    datasets.config.STREAMING_READ_MAX_RETRIES = 3
    datasets.config.STREAMING_OPEN_MAX_RETRIES = 3
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    with hub_errors("data set", name, advice):
        revision = None
        if not offline:
            revision = within(HUB_SECONDS, huggingface_hub.HfApi().dataset_info, name, timeout=10).sha
        loaded = datasets.load_dataset(name, revision=revision, streaming=streaming and not offline)

    def split(part):
        return Split(
            f"{name} ({part})",
            rows=lambda: library_rows(lambda: loaded[part], name, advice),
            fingerprint=lambda: f"{name} {part} {revision}",
        )

    return {part: split(part) for part in loaded}


# Readers --------------------------------------------------------------------------------------------------------------


def decoded(line: bytes, place: object, advice: str = "save the file as UTF-8") -> str:
    """A line's text.  Raises UserError if it is not UTF-8."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        reason = f"{error.reason} at byte {error.start}"
        raise UserError(f"{place}: not UTF-8 ({reason}); {advice}") from None


def parsed(text: str, place: object, advice: str = "fix it") -> object:
    """A text's JSON.  Raises UserError if it is none."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno}, column {error.colno}"
        raise UserError(f"{place}: not JSON ({error.msg}: {where}); {advice}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: not JSON that can be read ({error}); {advice}") from None


def json_lines(path: Path) -> Iterator[tuple[object, str]]:
    """Yield (row, place) of a file with one JSON object a line; empty lines are skipped."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                place = f"{path}, line {number}"
                try:
                    yield parsed(decoded(line, place).lstrip("\ufeff"), place), place
                except UserError as error:
                    yield error, place


def json_list(path: Path) -> Iterator[tuple[object, str]]:
    """Yield (row, place) of a file that is one JSON list; a file that is none is read as one object a line."""
    with open(path, "rb") as file:
        start = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
        content = b"" if start[:1] != b"[" else start + file.read()
    if not content:
        yield from json_lines(path)
        return
    rows = parsed(decoded(content, path), path, "fix it, or save it as .jsonl, a row a line")
    yield from ((row, f"{path}, item {number}") for number, row in enumerate(rows, start=1))


def text_stories(path: Path) -> Iterator[tuple[dict | UserError, str]]:
    """Yield ({"text": story}, place): stories end at `<|endoftext|>` where the file has it, else at each line's end."""
    separated = holds_separator(path)
    with open(path, "rb") as file:
        story = ""  # so far
        first = 1  # its first line
        for number, line in enumerate(file, start=1):
            try:
                text = decoded(line, f"{path}, line {number}").replace("\r\n", "\n")
            except UserError as error:
                yield error, f"{path}, line {number}"
                continue
            if number == 1:
                text = text.removeprefix("\ufeff")
            *ends, rest = text.split(STORY_SEPARATOR) if separated else (text, "")
            for end in ends:
                yield {"text": (story + end).strip()}, f"{path}, line {first}"
                story = ""
                first = number + 1
            story += rest
        yield {"text": story.strip()}, f"{path}, line {first}"


def holds_separator(path: Path) -> bool:
    """Whether `<|endoftext|>` stands anywhere in a file, which is not read into memory."""
    if not os.path.getsize(path):
        return False
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(STORY_SEPARATOR.encode()) >= 0


def load_with_library(*args: str, **kwargs) -> Any:
    """datasets.load_dataset without its progress bars; an error is one line."""
    try:
        import datasets
    except ImportError:
        raise UserError(f"reading {args[0]} needs the package datasets; install it, or use .jsonl") from None
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # it would tell the hub of a local file, and wait for an answer
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    return datasets.load_dataset(*args, **kwargs)


def library_rows(load: Callable, name: object, advice: str = "is the file whole?") -> Iterator[tuple[dict, str]]:
    """Yield (row, place) of what load() returns, a `datasets` data set: in batches, many times faster than by rows."""
    number = 0
    try:
        for batch in load().iter(batch_size=1000):
            columns = list(batch)
            for values in zip(*batch.values(), strict=True):
                number += 1
                filled = ["" if value is None else value for value in values]
                yield dict(zip(columns, filled, strict=True)), f"{name}, row {number}"
    except UserError:
        raise
    except Exception as error:  # pyarrow, csv and the network raise their own kinds
        raise UserError(f"{name}, after row {number}: cannot be read ({reason_of(error)}); {advice}") from None


# From rows to stories -------------------------------------------------------------------------------------------------


@dataclass
class BadRows:
    """What becomes of a row that cannot be used: an error, or, with --skip_bad_rows, a count."""

    skip: bool = False
    count: int = 0
    first: str = ""

    def add(self, error: UserError) -> None:
        """Count a bad row, or raise its error."""
        if not self.skip:
            raise UserError(f"{error}{SKIP_ADVICE}")
        self.first = self.first or str(error)
        self.count += 1

    def summary(self) -> str:
        """How many there were, in one line."""
        return f"{self.count:,} bad row{'s' * (self.count > 1)} skipped; the first: {self.first}"

    def remarks(self) -> list[str]:
        """That line, if there were any."""
        return [self.summary()] if self.count else []


def usable(rows: Iterable, take: Callable, limit: int | None, bad: BadRows, nothing: str) -> Iterator:
    """Yield up to limit results of take(row, place) for the (row, place) of rows; None is skipped.

    take raises UserError for a row that cannot be used; bad: the BadRows that hears of it.  Raises UserError, with
    nothing as its message, if there is no result at all.
    """
    count = 0
    for row, place in rows:
        try:
            if isinstance(row, UserError):
                raise row
            result = take(row, place)
        except UserError as error:
            bad.add(error)
            continue
        if result is not None:
            yield result
            count += 1
            if count == limit:
                return
    if not count:
        raise UserError(f"{nothing}; {bad.summary()}" if bad.count else nothing)


def read_stories(
    split: Split, column: str = "text", limit: int | None = None, bad: BadRows | None = None
) -> Iterator[str]:
    """Yield up to limit stories, stripped of white space at their ends; empty ones are skipped.

    Raises UserError for a row without the column, for one that is not text, and if there is no story at all; bad: a
    BadRows that may skip such rows.
    """

    def story(row, place):
        if not isinstance(row, dict) or column not in row:
            found = f"the columns {', '.join(map(str, row))}" if isinstance(row, dict) else f"a {type(row).__name__}"
            raise UserError(f'{place}: {one_line(found)} found where "{column}" was expected; pass --text_column')
        if not isinstance(row[column], str):
            held = one_line(json.dumps(row[column], default=str))
            raise UserError(f'{place}: column "{column}" holds {held}, not text; pass --text_column')
        return without_surrogates(row[column].strip()) or None

    nothing = f"no stories in {split.name}; pass --dataset a file or folder that holds some"
    return usable(split.rows(), story, limit, bad or BadRows(), nothing)


def add_skip_flag(parser) -> None:
    """The flag that `BadRows` is made of."""
    parser.add_argument(
        "--skip_bad_rows", action="store_true", help="count rows that cannot be read, instead of stopping"
    )
