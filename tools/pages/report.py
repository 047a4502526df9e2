"""What is known of all submissions as one HTML file that opens anywhere: a table, the curves, and a section for each.

In reading order: `Entry`, what is known of one; `write_report`; the table, the sections and the plots that it is made
of.  The page's frame, its style and how it prints are in report.html, the sorting in report.js; nothing is fetched from
anywhere.

All text comes from strangers: it goes through `safe` on its way into the page, cut, escaped, and without the characters
that would turn around or hide what stands beside them.  Besides, the page forbids every script but its own.
"""

import base64
import hashlib
import html
import math
import re
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

from common.files import written_atomically
from common.numbers import number_or_gap
from common.text import without_controls
from pages.svg_plots import plot
from training.curves import COLOURS

LONGEST_CELL, LONGEST_TEXT, LONGEST_STORY = 100, 1000, 3000  # characters that are shown of a text
MOST_FLAGS, MOST_STORIES = 100, 25  # that are shown of a submission
HIGHEST_LOSS = 12  # in the plot of all: a model that knows nothing has ln(vocabulary), 9.2 for 10,000 tokens
LONGEST_RUN = 20  # in the plot of all: times the median run's steps
DASHES = ("none", "6 3", "2 3", "7 3 2 3")


@dataclass
class Flag:
    kind: str  # "problem" or "question"
    text: str


@dataclass
class Entry:
    """What is known of one submission."""

    name: str
    facts: dict  # {column: text, number, truth or None}, the same columns in the same order for all
    flags: list[Flag] = field(default_factory=list)
    curves: dict = field(default_factory=dict)  # val_loss, train_loss, lr, tokens_per_second: [(step, value)]
    samples: list = field(default_factory=list)  # [(step, text)]
    points: list = field(default_factory=list)  # [(what for, got, of)]; empty without a rubric


def write_report(entries, path, title):
    """Write the report of all `Entry`s as one HTML file."""
    here = Path(__file__).parent
    script = (here / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    with_curve = [i for i, entry in enumerate(entries) if entry.curves.get("val_loss")]
    highlight = 'body:has(a.run[href="#s{0}"]:is(:hover, :focus-visible)) #all use[href="#c{0}"] {{ display: inline; }}'
    parts = {
        "title": escaped(title, LONGEST_TEXT),
        "counts": counts(entries),
        "written": time.strftime("%Y-%m-%d at %H:%M"),
        "table": table(entries),
        "overview": overview(entries, with_curve),
        "highlights": "\n".join(highlight.format(i) for i in with_curve),
        "sections": "\n".join(section(i, entry) for i, entry in enumerate(entries)),
        "script": script,
        "script_hash": f"sha256-{digest}",
    }
    frame = (here / "report.html").read_text(encoding="utf-8")
    page = re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], frame)
    with written_atomically(path) as file:
        file.write(page.encode(errors="replace"))


# Text -----------------------------------------------------------------------------------------------------------------


def safe(text, limit):
    """A stranger's text as HTML that has no effect on what stands beside it; see `escaped`."""
    return f"<bdi>{escaped(text, limit)}</bdi>"


def escaped(text, limit):
    """A text for a place that holds text only: at most limit characters; what is invisible is shown as U+FFFD."""
    text = str(text)
    shown = without_controls(text[:limit].replace("\r\n", "\n"))
    shown = "".join(c if c.isprintable() or c.isspace() else "\ufffd" for c in shown)
    rest = f" … ({len(text):,} characters in all)" if len(text) > limit else ""
    return html.escape(shown) + rest


def in_words(value):
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


def counted(count, word):
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def count_flags(entry):
    """(problems, questions) of an entry."""
    problems = sum(flag.kind == "problem" for flag in entry.flags)
    return problems, len(entry.flags) - problems


def flags_in_words(entry):
    problems, questions = count_flags(entry)
    said = [counted(problems, "problem")] * bool(problems) + [counted(questions, "question")] * bool(questions)
    return ", ".join(said) or "none"


def counts(entries):
    flagged = [sum(count_flags(entry)[kind] > 0 for entry in entries) for kind in (0, 1)]
    return f"{counted(len(entries), 'submission')}, {flagged[0]} with problems, {flagged[1]} with questions"


# The table and the sections -------------------------------------------------------------------------------------------


def link(position, entry):
    """The name of an entry, which leads to its section and may be broken after / and _."""
    name = re.sub("([/_])", r"\1<wbr>", escaped(entry.name, LONGEST_CELL))
    return f'<a class="run" href="#s{position}"><bdi>{name}</bdi></a>'


def cell(value):
    """A cell of the table; what sorts as a number has it in data-value."""
    text = safe(in_words(value), LONGEST_CELL)
    if value is None:
        return f'<td class="missing">{text}</td>'
    as_number = number_or_gap(value)
    if not math.isnan(as_number):
        return f'<td class="number" data-value="{as_number!r}">{text}</td>'
    return f'<td class="text{" long" if len(str(value)) > 40 else ""}">{text}</td>'


def total(entry):
    """(points got, of how many)."""
    return sum(got for _, got, _ in entry.points), sum(of for _, _, of in entry.points)


def table(entries):
    """The head and the body of the table: who, flags, points if there are any, and each fact."""
    columns = list(dict.fromkeys(column for entry in entries for column in entry.facts))
    graded = any(entry.points for entry in entries)
    heads = ["who", "flags", *["points"] * graded, *columns]
    rows = ["<thead><tr>", *(f'<th scope="col">{safe(head.replace("_", " "), LONGEST_CELL)}</th>' for head in heads)]
    rows.append("</tr></thead>\n<tbody>")
    for position, entry in enumerate(entries):
        problems, questions = count_flags(entry)
        cells = [f'<th scope="row">{link(position, entry)}</th>']
        cells.append(f'<td class="flag-count" data-value="{problems * 1000 + questions}">{flags_in_words(entry)}</td>')
        if graded and entry.points:
            got, of = total(entry)
            cells.append(f'<td class="number" data-value="{got!r}">{got:g} of {of:g}</td>')
        elif graded:
            cells.append(cell(None))
        cells += [cell(entry.facts.get(column)) for column in columns]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return "\n".join([*rows, "</tbody>"])


def section(position, entry):
    """What is known of one submission: flags, points, facts, plots, stories."""
    parts = [f'<section id="s{position}">\n<h2>{safe(entry.name, LONGEST_TEXT)}</h2>']
    parts.append(f'<p>Flags: {flags_in_words(entry)}. <a class="back" href="#runs">Back to the table</a></p>')
    flags = [f'<li class="{"problem" if flag.kind == "problem" else "question"}"><b>{safe(flag.kind, 20)}:</b> '
             f"{safe(flag.text, LONGEST_TEXT)}</li>" for flag in entry.flags[:MOST_FLAGS]]  # fmt: skip
    if len(entry.flags) > MOST_FLAGS:
        flags.append(f"<li>and {len(entry.flags) - MOST_FLAGS:,} more</li>")
    parts.append(f'<ul class="flags">{"".join(flags)}</ul>' if flags else "")
    if entry.points:
        got, of = total(entry)
        lines = [(what, f"{got:g}", f"{of:g}") for what, got, of in [*entry.points, ("all together", got, of)]]
        rows = (f'<tr><th scope="row">{safe(what, LONGEST_TEXT)}</th><td>{got} of {of}</td></tr>'
                for what, got, of in lines)  # fmt: skip
        parts.append(f"<h3>Points</h3>\n<table>{''.join(rows)}</table>")
    name = lambda column: safe(column.replace("_", " "), LONGEST_CELL)
    facts = []
    for column, value in entry.facts.items():
        wide = ' class="wide"' if len(str(value)) > LONGEST_CELL // 2 else ""
        facts.append(f"<div{wide}><dt>{name(column)}</dt><dd>{safe(in_words(value), LONGEST_TEXT)}</dd></div>")
    parts.append(f"<dl>{''.join(facts)}</dl>")
    parts += [plots(entry), stories(entry.samples), "</section>"]
    return "\n".join(part for part in parts if part)


def plots(entry):
    """Loss, learning rate and speed of one submission, side by side."""
    curves = {name: entry.curves.get(name, []) for name in ("train_loss", "val_loss", "lr", "tokens_per_second")}
    line = lambda name, colour, kind="": (curves[name], f'class="curve {kind}" stroke="{COLOURS[colour]}"', "")
    loss = [line("train_loss", 0, "pale"), line("val_loss", 1)]
    drawn = [
        figure("Loss (nats per token) over steps; pale: training", loss, 360, 200),
        figure("Learning rate over steps", [line("lr", 2)], 360, 200, from_zero=True),
        figure("Tokens per second over steps", [line("tokens_per_second", 3)], 360, 200, from_zero=True),
    ]
    return f'<div class="plots">{"".join(drawn)}</div>'


def stories(samples):
    """The newest story, and those before it behind a line that opens them."""
    if not samples:
        return ""
    texts = []
    for step, text in reversed(samples[-MOST_STORIES:]):
        texts.append(f'<p class="note">at step {safe(in_words(step), 20)}</p>')
        texts[-1] += f'\n<p class="story">{safe(text, LONGEST_STORY)}</p>\n'
    newest, *earlier = texts
    if len(samples) > len(texts):
        earlier.append(f'<p class="note">not shown: {len(samples) - len(texts):,} before these</p>')
    summary = f"<summary>earlier ones: {len(samples) - 1:,}</summary>\n"
    more = f"<details>{summary}{''.join(earlier)}</details>" if earlier else ""
    return f"<h3>Stories</h3>\n{newest}{more}"


# Plots ----------------------------------------------------------------------------------------------------------------


def overview(entries, with_curve):
    """The validation curves of the entries at these positions in one plot, and their names."""
    curves = {
        i: [(number_or_gap(step), number_or_gap(value)) for step, value in entries[i].curves["val_loss"]]
        for i in with_curve
    }
    last = [max((step for step, _ in points if step >= 0), default=0) for points in curves.values()]
    longest = LONGEST_RUN * statistics.median_high(last) if last else 0
    fits = lambda step, value: 0 <= step <= longest and (math.isnan(value) or 0 <= value <= HIGHEST_LOSS)
    lines, names = [], []
    for order, (i, points) in enumerate(curves.items()):
        dash = DASHES[order // len(COLOURS) % len(DASHES)]
        look = f'class="curve" stroke="{COLOURS[order % len(COLOURS)]}" stroke-dasharray="{dash}"'
        name = f"<title>{escaped(entries[i].name, LONGEST_CELL)}</title>"
        shown = [point if fits(*point) else (math.nan, math.nan) for point in points]
        lines.append((shown, f'id="c{i}" {look}', f'<a class="run" href="#s{i}" tabindex="-1">{name}'))
        swatch = f'<svg viewBox="0 0 28 8" aria-hidden="true"><path d="M2 4h24" {look}/></svg>'
        names.append(f"<li>{swatch}{link(i, entries[i])}</li>")
    caption = "Nats per token, over steps; point at a name or a curve to make it stand out"
    if left_out := sum(not fits(*point) for points in curves.values() for point in points):
        caption += f". Not drawn: {counted(left_out, 'point')} outside 0 to {HIGHEST_LOSS} nats or {longest:,.0f} steps"
    above = "".join(f'<use href="#c{i}"/>' for i in curves)  # seen where its curve shall stand out
    drawn = figure(caption, lines, 800, 400, above=above)
    return f'<div id="all">{drawn}</div>\n<div id="names"><ul>{"".join(names)}</ul></div>'


def figure(caption, lines, width, height, **options):
    """A plot with its caption; see `plot`."""
    drawn = plot(caption, lines, width, height, **options)
    return f"<figure><figcaption>{html.escape(caption)}</figcaption>{drawn}</figure>"
