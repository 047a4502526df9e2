"""The leaderboard of a class: runs within a budget, ranked by their bits per byte on texts that the instructor holds.

    title = "Best model of one class"   # may be left out
    texts = "held_out.jsonl"            # as --dataset: a file, a folder, or a data set on the hub
    allow = ["anna"]                    # submissions that are ranked in spite of problems; may be left out

    [budget]                            # each line may be left out
    minutes = 45                        # of training, evaluations included; needs device
    device = "Tesla T4"                 # one GPU with these words in its name
    tokens = 20_000_000                 # predicted in training, repetitions included
    parameters = 10_000_000             # of the whole model

The losses in the records do not count: bits per byte and parameters are computed here, from best_model.pth and the
run's tokenizer.  Minutes, tokens and device come from the records, so a run whose records have a problem is not ranked.

In reading order: `read_rules`; `result_of`, which computes the result of one run; `standings`, which ranks them all;
`write_leaderboard`, which writes the two pages.  They are for the whole class: a reason on them gives no finding and no
path.
"""

import re
from argparse import Namespace
from collections import Counter, defaultdict
from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from pages.model_card import cell
from pages.report import Entry, cut
from pages.templates import TEMPLATES, joined

from common.console import silence
from common.devices import Precision
from common.errors import UserError, one_line
from common.files import written_atomically
from common.numbers import finite_number
from common.weights_files import load_model
from corpus.sources import Split, open_dataset
from corpus.stories import read_stories
from corpus.token_cache import cache_stories
from data import Rows, Tokenizer, load_tokenizer
from grading.facts import devices_of, highest
from grading.rubric import read_toml
from grading.submissions import Submission
from grading.unpacking import TOKENIZER
from model import Transformer
from training.step import evaluate

FIELDS = ("title", "texts", "allow", "budget")
LIMITS = ("minutes", "tokens", "parameters")
DIGITS = 4  # of bits per byte; runs that are equal in these share a rank
TEMPLATE_NAMES = ("leaderboard.html", "leaderboard.md")


# Rules ----------------------------------------------------------------------------------------------------------------


@dataclass
class Rules:
    """The fields of the file, as above; None: no limit."""

    texts: str
    title: str = "Leaderboard"
    allow: list[str] = field(default_factory=list)
    minutes: float | None = None
    device: str | None = None
    tokens: float | None = None
    parameters: float | None = None

    def budget(self) -> str:
        """Return the budget in words."""
        parts = []
        if self.minutes:
            parts.append(f"{shown(self.minutes)} minutes of training on one {self.device}")
        elif self.device:
            parts.append(f"training on one {self.device}")
        if self.tokens:
            parts.append(f"{shown(self.tokens)} tokens")
        if self.parameters:
            parts.append(f"{shown(self.parameters)} parameters")
        return ", ".join(parts) or "no limit"


def shown(number: float) -> str:
    """Return a number with at most three decimals, without the .0 of a whole one."""
    return f"{round(number, 3):,}".removesuffix(".0")


def read_rules(path: str) -> Rules:
    """Read the rules from a .toml file.  Raises UserError that names the wrong field."""
    content = read_toml(path)
    check_names(content, FIELDS, path)
    budget = content.pop("budget", {})
    if not isinstance(budget, dict):
        raise UserError(f"{path}: budget must be a table: write [budget], and its limits in the lines below")
    check_names(budget, (*LIMITS, "device"), f"{path}, [budget]")
    if not is_text(content.get("texts")):
        raise UserError(f"{path}: texts must name the texts that you hold: a file, a folder, or a data set on the hub")
    if not is_text(content.get("title", "Leaderboard")):
        raise UserError(f"{path}: title must be a text")
    allowed = content.get("allow", [])
    if not isinstance(allowed, list) or not all(map(is_text, allowed)):
        raise UserError(f'{path}: allow must be a list of submissions, like ["anna", "ben"]')
    for name in LIMITS:
        number = finite_number(budget.get(name, 1))
        if number is None or number <= 0:
            raise UserError(f"{path}, [budget]: {name} must be a number above 0")
    if not is_text(budget.get("device", "any")):
        raise UserError(f'{path}, [budget]: device must be a part of a device\'s name, like "Tesla T4"')
    if "minutes" in budget and "device" not in budget:
        raise UserError(f'{path}, [budget]: minutes need a device; add one, like device = "Tesla T4"')
    return Rules(**content, **budget)


def check_names(table: dict, known: tuple[str, ...], where: str) -> None:
    unknown = table.keys() - set(known)
    if unknown:
        raise UserError(f"{where}: unknown field {one_line(min(unknown))}; use {', '.join(known)}")


def is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def check_rules(rules: Rules, submissions: Container[str]) -> int:
    """Return the number of held-out texts.  Raises UserError for an unknown name in allow, or for unusable texts."""
    for name in rules.allow:
        if name not in submissions:
            raise UserError(f"the rules allow {one_line(name)}, but there is no submission with this name")
    try:
        return sum(1 for _ in read_stories(held_out(rules.texts)))
    except UserError as error:
        raise UserError(f'the texts of the rules, "{one_line(rules.texts)}": {error}') from None


def held_out(dataset: str) -> Split:
    """Return the texts that the instructor holds: the validation split or, if there is none, everything."""
    splits = open_dataset(dataset)
    return splits.get("validation", splits["train"])


# One run --------------------------------------------------------------------------------------------------------------


class Disqualified(Exception):
    """The run is not ranked; the message is the reason."""


@dataclass
class Result:
    """What the leaderboard shows of a run; None is unknown.  reason: why the run is not ranked, "" if it is."""

    kind: str | None
    minutes: float | None
    tokens: int | None
    device: str | None
    parameters: int | None = None
    bits_per_byte: float | None = None
    reason: str = ""


def result_of(run: Submission, entry: Entry, rules: Rules, args: Namespace) -> Result:
    """Return the result of a run; its bits per byte are computed only if it can be ranked.

    entry: its facts and findings; args: the flags of grade_runs.py.
    """
    seconds = highest(run, "seconds")
    minutes = None if seconds is None else seconds / 60
    result = Result(entry.facts["model"], minutes, entry.facts["tokens"], entry.facts["device"])
    try:
        check_records(run, result, rules)
        if has_problems(entry, rules):
            return result  # `standings` disqualifies it
        network, tokenizer = load(run, args)
        _, result.parameters = network.num_parameters()
        check_limit("parameters", result.parameters, rules.parameters)
        result.bits_per_byte = bits_per_byte(network, tokenizer, held_out(rules.texts), args.cache_dir)
    except Disqualified as reason:
        result.reason = str(reason)
    except (
        UserError,
        OSError,
        MemoryError,
        RuntimeError,
    ):  # the texts, the disk or the memory: not the student's fault
        result.reason = "it could not be evaluated here; make the leaderboard again"
    return result


def has_problems(entry: Entry, rules: Rules) -> bool:
    """Return whether a run has problems that the rules do not allow."""
    return entry.problems > 0 and entry.person not in rules.allow


def check_records(run: Submission, result: Result, rules: Rules) -> None:
    """Raise Disqualified unless the records show that the run is of the right kind and within the budget."""
    if result.kind in ("chat", "rewards"):
        raise Disqualified(f"a {result.kind} run; the leaderboard is for story runs")
    if not run.history:
        raise Disqualified("no run was found in it")
    check_limit("minutes of training", result.minutes, rules.minutes)
    check_limit("tokens", result.tokens, rules.tokens)
    if rules.device:
        check_devices(run, rules.device)


def check_limit(what: str, value: float | None, limit: float | None) -> None:
    if limit is None:
        return
    if value is None:
        raise Disqualified(f"its records do not show the number of {what}")
    if value > limit:
        raise Disqualified(f"{shown(value)} {what}; the budget is {shown(limit)}")


def check_devices(run: Submission, wanted: str) -> None:
    """Check the device at the start and, from the log, those after a resume.

    The words of `wanted` must be whole words of the name: "NVIDIA L4" is no part of "NVIDIA L40S".
    """
    hardware = run.first_row.get("hardware", {})
    found = devices_of(run)
    if not found:
        raise Disqualified("its records do not show the device")
    for device in found:
        if not re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", device, re.IGNORECASE):
            raise Disqualified(f"trained on {one_line(device)}; the budget is for one {wanted}")
    processes = finite_number(hardware.get("processes")) or 1
    if processes > 1:
        raise Disqualified(f"trained on {processes:,} devices at a time; the budget is for one {wanted}")


def load(run: Submission, args: Namespace) -> tuple[Transformer, Tokenizer]:
    """Return the best model and its tokenizer.  Raises Disqualified if one of them cannot be used."""
    if "best_model.pth" not in run.models:
        raise Disqualified("best_model.pth was not handed in, or cannot be read")
    with silence():
        try:
            tokenizer = load_tokenizer(run.paths.get(TOKENIZER, args.tokenizer_path))
        except UserError:
            raise Disqualified(f"{TOKENIZER} was not handed in, or cannot be read") from None
        if tokenizer.fingerprint != run.models["best_model.pth"].tokenizer_fingerprint:
            raise Disqualified(f"best_model.pth was trained with another tokenizer than {TOKENIZER}")
        try:
            network, _ = load_model(run.paths["best_model.pth"], tokenizer)
        except UserError:
            raise Disqualified("best_model.pth cannot be loaded") from None
    return network, tokenizer


def bits_per_byte(network: Transformer, tokenizer: Tokenizer, split: Split, cache_dir: str) -> float:
    """Return the bits per byte on all stories of a split, read with the default flags.

    Raises Disqualified if the tokenizer changes a story: the model would then predict less than its bytes.
    """
    with silence():
        texts = cache_stories(split, tokenizer, cache_dir)
    for number, story in enumerate(read_stories(split)):
        ids = texts.text(number)[1:-1]  # without <bos> and <eos>
        if tokenizer.decode(ids.tolist()).strip() != story:  # stories are stripped, too
            raise Disqualified("its tokenizer loses a part of the texts, for example line breaks")
    rows = Rows(texts, network.config.max_seq_len, tokenizer.special)
    bits = evaluate(network, rows, Precision(torch.device("cpu")))["bits_per_byte"]
    if finite_number(bits) is None:
        raise Disqualified("its bits per byte are not a finite number")
    return bits


# All runs -------------------------------------------------------------------------------------------------------------


class Place(NamedTuple):
    """A line of the leaderboard.  rank: "3", or "3=" if it is shared; runs: how many story runs were handed in."""

    rank: str
    person: str
    result: Result
    runs: int


def standings(entries: list[Entry], rules: Rules) -> tuple[list[Place], list[tuple[str, str]]]:
    """Return (the best run of each person, ranked; [(name of a run that is not ranked, the reason)]).

    After a shared rank, as many ranks are left out: 1, 2=, 2=, 4.
    """
    best = []  # (rounded bits per byte, person, result, number of runs)
    disqualified = []
    for person, runs in runs_by_person(entries).items():
        within = []
        for entry in story_runs(runs):
            reason = reason_against(entry, rules)
            if reason:
                disqualified.append((entry.name, reason))
            else:
                within.append(entry.result)
        if within:
            result = min(within, key=lambda result: result.bits_per_byte)
            best.append((round(result.bits_per_byte, DIGITS), person, result, len(story_runs(runs))))
    best.sort(key=lambda line: (line[0], line[1].casefold(), line[1]))
    all_bits = [bits for bits, *_ in best]
    shared = Counter(all_bits)
    places = []
    for bits, person, result, count in best:
        rank = f"{all_bits.index(bits) + 1}{'=' if shared[bits] > 1 else ''}"
        places.append(Place(rank, person, result, count))
    return places, disqualified


def runs_by_person(entries: list[Entry]) -> dict[str, list[Entry]]:
    """Return {person: their runs}, in the same order."""
    persons = defaultdict(list)
    for entry in entries:
        persons[entry.person].append(entry)
    return persons


def story_runs(runs: list[Entry]) -> list[Entry]:
    """Leave out a person's chat runs, unless the person has nothing else."""
    stories = [entry for entry in runs if entry.result is None or entry.result.kind not in ("chat", "rewards")]
    return stories or runs


def reason_against(entry: Entry, rules: Rules) -> str:
    """Return why a run is not ranked; "" if it is.  What the problems are is not for the whole class."""
    if entry.result and entry.result.reason:
        return entry.result.reason
    if has_problems(entry, rules):
        return f"{entry.problems:,} problem{'' if entry.problems == 1 else 's'} in its records"
    return "" if entry.result else "it cannot be read"


def numbers(place: Place) -> dict[str, str]:
    """Return the numbers of a line as they are shown, {column: text}."""
    result = place.result
    return {
        "bits per byte": f"{result.bits_per_byte:.{DIGITS}f}",
        "minutes": "–" if result.minutes is None else f"{result.minutes:,.1f}",
        "tokens": "–" if result.tokens is None else f"{result.tokens:,}",
        "parameters": f"{result.parameters:,}",
    }


def pages_of(rules: str) -> list[Path]:
    """Return the two pages of a leaderboard, next to its rules: rules.html and rules.md."""
    return [Path(rules).with_suffix(Path(name).suffix) for name in TEMPLATE_NAMES]


def write_leaderboard(entries: list[Entry], rules: Rules, texts: int, pages: list[Path]) -> str:
    """Write the leaderboard as HTML and as Markdown, and return the Markdown.  texts: how many were held out."""
    places, disqualified = standings(entries, rules)
    for name, path in zip(TEMPLATE_NAMES, pages, strict=True):
        page = TEMPLATES.get_template(name).render(
            rules=rules, texts=texts, places=places, disqualified=disqualified, numbers=numbers, cut=cut, cell=cell,
            style=joined(["base.css"]), script_hash="none",
        )  # fmt: skip
        with written_atomically(path) as file:
            file.write(page.encode(errors="replace"))
    return page
