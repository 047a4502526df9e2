"""Pictures of training curves: loss, perplexity, learning rate and speed, for one run or for several in one picture.

In reading order: `read_metrics`, the rows of a run's metrics.jsonl; `draw`, the picture; `draw_panel`, one of its four
panels.  matplotlib (the extra `report`) is imported only to draw.
"""

import math
import textwrap
import warnings
from pathlib import Path

from common.console import log
from common.errors import UserError
from common.files import written_atomically
from common.numbers import number_or_gap
from corpus.json_files import json_lines

FORMATS = (".png", ".svg", ".pdf")
# Colours that colour-blind people can tell apart, and that differ in lightness when printed in grey (Okabe & Ito 2008,
# without yellow, which is too pale for a line on white).  After seven runs they repeat, with another line style.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
LINES = ("-", "--", ":", "-.")
PANELS = (  # title, unit, field in train rows, field in eval rows
    ("Loss", "nats per token", "train_loss", "val_loss"),
    ("Perplexity", "likely tokens, e^loss", "perplexity", "perplexity"),
    ("Learning rate", "learning rate", "lr", None),
    ("Speed", "tokens/s", "tokens_per_second", None),
)
REWARD_PANELS = (  # for runs with rewards, whose training loss is not a cross-entropy
    ("Loss on dialogues", "nats per token", None, "val_loss"),
    ("Reward", "of a reply, on average", "reward", "reward"),
    *PANELS[2:],
)
MARKED_POINTS = 40  # a validation curve with at most this many points shows each of them
RESUMED = "resumed from a checkpoint"
MARKS = {"marker": "o", "markersize": 3.5}
LABEL_WIDTH = 100  # characters; longer names are wrapped


def read_metrics(run: str | Path) -> list[dict]:
    """Return the rows of a run as dicts, in the order in which they were written.

    run: its folder, or the metrics.jsonl in it.
    Skips broken lines, such as the last line of a killed run, and logs how many there were.  Raises UserError.
    """
    path = Path(run) / "metrics.jsonl" if Path(run).is_dir() else Path(run)
    if not path.is_file():
        raise UserError(f"no file {path}; name a run's folder, or the metrics.jsonl in it")
    lines = [row for row, _ in json_lines(path)]
    rows = [row for row in lines if isinstance(row, dict)]
    broken = len(lines) - len(rows)
    if not rows:
        raise UserError(f"{path} has no rows; name a run's folder, or the metrics.jsonl in it")
    if broken:
        log.info(f"{path}: unreadable lines skipped: {broken:,}")
    return rows


def curve(rows: list[dict], event: str, field: str) -> tuple[list[float], list[float]]:
    """Return (steps, values) of a field in the rows of one event; a missing value is NaN."""
    steps = []
    values = []
    for row in rows:
        step = number_or_gap(row.get("step"))
        if row.get("event") == event and not math.isnan(step):
            steps.append(step)
            values.append(number_or_gap(row.get(field)))
    return steps, values


def best_loss(rows: list[dict]) -> float | None:
    _, losses = curve(rows, "eval", "val_loss")
    return min((loss for loss in losses if not math.isnan(loss)), default=None)


def drawable(rows: list[dict]) -> bool:
    """Return whether a run has anything to draw: a row of training or of an evaluation."""
    return any(curve(rows, event, "step")[0] for event in ("train", "eval"))


def lonely(values: list[float]) -> list[int]:
    """Return the indices of values without a line to them, because both neighbours are missing."""
    known = [False, *(not math.isnan(value) for value in values), False]
    return [i for i in range(len(values)) if known[i + 1] and not known[i] and not known[i + 2]]


def draw(runs: dict[str, list[dict]], path: str | Path) -> None:
    """Draw the curves of runs, {name: rows from `read_metrics`}, into a .png, .svg or .pdf file.

    One run: training and validation in two colours.  Several: one colour per run, pale for training, strong for
    validation.  Raises UserError if matplotlib is missing or the file has another suffix.
    """
    form = check_suffix(path)
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError('a picture needs matplotlib; install it with: pip install -e ".[report]"') from None
    figure = Figure(figsize=(11, 8), dpi=150, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)  # inches
    handles = {}
    has_rewards = [any("reward" in row for row in rows) for rows in runs.values()]
    panels = REWARD_PANELS if all(has_rewards) else PANELS
    for panel, axes in zip(panels, figure.subplots(2, 2).flat, strict=True):
        handles |= draw_panel(axes, panel, runs, alone=len(runs) == 1)
    if RESUMED in handles:
        handles[RESUMED] = handles.pop(RESUMED)  # move it to the end
    labels = ["\n".join(textwrap.wrap(label, LABEL_WIDTH)) for label in handles]
    widest = max((len(label) for label in labels), default=1)
    columns = max(1, min(4, len(labels), LABEL_WIDTH // widest))
    legend = figure.legend(list(handles.values()), labels, loc="outside lower center", ncols=columns, frameon=False)
    title = figure.suptitle(title_of(runs))
    for text in (title, *legend.get_texts()):
        text.set_parse_math(False)  # a $ in a folder's name does not begin a formula
    with written_atomically(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a letter that the font lacks is drawn as a box
        figure.savefig(file, format=form)


def check_suffix(path: str | Path) -> str:
    """Return the picture format for a file's suffix, such as "png".  Raises UserError."""
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise UserError(f"{path}: the name of a picture must end in {', '.join(FORMATS)}; choose another name")
    return suffix[1:]


def title_of(runs: dict[str, list[dict]]) -> str:
    if len(runs) > 1:
        return f"{len(runs)} runs: training (pale) and validation (strong)"
    ((name, rows),) = runs.items()
    best = best_loss(rows)
    return "\n".join(textwrap.wrap(name, LABEL_WIDTH)) + (f": best validation loss {best:.4f}" if best else "")


def draw_panel(axes, panel: tuple, runs: dict[str, list[dict]], alone: bool) -> dict:
    """Draw one of the `PANELS` for all runs; return {label: line} for the legend.

    alone: there is one run, so colour separates training from validation.
    """
    title, unit, train_field, eval_field = panel
    handles = {}
    drawn = []
    for position, (name, rows) in enumerate(runs.items()):
        colour = COLOURS[0] if alone else COLOURS[position % len(COLOURS)]
        style = LINES[position // len(COLOURS) % len(LINES)]
        steps, values = curve(rows, "train", train_field)
        drawn += values
        pale = {"alpha": 0.35, "linewidth": 1} if eval_field and not alone else {"linewidth": 1.3}
        (line,) = axes.plot(steps, values, style, color=colour, markevery=lonely(values), **MARKS, **pale)
        if alone:
            handles["training"] = line
        else:
            best = best_loss(rows)
            label = name + (f", best {best:.4f}" if best else "")
            (handles[label],) = axes.plot([], [], style, color=colour, linewidth=1.8)
        if eval_field:
            steps, values = curve(rows, "eval", eval_field)
            drawn += values
            colour = COLOURS[1] if alone else colour
            marked = None if len(values) <= MARKED_POINTS else lonely(values)  # None: mark each point
            (line,) = axes.plot(steps, values, style, color=colour, linewidth=1.8, markevery=marked, **MARKS)
            if alone:
                handles["validation"] = line
        for step in curve(rows, "resume", "step")[0]:
            colour = "#777777" if alone else colour
            handles[RESUMED] = axes.axvline(step, color=colour, linewidth=0.9, linestyle=":", alpha=0.6)
    lay_out(axes, title, unit, [value for value in drawn if value > 0])
    return handles


def lay_out(axes, title: str, unit: str, values: list[float]) -> None:
    """Set a panel's title, units, grid and axis numbers; values: those drawn in it that are above 0."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel("steps")
    axes.set_ylabel(unit)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    if title == "Perplexity" and values and max(values) >= 10 * min(values):
        axes.set_yscale("log")
        narrow = max(values) < 1000 * min(values)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylabel(f"{unit} (logarithmic)")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    if title == "Speed":
        axes.set_ylim(bottom=0)
    if not values:
        axes.text(0.5, 0.5, "nothing recorded", transform=axes.transAxes, ha="center", color="#777777")
