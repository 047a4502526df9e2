"""Points for facts, as a rubric.toml says: an instructor's own rule, applied to each run alike.

    [[criterion]]
    what = "validation loss"     # as it is shown
    fact = "validation loss"     # a column of the table
    below = 1.6                  # or above = ..., or is = ...
    points = 30

A criterion is met or not; for a scale, write several.  A fact that a run lacks meets nothing.
"""

import math
import tomllib
from dataclasses import dataclass

from common.errors import UserError, one_line

TESTS = {
    "below": lambda value, bound: number(value) and value < bound,
    "above": lambda value, bound: number(value) and value > bound,
    "is": lambda value, wanted: value is not None and value == wanted,
}


@dataclass
class Criterion:
    what: str
    fact: str
    test: str  # one of TESTS
    bound: object
    points: float


def number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def read_rubric(path):
    """The criteria of a .toml file.  Raises UserError, which names the criterion."""
    try:
        with open(path, "rb") as file:
            content = tomllib.load(file)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not TOML: {error}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text; save it as UTF-8") from None
    listed = content.get("criterion")
    if not isinstance(listed, list) or not listed or not all(isinstance(one, dict) for one in listed):
        raise UserError(f"{path} has no [[criterion]]; docs/grading.md has an example")
    return [criterion(one, f"{path}, criterion {place}") for place, one in enumerate(listed, start=1)]


def criterion(entry, where):
    tests = [name for name in TESTS if name in entry]
    unknown = entry.keys() - {"what", "fact", "points", *TESTS}
    if unknown:
        raise UserError(f"{where}: {one_line(min(unknown))} is none of what, fact, points, {', '.join(TESTS)}")
    if len(tests) != 1:
        raise UserError(f"{where}: give one of {', '.join(TESTS)}")
    points = entry.get("points")
    if not isinstance(entry.get("fact"), str) or not number(points) or not math.isfinite(points):
        raise UserError(f"{where}: fact must be the name of a column, points a number")
    (test,) = tests
    if test != "is" and not number(entry[test]):
        raise UserError(f"{where}: {test} must be a number")
    return Criterion(str(entry.get("what", entry["fact"])), entry["fact"], test, entry[test], entry["points"])


def points(rubric, facts):
    """[(what for, points got, points there are)] of one run.  facts: {column: value}.  Raises UserError."""
    for one in rubric:
        if one.fact not in facts:
            raise UserError(f"the rubric's fact {one_line(one.fact)} is none of {', '.join(facts)}")
    return [(one.what, one.points * bool(TESTS[one.test](facts[one.fact], one.bound)), one.points) for one in rubric]
