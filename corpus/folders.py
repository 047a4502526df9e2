"""Which files of a folder are data, and of which split.

In reading order: `files_of_splits`; `data_files`, what is data; `names_of_splits`; `are_stories`, a story a file.
"""

import os
import re
from pathlib import Path

from common.console import log
from common.errors import UserError, file_error, one_line
from corpus.json_files import begins_as_json
from corpus.readers import KINDS, PACKED_SUFFIXES, holds_separator, kind_of

VALIDATION_NAMES = ("validation", "valid", "val", "dev", "eval", "test")
SURE_NAMES = ("validation", "valid")  # hardly stand in a name by chance
OTHER_NAMES = {
    "training": "train", "trainset": "train", "testing": "test", "testset": "test", "devset": "dev", "valset": "val",
}  # fmt: skip
# Of the files of a split, those with the first of these suffixes that is found are read.
SUFFIXES = (".jsonl", ".ndjson", ".parquet", ".arrow", ".csv", ".tsv", ".json", ".txt")
# A file's name without suffix, or a folder's: the split's name, maybe the number of a part, maybe words around it.
SPLIT_NAME = re.compile(
    rf"(?:(?P<before>.*)[-_.])?(?P<name>{'|'.join(('train', *VALIDATION_NAMES, *OTHER_NAMES))})"
    r"(?:[-_. ]?(?:part)?[-_. ]?\d[\d\-_.of]*)?(?:-[0-9a-f]{16})?(?:[-_.](?P<after>.*))?"
)
NOT_DATA = re.compile(  # files beside the data, by their names in lower case without suffix
    "readme.*|licen[cs]e.*|changelog|notice|copying|authors|contributors|citation|requirements|credits|metadata|info|"
    "state|config|dataset_infos?|dataset_dict|dataset_metadata|tokenizer|tokenizer_config|package|package-lock|"
    "cache-[0-9a-f]*"  # what `datasets` computed from the data
)
MOST_FILES = 5  # that a line of the log names
SMALL = 20_000  # bytes: a .txt file that may be one story
SEVERAL = 3  # such files: then each is one


def files_of_splits(folder: Path) -> dict[str, list[Path]]:
    """{name of a split: its files}: of `train.jsonl`, `validation.jsonl` and the like, or of the hub's layout.

    What is left out is logged.  Raises UserError if there is no data.
    """
    paths, left_out = data_files(folder)
    if not paths:
        raise UserError(f"no data in the folder {folder}: it should hold train.jsonl, or .json, .txt, .csv or .parquet")
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
        splits[name] = without_copies([path for path in files if suffix_of(path) == kind])
        read = set(splits[name])
        left_out += [path for path in files if path not in read]
    if left_out:
        log.info(f"{folder}: left out: {names_of(left_out, folder)}")
    if len(splits.get("train", [])) > 1:
        log.info(f"{folder}: training data: {names_of(splits['train'], folder)}")
    return splits


def names_of(paths: list[Path], folder: Path) -> str:
    """The names of some files in a folder, for the log."""
    shown = [one_line(path.relative_to(folder).as_posix(), 60) for path in paths[:MOST_FILES]]
    more = f" and {len(paths) - MOST_FILES:,} more" if len(paths) > MOST_FILES else ""
    return f"{', '.join(shown)}{more}"


def data_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """(the data files in a folder and below it, by name; what else the log should name).

    Hidden files and copies that macOS and Jupyter leave are neither.  Links to folders are followed, each folder once.
    Raises UserError for a folder that cannot be read.
    """

    def refuse(error):
        raise UserError(file_error(error))

    found = {}  # {the real file: by what name it is found}
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
            elif has_kind or not is_beside_data:  # a README.md or a LICENSE is not worth a line
                unknown.append(path)
    return sorted(found.values()), [*sorted(unknown), *sorted(beside)]


def names_of_splits(folder: Path, paths: list[Path]) -> dict[Path, str | None]:
    """{path: name of its split, or None}: by the name of the file, or of a folder that it is in.

    Other words may stand around it, as in `TinyStories-valid.txt`.  Then it is a split's name only beside a file with
    the same words around another one, as `TinyStories-train.txt`, or with these words alone: a `taste-test.txt`
    among other stories is one of them.
    """
    matches = {}
    for path in paths:
        parts = [stem_of(path), *reversed(path.relative_to(folder).parts[:-1])]
        found = [match for part in parts if (match := SPLIT_NAME.fullmatch(part.lower()))]
        matches[path] = found[0] if found else None
    words_around = {}  # {(words before, words after): the names of splits between them}
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
    is_packed = lambda path: path.suffix.lower() in PACKED_SUFFIXES
    return [path for path in paths if not is_packed(path) or path.with_name(stem_of(path)) not in plain]


def are_stories(splits: list[list[Path]]) -> bool:
    """Whether the files of a folder, those of each split, are small .txt files that are one story each."""
    paths = [path for split in splits for path in split]
    return (
        max(map(len, splits)) >= SEVERAL
        and all(kind_of(path) == "text" and path.stat().st_size <= SMALL for path in paths)
        and not any(holds_separator(path) or begins_as_json(path) for path in paths)
    )
