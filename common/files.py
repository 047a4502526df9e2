"""Files that are written completely or not at all, and read without running code in them."""

import contextlib
import io
import json
import os
import pickle
import pickletools
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from common.errors import UserError, reason_of

LARGEST_JSON = 100 << 20  # bytes of a JSON file that is read into memory
OF_A_RUN = re.compile(  # the files of a run's folder
    r"(best_model|final_model|model-\d+|checkpoint-\d+)\.pth|(args|summary)\.json|metrics\.jsonl|train\.log"
)
PATIENCE = 5 if os.name == "nt" else 0  # seconds to wait for a file that another program has open; see `patiently`

# Writing --------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Make an OSError in the block name this path."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


@contextlib.contextmanager
def written_atomically(path: str | Path, check: Callable[[Path], None] | None = None) -> Iterator[BinaryIO]:
    """Open a binary file that replaces path when the block ends without an error; by then it is complete and on disk.

    check: called with the path of the new file before it replaces the old one.  If it raises an error, the old file
    stays.
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
            patiently(os.replace, partial, path)
        with contextlib.suppress(OSError):  # Windows cannot flush a folder to the disk, and need not
            folder = os.open(path.parent, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)
    finally:
        partial.unlink(missing_ok=True)


def patiently(move: Callable, *places: Path) -> None:
    """Move a file or folder with os.replace or Path.rename; if another program has it open, try again for a while.

    Windows does not move a file that is open, or replace one: a virus scanner reads each new file, and step 3 may read
    best_model.pth while step 2 writes the next one.
    """
    ends = time.monotonic() + PATIENCE
    while True:
        try:
            move(*places)
            return
        except PermissionError:
            if time.monotonic() >= ends:
                raise
            time.sleep(0.1)


def on_disk(file: BinaryIO) -> None:
    """Wait until what was written to a file is on the disk.

    Also drop the system's copy of it in memory, so that the next reader reads from the disk.
    """
    file.flush()
    os.fsync(file.fileno())
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def write_json(path: str | Path, content: object) -> None:
    """Write a JSON file, completely or not at all."""
    with written_atomically(path) as file:
        file.write(json.dumps(content, indent=1).encode())


def check_outputs(written: Iterable[str | None], read: Iterable[str | None]) -> None:
    """Raise UserError if a file cannot be written, or has another use: in the same command or in a run's folder.

    None: not asked for.
    """
    written = [path for path in written if path]
    used = [Path(path).resolve() for path in (*read, *written) if path]
    for path in written:
        if used.count(Path(path).resolve()) > 1:
            raise UserError(f"{path} would be overwritten, but has another use in this command; choose another file")
        if Path(path).is_dir():
            raise UserError(f"cannot write {path}: it is a folder; name a file")
        if OF_A_RUN.fullmatch(Path(path).name) and Path(path).exists() and Path(path).with_name("args.json").exists():
            raise UserError(f"{path} is a file of a run, and would be lost; choose another file")
        if not Path(path).parent.is_dir():
            raise UserError(f"cannot write {path}: there is no folder {Path(path).parent}; create it first")


def locked(file: BinaryIO) -> bool | None:
    """Lock a file that is open for writing, until it is closed or the process ends in any way.

    Returns False if another process has locked it, and None if the file system has no locks.
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


# Where files can be written -------------------------------------------------------------------------------------------


def existing_part(path: str | Path) -> Path:
    """Return the path, or the nearest folder above it that exists; the path if there is none (a missing drive)."""
    path = Path(path).absolute()
    return next((place for place in (path, *path.parents) if os.path.exists(place)), path)


def check_can_be_written(flag: str, folder: str | Path) -> None:
    """Raise UserError, naming the flag that the folder came from, if no file can be created in it."""
    place = existing_part(folder)
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise UserError(f"{flag}: cannot create a file in {place} ({error.strerror}); choose another folder") from None


@contextlib.contextmanager
def naming_flag(flag: str, folder: str | Path) -> Iterator[None]:
    """Make an OSError about a folder, a file in it or a folder above it name the flag that the folder came from."""
    try:
        yield
    except OSError as error:
        folder = Path(folder).absolute()
        place = Path(error.filename or ".").absolute()
        if place.is_relative_to(folder) or folder.is_relative_to(place):
            error.filename = f"{flag} {error.filename or folder}"
        raise


def cache_folder(name: str) -> Path:
    """Return the folder with this name in the user's cache, or in a temporary folder if the cache is not writable."""
    with contextlib.suppress(RuntimeError):  # HOME is not set, and the system does not know the user
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / name
        place = existing_part(folder)
        if place.is_dir() and os.access(place, os.W_OK):
            return folder
    return temporary_cache_folder(name)


def temporary_cache_folder(name: str) -> Path:
    """Return this user's folder with this name among the temporary files.

    If the system has no place for temporary files, use the current folder.
    """
    user = os.getuid() if hasattr(os, "getuid") else "user"
    try:
        return Path(tempfile.gettempdir()) / f"cache_of_{user}" / name
    except FileNotFoundError:
        return Path(name)


def use_hub_cache() -> None:
    """Make the hub's libraries, which are not imported yet, keep their files in a writable folder."""
    folder = cache_folder("huggingface")
    if folder == temporary_cache_folder("huggingface"):
        os.environ.setdefault("HF_HOME", str(folder))


# Reading --------------------------------------------------------------------------------------------------------------


def read_json(path: str | Path, largest: int = LARGEST_JSON) -> dict:
    """Read a JSON file that contains an object.  Raises UserError, naming the file."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no file {path}")
    if path.stat().st_size > largest:
        raise UserError(f"{path} is too large ({path.stat().st_size / 1e6:,.0f} MB); use another file")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a complete JSON file ({reason_of(error)}); use another file") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} does not contain a JSON object; use another file")
    return content


# The operations in a pickle of numbers, texts, lists and dicts.
PLAIN_OPERATIONS = {
    "PROTO", "FRAME", "STOP", "MARK", "MEMOIZE", "BINPUT", "BINGET", "EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_LIST",
    "APPEND", "APPENDS", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "NONE", "NEWTRUE", "NEWFALSE", "BININT",
    "BININT1", "BININT2", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "LONG_BINGET",
}  # fmt: skip


class PlainUnpickler(pickle.Unpickler):
    """Reads numbers, texts, lists and dicts, and refuses to import anything: so it cannot run code."""

    def find_class(self, module: str, name: str) -> None:
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def read_plain_pickle(content: bytes) -> object:
    """Read a pickle of plain types.  Raises UserError for one that could run code or fill the memory."""
    for operation, _, _ in pickletools.genops(content):  # checked before any operation runs
        if operation.name not in PLAIN_OPERATIONS:
            raise UserError(f"it contains more than plain types ({operation.name}); use another file")
    return PlainUnpickler(io.BytesIO(content)).load()
