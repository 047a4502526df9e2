"""What every program does at the shell: flags, errors in one line, files that are written whole or not at all."""

import argparse
import contextlib
import dataclasses
import difflib
import errno
import io
import json
import os
import shutil
import signal
import stat
import sys
import threading
from pathlib import Path


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


def say(message):
    """What is not a program's result goes to stderr."""
    print(message, file=sys.stderr, flush=True)


CONTROLS = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def printable(text):
    """Text that a model wrote, without the control characters with which it could garble a terminal or a log."""
    return text.translate(CONTROLS)


def printed(value):
    """What a stranger's file holds, short and on one line."""
    if not isinstance(value, (str, int, float, type(None))):
        return "?"
    return "".join(c if c.isprintable() else "?" for c in str(value)[:60])


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


# Flags ----------------------------------------------------------------------------------------------------------------


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Flags and their help side by side, and N, X or TEXT for the kind of value."""

    def __init__(self, prog):
        super().__init__(prog, max_help_position=38, width=min(120, shutil.get_terminal_size((120, 24)).columns))

    def _get_default_metavar_for_optional(self, action):
        return {int: "N", float: "X"}.get(action.type, "TEXT")


class FlagParser(argparse.ArgumentParser):
    """An argument parser that takes whole flag names only and reports a wrong one in one line.

    Flags that are given to the parser itself come first in --help: the handout's.  The others stand in groups below.
    """

    def __init__(self, doc):
        usage = "python %(prog)s [flags]"
        super().__init__(description=doc, usage=usage, formatter_class=HelpFormatter, allow_abbrev=False)

    def error(self, message):
        raise UserError(f"{message}; --help lists the flags")


def flag(default, text, first=False, **options):
    """A field of a data class that is a flag; first: one that the handout uses, see `add_fields`."""
    return dataclasses.field(default=default, metadata={"help": text, "first": first} | options)


def add_fields(group, settings_class, defaults, parser=None):
    """Give a flag to each field of a data class that has a help text; defaults override the fields' own.

    group: where they stand in --help, but for those that the handout uses: these are the parser's own, listed first.
    """
    for item in dataclasses.fields(settings_class):
        options = dict(item.metadata)
        if options:
            place = parser if options.pop("first") and parser else group
            options["default"] = defaults.get(item.name, item.default)
            if "action" not in options:
                options.setdefault("type", type(item.default))
            if options["default"] is not None and "default" not in options["help"] and "action" not in options:
                options["help"] += " (default: %(default)s)"
            place.add_argument(f"--{item.name}", **options)


LENGTH = ("epochs", "max_steps")  # of a run
# What a run's args.json says of that run alone: where its files lie, what it ran on, and how it was started.
OF_THE_RUN = ("output_dir", "overwrite", "resume_from_checkpoint", "pilot_run", "device", "cache_dir")


def parse_flags(parser, pilot, argv=None, presets=None):
    """Parse argv.  One given there wins, then --config, then --preset, then --pilot_run, then the default.

    pilot: {flag: value}; presets: {name: {flag: value}}.  --epochs and --max_steps are one thing to whoever gives one:
    in argv or in the file, it replaces both; and the default --epochs counts only where nothing else says how long.
    """
    given = vars(parser.parse_args(argv, argparse.Namespace(**dict.fromkeys(LENGTH))))
    config = read_config(given["config"], parser) if given["config"] else {}
    parser.set_defaults(**config)
    args = parser.parse_args(argv)
    flags = (pilot if args.pilot_run else {}) | (presets or {}).get(getattr(args, "preset", None), {})
    for layer in (config, {name: given[name] for name in LENGTH if given[name] is not None}):
        flags |= (dict.fromkeys(LENGTH) if layer.keys() & LENGTH else {}) | layer
    if "max_steps" in flags:
        flags.setdefault("epochs", None)
    parser.set_defaults(**flags)
    return parser.parse_args(argv)


def read_config(path, parser):
    """{flag: value} of a file for --config, a JSON object; of a run's args.json without what is OF_THE_RUN.

    A null is as good as no entry.  Raises UserError for a flag that the parser does not know, and for a value that the
    flag does not take.
    """
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (ValueError, RecursionError) as error:
        raise UserError(f"--config {path} is no JSON ({printed(str(error))})") from None
    except OSError as error:
        raise UserError(f"--config {path}: {error.strerror}; name a file of flags, as a run's args.json") from None
    if not isinstance(content, dict):
        raise UserError(f'--config {path} holds no JSON object; write {{"lr": 0.001}}')
    if program := content.pop("program", None):  # an args.json
        content = {name: value for name, value in content.items() if name not in (*OF_THE_RUN, "config", "vocab_size")}
    actions = {action.dest: action for action in parser._actions if action.dest not in ("help", "config")}
    for name in ("overwrite", "resume_from_checkpoint"):  # or the command that goes on would not be what it says
        if content.get(name):
            raise UserError(f"--config {path}: {name} can only be given at the shell")
    for name in content:
        if name not in actions:
            meant = difflib.get_close_matches(name, actions, 1)
            hint = f"did you mean {meant[0]}?" if meant else "--help lists the flags"
            hint = hint if program in (None, parser.prog) else f"the file is of {printed(program)}"
            raise UserError(f"--config {path}: no flag {printed(name)}; {hint}")
    return {
        name: config_value(path, parser, actions[name], value) for name, value in content.items() if value is not None
    }


def config_value(path, parser, action, value):
    """The value of a flag in a file for --config, checked as if it had been typed."""
    if action.nargs == 0 and isinstance(value, bool):
        return value
    values = value if isinstance(value, list) and isinstance(action.default, list) else [value]
    if action.nargs == 0 or not values or not all(type(item) in (str, int, float) for item in values):
        raise UserError(f"--config {path}: {printed(json.dumps(value))} is no value for {action.dest}")
    try:
        return getattr(parser.parse_args([f"--{action.dest}={item}" for item in values]), action.dest)
    except UserError as error:
        raise UserError(f"--config {path}: {error}") from None


def settings_from(args, settings_class):
    """The data class of an argparse result; ValueError about a shape becomes a UserError."""
    names = {item.name for item in dataclasses.fields(settings_class)}
    try:
        return settings_class(**{name: value for name, value in vars(args).items() if name in names})
    except ValueError as error:
        raise UserError(str(error)) from None
