"""The flags of the programs: how they are declared, and which layer wins.

In reading order: `FlagParser`; `flag` and `add_fields`, data classes whose fields are flags; `parse_flags`, the layers
default, pilot or preset, config, shell.
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

LENGTH = ("epochs", "max_steps", "minutes")  # how long a run is: who says one of them, says all
# What a run's args.json says of that run alone: where its files lie, what it ran on, and how it was started.
OF_THE_RUN = ("output_dir", "overwrite", "resume_from_checkpoint", "pilot_run", "device", "device_check", "cache_dir")
# The flags whose values are paths, or may be one: by the ends of their names, or by the whole name.
PATH_ENDS = ("_dir", "_path", "_file", "dataset", "rubric")
REMOVED = {"swap_words": 0}  # flags of older versions, and the value with which they did nothing
PATHS = ("output", "config", "resume_from_checkpoint", "from_pretrained", "training_set", "csv", "report")
Settings = TypeVar("Settings")  # a data class of flags


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Flags and their help side by side, and N, X or TEXT for the kind of value."""

    def __init__(self, prog: str):
        width = min(120, shutil.get_terminal_size((120, 24)).columns)
        super().__init__(prog, max_help_position=38, width=width)

    def _get_default_metavar_for_optional(self, action):
        return {int: "N", float: "X"}.get(action.type, "TEXT")


class FlagParser(argparse.ArgumentParser):
    """An argument parser that takes whole flag names only and reports a wrong one in one line.

    Flags that are given to the parser itself come first in --help: the handout's.  The others stand in groups below.
    """

    def __init__(self, doc: str):
        usage = "python %(prog)s [flags]"
        super().__init__(description=doc, usage=usage, formatter_class=HelpFormatter, allow_abbrev=False)

    def error(self, message: str) -> None:
        raise UserError(f"{message}; --help lists the flags")

    def parse_known_args(self, args=None, namespace=None):
        """As argparse does it, and with the user's folder for a ~ where a path begins."""
        parsed, unknown = super().parse_known_args(args, namespace)
        for name, value in vars(parsed).items():
            if name in PATHS or name.endswith(PATH_ENDS):
                setattr(parsed, name, expand_user(value))
        return parsed, unknown


def expand_user(value: object) -> object:
    """A path, or each path of a list, with the user's folder for a ~ at its start: shells leave it in --flag=~/x."""
    if isinstance(value, list):
        return [expand_user(item) for item in value]
    if isinstance(value, Path):
        return value.expanduser()
    return os.path.expanduser(value) if isinstance(value, str) else value


# Data classes ---------------------------------------------------------------------------------------------------------


def flag(default: object, text: str, first: bool = False, **options) -> dataclasses.Field:
    """Declare a field of a data class that is a flag; first: one that the handout uses, see `add_fields`."""
    return dataclasses.field(default=default, metadata={"help": text, "first": first} | options)


def add_fields(
    group, settings_class: type, defaults: dict, parser: argparse.ArgumentParser | None = None,
    without: Iterable[str] = (),
) -> None:  # fmt: skip
    """Give a flag to each field of a data class that `flag` declared; defaults override the fields' own.

    group: where they stand in --help, but for those that the handout uses: these are the parser's own, listed first.
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
    """Make a data class of an argparse result, and of more fields; a ValueError that it raises becomes a UserError."""
    names = {item.name for item in dataclasses.fields(settings_class)}
    given = {name: value for name, value in vars(args).items() if name in names}
    try:
        return settings_class(**given | more)
    except ValueError as error:
        raise UserError(str(error)) from None


def flags_in_words(args: object, names: Iterable[str], between: str = ", ") -> str:
    """The flags of these names as they are in args, those that are None left out."""
    return between.join(f"--{name} {getattr(args, name)}" for name in names if getattr(args, name) is not None)


# Layers ---------------------------------------------------------------------------------------------------------------


def parse_flags(
    parser: argparse.ArgumentParser, below: Callable[[dict], dict], argv: list[str] | None = None
) -> argparse.Namespace:
    """Parse argv, or what was typed.  The shell wins, then --config, then a preset or the pilot, then the default.

    below: a function of the flags that the shell and the config give, {flag: value}; it returns those of the layer
    below them, which the pilot and the presets are.
    """
    defaults = vars(parser.parse_args([]))
    shell = flags_given(parser, argv)
    config = read_config(shell["config"], parser) if "config" in shell else {}
    return argparse.Namespace(**merge_layers(defaults, below(config | shell), config, shell))


def flags_given(parser: argparse.ArgumentParser, argv: list[str] | None) -> dict:
    """{flag: value} of what argv gives, without defaults."""
    args = argparse.Namespace()
    for name in vars(parser.parse_args([])):
        setattr(args, name, None)  # argparse sets a default only where there is no value yet
    parser.parse_args(argv, args)
    return {name: value for name, value in vars(args).items() if value is not None}


def merge_layers(defaults: dict, *layers: dict) -> dict:
    """Lay each layer of {flag: value} over those before it; one that says how long a run is, replaces all LENGTHs."""
    merged = dict(defaults)
    for layer in layers:
        if not layer.keys().isdisjoint(LENGTH):
            merged |= dict.fromkeys(LENGTH)
        merged |= layer
    return merged


def read_config(path: str, parser: argparse.ArgumentParser) -> dict:
    """{flag: value} of a file for --config, a JSON object; of a run's args.json without what is OF_THE_RUN.

    A null is as good as no entry.  Raises UserError for a flag that the parser does not know, and for a value that the
    flag does not take.
    """
    content = read_config_file(path)
    program = content.pop("program", None)
    if program:  # an args.json
        own = (*OF_THE_RUN, "config", "vocab_size")
        idle = {name for name, value in REMOVED.items() if content.get(name) == value}
        content = {name: value for name, value in content.items() if name not in own and name not in idle}
    for name in ("overwrite", "resume_from_checkpoint"):  # or the command that resumes would not be what it says
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
    """The object in a file for --config, unchecked."""
    try:
        content = json.loads(Path(path).read_bytes())  # in UTF-8, UTF-16 or UTF-32, with or without a mark of it
    except (ValueError, RecursionError) as error:
        raise UserError(f"--config {path} is no JSON ({reason_of(error)})") from None
    except OSError as error:
        raise UserError(f"--config {path}: {error.strerror}; name a file of flags, as a run's args.json") from None
    if not isinstance(content, dict):
        raise UserError(f'--config {path} holds no JSON object; write {{"lr": 0.001}}')
    return content


def hint_for(name: str, known: dict, program: str | None, parser: argparse.ArgumentParser) -> str:
    """What to do about a flag that the parser does not know; program: which one wrote the file, if an args.json."""
    if program not in (None, parser.prog):
        return f"the file is of {one_line(program)}"
    meant = difflib.get_close_matches(name, known, 1)
    return f"did you mean {meant[0]}?" if meant else "--help lists the flags"


def config_value(path: str, parser: argparse.ArgumentParser, action: argparse.Action, value: object) -> object:
    """The value of a flag in a file for --config, checked as if it had been typed."""
    is_switch = action.nargs == 0
    if is_switch and isinstance(value, bool):
        return value
    values = value if isinstance(value, list) and isinstance(action.default, list) else [value]
    if is_switch or not values or not all(type(item) in (str, int, float) for item in values):
        raise UserError(f"--config {path}: {one_line_json(value)} is no value for {action.dest}")
    try:
        return flags_given(parser, [f"--{action.dest}={item}" for item in values])[action.dest]
    except UserError as error:
        raise UserError(f"--config {path}: {error}") from None
