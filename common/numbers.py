"""Small number functions that Python does not have."""

import math

LARGEST_NUMBER = 1e305  # larger ones count as infinite; `perplexity` returns up to 1.01e304


def ceil_div(number: int, divisor: int) -> int:
    """Divide two whole numbers and round up."""
    return -(-number // divisor)


def finite_number(value: object) -> int | float | None:
    """Return a finite number unchanged, and None for anything else (True is not a number)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if -LARGEST_NUMBER < value < LARGEST_NUMBER else None


def number_or_gap(value: object) -> float:
    """Return a finite number, or NaN for anything else: a gap in a curve."""
    number = finite_number(value)
    return math.nan if number is None else float(number)


def perplexity(loss: float) -> float:
    """Return e^loss for a loss in nats; for a loss above 700, e^700, so that the result is finite."""
    return math.exp(min(loss, 700))
