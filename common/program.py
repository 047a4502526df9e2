"""What every program does at the shell: signals, exit statuses, errors in one line."""

import contextlib
import io
import os
import signal
import stat
import sys
import threading

from common.console import say
from common.errors import Interrupted, UserError, file_error, memory_is_full


# Signals --------------------------------------------------------------------------------------------------------------
def leave_terminal():
    """Send what would still go to a terminal that is gone (SIGHUP) nowhere, where writing it would raise an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        if stat.S_ISCHR(os.fstat(number).st_mode):
            os.dup2(nowhere, number)


def is_hangup(signum):
    return signal.Signals(signum).name == "SIGHUP"


def announce(signum, what):
    """Say what a signal does, in a way that is safe in the midst of anything: print could be what it interrupted."""
    if is_hangup(signum):
        leave_terminal()
    with contextlib.suppress(OSError):
        os.write(2, f"{signal.Signals(signum).name}: {what}\n".encode())


def interrupt(signum, frame):
    announce(signum, "ended")
    raise Interrupted(signum)


def handled(handler, *names):
    """Let handler take the signals of these names, but for those that Windows lacks or `nohup` has ignored.

    Returns what handled them before, {number: handler}.
    """
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    return {n: signal.signal(n, handler) for n in numbers if signal.getsignal(n) is not signal.SIG_IGN}


@contextlib.contextmanager
def signals_noted():
    """A list of the SIGINT, SIGTERM or SIGHUP that came; a second Ctrl-C ends the program at once."""
    noted = []

    def note(signum, frame):
        if noted and signum == signal.SIGINT:
            raise KeyboardInterrupt
        noted.append(signum)
        announce(signum, "finishing this step and saving a checkpoint")

    before = handled(note, "SIGINT", "SIGTERM", "SIGHUP")
    try:
        yield noted
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def quiet_about_files(thread):
    """Print what ended a thread, but for a file's error, which TensorBoard raises again where the run writes next."""
    if not isinstance(thread.exc_value, OSError):
        threading.__excepthook__(thread)


def run_program(main):
    """Run a program's main function as a shell expects it.

    UTF-8 in and out; one line for an error.  Exit status as `UserError` says, 130 after Ctrl-C, 128 + n after signal n;
    a reader that has left (`| head`) ends the program in silence.
    """
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")
    sys.stdout.reconfigure(line_buffering=True)
    if threading.current_thread() is threading.main_thread():
        handled(interrupt, "SIGTERM", "SIGHUP")  # so that what is half-written is removed on the way out
    threading.excepthook = quiet_about_files
    try:
        main()
    except UserError as error:
        for line in str(error).splitlines():
            say(f"error: {line}")
        sys.exit(error.status)
    except Interrupted as interrupted:
        sys.exit(128 + interrupted.signum)
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        say(f"error: {file_error(error)}")
        sys.exit(1)
    except (MemoryError, RuntimeError) as error:
        if not memory_is_full(error):
            raise
        say("error: the memory is full; a smaller model, or less at a time, needs less")
        sys.exit(1)
