"""The flags of the programs: how they are declared, and which source wins.

In reading order: `FlagParser`; `flag` and `add_fields`, for data classes whose fields are flags; `parse_flags`, which
merges the layers: defaults, pilot or preset, config, shell.
"""

import argparse
import dataclasses
import difflib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from common.errors import UserError, one_line, one_line_json, reason_of

LENGTH = ("epochs", "max_steps", "minutes")  # the length of a run: a layer that sets one of these replaces all three
# The flags in args.json that concern only that run: its files, its device, and how it was started.
OF_THE_RUN = ("output_dir", "overwrite", "resume_from_checkpoint", "pilot_run", "device", "device_check", "cache_dir")
# Flags whose values are paths, or may be: by the ends of their names here, and by their whole names in PATHS.
PATH_ENDS = ("_dir", "_path", "_file", "dataset", "rubric")
REMOVED = {"swap_words": 0}  # flags of older versions, each with the value that switched it off
PATHS = ("output", "config", "resume_from_checkpoint", "from_pretrained", "training_set", "csv", "report")
Settings = TypeVar("Settings")  # a data class of flags


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Prints flags and their help side by side, with N, X or TEXT for the kind of value."""

    def __init__(self, prog: str):
        width = min(120, shutil.get_terminal_size((120, 24)).columns)
        super().__init__(prog, max_help_position=38, width=width)

    def _get_default_metavar_for_optional(self, action):
        return {int: "N", float: "X"}.get(action.type, "TEXT")


class FlagParser(argparse.ArgumentParser):
    """An argument parser that accepts only whole flag names, and reports an error in one line.

    Flags that are added to the parser itself come first in --help: those of the handout.  The others follow in groups.
    """

    def __init__(self, doc: str):
        usage = "python %(prog)s [flags]"
        super().__init__(description=doc, usage=usage, formatter_class=HelpFormatter, allow_abbrev=False)

    def error(self, message: str) -> None:
        raise UserError(f"{message}; --help lists the flags")

    def parse_known_args(self, args=None, namespace=None):
        """Parse as argparse does, and replace a ~ at the start of a path by the user's home folder."""
        parsed, unknown = super().parse_known_args(args, namespace)
        for name, value in vars(parsed).items():
            if name in PATHS or name.endswith(PATH_ENDS):
                setattr(parsed, name, expand_user(value))
        return parsed, unknown


def expand_user(value: object) -> object:
    """Replace a ~ at the start of a path, or of each path in a list: in --flag=~/x the shell does not do it."""
    if isinstance(value, list):
        return [expand_user(item) for item in value]
    if isinstance(value, Path):
        return value.expanduser()
    return os.path.expanduser(value) if isinstance(value, str) else value


# Data classes ---------------------------------------------------------------------------------------------------------


def flag(default: object, text: str, first: bool = False, **options) -> dataclasses.Field:
    """Declare a data class field that is a flag; first: whether the handout uses it, see `add_fields`."""
    return dataclasses.field(default=default, metadata={"help": text, "first": first} | options)


def add_fields(
    group, settings_class: type, defaults: dict, parser: argparse.ArgumentParser | None = None,
    without: Iterable[str] = (),
) -> None:  # fmt: skip
    """Add a flag for each data class field that `flag` declared; defaults override those of the fields.

    group: where the flags appear in --help.  Flags that the handout uses are added to parser instead, so they come
    first.
    """
    for item in dataclasses.fields(settings_class):
        options = dict(item.metadata)
        if not options or item.name in without:
            continue
        place = parser if options.pop("first") and parser else group
        options["default"] = defaults.get(item.name, item.default)
        if "action" not in options:
            options.setdefault("type", type(item.default))
        if options["default"] is not None and "default" not in options["help"] and "action" not in options:
            options["help"] += " (default: %(default)s)"
        place.add_argument(f"--{item.name}", **options)


def settings_from(args: argparse.Namespace, settings_class: type[Settings], **more) -> Settings:
    """Make a data class from parsed flags and more fields; a ValueError that it raises becomes a UserError."""
    names = {item.name for item in dataclasses.fields(settings_class)}
    given = {name: value for name, value in vars(args).items() if name in names}
    try:
        return settings_class(**given | more)
    except ValueError as error:
        raise UserError(str(error)) from None


def flags_in_words(args: object, names: Iterable[str], between: str = ", ") -> str:
    """Return these flags with their values in args as text; flags that are None are left out."""
    return between.join(f"--{name} {getattr(args, name)}" for name in names if getattr(args, name) is not None)


# Layers ---------------------------------------------------------------------------------------------------------------


def parse_flags(
    parser: argparse.ArgumentParser, below: Callable[[dict], dict], argv: list[str] | None = None
) -> argparse.Namespace:
    """Parse argv (None: the command line).  The shell wins, then --config, then preset or pilot, then the default.

    below: a function that gets the flags from shell and config, {flag: value}, and returns those of the layer below:
    the pilot's and the preset's.
    """
    defaults = vars(parser.parse_args([]))
    shell = flags_given(parser, argv)
    config = read_config(shell["config"], parser) if "config" in shell else {}
    return argparse.Namespace(**merge_layers(defaults, below(config | shell), config, shell))


def flags_given(parser: argparse.ArgumentParser, argv: list[str] | None) -> dict:
    """Return {flag: value} for the flags in argv, without defaults."""
    args = argparse.Namespace()
    for name in vars(parser.parse_args([])):
        setattr(args, name, None)  # argparse sets a default only where there is no value yet
    parser.parse_args(argv, args)
    return {name: value for name, value in vars(args).items() if value is not None}


def merge_layers(defaults: dict, *layers: dict) -> dict:
    """Merge layers of {flag: value}; a later layer wins.

    A layer that sets the length of a run replaces all LENGTH flags of the layers before it.
    """
    merged = dict(defaults)
    for layer in layers:
        if not layer.keys().isdisjoint(LENGTH):
            merged |= {name: None for name in LENGTH if name in defaults}
        merged |= layer
    return merged


def read_config(path: str, parser: argparse.ArgumentParser) -> dict:
    """Read {flag: value} from a --config file, a JSON object.

    Of a run's args.json, the flags in OF_THE_RUN are left out.  A null counts as no entry.  Raises UserError for a flag
    that the parser does not know, and for a value that the flag does not accept.
    """
    content = read_config_file(path)
    program = content.pop("program", None)
    if program:  # an args.json
        own = (*OF_THE_RUN, "config", "vocab_size")
        idle = {name for name, value in REMOVED.items() if content.get(name) == value}
        content = {name: value for name, value in content.items() if name not in own and name not in idle}
    for name in ("overwrite", "resume_from_checkpoint"):  # they would stay in the command that resumes the run
        if content.get(name):
            raise UserError(f"--config {path}: {name} can only be given at the shell")
    actions = {action.dest: action for action in parser._actions if action.dest not in ("help", "config")}
    flags = {}
    for name, value in content.items():
        if name not in actions:
            raise UserError(f"--config {path}: no flag {one_line(name)}; {hint_for(name, actions, program, parser)}")
        if value is not None:
            flags[name] = config_value(path, parser, actions[name], value)
    return flags


def read_config_file(path: str) -> dict:
    """Read the object in a --config file, unchecked."""
    try:
        content = json.loads(Path(path).read_bytes())  # in UTF-8, UTF-16 or UTF-32, with or without a byte-order mark
    except (ValueError, RecursionError) as error:
        raise UserError(f"--config {path} is not JSON ({reason_of(error)})") from None
    except OSError as error:
        raise UserError(f"--config {path}: {error.strerror}; pass a file of flags, such as a run's args.json") from None
    if not isinstance(content, dict):
        raise UserError(f'--config {path} contains no JSON object; write for example {{"lr": 0.001}}')
    return content


def hint_for(name: str, known: dict, program: str | None, parser: argparse.ArgumentParser) -> str:
    """Return what to do about an unknown flag; program: the one that wrote the file, if it is an args.json."""
    if program not in (None, parser.prog):
        return f"the file was written by {one_line(program)}"
    meant = difflib.get_close_matches(name, known, 1)
    return f"did you mean {meant[0]}?" if meant else "--help lists the flags"


def config_value(path: str, parser: argparse.ArgumentParser, action: argparse.Action, value: object) -> object:
    """Return a flag's value from a --config file, checked as if it had been typed."""
    is_switch = action.nargs == 0
    if is_switch and isinstance(value, bool):
        return value
    values = value if isinstance(value, list) and isinstance(action.default, list) else [value]
    if is_switch or not values or not all(type(item) in (str, int, float) for item in values):
        raise UserError(f"--config {path}: {one_line_json(value)} is not a valid value for {action.dest}")
    try:
        return flags_given(parser, [f"--{action.dest}={item}" for item in values])[action.dest]
    except UserError as error:
        raise UserError(f"--config {path}: {error}") from None
