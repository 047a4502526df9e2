"""What every program does at the shell: flags, errors in one line, files that are written whole or not at all."""

import argparse
import contextlib
import dataclasses
import io
import json
import os
import shutil
import sys
from pathlib import Path


class UserError(Exception):
    """An error whose message is one line that says what, where and what to do.

    status: the program's exit status, 2 for what the user can mend, 1 for what failed while running.
    """

    def __init__(self, message, status=2):
        super().__init__(message)
        self.status = status


class Interrupted(Exception):
    """A signal ended the run after its step, with a checkpoint saved; .signum is the signal's number."""

    def __init__(self, signum):
        self.signum = signum


def say(message):
    """What is not a program's result goes to stderr."""
    print(message, file=sys.stderr, flush=True)


CONTROLS = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def printable(text):
    """Text that a model wrote, without the control characters with which it could garble a terminal or a log."""
    return text.translate(CONTROLS)


def run_program(main):
    """Run a program's main function as a shell expects it.

    UTF-8 in and out; one line for an error.  Exit status as `UserError` says, 130 after Ctrl-C, 128 + n after signal n;
    a reader that has left (`| head`) ends the program in silence.
    """
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")
    sys.stdout.reconfigure(line_buffering=True)
    try:
        main()
    except UserError as error:
        say(f"error: {error}")
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
        say(f"error: {error.filename or 'while reading or writing'}: {error.strerror or error}")
        sys.exit(1)


@contextlib.contextmanager
def written_atomically(path):
    """Give a binary file that takes its place at path when the block ends, complete and on the disk, or never."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path, content):
    with written_atomically(path) as file:
        file.write(json.dumps(content, indent=1).encode())


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Flags and their help side by side, and N, X or TEXT for the kind of value."""

    def __init__(self, prog):
        super().__init__(prog, max_help_position=38, width=min(120, shutil.get_terminal_size((120, 24)).columns))

    def _get_default_metavar_for_optional(self, action):
        return {int: "N", float: "X"}.get(action.type, "TEXT")


class FlagParser(argparse.ArgumentParser):
    """An argument parser that takes whole flag names only and reports a wrong one in one line."""

    def __init__(self, doc):
        usage = "python %(prog)s [flags]"
        super().__init__(description=doc, usage=usage, formatter_class=HelpFormatter, allow_abbrev=False)

    def error(self, message):
        raise UserError(f"{message}; --help lists the flags")


def flag(default, text, **options):
    return dataclasses.field(default=default, metadata={"help": text} | options)


def add_fields(group, settings_class, defaults):
    """Give a flag to each field of a data class that has a help text; defaults override the fields' own."""
    for item in dataclasses.fields(settings_class):
        options = dict(item.metadata)
        if options:
            options["default"] = defaults.get(item.name, item.default)
            if "action" not in options:
                options.setdefault("type", type(item.default))
            if options["default"] is not None and "default" not in options["help"] and "action" not in options:
                options["help"] += " (default: %(default)s)"
            group.add_argument(f"--{item.name}", **options)


def parse_flags(parser, pilot, argv=None):
    """Parse argv; with --pilot_run the dict `pilot` replaces the defaults of the flags that are not given."""
    args = parser.parse_args(argv)
    if args.pilot_run:
        parser.set_defaults(**pilot)
        args = parser.parse_args(argv)
    return args


def settings_from(args, settings_class):
    """The data class of an argparse result; ValueError about a shape becomes a UserError."""
    names = {item.name for item in dataclasses.fields(settings_class)}
    try:
        return settings_class(**{name: value for name, value in vars(args).items() if name in names})
    except ValueError as error:
        raise UserError(str(error)) from None
