"""What a stranger's folder or archive holds, taken out with suspicion.

No path in an archive ever reaches the disk: a file is written under a number, into one folder made for it.  Links and
devices are refused, and so is what would be too much: the readers of archives give no more bytes than a header claims.
"""

import io
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
TEXTS = (".log", ".txt", ".out")
ARCHIVES = (".zip", ".tar.gz", ".tgz", ".tar")
IGNORED = ("__MACOSX", "Thumbs.db", "desktop.ini", "wandb")  # not the run's own; and names that begin with a dot
MOST_BYTES = 2 << 30  # that are unpacked of one submission; the two models and the records of a run have 50 MB
MOST_FILES = 20_000  # that are looked at in one submission
LARGEST_INDEX = 32 << 20  # bytes of a zip's list of its files; that of 20,000 files has about 3 MB
LARGEST_HEADER = 1 << 24  # bytes of what a tar says of one file
LINK = "not read, a link"
NOT_PLAIN = "not read, no plain file"
# What the readers of the standard library raise for damaged bytes; see `raise_if_of_the_disk`
DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error)
DAMAGED += (EOFError, OSError, ValueError, RuntimeError)

Place = tuple[str, ...]  # the path of a file, or of a folder, in a submission


class TooMuch(Exception):
    """One of the limits above is reached."""


@dataclass
class Found:
    """The files of one submission that grading reads."""

    target: Path  # an empty folder for what is unpacked
    files: dict[Place, Path] = field(default_factory=dict)  # where they can be read
    refused: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # {reason: names of files}
    count: int = 0  # of all files
    bytes: int = 0  # unpacked so far

    def refuse(self, name: str, reason: str) -> None:
        self.refused[reason].append(one_line(name[-60:]))

    def problems(self) -> list[str]:
        """A line for each reason for which files were refused."""
        lines = []
        for reason, names in self.refused.items():
            more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
            lines.append(f"{names[0]}{more}: {reason}")
        return lines

    def count_file(self) -> None:
        self.count += 1
        if self.count > MOST_FILES:
            raise TooMuch(f"more than {MOST_FILES:,} files in it")

    def unpack_file(self, name: str, size: int, prefix: Place, read: Callable) -> None:
        """Add a file of an archive, if grading reads it.  Raises TooMuch.

        name: its path there; prefix: the archive's place; read: opens it; no more bytes come than size.
        """
        parts = [part for part in re.split(r"[/\\]", name) if part not in ("", ".")]
        place = (*prefix, *parts)
        if name.startswith(("/", "\\")) or re.match("[A-Za-z]:", name) or ".." in parts:
            self.refuse(name, "not read, its path leads out of the archive")
        elif name.lower().endswith(ARCHIVES):
            self.refuse(name, "not read, an archive in the archive")
        elif place in self.files:
            self.refuse(name, "not read, the second file of that name")
        elif is_wanted(place):
            self.bytes += size
            if self.bytes > MOST_BYTES:
                raise TooMuch(f"more than {MOST_BYTES / 1e9:.0f} GB in it")
            path = self.target / str(self.count)
            try:
                with read() as stream, open(path, "xb") as file:
                    self.files[place] = path
                    shutil.copyfileobj(stream, file)
            except DAMAGED as error:
                raise_if_of_the_disk(error)
                self.refuse(name, "damaged, cut off, locked with a password, or compressed in a way that is not known")


def is_ignored(name: str) -> bool:
    return name.startswith(".") or name in IGNORED


def is_wanted(place: Place) -> bool:
    """Whether grading reads a file of that path."""
    name = place[-1]
    is_of_use = name in RECORDS or name == TOKENIZER or name.startswith(BOARD) or name.lower().endswith(TEXTS)
    inner = place[1:]  # what the submission itself is called does not matter
    return is_of_use and not any(is_ignored(part) for part in inner)


def without_suffix(name: str) -> str:
    """A file's name without ".tar.gz", or without its suffix."""
    return re.sub(r"\.(tar\.gz|[^.]+)$", "", name, flags=re.IGNORECASE) or name


def look_into(path: Path, place: Place, found: Found) -> None:
    """Add to found a file, what is in an archive, or what is in a folder.  Raises TooMuch."""
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
    except PermissionError as error:
        found.refuse(path.name, f"not read ({error.strerror})")


def unpack(path: Path, place: Place, found: Found) -> None:
    """Add to found what an archive holds, of a damaged one what can be read.  Raises TooMuch."""
    unpack_kind = unpack_zip if path.name.lower().endswith(".zip") else unpack_tar
    try:
        unpack_kind(path, place, found)
    except DAMAGED as error:
        raise_if_of_the_disk(error)
        found.refuse(path.name, "damaged, cut off, or another kind of file; what can be read of it is read")


def raise_if_of_the_disk(error: Exception) -> None:
    """Raise an error of the system again: it has a number, which the OSErrors of gzip and bz2 do not have."""
    if isinstance(error, OSError) and error.errno:
        raise error


class ZipStream(io.FileIO):
    """A zip's bytes.  Its list of files, which zipfile reads in one piece, must not fill the memory."""

    def read(self, size: int = -1) -> bytes:
        if size > LARGEST_INDEX:
            raise TooMuch(f"more than {MOST_FILES:,} files in it")
        return super().read(size)


def unpack_zip(path: Path, place: Place, found: Found) -> None:
    with ZipStream(path) as stream, zipfile.ZipFile(stream) as archive:
        for member in archive.infolist():
            found.count_file()
            if stat.S_ISLNK(member.external_attr >> 16):
                found.refuse(member.filename, LINK)
            elif not member.is_dir():
                found.unpack_file(member.filename, member.file_size, place, partial(archive.open, member))


def unpack_tar(path: Path, place: Place, found: Found) -> None:
    with tarfile.open(path, tarinfo=Header) as archive:
        for member in archive:
            found.count_file()
            if member.size < 0 or member.offset_data + member.size > MOST_BYTES:
                raise TooMuch(f"more than {MOST_BYTES / 1e9:.0f} GB in it")
            if member.issym() or member.islnk():
                found.refuse(member.name, LINK)
            elif member.isreg():
                found.unpack_file(member.name, member.size, place, partial(archive.extractfile, member))
            elif not member.isdir():
                found.refuse(member.name, NOT_PLAIN)
        archive.fileobj.read(1 << 16)  # the end, where gzip compares the check sum


class Header(tarfile.TarInfo):
    """What a tar says of a file; what is longer than LARGEST_HEADER is not read."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> tarfile.TarInfo:
        header = super().frombuf(buf, encoding, errors)
        if header.type not in tarfile.REGULAR_TYPES and not 0 <= header.size <= LARGEST_HEADER:
            raise TooMuch("a file in it has a header without end")
        return header
