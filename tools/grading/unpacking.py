"""What a stranger's folder or archive holds, taken out with suspicion.

No path in an archive ever reaches the disk: a file is written under a number, into one folder made for it.  Links and
devices are refused, and bytes are counted while they are written: what a header claims may be a lie.  A damaged archive
is read as far as it goes.
"""

import gzip
import os
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ARCHIVES = (".zip", ".tar.gz", ".tgz", ".tar")
MOST_BYTES = 2 << 30  # that are unpacked of one submission; the two models and the records of a run have 50 MB
MOST_FILES = 20_000  # that are looked at in one submission
DEEPEST = 8  # folders within each other
LARGEST_INDEX = 32 << 20  # bytes of a zip's list of its files, which is read whole
LARGEST_HEADER = 1 << 24  # bytes of what a tar says of one file
BLOCK = 1 << 16  # bytes; larger ones come from the system anew each time
IGNORED = ("__MACOSX", "Thumbs.db", "desktop.ini", "wandb")  # not the run's own; and names that begin with a dot
LINK, NOT_PLAIN, DIRECTORY = "not read, a link", "not read, no plain file", "a folder"
BROKEN = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, OSError)  # gzip's is an OSError
BROKEN += (ValueError, RuntimeError, struct.error)  # what readers raise for damaged bytes


class TooMuch(Exception):
    """One of the limits above is reached."""


@dataclass
class Found:
    """The files of one submission: in folders[path of a folder, a tuple], {name: where it can be read, or None}."""

    wanted: Callable  # of a file's name: whether it is of use; of others only the name is noted
    target: Path  # an empty folder for what is unpacked
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
            self.refuse(name, "not read, its path leads out of the archive")
        elif len(parts) > DEEPEST:
            self.refuse(name, f"not read, more than {DEEPEST} folders deep")
        elif parts and not any(is_ignored(part) for part in parts):
            return (*prefix, *parts[:-1]), parts[-1]
        return None

    def add(self, folder, name, path=None):
        if name in self.folders[folder]:
            self.refuse(name, "not read, the second file of that name")
        else:
            self.folders[folder][name] = path

    def write(self, folder, name, blocks):
        """Write the blocks of a file of an archive; what was written before an error stays."""
        path = self.target / f"{self.files}{'.pth' if name.endswith('.pth') else ''}"
        self.add(folder, name, path)
        with open(path, "xb") as file:
            for block in blocks:
                self.bytes += len(block)
                if self.bytes > MOST_BYTES:
                    raise TooMuch(f"more than {MOST_BYTES / 1e9:.0f} GB in it")
                file.write(block)

    def said(self):
        """The problems, in a line each."""
        more = lambda names: f" and {len(names) - 1:,} more" if len(names) > 1 else ""
        return self.problems + [f"{names[0]}{more(names)}: {reason}" for reason, names in self.refused.items()]


def shown(name, length=60):
    """The end of a stranger's file name, on one line."""
    return "".join(c if c.isprintable() else "?" for c in str(name)[-length:])


def is_ignored(name):
    return name.startswith(".") or name in IGNORED


def is_archive(name):
    return name.lower().endswith(ARCHIVES)


def without_suffix(name):
    suffix = next((suffix for suffix in ARCHIVES if name.lower().endswith(suffix)), Path(name).suffix)
    return name[: len(name) - len(suffix)] or name


def look_into(folder, found, place=()):
    """Add to found what a folder holds, and what the archives in it hold."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        return found.refuse("/".join(place), f"not read ({error.strerror})")
    for entry in entries:
        if is_ignored(entry.name):
            continue
        found.count_file()
        mode, name = entry.stat(follow_symlinks=False).st_mode, "/".join((*place, entry.name))
        if stat.S_ISLNK(mode) or getattr(entry, "is_junction", bool)():
            found.refuse(name, LINK)
        elif stat.S_ISDIR(mode) and len(place) == DEEPEST:
            found.refuse(name, f"not read, more than {DEEPEST} folders deep")
        elif stat.S_ISDIR(mode):
            look_into(entry.path, found, (*place, entry.name))
        elif not stat.S_ISREG(mode):
            found.refuse(name, NOT_PLAIN)
        elif is_archive(entry.name):
            unpack(Path(entry.path), found, (*place, without_suffix(entry.name)))
        else:
            found.add(place, entry.name, Path(entry.path) if found.wanted(entry.name) else None)


def unpack(path, found, prefix=()):
    """Add to found what an archive holds, of a damaged one what can be read.  Raises TooMuch."""
    name = shown(path.name)
    try:
        with open(path, "rb") as file:
            start = file.read(2)
        if start == b"PK":
            try:
                take(zip_members(path), found, prefix)
            except zipfile.BadZipFile:  # its list of files, at the end, is not there
                with open(path, "rb") as file:
                    take(members_without_list(file), found, prefix)
                raise
        else:
            with (gzip.open if start == b"\x1f\x8b" else open)(path, "rb") as stream:
                stream = Forward(stream)
                with tarfile.open(fileobj=stream, mode="r:") as archive:
                    take(tar_members(archive), found, prefix)
                for _ in blocks_of(stream):  # to the check sum at the end
                    pass
    except BROKEN as error:
        raise_again_if_of_the_disk(error)
        count = sum(bool(there) for names in found.folders.values() for there in names.values())
        what = f"{count} file{'s' * (count != 1)} of it could be read" if count else "nothing in it could be read"
        found.problems.append(f"{name} is damaged, cut off, or another kind of file: {what}")


def raise_again_if_of_the_disk(error):
    if isinstance(error, OSError) and error.errno:
        raise error


def take(members, found, prefix):
    """Write the wanted ones of (name, None or what speaks against it, a function that gives its bytes in blocks)."""
    for name, reason, blocks in members:
        place = found.place(name, prefix)
        if not place or reason == DIRECTORY:
            continue
        if reason:
            found.refuse(name, reason)
        elif is_archive(place[1]):
            found.refuse(name, "not read, an archive in the archive")
        elif place[1] in found.folders[place[0]] or not found.wanted(place[1]):
            found.add(*place)
        else:
            try:
                found.write(*place, blocks())
            except BROKEN as error:
                raise_again_if_of_the_disk(error)
                found.refuse(name, "damaged or cut off, read as far as it goes")


def blocks_of(stream):
    return iter(lambda: stream.read(BLOCK), b"")


def check_list(path):
    """Raise TooMuch for a zip whose list of files would take much memory."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        file.seek(max(0, size - (1 << 16) - 98))
        end = file.read()
    at, at_64 = end.rfind(b"PK\5\6"), end.rfind(b"PK\6\6")
    listed = int.from_bytes(end[at + 12 : at + 16], "little") if at >= 0 else 0
    if listed == 0xFFFFFFFF:
        listed = int.from_bytes(end[at_64 + 40 : at_64 + 48], "little") if at_64 >= 0 else 0
    if listed > LARGEST_INDEX:
        raise TooMuch(f"more than {MOST_FILES:,} files in it")


def zip_members(path):
    check_list(path)
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            kind, reason = stat.S_IFMT(member.external_attr >> 16), None
            if member.is_dir():
                reason = DIRECTORY
            elif kind not in (0, stat.S_IFREG):
                reason = LINK if kind == stat.S_IFLNK else NOT_PLAIN
            elif member.flag_bits & 1:
                reason = "not read, locked with a password"
            elif member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                reason = "not read, compressed in a way that is not known here"
            yield member.filename, reason, lambda member=member: zip_blocks(archive, member)


def zip_blocks(archive, member):
    with archive.open(member) as stream:
        yield from blocks_of(stream)


def members_without_list(file):
    """The members of a zip that is cut off, by what stands before each of them."""
    while file.read(4) == b"PK\3\4":
        _, flags, method, _, _, size, _, name, extra = struct.unpack("<HHHLLLLHH", file.read(26))
        name = file.read(name).decode("utf-8", "replace")
        file.seek(extra, os.SEEK_CUR)
        if flags & 1 or method not in (0, 8) or (method == 0 and flags & 8):
            return
        blocks = inflated(file) if method else stored(file, size)
        yield name, DIRECTORY if name.endswith("/") else None, lambda blocks=blocks: blocks
        for _ in blocks:  # where it was not wanted
            pass
        after = file.read(24)  # the sizes stand here where they do not stand before
        at = after.find(b"PK\3\4")
        file.seek(at - len(after) if at >= 0 else 0, os.SEEK_CUR)


def inflated(file):
    decompressor, total = zlib.decompressobj(-15), 0
    while not decompressor.eof:
        block = decompressor.unconsumed_tail or file.read(BLOCK)
        if not block:
            raise EOFError
        block = decompressor.decompress(block, BLOCK)
        total += len(block)
        if total > MOST_BYTES:
            raise TooMuch(f"more than {MOST_BYTES / 1e9:.0f} GB in it")
        yield block
    file.seek(-len(decompressor.unused_data), os.SEEK_CUR)


def stored(file, size):
    while size:
        block = file.read(min(size, BLOCK))
        if not block:
            raise EOFError
        size -= len(block)
        yield block


class Forward:
    """A stream that is read once, from its beginning to its end, and no further than MOST_BYTES."""

    def __init__(self, stream):
        self.stream, self.at = stream, 0

    def tell(self):
        return self.at

    def read(self, size):
        if not 0 <= size <= LARGEST_HEADER:
            raise TooMuch("a file in it has a header without end")
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


def tar_members(archive):
    for member in archive:
        reason = DIRECTORY if member.isdir() else LINK if member.issym() or member.islnk() else None
        if not reason and (not member.isreg() or member.issparse()):
            reason = NOT_PLAIN
        yield member.name, reason, lambda member=member: blocks_of(archive.extractfile(member))
