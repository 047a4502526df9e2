"""From the bytes of a file to UTF-8 text: compressed files, byte-order marks, and advice for other encodings.

In reading order: `opened`, any file as UTF-8; `decoded_lines`, its lines as text; `encoding_of` and `unmarked_utf16`,
the likely encoding of bytes that are not UTF-8.
"""

import bz2
import codecs
import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from common.errors import UserError, reason_of

HEAD = 1 << 16  # bytes at the beginning of a file that are examined
PACKED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}  # the first bytes of compressed files
ZSTANDARD = b"\x28\xb5\x2f\xfd"
# Encodings by their byte-order mark.  UTF-32 comes first: its mark begins with that of UTF-16.
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
# The first bytes, in lower case, of files that are not text, and what these files are.
FOREIGN = {
    b"pk\x03\x04": "a zip archive: unpack it", b"%pdf": "a PDF: save its text", b"{\\rtf": "RTF: save it as plain text",
    b"\xd0\xcf\x11\xe0": "an old Excel or Word file: save it as csv or plain text",
    b"par1": "a parquet file: rename it to .parquet",
    b"version https://git-lfs": "a pointer of git-lfs, not the file: run git lfs pull",
    b"<!doctype html": "a web page, not data: download the file itself", b"<html": "a web page, not data",
}  # fmt: skip
OFFICE = (b"[Content_Types].xml", b"docProps/", b"xl/", b"word/")  # parts of a new Excel or Word file, a zip archive
TAR = b"ustar"  # in a tar archive, at byte TAR_AT
TAR_AT = 257
# Windows-1252's bytes for signs that word processors write: quotes, dashes, the ellipsis, the euro.
WINDOWS_SIGNS = frozenset(b"\x80\x85\x91\x92\x93\x94\x96\x97")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file as UTF-8 without a byte-order mark.

    It is decompressed (gzip, bzip2, xz, zstd), and converted if it begins with the mark of UTF-16 or UTF-32.
    Raises UserError for a damaged compressed file, and for UTF-16 without a mark.
    """
    with unpacked(path) as file:
        head = file.read(HEAD)
    refuse_foreign(head, path)
    marks = [mark for mark in MARKS if head.startswith(mark)]
    if not marks and (encoding := unmarked_utf16(head)):
        raise WholeFileError(
            f"{path}: not UTF-8, it seems to be UTF-16 without a byte-order mark; {conversion(encoding)}"
        )
    with unpacked(path) as file:
        if marks:
            yield io.BytesIO(converted(file.read(), MARKS[marks[0]], path))
            return
        if head.startswith(codecs.BOM_UTF8):
            file.read(len(codecs.BOM_UTF8))
        if b"\r" in head and b"\n" not in head:  # the line ends of old Macs
            yield io.BytesIO(file.read().replace(b"\r", b"\n"))
        else:
            yield file


def refuse_foreign(head: bytes, path: Path) -> None:
    """Raise UserError for a file that is known not to be text."""
    if head[TAR_AT : TAR_AT + len(TAR)] == TAR:
        raise WholeFileError(f"{path} is an archive of files: unpack it, and pass the folder")
    if head.startswith(b"PK\x03\x04") and any(part in head for part in OFFICE):
        raise WholeFileError(f"{path} is an Excel or Word file: save it as csv or plain text")
    start = head.lstrip()[:40].lower()
    for beginning, what in FOREIGN.items():
        if start.startswith(beginning):
            raise WholeFileError(f"{path} is {what}")


@contextlib.contextmanager
def unpacked(path: Path) -> Iterator[BinaryIO]:
    """Open a file, decompressed if necessary: its first bytes decide, not its name."""
    with open(path, "rb") as file:
        begin = file.read(6)
    opener = next((opener for magic, opener in PACKED.items() if begin.startswith(magic)), None)
    if begin.startswith(ZSTANDARD):
        opener = open_zstandard
    if opener is None:
        with open(path, "rb") as file:
            yield file
        return
    try:
        with opener(path) as file, io.BufferedReader(file) as buffered:
            yield buffered
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise UserError(f"{path}: cannot be decompressed ({reason_of(error)}); is the file complete?") from None


def open_zstandard(path: Path) -> BinaryIO:
    """Open a .zst file."""
    try:
        import pyarrow
    except ImportError:
        raise UserError(f"{path}: reading .zst needs the package datasets; install it, or unpack the file") from None
    return pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd")


def converted(content: bytes, encoding: str, path: Path) -> bytes:
    """Convert bytes to UTF-8.  Raises UserError if they are not in the encoding that their mark gives."""
    try:
        return content.decode(encoding).encode()
    except UnicodeError as error:
        reason = reason_of(error)
        raise UserError(f"{path}: its byte-order mark says {encoding.upper()}, but {reason}; save as UTF-8") from None


class WholeFileError(UserError):
    """An error that concerns more than one row: skipping rows would not help."""


def decoded_lines(file: BinaryIO, path: Path) -> Iterator[tuple[int, str | UserError]]:
    """Yield (number, text) of each line; for a line that is not UTF-8, the text is a UserError that says so."""
    is_utf8 = False  # whether a line has shown it: then converting the whole file would do harm
    for number, line in enumerate(file, start=1):
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            yield number, not_utf8(error, f"{path}, line {number}", is_utf8)
            continue
        is_utf8 = is_utf8 or not text.isascii()
        yield number, text


def decoded(content: bytes, place: object, is_utf8: bool = False) -> str:
    """Decode bytes.  Raises UserError if they are not UTF-8; is_utf8: whether others of the file are."""
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise not_utf8(error, place, is_utf8) from None


def not_utf8(error: UnicodeDecodeError, place: object, is_utf8: bool = False) -> UserError:
    """Return the error for bytes that are not UTF-8; is_utf8: whether other lines of the file are."""
    encoding = None if is_utf8 else encoding_of(error.object[max(0, error.start - 100) : error.start + 100])
    reason = f"{place}: not UTF-8 ({error.reason} at byte {error.start})"
    if encoding:
        return WholeFileError(f"{reason}, it seems to be {encoding}; {conversion(encoding)}")
    return UserError(f"{reason}; save it as UTF-8 with an editor")


def conversion(encoding: str) -> str:
    """Return what to do about a file in this encoding."""
    return f"save the file as UTF-8, or: iconv -f {encoding} -t UTF-8 FILE > NEWFILE"


def encoding_of(content: bytes) -> str | None:
    """Return the likely encoding of bytes that are not UTF-8, if it is the usual one for English text; otherwise None.

    Windows-1252, which is Latin-1 with more signs, has one byte per letter.  Texts in other scripts have too many bytes
    above 127 for it.
    """
    high = [byte for byte in content if byte > 127]
    typical = all(byte in WINDOWS_SIGNS or byte >= 0xA0 for byte in high)
    return "Windows-1252" if typical and len(high) <= max(2, len(content) / 4) else None


def unmarked_utf16(head: bytes) -> str | None:
    """Return UTF-16LE or UTF-16BE if bytes seem to be that: in an English text, every second byte is then zero.

    Such bytes are also valid UTF-8.  A UTF-8 text that contains a zero is not mistaken for UTF-16, because most of its
    pairs of bytes are two letters.
    """
    if b"\0" not in head:
        return None
    pairs = list(zip(head[0::2], head[1::2], strict=False))
    two_letters = sum(32 <= first < 127 and 32 <= second < 127 for first, second in pairs)
    signs = (*range(32, 127), *b"\t\r\n")
    for name, zero, letter in (("UTF-16LE", 1, 0), ("UTF-16BE", 0, 1)):
        plain = sum(pair[zero] == 0 and pair[letter] in signs for pair in pairs)
        if plain > max(two_letters, len(pairs) / 20):
            return name
    return None
