"""What is known of all submissions as one HTML file that opens anywhere: a table, the curves, and a section for each.

In reading order: `Entry`, what is known of one; `write_report`, which fills report.html, a template of Jinja (it comes
with torch); the texts in it; the plots.  The sorting is in report.js; nothing is fetched from anywhere.

All text comes from strangers: Jinja escapes it, and `cut` takes away the characters that would turn around or hide what
stands beside them.  Besides, the page forbids every script but its own.
"""

import base64
import hashlib
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
from pages.templates import TEMPLATES
from training.curves import COLOURS

MOST_STORIES = 25  # that are shown of a submission
HIGHEST_LOSS = 12  # in the plot of all: a model that knows nothing has ln(vocabulary), 9.2 for 10,000 tokens
LONGEST_RUN = 20  # in the plot of all: times the median run's steps
DASHES = ("none", "6 3", "2 3", "7 3 2 3")


@dataclass
class Entry:
    """What is known of one submission; flags: `edited_records.Flag`s."""

    name: str
    facts: dict  # {column: text, number, truth or None}, the same columns in the same order for all
    flags: list = field(default_factory=list)
    curves: dict = field(default_factory=dict)  # val_loss, train_loss, lr, tokens_per_second: [(step, value)]
    samples: list = field(default_factory=list)  # [(step, text)]
    points: list = field(default_factory=list)  # [(what for, got, of)]; empty without a rubric

    @property
    def problems(self) -> int:
        return sum(flag.kind == "problem" for flag in self.flags)

    @property
    def questions(self) -> int:
        return len(self.flags) - self.problems

    @property
    def total(self) -> tuple:
        """All its points together, as one of them."""
        return "all together", sum(got for _, got, _ in self.points), sum(of for _, _, of in self.points)


def write_report(entries: list[Entry], path: str | Path, title: str) -> None:
    """Write the report of all `Entry`s as one HTML file."""
    here = Path(__file__).parent
    script = (here / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
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
        script_hash=f"sha256-{digest}",
    )
    with written_atomically(path) as file:
        file.write(page.encode(errors="replace"))


# Text -----------------------------------------------------------------------------------------------------------------


def cut(text: object, limit: int) -> str:
    """At most limit characters of a text; what is invisible is shown as U+FFFD."""
    text = str(text)
    visible = without_controls(text[:limit].replace("\r\n", "\n"))
    visible = "".join(c if c.isprintable() or c.isspace() else "\ufffd" for c in visible)
    return visible if len(text) <= limit else f"{visible} … ({len(text):,} characters in all)"


def in_words(value: object) -> object:
    """A fact as text."""
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
    """{caption: plot} of one submission's loss, learning rate and speed."""
    lines = {}
    for name, colour in zip(("train_loss", "val_loss", "lr", "tokens_per_second"), COLOURS, strict=False):
        lines[name] = (entry.curves.get(name, []), f'class="curve {name}" stroke="{colour}"', "")
    loss = "Loss (nats per token) over steps; pale: training"
    rate = "Learning rate over steps"
    speed = "Tokens per second over steps"
    from_zero = Axes(from_zero=True)
    return {
        loss: plot(loss, [lines["train_loss"], lines["val_loss"]], 360, 200),
        rate: plot(rate, [lines["lr"]], 360, 200, from_zero),
        speed: plot(speed, [lines["tokens_per_second"]], 360, 200, from_zero),
    }


def looks_of(entries: list[Entry]) -> dict[int, str]:
    """{number of an entry: how its validation curve is drawn} of those that have one."""
    with_curve = [number for number, entry in enumerate(entries) if entry.curves.get("val_loss")]
    looks = {}
    for order, number in enumerate(with_curve):
        colour = COLOURS[order % len(COLOURS)]
        dash = DASHES[order // len(COLOURS) % len(DASHES)]
        looks[number] = f'class="curve" stroke="{colour}" stroke-dasharray="{dash}"'
    return looks


def overview(entries: list[Entry], looks: dict[int, str]) -> tuple[str, str]:
    """(caption, plot) of all validation curves; points far outside, which would hide the others, are left out."""
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
    caption = "Nats per token, over steps; point at a name or a curve to make it stand out"
    left_out = sum(not fits(*point) for points in curves.values() for point in points)
    if left_out:
        bounds = f"0 to {HIGHEST_LOSS} nats or {longest:,.0f} steps"
        caption += f". Not drawn: {left_out:,} point{'' if left_out == 1 else 's'} outside {bounds}"
    above = "".join(f'<use href="#c{number}"/>' for number in curves)  # where its curve stands out
    return caption, plot(caption, lines, 800, 400, above=above)
