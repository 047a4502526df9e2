"""What every program does at the shell: exit statuses, errors in one line, signals."""

import contextlib
import io
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator

from common.console import log
from common.errors import Interrupted, UserError, file_error, memory_is_full
from common.files import use_hub_cache


def run_program(main: Callable[[], None]) -> None:
    """Run a program's main function as a shell expects it.

    UTF-8 in and out; one line for an error.  Exit status as `UserError` says, 130 after Ctrl-C, 128 + n after signal n;
    a reader that has left (`| head`) ends the program in silence.
    """
    prepare_streams()
    use_hub_cache()
    threading.excepthook = report_thread
    try:
        with handled_signals(interrupt, "SIGTERM", "SIGHUP"):  # what is half-written is removed on the way out
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
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        log.error(f"error: {file_error(error)}")
        sys.exit(1)
    except (MemoryError, RuntimeError) as error:
        if not memory_is_full(error):
            raise
        log.error("error: the memory is full; a smaller model, or less at a time, needs less")
        sys.exit(1)


def prepare_streams() -> None:
    """Let the standard streams be in UTF-8, and those that are closed (`>&-`) be empty.

    A stream that a notebook has put in their place stays as it is.
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
    """Print what ended a thread, but for a file's error, which TensorBoard raises again where the run writes next."""
    if not isinstance(thread.exc_value, OSError):
        threading.__excepthook__(thread)


def report_uncaught(kind: type[BaseException], error: BaseException, trace: object) -> None:
    """Print one line for a Ctrl-C that comes while a program still imports its modules; the exit status is 130, too."""
    if issubclass(kind, KeyboardInterrupt):
        log.error("interrupted")
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = report_uncaught


# Signals --------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def handled_signals(handler: Callable, *names: str) -> Iterator[None]:
    """Let handler take the signals of these names in the block, except those that Windows lacks or `nohup` has ignored.

    Outside of the main thread, which alone can handle signals, nothing changes.
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
    """Give a list of the SIGINT, SIGTERM or SIGHUP that came; a second Ctrl-C ends the program at once."""
    noted = []

    def note(signum, frame):
        if noted and signum == signal.SIGINT:
            raise KeyboardInterrupt
        noted.append(signum)
        announce(signum, "finishing this step and saving a checkpoint; Ctrl-C from now on ends the run at once")

    with handled_signals(note, "SIGINT", "SIGTERM", "SIGHUP"):
        yield noted


def announce(signum: int, what: str) -> None:
    """Say what a signal does in a way that is safe at any moment: print could be what the signal interrupted."""
    name = signal.Signals(signum).name
    if name == "SIGHUP":
        leave_terminal()
    with contextlib.suppress(OSError):
        os.write(2, f"{name}: {what}\n".encode())


def leave_terminal() -> None:
    """Send what would go to a terminal that is gone (SIGHUP) nowhere, where writing it would raise an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        if stat.S_ISCHR(os.fstat(number).st_mode):
            os.dup2(nowhere, number)
