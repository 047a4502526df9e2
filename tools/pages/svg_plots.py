"""Curves as an SVG, in plain Python: axes with round numbers, gaps, and no more points than can be seen.

In reading order: `plot`; `ticks`, the numbers at an axis; `thinned`, the points that are drawn.
"""

import html
import math

from common.numbers import number_or_gap

MOST_POINTS = 200  # of a curve


def plot(label, lines, width, height, from_zero=False, above=""):
    """Curves over one pair of axes.

    label: what it is, for those who do not see it
    lines: [(points, attributes, opening)]: [(x, y)], where what is no finite number is a gap; the attributes of their
        path; what stands before the path, "" or an <a> and what belongs to it.
    from_zero: begin the y-axis at 0, as the x-axis always does.
    above: SVG that is drawn above the curves.
    """
    curves = [(thinned([(number_or_gap(x), number_or_gap(y)) for x, y in points]), *rest) for points, *rest in lines]
    known = [(x, y) for points, *_ in curves for x, y in points if not math.isnan(x + y)]
    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(label)}">']
    if not known:
        return f'{parts[0]}<text x="{width / 2}" y="{height / 2}" text-anchor="middle">nothing recorded</text></svg>'
    left, right, top, bottom = 58, width - 14, 10, height - 30
    x_low, x_high, x_ticks = ticks(min(0, *(x for x, _ in known)), max(x for x, _ in known))
    y_low, y_high, y_ticks = ticks(min([y for _, y in known] + [0] * from_zero), max(y for _, y in known))
    across = lambda x: f"{left + (x - x_low) / (x_high - x_low) * (right - left):.1f}"
    down = lambda y: f"{bottom - (y - y_low) / (y_high - y_low) * (bottom - top):.1f}"
    for y in y_ticks:
        parts.append(f'<path class="grid" d="M{left} {down(y)}H{right}"/>')
        parts.append(f'<text x="{left - 5}" y="{down(y)}" dy=".35em" text-anchor="end">{y:,.10g}</text>')
    for x in x_ticks:
        parts.append(f'<text x="{across(x)}" y="{height - 8}" text-anchor="middle">{x:,.10g}</text>')
    parts.append('<g class="curves">')
    for points, attributes, opening in curves:
        moves, pen = [], "M"
        for x, y in points:
            if math.isnan(x + y):
                pen = "M"
            else:
                moves.append(f"{pen}{across(x)} {down(y)}{'h0' if pen == 'M' else ''}")  # h0: a dot if it stands alone
                pen = "L"
        parts.append(f'{opening}<path {attributes} d="{"".join(moves)}"/>{"</a>" if opening else ""}')
    return "".join([*parts, f"</g>{above}</svg>"])


def ticks(low, high):
    """(low, high, round numbers between them): the range, widened where it is none; numbers of 1, 2 or 5 times 10^n."""
    largest = max(abs(low), abs(high))
    if high - low <= 1e-9 * largest or largest < 1e-99:
        margin = 0.1 * largest if largest > 1e-99 else 1
        low, high = low - margin, high + margin
    power = 10.0 ** math.floor(math.log10((high - low) / 4))
    step = next(power * factor for factor in (1, 2, 5, 10) if (high - low) / (power * factor) <= 5.5)
    return low, high, [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def thinned(points):
    """At most `MOST_POINTS` of [(x, y)]: of each stretch the lowest, the highest and a gap (a NaN)."""
    if len(points) <= MOST_POINTS:
        return points
    size = math.ceil(len(points) / (MOST_POINTS // 3 - 1))
    kept = {0, len(points) - 1}
    for start in range(0, len(points), size):
        stretch = range(start, min(start + size, len(points)))
        known = [i for i in stretch if not math.isnan(points[i][1])]
        gaps = [i for i in stretch if math.isnan(points[i][1])]
        kept |= {*gaps[:1], *sorted(known, key=lambda i: points[i][1])[:: max(1, len(known) - 1)]}
    return [points[i] for i in sorted(kept)]
