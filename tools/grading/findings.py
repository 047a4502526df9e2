"""Findings about a run, and how exactly two numbers must agree."""

import math
from dataclasses import dataclass

# The tolerance when the log's rounded numbers are compared with metrics.jsonl: (absolute, relative).
PRINTED = {
    ("train", "train_loss"): (6e-5, 0), ("train", "perplexity"): (6e-3, 0), ("train", "lr"): (0, 6e-3),
    ("train", "tokens_per_second"): (0.6, 0), ("eval", "val_loss"): (6e-5, 0), ("eval", "perplexity"): (6e-3, 0),
    ("eval", "bits_per_byte"): (6e-5, 0), ("eval", "accuracy"): (6e-5, 0),
    ("train", "reward"): (6e-4, 0), ("eval", "reward"): (6e-4, 0),
}  # fmt: skip
SECONDS = 2  # how much two clocks of one run may differ


@dataclass
class Flag:
    """A finding; kind: "problem", visible in the records, or "question", which also comes up for honest runs.

    for_student: the text without the names of others and the instructor's files, if it has some.
    fix: what the student can do; only in the feedback.
    """

    kind: str
    text: str
    for_student: str = ""
    fix: str = ""


def problem(text: str, for_student: str = "") -> Flag:
    return Flag("problem", text, for_student)


def question(text: str, for_student: str = "") -> Flag:
    return Flag("question", text, for_student)


def close(one: float, other: float, tolerance: tuple[float, float]) -> bool:
    """Return whether two numbers are equal within a tolerance, (absolute, relative)."""
    return math.isclose(one, other, abs_tol=tolerance[0], rel_tol=tolerance[1])
