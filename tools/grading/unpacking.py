"""Collect the files of a submitted folder or archive safely.

No path in an archive is used on disk: each file is written under a number, into one folder made for it.  Links and
devices are refused, and so are archives that are too large: reading a file gives no more bytes than its header claims.
"""

import io
import itertools
import lzma
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from common.errors import one_line
from training.run_folder import RECORDS

BOARD = "events.out.tfevents."
TOKENIZER = "bpe_tokenizer_tinystories.pkl"
TEXTS = (".log", ".txt", ".out", ".ipynb")
ARCHIVES = (".zip", ".tar.gz", ".tgz", ".tar")
IGNORED = ("__MACOSX", "Thumbs.db", "desktop.ini", "wandb")  # not part of a run; so are names with a dot in front
MOST_BYTES = 2 << 30  # unpacked from one submission; the two models and the records of a run have 50 MB
MOST_FILES = 20_000  # in one submission, without those that are ignored
MOST_IGNORED = 500_000
OF_THE_PROJECT = ("tests", "golden")  # where the project has runs of its own
LARGEST_INDEX = 32 << 20  # bytes of a zip's index; for 20,000 files it has about 3 MB
LARGEST_HEADER = 1 << 24  # bytes of one file's header in a tar
LINK = "skipped (a link)"
NOT_PLAIN = "skipped (not a regular file)"
# What the standard library's readers raise for damaged bytes; see `raise_if_of_the_disk`
DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error)
DAMAGED += (EOFError, OSError, ValueError, RuntimeError)

Place = tuple[str, ...]  # the path of a file or folder in a submission


class TooMuch(Exception):
    """The submission exceeds one of the limits above."""


@dataclass
class Found:
    """The files of one submission that grading reads."""

    target: Path  # an empty folder for unpacked files
    files: dict[Place, Path] = field(default_factory=dict)  # where they can be read
    refused: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # {reason: names of files}
    others: list[str] = field(default_factory=list)  # some names of files that grading does not read
    count: int = 0  # of all files that are not ignored
    ignored: int = 0
    bytes: int = 0  # unpacked so far

    def refuse(self, name: str, reason: str) -> None:
        self.refused[reason].append(one_line(name[-60:]))

    def problems(self) -> list[str]:
        """Return one line for each reason why files were refused."""
        lines = []
        for reason, names in self.refused.items():
            more = f" (and {len(names) - 1:,} more)" if len(names) > 1 else ""
            lines.append(f"{names[0]}{more}: {reason}")
        return lines

    def count_file(self, name: str = "") -> None:
        """Count a file.  name: its path in an archive.  Raises TooMuch."""
        if any(map(is_ignored, parts_of(name))):
            self.ignored += 1
        else:
            self.count += 1
        if self.count > MOST_FILES or self.ignored > MOST_IGNORED:
            raise TooMuch(f"it contains more than {MOST_FILES:,} files")

    def unpack_file(self, name: str, size: int, prefix: Place, read: Callable) -> None:
        """Unpack a file of an archive if grading needs it.  Raises TooMuch.

        name: its path in the archive; prefix: the archive's place; read: opens the file, for at most size bytes.
        """
        parts = parts_of(name)
        place = (*prefix, *parts)
        if name.startswith(("/", "\\")) or re.match("[A-Za-z]:", name) or ".." in parts:
            self.refuse(name, "skipped (its path leads out of the archive)")
        elif name.lower().endswith(ARCHIVES):
            self.refuse(name, "skipped (an archive inside the archive)")
        elif place in self.files:
            self.refuse(name, "skipped (a second file with this name)")
        elif is_wanted(place):
            self.bytes += size
            if self.bytes > MOST_BYTES:
                raise TooMuch(f"it contains more than {MOST_BYTES / 1e9:.0f} GB")
            path = self.target / str(self.count)
            try:
                with read() as stream, open(path, "xb") as file:
                    self.files[place] = path
                    shutil.copyfileobj(stream, file)
            except DAMAGED as error:
                raise_if_of_the_disk(error)
                self.refuse(name, "damaged, truncated, protected by a password, or compressed with an unknown method")
        elif parts and not any(map(is_ignored, parts)):
            self.others.append(parts[-1])


def parts_of(name: str) -> list[str]:
    """Return the parts of a path in an archive."""
    return [part for part in re.split(r"[/\\]", name) if part not in ("", ".")]


def is_ignored(name: str) -> bool:
    return name.startswith(".") or name in IGNORED


def is_wanted(place: Place) -> bool:
    """Return whether grading reads a file with this path."""
    name = place[-1]
    is_of_use = name in RECORDS or name == TOKENIZER or name.startswith(BOARD) or name.lower().endswith(TEXTS)
    inner = place[1:]  # without the name of the submission itself, which does not matter
    return is_of_use and not any(map(is_ignored, inner)) and OF_THE_PROJECT not in itertools.pairwise(inner)


def without_suffix(name: str) -> str:
    """Return a file's name without its suffix, or without ".tar.gz"."""
    return re.sub(r"\.(tar\.gz|[^.]+)$", "", name, flags=re.IGNORECASE) or name


def look_into(path: Path, place: Place, found: Found) -> None:
    """Add to found a file, or the files in an archive or a folder.  Raises TooMuch."""
    found.count_file()
    try:
        if path.is_symlink():
            found.refuse(path.name, LINK)
        elif path.is_dir():
            for inner in sorted(path.iterdir()):
                if not is_ignored(inner.name):
                    look_into(inner, (*place, inner.name), found)
        elif not path.is_file():
            found.refuse(path.name, NOT_PLAIN)
        elif path.name.lower().endswith(ARCHIVES):
            unpack(path, (*place[:-1], without_suffix(path.name)), found)
        elif is_wanted(place):
            found.files[place] = path
        else:
            found.others.append(path.name)
    except PermissionError as error:
        found.refuse(path.name, f"cannot be read ({error.strerror})")


def unpack(path: Path, place: Place, found: Found) -> None:
    """Add to found the files in an archive; of a damaged one, those that can be read.  Raises TooMuch."""
    unpack_kind = unpack_zip if path.name.lower().endswith(".zip") else unpack_tar
    try:
        unpack_kind(path, place, found)
    except DAMAGED as error:
        raise_if_of_the_disk(error)
        found.refuse(path.name, "damaged, truncated, or of another file type; the readable part was read")


def raise_if_of_the_disk(error: Exception) -> None:
    """Raise a system error again: it has an errno; the OSErrors that gzip and bz2 raise have none."""
    if isinstance(error, OSError) and error.errno:
        raise error


class ZipStream(io.FileIO):
    """The bytes of a zip file.  zipfile reads its index in one piece: an index that is too large is refused."""

    def read(self, size: int = -1) -> bytes:
        if size > LARGEST_INDEX:
            raise TooMuch(f"it contains more than {MOST_FILES:,} files")
        return super().read(size)


def unpack_zip(path: Path, place: Place, found: Found) -> None:
    with ZipStream(path) as stream, zipfile.ZipFile(stream) as archive:
        for member in archive.infolist():
            found.count_file(member.filename)
            if stat.S_ISLNK(member.external_attr >> 16):
                found.refuse(member.filename, LINK)
            elif not member.is_dir():
                found.unpack_file(member.filename, member.file_size, place, partial(archive.open, member))


def unpack_tar(path: Path, place: Place, found: Found) -> None:
    with tarfile.open(path, tarinfo=Header) as archive:
        for member in archive:
            found.count_file(member.name)
            if member.size < 0 or member.offset_data + member.size > MOST_BYTES:
                raise TooMuch(f"it contains more than {MOST_BYTES / 1e9:.0f} GB")
            if member.issym() or member.islnk():
                found.refuse(member.name, LINK)
            elif member.isreg():
                found.unpack_file(member.name, member.size, place, partial(archive.extractfile, member))
            elif not member.isdir():
                found.refuse(member.name, NOT_PLAIN)
        archive.fileobj.read(1 << 16)  # read to the end, where gzip checks the checksum


class Header(tarfile.TarInfo):
    """The header of a file in a tar; one longer than LARGEST_HEADER is refused."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> tarfile.TarInfo:
        header = super().frombuf(buf, encoding, errors)
        if header.type not in tarfile.REGULAR_TYPES and not 0 <= header.size <= LARGEST_HEADER:
            raise TooMuch("a file in it has a header that is too long")
        return header
