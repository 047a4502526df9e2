"""Errors that a user can understand: one line that says what, where and what to do."""

import errno


class UserError(Exception):
    """An error whose message is one line that says what, where and what to do.

    status: the program's exit status, 2 for what the user can mend, 1 for what failed while running.
    """

    def __init__(self, message, status=2):
        super().__init__("".join(c if c.isprintable() or c == "\n" else "?" for c in message))
        self.status = status


class Interrupted(BaseException):
    """A signal ends the program, a run after its step and with a checkpoint saved; .signum is the signal's number."""

    def __init__(self, signum):
        self.signum = signum


# A program ------------------------------------------------------------------------------------------------------------
def memory_is_full(error):
    """Whether an error says that the computer's or the GPU's memory is full."""
    signs = ("out of memory", "DefaultCPUAllocator: ", "STATUS_ALLOC_FAILED")  # CUDA's and MPS's, the CPU's, cuBLAS's
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in signs)


def file_error(error):
    """What went wrong with which file, and what to do, of an OSError."""
    advice = {
        "ENOSPC": "; make room on the disk", "EDQUOT": "; your share of the disk is used up: make room",
        "EFBIG": "; the shell limits the size of files (`ulimit -f`)", "EROFS": "; choose a folder that can be written",
        "EACCES": "; choose a file that you may use", "EMFILE": "; too many files are open (`ulimit -n`)",
    }  # fmt: skip
    name = errno.errorcode.get(error.errno)
    return f"{error.filename or 'while reading or writing'}: {error.strerror or error}{advice.get(name, '')}"
