"""The flags of the programs: how they are declared, and which layer wins."""

import argparse
import dataclasses
import difflib
import json
import shutil

from common.errors import UserError
from common.text import printed


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
