"""Plot curves as SVG in plain Python: axes with round numbers, gaps, and only as many points as are visible.

In reading order: `plot`, which fills plot.svg; `ticks` and `log_ticks`, the numbers on an axis; `thinned`, which
selects the points to draw.
"""

import itertools
import math
from dataclasses import dataclass

from common.numbers import number_or_gap
from pages.templates import TEMPLATES

MOST_POINTS = 200  # per curve


@dataclass(frozen=True)
class Axes:
    """The ranges of the axes.

    from_zero: the y-axis begins at 0.  log_x: the x-axis is logarithmic, for numbers above 0; else it begins at 0.
    """

    from_zero: bool = False
    log_x: bool = False


def is_gap(point: tuple[float, float]) -> bool:
    """Return whether a point (x, y) cannot be drawn."""
    return math.isnan(sum(point))


def plot(
    label: str, lines: list[tuple], width: int, height: int, axes: Axes = Axes(), above: str = ""
) -> str:  # fmt: skip
    """Plot curves over one pair of axes; return the SVG.

    label: a description for people who cannot see the plot
    lines: [(points, attributes, opening)], one for each curve.  points: [(x, y)], a gap if a number is not finite;
        attributes: of the path; opening: the text before the path, "" or an <a> tag.
    above: SVG that is drawn on top of the curves.
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
        """Draw each stretch between gaps: move to its start (M), draw lines (L); h0 makes a single point a dot."""
        stretches = [list(stretch) for gap, stretch in itertools.groupby(thinned(points), is_gap) if not gap]
        return "".join("M" + "L".join(f"{across(x)} {down(y)}" for x, y in stretch) + "h0" for stretch in stretches)

    drawn = [(path(points), *rest) for points, (_, *rest) in zip(curves, lines, strict=True)]
    return template.render(
        label=label, width=width, height=height, left=left, right=right, across=across, down=down, x_ticks=x_ticks,
        y_ticks=y_ticks, curves=drawn, above=above,
    )  # fmt: skip


def ticks(low: float, high: float) -> tuple[float, float, list[float]]:
    """Return (low, high, ticks at multiples of 1, 2 or 5 times 10^n); an empty range is made wider."""
    largest = max(abs(low), abs(high))
    if high - low <= 1e-9 * largest or largest < 1e-99:
        margin = 0.1 * largest if largest > 1e-99 else 1
        low -= margin
        high += margin
    power = 10.0 ** math.floor(math.log10((high - low) / 4))
    step = next(power * factor for factor in (1, 2, 5, 10) if (high - low) / (power * factor) <= 5.5)
    return low, high, [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def log_ticks(low: float, high: float) -> tuple[float, float, list[float]]:
    """Return the same for a logarithmic axis, with numbers above 0; beyond three decades, ticks are powers of 10."""
    if high <= low * (1 + 1e-9):
        low, high = low / 2, high * 2
    factors = (1, 2, 5) if high < 1000 * low else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    numbers = [float(f"{factor}e{power}") for power in powers for factor in factors]
    return low, high, [number for number in numbers if low <= number <= high]


def thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Keep at most `MOST_POINTS` points (x, y): the lowest, the highest and one gap (a NaN) of each stretch."""
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
