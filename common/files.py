"""Files that are written whole or not at all, and read without running what is in them."""

import contextlib
import io
import json
import os
import pickle
import pickletools
from pathlib import Path

from common.errors import UserError


# Files ----------------------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def naming(path):
    """Let an OSError in the block name the file that was meant."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


@contextlib.contextmanager
def written_atomically(path, check=None):
    """Give a binary file that takes its place at path when the block ends, complete and on the disk, or never.

    check: called with the path of what was written before it takes its place; what it raises leaves the old file there.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with naming(path), open(partial, "wb") as file:
            yield file
            on_disk(file)
        if check:
            check(partial)
        with naming(path):
            os.replace(partial, path)
        with contextlib.suppress(OSError):  # Windows cannot, and need not, write a folder to the disk
            folder = os.open(path.parent, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)
    finally:
        partial.unlink(missing_ok=True)


def on_disk(file):
    """Wait until what was written to a file is on the disk; who reads it next, reads the disk's copy."""
    file.flush()
    os.fsync(file.fileno())
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def locked(file):
    """Claim a file that is open for writing until it is closed or the process ends, however it ends.

    False if another process has it; None where the file system knows no locks.
    """
    try:
        if os.name == "nt":
            import msvcrt

            place = os.lseek(file.fileno(), 0, os.SEEK_CUR)
            os.lseek(file.fileno(), 1 << 30, os.SEEK_SET)  # a byte that nobody reads
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            os.lseek(file.fileno(), place, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return None
    return True


def write_json(path, content):
    with written_atomically(path) as file:
        file.write(json.dumps(content, indent=1).encode())


PLAIN_OPERATIONS = {
    "PROTO", "FRAME", "STOP", "MARK", "MEMOIZE", "BINPUT", "BINGET", "EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_LIST",
    "APPEND", "APPENDS", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "NONE", "NEWTRUE", "NEWFALSE", "BININT",
    "BININT1", "BININT2", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "LONG_BINGET",
}  # fmt: skip


# The tokenizer --------------------------------------------------------------------------------------------------------
class PlainUnpickler(pickle.Unpickler):
    """Reads numbers, strings, lists and dicts, and nothing that a pickle names: so it cannot run code."""

    def find_class(self, module, name):
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def read_plain_pickle(content):
    """What a pickle of plain types holds.  Raises UserError for one that could run code or fill the memory."""
    for operation, _, _ in pickletools.genops(content):  # before any of them can take memory, or do worse
        if operation.name not in PLAIN_OPERATIONS:
            raise UserError(f"it holds more than plain types ({operation.name}); take another one")
    return PlainUnpickler(io.BytesIO(content)).load()
