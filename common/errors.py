"""Errors that a user can understand: one line that says what, where and what to do."""

import errno
import json

# What to do about an error of the file system, by its name in `errno`.
ADVICE = {
    "ENOSPC": "; make room on the disk",
    "EDQUOT": "; your share of the disk is used up: make room",
    "EFBIG": "; the shell limits the size of files (`ulimit -f`)",
    "EROFS": "; choose a folder that can be written",
    "EACCES": "; choose a file or folder that you may use",
    "EMFILE": "; too many files are open (`ulimit -n`)",
}
OUT_OF_MEMORY = ("out of memory", "DefaultCPUAllocator: ", "STATUS_ALLOC_FAILED")  # CUDA's and MPS's, CPU's, cuBLAS's


class UserError(Exception):
    """An error whose message is one line that says what, where and what to do.

    status: the program's exit status, 2 for what the user can fix, 1 for what failed while running.
    """

    def __init__(self, message: str, status: int = 2):
        super().__init__("".join(c if c.isprintable() or c == "\n" else "?" for c in message))
        self.status = status


class Interrupted(BaseException):
    """A signal ends the program, a run after its step and with a checkpoint saved; .signum is the signal's number."""

    def __init__(self, signum: int):
        self.signum = signum


def reason_of(error: BaseException, length: int = 160) -> str:
    """The first line of an error's message, cut after a word if it is longer, or its type's name if it has none."""
    message = str(error).strip() or type(error).__name__
    line = message.splitlines()[0]
    return line if len(line) <= length else line[: length - 3].rsplit(" ", 1)[0] + "..."


def memory_is_full(error: BaseException) -> bool:
    """Whether an error says that the computer's or the GPU's memory is full."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in OUT_OF_MEMORY)


def file_error(error: OSError) -> str:
    """What went wrong with which file, and what to do."""
    place = error.filename or "while reading or writing"
    advice = ADVICE.get(errno.errorcode.get(error.errno), "")
    return f"{place}: {error.strerror or error}{advice}"


def one_line(value: object, length: int = 100) -> str:
    """Show what a file of somebody else holds in a message: at most so many characters, on one line.

    Only texts, numbers and None are shown: lists in lists can be endless.
    """
    if not isinstance(value, (str, int, float, type(None))):
        return "?"
    text = " ".join(str(value).split())
    shown = text if len(text) <= length else text[:length] + "..."
    return "".join(character if character.isprintable() else "?" for character in shown)


def one_line_json(value: object) -> str:
    """Show a value of a JSON file, lists and objects too."""
    return one_line(json.dumps(value, default=str), 60)
