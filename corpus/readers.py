"""From a file to rows, by its kind: JSON (`json_files.py`), tables (`tables.py`), plain text, parquet and arrow.

A row is an object, a text or a list of turns.  Each row comes with its place, for messages.  A row that cannot be read
is replaced by the UserError that says why, so that reading can continue.

In reading order: `read_rows`, for any file; plain text; what pyarrow reads.
"""

import io
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

from common.errors import UserError, reason_of
from corpus.encodings import HEAD, decoded_lines, opened, unpacked
from corpus.json_files import begins_as_json, json_rows
from corpus.notes import Notes, Row, Wanted
from corpus.tables import begins_as_table, table_rows

KINDS = {
    ".jsonl": "json", ".ndjson": "json", ".json": "json", ".csv": "table", ".tsv": "table", ".txt": "text",
    ".parquet": "parquet", ".arrow": "arrow",
}  # fmt: skip
PACKED_SUFFIXES = (".gz", ".zst", ".bz2", ".xz")
STORY_SEPARATOR = "<|endoftext|>"
ENDS = {
    "separator": f"at {STORY_SEPARATOR}", "line": "at the end of its line", "blank_line": "at an empty line",
}  # fmt: skip


def kind_of(path: Path) -> str | None:
    """Return the kind of a file by its name, a value of KINDS or None; compression and capitals do not matter."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in PACKED_SUFFIXES:
        suffixes.pop()
    return KINDS.get(suffixes[-1]) if suffixes else None


def check_kind(path: Path) -> str:
    """Return the kind of a file.  Raises UserError if its name shows none."""
    kind = kind_of(path)
    if kind is None:
        if not {".tar", ".tgz", ".zip", ".7z", ".rar"}.isdisjoint(suffix.lower() for suffix in path.suffixes):
            raise UserError(f"{path} is an archive of files: unpack it, and pass the folder")
        suffix = path.suffix or "a file without a suffix"
        known = f"{' '.join(KINDS)}, also compressed ({' '.join(PACKED_SUFFIXES)})"
        raise UserError(f"{path}: cannot read {suffix}; supported are {known}")
    return kind


def read_rows(path: Path, wanted: Wanted, notes: Notes) -> Iterator[Row]:
    """Yield the rows of a file.  Raises UserError if the file cannot be read at all."""
    kind = check_kind(path)
    if kind in ("parquet", "arrow"):
        yield from arrow_rows(kind, path)
    elif kind == "table":
        yield from table_rows(path, notes)
    elif kind == "json":
        yield from json_rows(path, wanted, notes)
    elif wanted.any_form and begins_as_table(path, wanted):
        notes.guess("contains a table, and is read as one", path.name)
        yield from table_rows(path, notes)
    elif wanted.any_form and begins_as_json(path):
        notes.guess("contains JSON, and is read as JSON", path.name)
        yield from json_rows(path, wanted, notes)
    else:
        yield from text_rows(path, wanted, notes)


# Plain text -----------------------------------------------------------------------------------------------------------


def text_rows(path: Path, wanted: Wanted, notes: Notes) -> Iterator[Row]:
    """Yield ({"text": story}, place) for each story in a .txt file, with \\n for all line ends.

    A story with a line that is not UTF-8 becomes an error.
    """
    end = wanted.story_ends
    if end == "auto":
        end = story_end(path)
        notes.guess(f"a story ends {ENDS[end]}; --story_ends changes this", path.name)
    story = []  # lines so far
    first = 1
    error = None
    with opened(path) as file:
        for number, text in decoded_lines(file, path):
            if isinstance(text, UserError):
                error = error or text
                text = ""
            text = text.removesuffix("\n").removesuffix("\r")
            rest = []
            if end == "separator":
                *ends, last = text.split(STORY_SEPARATOR)
                rest = [last]
            elif end == "line" or (end == "blank_line" and not text.strip()):
                ends = [text]
            else:
                ends = []
                rest = [text]
            for piece in ends:
                yield from story_row([*story, piece], error, f"{path}, line {first}")
                story = []
                error = None
                first = number if any(rest) else number + 1
            story += rest
    yield from story_row(story, error, f"{path}, line {first}")


def story_row(lines: list[str], error: UserError | None, place: str) -> Iterator[Row]:
    """Yield the row that the lines of a story form, or the error in them; nothing if there is no text."""
    text = "\n".join(lines).strip()
    if error:
        yield error, place
    elif text:
        yield {"text": text}, place


def story_end(path: Path) -> str:
    """Return where the stories of a .txt file end.

    At `<|endoftext|>` if it is anywhere in the file; at empty lines if there are about as many as between stories of
    several lines; otherwise at the end of each line.
    """
    if holds_separator(path):
        return "separator"
    with opened(path) as file:
        lines = [line.strip() for line in file.read(HEAD).splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    texts = [list(group) for is_text, group in groupby(lines, key=bool) if is_text]
    empty = sum(not line for line in lines)
    of_several_lines = sum(len(text) > 1 for text in texts)
    separates = len(texts) > 2 and empty >= len(lines) / 5 and of_several_lines >= len(texts) / 2
    return "blank_line" if separates else "line"


def holds_separator(path: Path) -> bool:
    """Whether `<|endoftext|>` is anywhere in a file, which is not read into memory as a whole."""
    separator = STORY_SEPARATOR.encode()
    end = b""  # the end of the part before: the separator may be split between two parts
    with opened(path) as file:
        while part := file.read(1 << 20):
            if separator in end + part:
                return True
            end = part[-len(separator) :]
    return False


# Parquet and arrow ----------------------------------------------------------------------------------------------------


def arrow_rows(kind: str, path: Path) -> Iterator[Row]:
    """Yield the rows of a parquet file, or of an arrow file as `datasets` saves it."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError(f"{path}: reading {kind} needs the package datasets; install it, or use .jsonl") from None
    number = 0
    try:
        with unpacked(path) as file:
            source = file if file.seekable() else io.BytesIO(file.read())
            if kind == "parquet":
                batches = pyarrow.parquet.ParquetFile(source).iter_batches(batch_size=1000)
            else:
                batches = arrow_batches(pyarrow, source)
            for batch in batches:
                if len(set(batch.schema.names)) < len(batch.schema.names):
                    raise UserError(f"{path}: two columns have the same name; give each its own name")
                for row in batch.to_pylist():
                    number += 1
                    yield row, f"{path}, row {number}"
    except UserError:
        raise
    except Exception as error:  # pyarrow raises many kinds of errors
        raise UserError(
            f"{path}, after row {number}: cannot be read ({reason_of(error)}); is the file complete?"
        ) from None


def arrow_batches(pyarrow: Any, source: BinaryIO) -> Iterator:
    """Yield the batches of an arrow file: a stream from `save_to_disk`, or the file format."""
    if source.read(6) == b"ARROW1":
        reader = pyarrow.ipc.open_file(source)
        yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
    else:
        source.seek(0)
        yield from pyarrow.ipc.open_stream(source)
