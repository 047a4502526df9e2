"""Where stories and dialogues come from: local files, folders, and data sets on the hub.

In reading order: `open_dataset`, which finds the splits of a data set; local files; the hub.  For folders see
`folders.py`.  `readers.py` reads the files; the `datasets` library is imported only for the hub.
"""

import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from common.console import log
from common.errors import UserError, reason_of
from corpus.folders import VALIDATION_NAMES, are_stories, files_of_splits
from corpus.hub import HUB_SECONDS, hub_errors, within
from corpus.json_files import lists_by_name
from corpus.notes import Notes, Row, Wanted
from corpus.readers import check_kind, kind_of, read_rows

MODEL_BYTES = 1 << 20  # bytes at the beginning of the training data; they decide how validation data are read


@dataclass
class Split:
    """One split of a data set: each call of `rows(wanted, notes)` yields all its (row, place), see `readers.py`.

    fingerprint: of all its data.  beginning: a fingerprint of its first rows.  like: the training split, whose first
    rows decide how this split is read.  files: how many local files it has.
    """

    name: str
    rows: Callable[[Wanted, Notes], Iterator[Row]]
    fingerprint: Callable[[], str]
    beginning: Callable[[], str] | None = None
    like: "Split | None" = None
    files: int = 1


def open_dataset(name: str, streaming: bool = True, example: str = "sample_data/stories") -> dict[str, Split]:
    """Find the splits of a data set: {"train": Split, maybe "validation": Split}.

    name: a file of one of `readers.KINDS`, compressed or not, a folder of such files, or a data set on the hub.
    streaming: read only what is used from the hub, instead of downloading everything first.
    example: what to use instead if the hub cannot be reached, for the message.
    Raises UserError if there is no such data set, or if the hub does not answer.
    """
    path = Path(name)
    if path.is_file():
        splits = splits_inside(path) or {"train": file_split(path)}
    elif path.is_dir():
        files = files_of_splits(path)
        story_a_file = are_stories(list(files.values()))
        splits = {part: file_split(*paths, story_a_file=story_a_file) for part, paths in files.items()}
    elif kind_of(path) or path.is_absolute() or len(path.parts) > 2 or "\\" in name:
        raise UserError(f"no file or folder {name}; pass --dataset with the path of your data")
    else:
        splits = hub_splits(name, streaming, example)
    if "train" not in splits:
        advice = "; pass the file itself" if path.is_dir() else ""
        raise UserError(f"{name} has no split named train, only {', '.join(splits) or 'none'}{advice}")
    found = {"train": splits["train"]}
    for known in VALIDATION_NAMES:
        if known in splits:
            found["validation"] = read_alike(splits[known], splits["train"])
            break
    read = {split.name for split in found.values()}
    others = [split.name for split in splits.values() if split.name not in read]
    if others:
        log.info(f"{name}: left out: {', '.join(others)}")
    return found


# Local files ----------------------------------------------------------------------------------------------------------


def file_split(*paths: Path, story_a_file: bool = False) -> Split:
    """Make a split of local files; story_a_file: each .txt file is one story, unless a flag says otherwise."""
    for path in paths:
        check_kind(path)

    def rows(wanted, notes):
        if story_a_file and wanted.story_ends == "auto":
            notes.guess("each .txt file is a story; --story_ends changes this")
            wanted = replace(wanted, story_ends="file", any_form=False)
        for path in paths:
            yield from read_rows(path, wanted, notes)

    return Split(
        str(paths[0]) if len(paths) == 1 else f"{paths[0]} ({len(paths):,} files)",
        rows,
        fingerprint=lambda: f"{hash_files(paths)} {story_a_file}",
        beginning=lambda: hash_files(paths[:1], MODEL_BYTES),
        files=len(paths),
    )


def splits_inside(path: Path) -> dict[str, Split]:
    """Return the splits of a JSON file {"train": [...], "validation": [...]}; {} for any other file."""

    def split(name):
        return Split(
            f"{path} ({name})",
            rows=lambda wanted, notes: read_rows(path, replace(wanted, name=name), notes),
            fingerprint=lambda: f"{hash_files([path])} {name}",
            beginning=lambda: hash_files([path]),
        )

    names = lists_by_name(path, ("train", *VALIDATION_NAMES)) if kind_of(path) == "json" else []
    return {name: split(name) for name in names} if len(names) > 1 else {}


def read_alike(split: Split, train: Split) -> Split:
    """Return a validation split for which the first rows of the training split decide how it is read."""
    return replace(split, like=train, fingerprint=lambda: f"{split.fingerprint()} like {train.beginning()}")


def hash_files(paths: Iterable[Path], most: int | None = None) -> str:
    """Return a fingerprint of the contents of files, or of the first bytes of each."""
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        left = most
        with open(path, "rb") as file:
            while block := file.read(1 << 20 if left is None else min(left, 1 << 20)):
                digest.update(block)
                left = None if left is None else left - len(block)
        digest.update(f"{path.suffix} {kind_of(path)}".encode())  # its name decides how it is read
    return digest.hexdigest()


# The hub --------------------------------------------------------------------------------------------------------------


def hub_splits(name: str, streaming: bool, example: str) -> dict[str, Split]:
    """Return the splits of a data set on the Hugging Face hub."""
    advice = f"to work without the hub: --dataset {example}"
    try:
        import datasets
        import huggingface_hub
    except ImportError:
        raise UserError(f"{name} is on the hub, which needs the package datasets; install it; {advice}") from None
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
            beginning=lambda: f"{name} {part} {revision}",
        )

    return {part: split(part) for part in loaded}


def hub_rows(loaded, name: str, advice: str) -> Iterator[Row]:
    """Yield (row, place) from a `datasets` data set, in batches: this is many times faster than by rows."""
    number = 0
    try:
        for batch in loaded.iter(batch_size=1000):
            columns = list(batch)
            for values in zip(*batch.values(), strict=True):
                number += 1
                yield dict(zip(columns, values, strict=True)), f"{name}, row {number}"
    except UserError:
        raise
    except Exception as error:  # pyarrow, csv and the network raise their own kinds of errors
        raise UserError(f"{name}, after row {number}: cannot be read ({reason_of(error)}); {advice}") from None
