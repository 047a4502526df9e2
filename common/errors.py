"""Errors that a user can understand: one line that says what happened, where, and what to do."""

import errno
import json

# What to do about a file system error, by its name in `errno`.
ADVICE = {
    "ENOSPC": "; make room on the disk",
    "EDQUOT": "; your share of the disk is used up: make room",
    "EFBIG": "; the shell limits the size of files (`ulimit -f`)",
    "EROFS": "; choose a folder that you can write to",
    "EACCES": "; choose a file or folder that you have access to",
    "EMFILE": "; too many files are open (`ulimit -n`)",
}
IN_USE = (5, 32)  # Windows' numbers for a file that another program has open (5: or that is protected)
OUT_OF_MEMORY = ("out of memory", "DefaultCPUAllocator: ", "STATUS_ALLOC_FAILED")  # of CUDA or MPS, CPU, cuBLAS


class UserError(Exception):
    """An error whose message is one line that says what happened, where, and what to do.

    status: the exit status of the program: 2 for what the user can fix, 1 for what failed while running.
    """

    def __init__(self, message: str, status: int = 2):
        super().__init__("".join(c if c.isprintable() or c == "\n" else "?" for c in message))
        self.status = status


class Interrupted(BaseException):
    """A signal ends the program; a training run first finishes its step and saves a checkpoint.

    signum: the number of the signal.
    """

    def __init__(self, signum: int):
        self.signum = signum


def reason_of(error: BaseException, length: int = 160) -> str:
    """Return the first line of an error's message, or its type's name if it has no message.

    A longer line is shortened to `length` characters, after a word.
    """
    message = str(error).strip() or type(error).__name__
    line = message.splitlines()[0]
    return line if len(line) <= length else line[: length - 3].rsplit(" ", 1)[0] + "..."


def memory_is_full(error: BaseException) -> bool:
    """Whether an error means that the computer or the GPU is out of memory."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in OUT_OF_MEMORY)


def file_error(error: OSError) -> str:
    """Return one line: which file, what went wrong, and what to do."""
    place = error.filename or "while reading or writing"
    advice = ADVICE.get(errno.errorcode.get(error.errno), "")
    if getattr(error, "winerror", None) in IN_USE:
        advice += ", or close the program that has it open"
    return f"{place}: {error.strerror or error}{advice}"


def one_line(value: object, length: int = 100) -> str:
    """Return a value from somebody else's file for a message: on one line, at most `length` characters.

    Shows only texts, numbers and None: a list can contain itself.
    """
    if not isinstance(value, (str, int, float, type(None))):
        return "?"
    text = " ".join(str(value).split())
    shown = text if len(text) <= length else text[:length] + "..."
    return "".join(character if character.isprintable() else "?" for character in shown)


def one_line_json(value: object) -> str:
    """Return a value from a JSON file for a message, also a list or an object."""
    return one_line(json.dumps(value, default=str, ensure_ascii=False), 60)
