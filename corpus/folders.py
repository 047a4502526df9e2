"""Which files of a folder are data, and which split they belong to.

In reading order: `files_of_splits`; `data_files`, which finds the data; `names_of_splits`; `are_stories`, for one story
per file.
"""

import os
import re
from pathlib import Path

from common.console import log
from common.errors import UserError, file_error, one_line
from corpus.json_files import begins_as_json
from corpus.readers import KINDS, PACKED_SUFFIXES, holds_separator, kind_of

VALIDATION_NAMES = ("validation", "valid", "val", "dev", "eval", "test")
SURE_NAMES = ("validation", "valid")  # unlikely to be in a name by chance
OTHER_NAMES = {
    "training": "train", "trainset": "train", "testing": "test", "testset": "test", "devset": "dev", "valset": "val",
}  # fmt: skip
# Only the files of a split that have the first of these suffixes are read.
SUFFIXES = (".jsonl", ".ndjson", ".parquet", ".arrow", ".csv", ".tsv", ".json", ".txt")
# The name of a file without suffix, or of a folder: a split, maybe a part number, maybe words around it.
SPLIT_NAME = re.compile(
    rf"(?:(?P<before>.*)[-_.])?(?P<name>{'|'.join(('train', *VALIDATION_NAMES, *OTHER_NAMES))})"
    r"(?:[-_. ]?(?:part)?[-_. ]?\d[\d\-_.of]*)?(?:-[0-9a-f]{16})?(?:[-_.](?P<after>.*))?"
)
NOT_DATA = re.compile(  # files that are not data, by their names in lower case without suffix
    "readme.*|licen[cs]e.*|changelog|notice|copying|authors|contributors|citation|requirements|credits|metadata|info|"
    "state|config|dataset_infos?|dataset_dict|dataset_metadata|tokenizer|tokenizer_config|package|package-lock|"
    "cache-[0-9a-f]*"  # caches of `datasets`
)
MOST_FILES = 5  # named in a line of the log, at most
SMALL = 20_000  # bytes: a .txt file up to this size may be one story
SEVERAL = 3  # if there are this many such files, each is one story


def files_of_splits(folder: Path) -> dict[str, list[Path]]:
    """Return {name of a split: its files}, for files like `train.jsonl` and `validation.jsonl` or the hub's layout.

    Logs what is left out.  Raises UserError if there is no data.
    """
    paths, left_out = data_files(folder)
    if not paths:
        found = f"; found: {names_of(left_out, folder)}" if left_out else ""
        raise UserError(
            f"no data in the folder {folder}: it needs train.jsonl, or .json, .txt, .csv or .parquet{found}"
        )
    splits = {}
    for path, name in names_of_splits(folder, paths).items():
        splits.setdefault(name, []).append(path)
    nameless = splits.pop(None, [])
    if nameless and "train" not in splits:
        splits["train"] = nameless
    else:
        left_out += nameless
    for name, files in splits.items():
        kind = min((suffix_of(path) for path in files), key=SUFFIXES.index)
        of_kind = [path for path in files if suffix_of(path) == kind]
        splits[name] = without_copies(of_kind)
        read = set(splits[name])
        left_out += [path for path in of_kind if path not in read]
        others = [path for path in files if suffix_of(path) != kind]
        if others:
            log.info(f"{folder}: left out: {names_of(others, folder)} (only {kind} files are read here)")
    if left_out:
        log.info(f"{folder}: left out: {names_of(left_out, folder)}")
    if len(splits.get("train", [])) > 1:
        log.info(f"{folder}: training data: {names_of(splits['train'], folder)}")
    return splits


def names_of(paths: list[Path], folder: Path) -> str:
    """Return the names of some files in a folder, for the log."""
    shown = [one_line(path.relative_to(folder).as_posix(), 60) for path in paths[:MOST_FILES]]
    more = f" and {len(paths) - MOST_FILES:,} more" if len(paths) > MOST_FILES else ""
    return f"{', '.join(shown)}{more}"


def data_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return (the data files in a folder and its subfolders, sorted by name; other files that the log should name).

    Hidden files, and the copies that macOS and Jupyter make, are in neither list.  Links to folders are followed, but
    each folder only once.  Raises UserError for a folder that cannot be read.
    """

    def refuse(error):
        raise UserError(file_error(error))

    found = {}  # {real path: the path under which it was found}
    unknown = []
    beside = []
    seen = set()
    for inside, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
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
            if has_kind and not is_beside_data and path.is_file():
                real = os.path.realpath(path)
                found[real] = min(path, found.get(real, path), key=lambda place: (place.is_symlink(), place))
            elif has_kind and is_beside_data:
                beside.append(path)
            elif has_kind or not is_beside_data:  # a README.md or a LICENSE is not worth naming
                unknown.append(path)
    return sorted(found.values()), [*sorted(unknown), *sorted(beside)]


def names_of_splits(folder: Path, paths: list[Path]) -> dict[Path, str | None]:
    """Return {path: name of its split, or None}, from the name of the file or of a folder that it is in.

    The split's name may have other words around it, as in `TinyStories-valid.txt`.  Then it usually counts only if
    another file has the same words around another split's name (`TinyStories-train.txt`), or only these words
    (`TinyStories.txt`).  So a `taste-test.txt` among other stories is one of the stories.
    """
    matches = {}
    for path in paths:
        parts = [stem_of(path), *reversed(path.relative_to(folder).parts[:-1])]
        found = [match for part in parts if (match := SPLIT_NAME.fullmatch(part.lower()))]
        matches[path] = found[0] if found else None
    words_around = {}  # {(words before, words after): the split names that appear between them}
    for match in filter(None, matches.values()):
        words_around.setdefault(match.group("before", "after"), set()).add(match["name"])
    others = {stem_of(path).lower() for path in paths}
    has_train = "train" in words_around.get((None, None), ())
    names = {}
    for path, match in matches.items():
        around = match.group("before", "after") if match else (None, None)
        is_split = match is not None and (
            around == (None, None)
            or len(words_around[around]) > 1
            or match["name"] in SURE_NAMES
            or (match["name"] != "train" and around[0] in others)
            or (match["name"] in ("val", "dev", "eval") and around[1] is None and has_train)
        )
        names[path] = OTHER_NAMES.get(match["name"], match["name"]) if is_split else None
    return names


def stem_of(path: Path) -> str:
    """Return a file's name without the suffixes for its kind and its compression."""
    stem = path.name
    while (suffix := Path(stem).suffix.lower()) and (suffix in KINDS or suffix in PACKED_SUFFIXES):
        stem = stem[: -len(suffix)]
    return stem


def suffix_of(path: Path) -> str:
    """Return the suffix for a file's kind."""
    return next(suffix.lower() for suffix in reversed(path.suffixes) if suffix.lower() in KINDS)


def without_copies(paths: list[Path]) -> list[Path]:
    """Leave out compressed files if the same file is next to them without compression."""
    plain = {path.with_name(stem_of(path)) for path in paths if path.suffix.lower() not in PACKED_SUFFIXES}
    is_packed = lambda path: path.suffix.lower() in PACKED_SUFFIXES
    return [path for path in paths if not is_packed(path) or path.with_name(stem_of(path)) not in plain]


def are_stories(splits: list[list[Path]]) -> bool:
    """Whether the files of a folder, given by split, are small .txt files with one story each."""
    paths = [path for split in splits for path in split]
    return (
        max(map(len, splits)) >= SEVERAL
        and all(kind_of(path) == "text" and path.stat().st_size <= SMALL for path in paths)
        and not any(holds_separator(path) or begins_as_json(path) for path in paths)
    )
