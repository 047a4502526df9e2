"""What a stranger's folder or archive holds, taken out with suspicion.

No path in an archive ever reaches the disk: a file is written under a number, or under one of the names of a run's own
files, into a folder made for it.  Links and devices are refused, and sizes are counted while writing: what a header
claims may be a lie.
"""

import bz2
import gzip
import lzma
import os
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from shell import printed

ARCHIVES = (".zip", ".tar.gz", ".tgz", ".tar", ".tar.bz2", ".tar.xz")
MOST_BYTES = 2 << 30  # that are unpacked of one submission; the two models and the records of a run have 50 MB
MOST_FILES = 20_000  # that are looked at in one submission
DEEPEST = 8  # folders within each other
LARGEST_INDEX = 32 << 20  # bytes of a zip's list of its files, which is read whole
BLOCK = 1 << 18  # bytes
IGNORED = ("__MACOSX", "Thumbs.db", "desktop.ini")  # what file managers leave behind; and names that begin with a dot


class TooMuch(Exception):
    """One of the limits above is reached."""


@dataclass
class Found:
    """The files of one submission: in folders[path of a folder, a tuple], {name: where it can be read, or None}.

    wanted: whether a file of this name is of use; of others only the name is noted.  target: an empty folder for what
    is unpacked.
    """

    wanted: callable
    target: Path
    folders: dict = field(default_factory=lambda: defaultdict(dict))
    problems: list = field(default_factory=list)
    refused: dict = field(default_factory=lambda: defaultdict(list))  # {reason: names}
    files: int = 0
    bytes: int = 0  # unpacked so far

    def refuse(self, name, reason):
        self.refused[reason].append(shown(name))

    def count_file(self):
        self.files += 1
        if self.files > MOST_FILES:
            raise TooMuch(f"more than {MOST_FILES:,} files in it")

    def place(self, name, prefix):
        """(folder, file name) of a path in an archive that is to be read, else None."""
        self.count_file()
        parts = [part for part in re.split(r"[/\\]", name) if part not in ("", ".")]
        if name[:1] in ("/", "\\") or re.match("[A-Za-z]:", name) or ".." in parts:
            self.refuse(name, "lead out of the archive")
        elif parts and not any(is_ignored(part) for part in parts):
            if len(parts) <= DEEPEST:
                return (*prefix, *parts[:-1]), parts[-1]
            self.refuse(name, f"lie in more than {DEEPEST} folders within each other")
        return None

    def add(self, folder, name, path=None):
        if name in self.folders[folder]:
            self.refuse("/".join((*folder, name)), "are there twice (the first was taken)")
        else:
            self.folders[folder][name] = path

    def write(self, folder, name, blocks):
        """Write the blocks of a file of an archive; what was written before an error stays."""
        if name in self.folders[folder]:
            return self.add(folder, name)
        where = self.target / str(list(self.folders).index(folder))
        where.mkdir(exist_ok=True)
        path = where / (name if re.fullmatch(r"[a-z]+(_[a-z]+)?\.(pth|jsonl?|log)", name) else f"file-{self.files}")
        self.add(folder, name, path)
        with open(path, "xb") as file:
            for block in blocks:
                self.bytes += len(block)
                if self.bytes > MOST_BYTES:
                    raise TooMuch(f"more than {MOST_BYTES / 1e9:.0f} GB in it")
                file.write(block)

    def said(self):
        """The problems, in a line each."""
        count = lambda names: f"1 file ({names[0]})" if len(names) == 1 else f"{len(names):,} files (as {names[0]})"
        return self.problems + [
            f"not read: {count(names)} that {reason if len(names) > 1 else singular(reason)}"
            for reason, names in self.refused.items()
        ]


def singular(reason):
    verb, _, rest = reason.partition(" ")
    return f"{ {'are': 'is'}.get(verb, verb + 's') } {rest}".replace("were", "was")


def shown(name):
    name = printed(str(name)[-60:])
    return name or "?"


def is_ignored(name):
    return name.startswith(".") or name in IGNORED


def look_into(path, found, prefix=()):
    """Add to found what a folder holds, and what the archives in it hold."""
    waiting = [(path, prefix)]
    while waiting:
        folder, place = waiting.pop()
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if is_ignored(entry.name):
                continue
            found.count_file()
            mode, shown_name = entry.stat(follow_symlinks=False).st_mode, "/".join((*place, entry.name))
            if stat.S_ISDIR(mode) and not entry.is_symlink():
                if len(place) < DEEPEST:
                    waiting.append((entry.path, (*place, entry.name)))
                else:
                    found.refuse(shown_name, f"lie in more than {DEEPEST} folders within each other")
            elif stat.S_ISLNK(mode):
                found.refuse(shown_name, "are links")
            elif not stat.S_ISREG(mode):
                found.refuse(shown_name, "are no plain files")
            elif is_archive(entry.name):
                unpack(Path(entry.path), found, (*place, without_suffix(entry.name)))
            else:
                found.add(place, entry.name, Path(entry.path) if found.wanted(entry.name) else None)


def is_archive(name):
    return str(name).lower().endswith(ARCHIVES)


def without_suffix(name):
    suffix = next((suffix for suffix in ARCHIVES if name.lower().endswith(suffix)), Path(name).suffix)
    return name[: len(name) - len(suffix)] or name


def unpack(path, found, prefix=()):
    """Add to found what an archive holds; a broken one as far as it can be read."""
    with open(path, "rb") as file:
        start = file.read(6)
    try:
        if start[:2] == b"PK":
            unpack_zip(path, found, prefix)
        else:
            opener = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}.get(start[:2], open)
            with opener(path, "rb") as stream:
                unpack_tar(stream, found, prefix)
    except TooMuch as error:
        found.problems.append(f"{path.name}: {error}; the rest was not read")
    except OSError as error:
        if error.errno and not isinstance(error, gzip.BadGzipFile):
            raise
        found.problems.append(f"{path.name} is damaged or cut off: {files_read(found)}")
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, ValueError, RecursionError, zipfile.BadZipFile):
        found.problems.append(f"{path.name} is damaged or cut off: {files_read(found)}")


def files_read(found):
    count = sum(path is not None for names in found.folders.values() for path in names.values())
    return f"{count} file{'s' * (count != 1)} could be read" if count else "nothing in it could be read"


def unpack_zip(path, found, prefix):
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 22 - (1 << 16)))
        end = file.read()
    at = end.rfind(b"PK\5\6")
    if at >= 0 and len(end) >= at + 22 and struct.unpack_from("<L", end, at + 12)[0] > LARGEST_INDEX:
        raise TooMuch(f"more than {MOST_FILES:,} files in it")
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            place = found.place(member.filename, prefix)
            if not place or member.is_dir():
                continue
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG):
                found.refuse(member.filename, "are links" if kind == stat.S_IFLNK else "are no plain files")
            elif is_archive(place[1]):
                found.refuse(member.filename, "are archives in the archive")
            elif not found.wanted(place[1]):
                found.add(*place)
            elif member.flag_bits & 1:
                found.refuse(member.filename, "are locked with a password")
            elif member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                found.refuse(member.filename, "are compressed in a way that is not known here")
            else:
                try:
                    with archive.open(member) as stream:
                        found.write(*place, iter(lambda stream=stream: stream.read(BLOCK), b""))
                except (zipfile.BadZipFile, EOFError, zlib.error):
                    found.refuse(member.filename, "are damaged in the archive")


class Forward:
    """A stream that is read once, from its beginning to its end, and no further than MOST_BYTES."""

    def __init__(self, stream):
        self.stream, self.at = stream, 0

    def tell(self):
        return self.at

    def read(self, size):
        if size > 1 << 24:
            raise TooMuch("a header of more than 16 MB in it")
        block = self.stream.read(size)
        self.at += len(block)
        if self.at > MOST_BYTES:
            raise TooMuch(f"more than {MOST_BYTES / 1e9:.0f} GB in it")
        return block

    def seek(self, place):
        if place < self.at:
            raise tarfile.ReadError("goes backwards")
        while self.at < place:
            if not self.read(min(BLOCK, place - self.at)):
                raise EOFError


def unpack_tar(stream, found, prefix):
    with tarfile.open(fileobj=Forward(stream), mode="r:") as archive:
        for member in archive:
            place = found.place(member.name, prefix)
            if not place or member.isdir():
                continue
            if member.issym() or member.islnk():
                found.refuse(member.name, "are links")
            elif not member.isreg() or member.issparse():
                found.refuse(member.name, "are no plain files")
            elif is_archive(place[1]):
                found.refuse(member.name, "are archives in the archive")
            elif not found.wanted(place[1]):
                found.add(*place)
            else:
                source = archive.extractfile(member)
                found.write(*place, iter(lambda source=source: source.read(BLOCK), b""))
