"""Give points by the rules of a rubric.toml, which the instructor writes; all runs are graded by the same rules.

    [[criterion]]
    what = "a low loss"          # the name that is shown
    fact = "bits per byte"       # a column of the CSV file
    below = 0.6                  # or above = ..., or is = ...
    unless = "pilot run"         # may be left out: the criterion is not met if this fact is true
    points = 30

A criterion is either met or not; for a scale, write several criteria.  A missing fact never meets a criterion.
"""

import operator
import tomllib
from dataclasses import dataclass

from common.errors import UserError, one_line
from common.numbers import finite_number

TESTS = {"below": operator.lt, "above": operator.gt, "is": operator.eq}


@dataclass
class Criterion:
    what: str
    fact: str
    test: str  # one of TESTS
    bound: object
    points: float
    unless: str | None = None  # a fact

    def points_for(self, facts: dict) -> tuple[str, float, float]:
        """Return (name, points given, points possible) for a run.  facts: {column: value}.  Raises UserError."""
        for fact in (self.fact, self.unless):
            if fact is not None and fact not in facts:
                raise UserError(f"the rubric has an unknown fact, {one_line(fact)}; use one of {', '.join(facts)}")
        value = facts[self.fact]
        is_met = (self.test == "is" or finite_number(value) is not None) and TESTS[self.test](value, self.bound)
        if self.unless and facts[self.unless]:
            is_met = False
        return self.what, self.points if is_met else 0, self.points


def read_rubric(path: str) -> list[Criterion]:
    """Read the criteria of a .toml file.  Raises UserError that names the wrong criterion."""
    entries = read_toml(path).get("criterion")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f"{path} has no [[criterion]]; docs/grading.md has an example")
    return [read_criterion(entry, f"{path}, criterion {number}") for number, entry in enumerate(entries, start=1)]


def read_toml(path: str) -> dict:
    """Read a .toml file.  Raises UserError if it is something else."""
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except ValueError as error:
        raise UserError(f"{path} is not TOML in UTF-8: {error}") from None


def read_criterion(entry: dict, where: str) -> Criterion:
    """Read and check one [[criterion]].  where: its file and number, for a UserError."""
    unknown = entry.keys() - {"what", "fact", "points", "unless", *TESTS}
    if unknown:
        names = f"what, fact, points, unless, {', '.join(TESTS)}"
        raise UserError(f"{where}: unknown field {one_line(min(unknown))}; use {names}")
    tests = [name for name in TESTS if name in entry]
    if len(tests) != 1:
        raise UserError(f"{where}: give exactly one of {', '.join(TESTS)}")
    test = tests[0]
    fact = entry.get("fact")
    unless = entry.get("unless")
    points = finite_number(entry.get("points"))
    if not isinstance(fact, str) or points is None:
        raise UserError(f"{where}: fact must be the name of a column, and points must be a number")
    if not isinstance(unless, str | None):
        raise UserError(f"{where}: unless must be the name of a column")
    if test != "is" and finite_number(entry[test]) is None:
        raise UserError(f"{where}: {test} must be a number")
    return Criterion(str(entry.get("what", fact)), fact, test, entry[test], points, unless)
