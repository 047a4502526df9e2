"""Curves as an SVG, in plain Python: axes with round numbers, gaps, and no more points than can be seen.

In reading order: `plot`, which fills plot.svg; `ticks` and `log_ticks`, the numbers at an axis; `thinned`, the points
that are drawn.
"""

import itertools
import math
from dataclasses import dataclass

from common.numbers import number_or_gap
from pages.templates import TEMPLATES

MOST_POINTS = 200  # of a curve


@dataclass(frozen=True)
class Axes:
    """How the axes run.

    from_zero: begin the y-axis at 0.  log_x: a logarithmic x-axis, for numbers above 0; any other begins at 0.
    """

    from_zero: bool = False
    log_x: bool = False


def is_gap(point: tuple[float, float]) -> bool:
    """Whether a point (x, y) cannot be drawn."""
    return math.isnan(sum(point))


def plot(
    label: str, lines: list[tuple], width: int, height: int, axes: Axes = Axes(), above: str = ""
) -> str:  # fmt: skip
    """Curves over one pair of axes.

    label: what it is, for those who do not see it
    lines: [(points, attributes, opening)]: [(x, y)], where what is no finite number is a gap; the attributes of their
        path; what stands before the path, "" or an <a> and what belongs to it.
    above: SVG that is drawn above the curves.
    """
    template = TEMPLATES.get_template("plot.svg")
    curves = [[(number_or_gap(x), number_or_gap(y)) for x, y in points] for points, _, _ in lines]
    if axes.log_x:
        curves = [[(x if x > 0 else math.nan, y) for x, y in points] for points in curves]
    known = [point for points in curves for point in points if not is_gap(point)]
    if not known:
        return template.render(label=label, width=width, height=height)
    if axes.from_zero:
        known.append((known[0][0], 0))
    xs = [x for x, _ in known]
    ys = [y for _, y in known]
    if axes.log_x:
        scale = math.log10
        x_low, x_high, x_ticks = log_ticks(min(xs), max(xs))
    else:
        scale = float
        x_low, x_high, x_ticks = ticks(min(0, *xs), max(xs))
    y_low, y_high, y_ticks = ticks(min(ys), max(ys))
    left = 58
    right = width - 14
    bottom = height - 30

    def across(x):
        share = (scale(x) - scale(x_low)) / (scale(x_high) - scale(x_low))
        return f"{left + share * (right - left):.1f}"

    def down(y):
        return f"{bottom - (y - y_low) / (y_high - y_low) * (bottom - 10):.1f}"

    def path(points):
        """Move to the beginning of each stretch between gaps (M), and draw lines (L); h0: a dot where it is alone."""
        stretches = [list(stretch) for gap, stretch in itertools.groupby(thinned(points), is_gap) if not gap]
        return "".join("M" + "L".join(f"{across(x)} {down(y)}" for x, y in stretch) + "h0" for stretch in stretches)

    drawn = [(path(points), *rest) for points, (_, *rest) in zip(curves, lines, strict=True)]
    return template.render(
        label=label, width=width, height=height, left=left, right=right, across=across, down=down, x_ticks=x_ticks,
        y_ticks=y_ticks, curves=drawn, above=above,
    )  # fmt: skip


def ticks(low: float, high: float) -> tuple[float, float, list[float]]:
    """(low, high, round numbers between them): the range, widened where it is none; numbers of 1, 2 or 5 times 10^n."""
    largest = max(abs(low), abs(high))
    if high - low <= 1e-9 * largest or largest < 1e-99:
        margin = 0.1 * largest if largest > 1e-99 else 1
        low -= margin
        high += margin
    power = 10.0 ** math.floor(math.log10((high - low) / 4))
    step = next(power * factor for factor in (1, 2, 5, 10) if (high - low) / (power * factor) <= 5.5)
    return low, high, [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def log_ticks(low: float, high: float) -> tuple[float, float, list[float]]:
    """The same for numbers above 0 on a logarithmic axis; over more than three decades the numbers are powers of 10."""
    if high <= low * (1 + 1e-9):
        low, high = low / 2, high * 2
    factors = (1, 2, 5) if high < 1000 * low else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    numbers = [float(f"{factor}e{power}") for power in powers for factor in factors]
    return low, high, [number for number in numbers if low <= number <= high]


def thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `MOST_POINTS` of [(x, y)]: of each stretch the lowest, the highest and a gap (a NaN)."""
    if len(points) <= MOST_POINTS:
        return points
    size = math.ceil(len(points) / (MOST_POINTS // 3 - 1))
    kept = {0, len(points) - 1}
    for start in range(0, len(points), size):
        stretch = range(start, min(start + size, len(points)))
        gaps = [i for i in stretch if is_gap(points[i])]
        known = sorted((i for i in stretch if not is_gap(points[i])), key=lambda i: points[i][1])
        kept.update(gaps[:1], known[:1], known[-1:])
    return [points[i] for i in sorted(kept)]
