"""Where stories and dialogues come from: local files, folders, and data sets of the hub.

In reading order: `open_dataset`, which finds the splits of a name; local files and folders; the hub.  What files hold
is read by `readers.py`; the `datasets` library is imported for the hub only.
"""

import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from common.console import log
from common.errors import UserError, one_line, reason_of
from corpus.hub import HUB_SECONDS, hub_errors, within
from corpus.json_files import lists_by_name
from corpus.notes import Notes, Row, Wanted
from corpus.readers import KINDS, PACKED_SUFFIXES, check_kind, holds_separator, kind_of, read_rows

VALIDATION_NAMES = ("validation", "valid", "val", "dev", "eval", "test")
# Of the files of a split, those with the first of these suffixes that is found are read.
FOLDER_SUFFIXES = (".jsonl", ".ndjson", ".parquet", ".arrow", ".csv", ".tsv", ".json", ".txt")
# A file's name without suffix, or a folder's: maybe something before, the split's name, maybe the number of a part.
SPLIT_NAME = re.compile(rf"(?:(.*)[-_.])?(train|{'|'.join(VALIDATION_NAMES)})(?:[-_. ]?(?:part)?[-_. ]?\d[\d\-_.of]*)?")
NOT_DATA = re.compile(  # files beside the data, by their names in lower case without suffix
    "readme.*|licen[cs]e.*|changelog|notice|copying|authors|contributors|citation|requirements|credits|metadata|info|"
    "state|config|dataset_infos?|dataset_dict|dataset_metadata|tokenizer|tokenizer_config|package|package-lock|"
    "cache-[0-9a-f]*"  # what `datasets` computed from the data
)
MOST_FILES = 5  # that a line of the log names
SMALL = 20_000  # bytes: a .txt file that may be one story
SEVERAL = 3  # such files: then each is one


@dataclass
class Split:
    """One split of a data set: `rows(wanted, notes)` yields (row, place) anew at each call, see `readers.py`."""

    name: str
    rows: Callable[[Wanted, Notes], Iterator[Row]]
    fingerprint: Callable[[], str]


def open_dataset(name: str, streaming: bool = True, example: str = "sample_data/stories") -> dict[str, Split]:
    """Find the splits of a data set: {"train": Split, maybe "validation": Split}.

    name: a file of one of `readers.KINDS`, packed or not, a folder of such files, or a data set of the hub.
    streaming: read from the hub only what is used, instead of downloading all of it first.
    example: what to name as a way to go on where the hub cannot be reached.
    Raises UserError if there is no such thing, or the hub does not answer.
    """
    path = Path(name)
    if path.is_file():
        splits = splits_inside(path) or {"train": file_split(path)}
    elif path.is_dir():
        splits = folder_splits(path)
    elif kind_of(path) or path.is_absolute() or len(path.parts) > 2 or "\\" in name:
        raise UserError(f"no file or folder {name}; pass --dataset the path of your data")
    else:
        splits = hub_splits(name, streaming, example)
    if "train" not in splits:
        raise UserError(f"{name} has no split named train, only {', '.join(splits) or 'none'}")
    found = {"train": splits["train"]}
    for known in VALIDATION_NAMES:
        if known in splits:
            found["validation"] = splits[known]
            break
    others = [split.name for split in splits.values() if split not in found.values()]
    if others:
        log.info(f"{name}: left out: {', '.join(others)}")
    return found


# Local files and folders ----------------------------------------------------------------------------------------------


def file_split(*paths: Path, story_a_file: bool = False) -> Split:
    """A split made of local files; story_a_file: where no flag says otherwise, a .txt file is one story."""
    for path in paths:
        check_kind(path)

    def rows(wanted, notes):
        if story_a_file and wanted.story_ends == "auto":
            notes.guess(f".txt: each of the {len(paths):,} small files is a story; --story_ends decides otherwise")
            wanted = replace(wanted, story_ends="file")
        for path in paths:
            yield from read_rows(path, wanted, notes)

    return Split(str(paths[0]), rows, lambda: hash_files(paths))


def splits_inside(path: Path) -> dict[str, Split]:
    """The splits of a JSON file that is {"train": [...], "validation": [...]}; none for any other file."""

    def split(name):
        return Split(
            f"{path} ({name})",
            rows=lambda wanted, notes: read_rows(path, replace(wanted, name=name), notes),
            fingerprint=lambda: f"{hash_files([path])} {name}",
        )

    names = lists_by_name(path, ("train", *VALIDATION_NAMES)) if kind_of(path) == "json" else []
    return {name: split(name) for name in names} if len(names) > 1 else {}


def folder_splits(folder: Path) -> dict[str, Split]:
    """The splits of a local folder: `train.jsonl`, `validation.jsonl` and the like, or the hub's layout below it."""
    paths, left_out = data_files(folder)
    if not paths:
        raise UserError(f"no data in the folder {folder}: it should hold train.jsonl, or .json, .txt, .csv or .parquet")
    named = {}
    for path, name in names_of_splits(folder, paths).items():
        named.setdefault(name, []).append(path)
    nameless = named.pop(None, [])
    if nameless and "train" not in named:
        named["train"] = nameless
    else:
        left_out += nameless
    for name, paths in named.items():
        kind = min((suffix_of(path) for path in paths), key=FOLDER_SUFFIXES.index)
        named[name] = without_copies([path for path in paths if suffix_of(path) == kind])
        left_out += [path for path in paths if path not in named[name]]
    if left_out:
        shown = [one_line(path.relative_to(folder).as_posix(), 60) for path in left_out[:MOST_FILES]]
        more = f" and {len(left_out) - MOST_FILES:,} more" if len(left_out) > MOST_FILES else ""
        log.info(f"{folder}: left out: {', '.join(shown)}{more}")
    story_a_file = are_stories(list(named.values()))
    return {name: file_split(*paths, story_a_file=story_a_file) for name, paths in named.items()}


def data_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """(the data files in a folder and below it, by name; what else the log should name).

    Hidden files and copies that macOS and Jupyter leave are neither.  Links to folders are followed, each folder once.
    """
    found = []
    left_out = []
    seen = set()
    for inside, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(inside)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        for name in names:
            if name.startswith("."):
                continue
            path = Path(inside, name)
            has_kind = kind_of(path) is not None
            is_beside_data = NOT_DATA.fullmatch(name.split(".")[0].lower()) is not None
            if has_kind and not is_beside_data:
                found.append(path)
            elif has_kind or not is_beside_data:  # a README.md or a LICENSE is not worth a line
                left_out.append(path)
    return sorted(found), sorted(left_out)


def names_of_splits(folder: Path, paths: list[Path]) -> dict[Path, str | None]:
    """{path: name of its split, or None}: by the name of the file, or of a folder that it is in.

    Another word may stand before it: `TinyStories-valid.txt`.  A `taste-test.txt` is a test split only beside a
    `taste-train.txt` or `taste.txt`, and a `the_train.txt` is none beside a `the_cat.txt`, so that a file whose name
    happens to hold the word is not one.
    """
    names = {}
    before = {}  # what stands before the name of a split
    for path in paths:
        parts = [stem_of(path), *reversed(path.relative_to(folder).parts[:-1])]
        matches = [match for part in parts if (match := SPLIT_NAME.fullmatch(part.lower()))]
        names[path] = matches[0][2] if matches else None
        before[path] = matches[0][1] if matches else stem_of(path).lower()
    nameless = [before[path] for path in paths if names[path] is None]
    trained = [before[path] for path in paths if names[path] == "train"]
    for path in paths:
        prefix = before[path]
        alone = names[path] == "test" and prefix not in (*nameless, *trained)
        one_of_many = names[path] == "train" and any(re.match(rf"{re.escape(prefix or '')}[-_.]", n) for n in nameless)
        if prefix and (alone or one_of_many):
            names[path] = None
    return names


def stem_of(path: Path) -> str:
    """A file's name without its suffixes of KINDS and of packing."""
    stem = path.name
    while (suffix := Path(stem).suffix.lower()) and (suffix in KINDS or suffix in PACKED_SUFFIXES):
        stem = stem[: -len(suffix)]
    return stem


def suffix_of(path: Path) -> str:
    """A file's suffix of KINDS."""
    return next(suffix.lower() for suffix in reversed(path.suffixes) if suffix.lower() in KINDS)


def without_copies(paths: list[Path]) -> list[Path]:
    """Paths without packed files that lie unpacked beside."""
    plain = {path.with_name(stem_of(path)) for path in paths if path.suffix.lower() not in PACKED_SUFFIXES}
    packed = [path for path in paths if path.suffix.lower() in PACKED_SUFFIXES]
    return [path for path in paths if path not in packed or path.with_name(stem_of(path)) not in plain]


def are_stories(splits: list[list[Path]]) -> bool:
    """Whether the files of a folder, those of each split, are small .txt files that are one story each."""
    paths = [path for split in splits for path in split]
    return (
        max(map(len, splits)) >= SEVERAL
        and all(kind_of(path) == "text" and path.stat().st_size <= SMALL for path in paths)
        and not any(holds_separator(path) for path in paths)
    )


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
            rows=lambda wanted, notes: hub_rows(loaded[part], name, advice),
            fingerprint=lambda: f"{name} {part} {revision}",
        )

    return {part: split(part) for part in loaded}


def hub_rows(loaded, name: str, advice: str) -> Iterator[Row]:
    """Yield (row, place) of a `datasets` data set: in batches, many times faster than by rows."""
    number = 0
    try:
        for batch in loaded.iter(batch_size=1000):
            columns = list(batch)
            for values in zip(*batch.values(), strict=True):
                number += 1
                yield dict(zip(columns, values, strict=True)), f"{name}, row {number}"
    except UserError:
        raise
    except Exception as error:  # pyarrow, csv and the network raise their own kinds
        raise UserError(f"{name}, after row {number}: cannot be read ({reason_of(error)}); {advice}") from None
