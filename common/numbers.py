"""Small things about numbers that Python has no name for."""

import math

LARGEST_NUMBER = 1e305  # the largest that is taken for one; `perplexity` gives up to 1.01e304


def ceil_div(number: int, divisor: int) -> int:
    """Divide two whole numbers and round up."""
    return -(-number // divisor)


def finite_number(value: object) -> int | float | None:
    """Return a value that is a finite number as it is, and None for anything else (True is no number)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if -LARGEST_NUMBER < value < LARGEST_NUMBER else None


def number_or_gap(value: object) -> float:
    """The same for curves, where NaN stands for a gap."""
    number = finite_number(value)
    return math.nan if number is None else float(number)


def perplexity(loss: float) -> float:
    """e^loss, for a loss in nats; the largest number of its kind where that is too large."""
    return math.exp(min(loss, 700))
