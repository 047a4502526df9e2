"""What every program does at the shell: exit statuses, one-line errors, signals."""

import contextlib
import errno
import io
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator

from common.console import log
from common.errors import Interrupted, UserError, file_error, memory_is_full, reason_of
from common.files import use_hub_cache


def run_program(main: Callable[[], None]) -> None:
    """Run a program's main function, with UTF-8 in and out and one line for an error.

    Exit status: that of the `UserError`, 130 after Ctrl-C, 128 + n after signal n.  If the reader of the output has
    left (`| head`), the program ends silently.
    """
    prepare_streams()
    use_hub_cache()
    threading.excepthook = report_thread
    try:
        with handled_signals(interrupt, "SIGTERM", "SIGHUP"):  # an exception, so that half-written files are removed
            main()
    except UserError as error:
        for line in str(error).splitlines():
            log.error(f"error: {line}")
        sys.exit(error.status)
    except Interrupted as interrupted:
        sys.exit(128 + interrupted.signum)
    except KeyboardInterrupt:
        log.error("interrupted")
        sys.exit(130)
    except OSError as error:
        if reader_has_left(error):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        log.error(f"error: {file_error(error)}")
        sys.exit(1)
    except NotImplementedError as error:  # a device lacks an operation, or an assignment a part
        log.error(f"error: {reason_of(error)}")
        sys.exit(1)
    except (MemoryError, RuntimeError) as error:
        if not memory_is_full(error):
            raise
        log.error("error: out of memory; use a smaller model, or process less at a time")
        sys.exit(1)


def reader_has_left(error: OSError) -> bool:
    """Return whether an error means that nobody reads the output any more.

    On Windows it may be an invalid argument, without the name of a file (github.com/python/cpython/issues/79935).
    """
    on_windows = os.name == "nt" and error.errno == errno.EINVAL and error.filename is None
    return isinstance(error, BrokenPipeError) or on_windows


def prepare_streams() -> None:
    """Set the standard streams to UTF-8, and replace closed ones (`>&-`) by empty ones.

    A stream that a notebook has replaced stays as it is.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")
            if name == "stdout":
                stream.reconfigure(line_buffering=True)


def report_thread(thread: threading.ExceptHookArgs) -> None:
    """Print the error that ended a thread, except a file error: TensorBoard raises it again at the next write."""
    if not isinstance(thread.exc_value, OSError):
        threading.__excepthook__(thread)


def report_uncaught(kind: type[BaseException], error: BaseException, trace: object) -> None:
    """Print one line for a Ctrl-C while a program still imports its modules; the exit status is 130, too."""
    if issubclass(kind, KeyboardInterrupt):
        log.error("interrupted")
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = report_uncaught


# Signals --------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def handled_signals(handler: Callable, *names: str) -> Iterator[None]:
    """Call handler for these signals in the block, except for those that Windows lacks or `nohup` ignores.

    Only the main thread can handle signals; in another thread nothing changes.
    """
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    taken = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in taken}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def interrupt(signum: int, frame: object) -> None:
    announce(signum, "ended")
    raise Interrupted(signum)


@contextlib.contextmanager
def noted_signals() -> Iterator[list[int]]:
    """Give a list of the SIGINT, SIGTERM and SIGHUP that came; Ctrl-C after the first ends the program at once."""
    noted = []

    def note(signum, frame):
        if noted and signum == signal.SIGINT:
            raise KeyboardInterrupt
        noted.append(signum)
        announce(signum, "finishing this step and saving a checkpoint; press Ctrl-C to end the run at once")

    with handled_signals(note, "SIGINT", "SIGTERM", "SIGHUP"):
        yield noted


def announce(signum: int, what: str) -> None:
    """Print what a signal does in a way that is always safe: the signal may have interrupted a print."""
    name = signal.Signals(signum).name
    if name == "SIGHUP":
        leave_terminal()
    with contextlib.suppress(OSError):
        os.write(2, f"{name}: {what}\n".encode())


def leave_terminal() -> None:
    """Discard output to a terminal that is gone (SIGHUP): writing to it would raise an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        if stat.S_ISCHR(os.fstat(number).st_mode):
            os.dup2(nowhere, number)
