"""Print docs/flags.md, a table of every flag of the five programs: `python tools/flags_page.py > docs/flags.md`.

Run it again after a change of any flag: a test compares the page with what this prints.
"""

import argparse
import contextlib
import importlib
import re
import sys
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.flags import FlagParser
from common.program import run_program
from corpus.token_cache import default_cache_dir

PROGRAMS = (  # step 1 to step 5
    "train_bpe_tokenizer_hf", "train_tinystories_model", "generate_tinystories_text", "train_tinystories_chat_model",
    "chat_with_tinystories_model",
)  # fmt: skip
DEFAULT = re.compile(r" ?\(?default: ([^()]*)\)?")  # as help texts give it
INTRODUCTION = """# Every flag of the five programs

`python PROGRAM.py --help` prints the flags of one program, the most important ones first. This table lists the flags of
all five, in the order of the steps. If a flag is set in several places, the shell wins, then `--config`, then
`--preset`, then `--pilot_run`, then the default. [running.md](running.md) explains the flags of a training run.

| flag | steps | default | meaning |
|---|---|---|---|
"""


def parser_of(program: str) -> argparse.ArgumentParser:
    """Return a program's parser: the one that --help asks to print itself."""
    parsers = []
    no_exit = contextlib.suppress(SystemExit)
    with mock.patch.object(FlagParser, "print_help", lambda parser: parsers.append(parser)), no_exit:
        importlib.import_module(program).parse_args(["--help"])
    return parsers[0]


def usage(action: argparse.Action) -> str:
    """Return a flag's names, with the choices or the kind of its value."""
    names = ", ".join(action.option_strings)
    if action.nargs == 0:
        return names
    if action.choices:
        return f"{names} {{{','.join(action.choices)}}}"
    return f"{names} {action.metavar or {int: 'N', float: 'X'}.get(action.type, 'TEXT')}"


def default_and_meaning(action: argparse.Action) -> tuple[str, str]:
    """Split a flag's help text into its default and its meaning."""
    text = action.help % vars(action)
    text = text.replace(str(default_cache_dir()), "in your cache folder, or else in the temporary one")
    default = DEFAULT.search(text)
    if default:
        return default[1], DEFAULT.sub("", text)
    return "off" if action.default is False else "", text


def cell(text: str) -> str:
    """Return a text as Markdown for one cell of a table: flags as code, no special characters."""
    text = text.replace("|", r"\|").replace("<", "&lt;")
    return re.sub(r"--\w+", lambda flag: f"`{flag[0]}`", text)


def page() -> str:
    """Return the page: one row for each flag that has the same usage and meaning in all of its steps."""
    rows = {}  # {(usage, meaning): {step: default}}
    for step, program in enumerate(PROGRAMS, start=1):
        for action in parser_of(program)._actions[1:]:  # without --help
            default, meaning = default_and_meaning(action)
            rows.setdefault((usage(action), meaning), {})[step] = default
    lines = []
    for (flag, meaning), defaults in rows.items():
        default = defaults[min(defaults)]
        if {*defaults.values()} != {default}:
            default = "; ".join(f"step {step}: {value}" for step, value in defaults.items())
        lines.append(f"| `{flag}` | {', '.join(map(str, defaults))} | {cell(default)} | {cell(meaning)} |\n")
    return INTRODUCTION + "".join(lines)


if __name__ == "__main__":
    run_program(lambda: print(page(), end=""))
