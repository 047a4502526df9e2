"""Write a report of all submissions as one HTML file: a table, the curves, and a section for each submission.

In reading order: `Entry`, one submission; `write_report`, which fills the Jinja template report.html (Jinja comes with
torch); texts; plots.  The table is sorted by report.js; the page loads nothing from the network.

All text comes from strangers: Jinja escapes it, and `cut` removes the characters that would reverse or hide the text
around them.  The page also forbids every script except its own.
"""

import html
import math
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

from common.files import written_atomically
from common.numbers import finite_number, number_or_gap
from common.text import without_controls
from pages.svg_plots import Axes, plot
from pages.templates import TEMPLATES, hash_of, joined
from training.curves import COLOURS

MOST_STORIES = 25  # shown for each submission
HIGHEST_LOSS = 12  # in the plot of all runs; an untrained model has ln(vocabulary), 9.2 for 10,000 tokens
LONGEST_RUN = 20  # in the plot of all runs: steps, as a multiple of the median run
DASHES = ("none", "6 3", "2 3", "7 3 2 3")


@dataclass
class Entry:
    """Everything that the report shows of one run; flags: `findings.Flag`s."""

    name: str
    facts: dict  # {column: text, number, bool or None}, with the same columns in the same order for all runs
    flags: list = field(default_factory=list)
    curves: dict = field(default_factory=dict)  # val_loss, train_loss, lr, tokens_per_second: [(step, value)]
    samples: list = field(default_factory=list)  # [(step, text)]
    points: list = field(default_factory=list)  # [(criterion, points given, points possible)]; empty without a rubric
    person: str = ""  # who handed it in; one person may hand in several runs
    result: object = None  # a `leaderboard.Result`, which the report does not show; None without a leaderboard

    @property
    def problems(self) -> int:
        return sum(flag.kind == "problem" for flag in self.flags)

    @property
    def questions(self) -> int:
        return len(self.flags) - self.problems

    @property
    def total(self) -> tuple:
        """The sum of all points, as one more row."""
        return "total", sum(got for _, got, _ in self.points), sum(of for _, _, of in self.points)


def write_report(entries: list[Entry], path: str | Path, title: str) -> None:
    """Write the report of all entries as one HTML file."""
    script = joined(["report.js"])
    looks = looks_of(entries)
    page = TEMPLATES.get_template("report.html").render(
        title=title,
        written=time.strftime("%Y-%m-%d at %H:%M"),
        entries=entries,
        columns=list(dict.fromkeys(column for entry in entries for column in entry.facts)),
        graded=any(entry.points for entry in entries),
        looks=looks,
        overview=overview(entries, looks),
        plots=plots,
        most_stories=MOST_STORIES,
        cut=cut,
        in_words=in_words,
        finite_number=finite_number,
        script=script,
        script_hash=hash_of(script),
    )
    with written_atomically(path) as file:
        file.write(page.encode(errors="replace"))


# Text -----------------------------------------------------------------------------------------------------------------


def cut(text: object, limit: int) -> str:
    """Return at most limit characters of a text; invisible characters become U+FFFD."""
    text = str(text)
    visible = without_controls(text[:limit].replace("\r\n", "\n"))
    visible = "".join(c if c.isprintable() or c.isspace() else "\ufffd" for c in visible)
    return visible if len(text) <= limit else f"{visible} … ({len(text):,} characters in all)"


def in_words(value: object) -> object:
    """Return a fact as it is shown."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if 1e5 <= abs(value) < 1e15 else f"{value:.5g}"
    return value


# Plots ----------------------------------------------------------------------------------------------------------------


def plots(entry: Entry) -> dict[str, str]:
    """Return the plots of a run's loss, learning rate and speed, {caption: plot}."""
    lines = {}
    for name, colour in zip(("train_loss", "val_loss", "lr", "tokens_per_second"), COLOURS, strict=False):
        lines[name] = (entry.curves.get(name, []), f'class="curve {name}" stroke="{colour}"', "")
    loss = "Loss (nats per token) over steps; faint line: training"
    rate = "Learning rate over steps"
    speed = "Tokens per second over steps"
    from_zero = Axes(from_zero=True)
    return {
        loss: plot(loss, [lines["train_loss"], lines["val_loss"]], 360, 200),
        rate: plot(rate, [lines["lr"]], 360, 200, from_zero),
        speed: plot(speed, [lines["tokens_per_second"]], 360, 200, from_zero),
    }


def looks_of(entries: list[Entry]) -> dict[int, str]:
    """Return the SVG attributes of each validation curve, {number of the entry: attributes}."""
    with_curve = [number for number, entry in enumerate(entries) if entry.curves.get("val_loss")]
    looks = {}
    for order, number in enumerate(with_curve):
        colour = COLOURS[order % len(COLOURS)]
        dash = DASHES[order // len(COLOURS) % len(DASHES)]
        looks[number] = f'class="curve" stroke="{colour}" stroke-dasharray="{dash}"'
    return looks


def overview(entries: list[Entry], looks: dict[int, str]) -> tuple[str, str]:
    """Plot all validation curves without extreme points, which would flatten the rest; return (caption, plot)."""
    curves = {}
    for number in looks:
        points = entries[number].curves["val_loss"]
        curves[number] = [(number_or_gap(step), number_or_gap(loss)) for step, loss in points]
    last = [max((step for step, _ in points if step >= 0), default=0) for points in curves.values()]
    longest = LONGEST_RUN * statistics.median_high(last) if last else 0

    def fits(step, loss):
        return 0 <= step <= longest and (math.isnan(loss) or 0 <= loss <= HIGHEST_LOSS)

    lines = []
    for number, points in curves.items():
        shown = [point if fits(*point) else (math.nan, math.nan) for point in points]
        name = html.escape(cut(entries[number].name, 100))
        opening = f'<a class="run" href="#s{number}" tabindex="-1"><title>{name}</title>'
        lines.append((shown, f'id="c{number}" {looks[number]}', opening))
    caption = "Nats per token over steps; point at a name or a curve to highlight it"
    left_out = sum(not fits(*point) for points in curves.values() for point in points)
    if left_out:
        bounds = f"0 to {HIGHEST_LOSS} nats or {longest:,.0f} steps"
        caption += f". Not drawn: {left_out:,} point{'' if left_out == 1 else 's'} outside {bounds}"
    above = "".join(f'<use href="#c{number}"/>' for number in curves)  # the highlighted copies
    return caption, plot(caption, lines, 800, 400, above=above)
