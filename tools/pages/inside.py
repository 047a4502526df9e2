"""Write the page of look_inside.py: what a model computes while it reads a text, as one HTML file.

In reading order: `inside_page`, which fills the Jinja template inside.html; texts and colours; then what each section
shows: the logit lens, ablation, two stories, the map of words, plots over training.  inside.js shows what the reader
points at and draws attention, inside_tables.js sorts and searches; the page loads nothing from the network.

A section without data is left out.  All text comes from strangers: `cleaned` removes the characters that would reverse
or hide the text around them, and Jinja escapes the rest.  The page also forbids every script except its own.
"""

import base64
import html
import math
import re
from pathlib import Path

import numpy as np
from inside.heads import ENOUGH

from common.files import written_atomically
from common.numbers import finite_number
from pages.report import DASHES, cut
from pages.svg_plots import Axes, plot
from pages.templates import TEMPLATES, as_json, hash_of, joined

SCRIPTS = ("helpers.js", "inside.js", "inside_tables.js")  # joined in this order
STYLES = ("base.css", "inside.css")
LONGEST_TEXT = 20_000  # characters
HIGHEST_LOSS = 6  # nats: the strongest colour; a likelihood of 1 in 400
MOST_LINES = 10  # in one plot
COLOURS = 7  # numbered in inside.css
SHAPES = ("M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0", "M-3.5-3.5h7v7h-7z", "M0-5L4.6 3.4H-4.6z", "M0-5L5 0L0 5L-5 0z")
MAP_SIZE = (900, 560)  # at most, in pixels
MAP_MARGIN = 30  # pixels
MOST_LABELS = 80  # words of the map that are named without pointing at them


def inside_page(content: dict) -> str:
    """Return the page of what look_inside.py computed; all but model, tokens and loss may be missing."""
    script = joined(SCRIPTS)
    attention = packed(content["attention"]) if content.get("attention") else None
    texts = cleaned({name: value for name, value in content.items() if name != "attention"})
    embeddings = texts.get("embeddings") or {}
    for_script = {name: texts.get(name) for name in ("tokens", "loss", "rank", "alternatives", "heads")}
    for_script["attention"] = attention
    for_script["neighbours"] = embeddings.get("neighbours")
    return TEMPLATES.get_template("inside.html").render(
        content=texts,
        attention=attention,
        labels=labels_of(texts.get("heads") or []),
        lens=lens_rows(texts),
        ablation=ablation_rows(texts.get("ablation")),
        stories=marked_stories(texts.get("without")),
        words=word_map(embeddings),
        figures=training_figures(texts.get("training")),
        enough=ENOUGH,
        signs=signs,
        loss_shade=loss_shade,
        style=joined(STYLES),
        data=as_json(for_script),
        script=script,
        script_hash=hash_of(script),
    )


def write_inside_page(content: dict, path: str | Path) -> None:
    """Write the page, complete or not at all."""
    page = inside_page(content)
    with written_atomically(path) as file:
        file.write(page.encode(errors="replace"))


def packed(attention: list) -> dict:
    """Return attention [layer][head][row][column] for the script: T x T bytes a head, in base64; 255 means 1."""
    patterns = []
    for layer in attention:
        for rows in layer:
            pattern = np.zeros((len(rows), len(rows)))
            for place, row in enumerate(rows):
                pattern[place, : len(row)] = row
            as_bytes = (pattern * 255).round().astype(np.uint8).tobytes()
            patterns.append(base64.b64encode(as_bytes).decode())
    return {"layers": len(attention), "heads": len(attention[0]), "data": patterns}


# Texts and colours ----------------------------------------------------------------------------------------------------


def cleaned(value: object) -> object:
    """Return plain data that is safe to show: no invisible characters, and None instead of infinite numbers."""
    if isinstance(value, dict):
        return {cut(key, LONGEST_TEXT): cleaned(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [cleaned(item) for item in value]
    if isinstance(value, str):
        return cut(value, LONGEST_TEXT)
    if isinstance(value, float):
        number = finite_number(value)
        return None if number is None else float(f"{number:.5g}")
    return value


def signs(token: str) -> str:
    """Return a token with a visible sign for each space, line break and tab."""
    return token.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥")


def loss_shade(loss: float | None) -> str:
    """Return how strongly a loss is coloured, in percent."""
    share = min(max(loss or 0, 0) / HIGHEST_LOSS, 1)
    return f"{100 * share:.0f}%"


def shade(probability: float | None) -> str:
    """Return how strongly a probability is coloured, in percent: its square root, so that 0.05 is still visible."""
    return f"{100 * math.sqrt(min(max(probability or 0, 0), 1)):.0f}%"


def labels_of(heads: list[dict]) -> dict[str, tuple[str, str]]:
    """Return {head: (label or "", all its scores)}, such as {"2.3": ("induction", "induction 0.83, …")}."""
    labels = {}
    for head in heads:
        scores = [f"{name} {value or 0:.2f}" for name, value in (head.get("scores") or {}).items()]
        labels[f"{head['layer']}.{head['head']}"] = (head.get("label") or "", ", ".join(scores))
    return labels


# The logit lens -------------------------------------------------------------------------------------------------------


def lens_rows(content: dict) -> list[dict]:
    """Return a row for the embeddings and one for each layer: its name, its mean loss and its cells."""
    tokens = content["tokens"]
    all_losses = content.get("lens_loss") or []
    rows = []
    for number, predictions in enumerate(content.get("lens") or []):
        losses = all_losses[number] if number < len(all_losses) else []
        known = [loss for loss in losses if loss is not None]
        cells = []
        for position, (token, probability) in enumerate(predictions):
            true_token = tokens[position + 1] if position + 1 < len(tokens) else None
            title = f"after {signs(tokens[position])}: {signs(token)}, probability {probability or 0:.2f}"
            if position < len(losses) and losses[position] is not None:
                title += f"; loss of the true token {losses[position]:.2f}"
            is_right = token == true_token
            cells.append({"token": token, "shade": shade(probability), "title": title, "right": is_right})
        name = f"after layer {number - 1}" if number else "embeddings"
        rows.append({"name": name, "loss": sum(known) / len(known) if known else None, "cells": cells})
    return rows


# Ablation -------------------------------------------------------------------------------------------------------------


def ablation_rows(ablation: dict | None) -> list[dict]:
    """Return the rows of the table, the highest rise by zero first; columns for names have bars of their own scale."""
    if not ablation:
        return []
    rows = []
    for row in ablation["rows"]:
        kind = "head" if re.fullmatch(r"\d+\.\d+", row["part"]) else "layer"
        rows.append({"part": row["part"], "kind": kind, "cells": []})
    for pair in (("zero", "mean"), ("names_zero", "names_mean")):
        columns = [[row.get(name) for row in ablation["rows"]] for name in pair]
        values = [value for column in columns for value in column if value is not None]
        if not values and pair[0] == "names_zero":
            continue  # no name comes twice
        low = min([0, *values])
        high = max([0, *values])
        for column in columns:
            for row, value in zip(rows, column, strict=True):
                row["cells"].append(bar(value, low, high))
    return sorted(rows, key=rise_by_zero, reverse=True)


def rise_by_zero(row: dict) -> float:
    """Return the first number of a row of the table; an unknown one is the lowest."""
    value = row["cells"][0]["value"]
    return -math.inf if value is None else value


def bar(value: float | None, low: float, high: float) -> dict:
    """Return a bar from 0 to value on a scale from low to high: its left end and width in percent."""
    span = (high - low) or 1
    start = min(value or 0, 0) - low
    return {"value": value, "left": f"{100 * start / span:.1f}%", "width": f"{100 * abs(value or 0) / span:.1f}%"}


# Stories with and without parts ---------------------------------------------------------------------------------------


def marked_stories(without: dict | None) -> list[tuple[str, str, str, str]]:
    """Return each story as (caption, what both share, the first word that differs, the rest)."""
    if not without:
        return []
    first = without["with_them"]
    second = without["without_them"]
    same = 0
    while same < min(len(first), len(second)) and first[same] == second[same]:
        same += 1
    if first != second:
        while same and not first[same - 1].isspace():  # back to the start of the word
            same -= 1
    parts = ", ".join(without["parts"])
    stories = []
    for caption, text in ((f"with {parts}", first), (f"without {parts}", second)):
        word = re.match(r"\s*\S*", text[same:])[0]
        stories.append((caption, text[:same], word, text[same + len(word) :]))
    return stories


# The map of words -----------------------------------------------------------------------------------------------------


def word_map(embeddings: dict) -> dict | None:
    """Return the size of the map, its words with their places in pixels, and its kinds for the legend."""
    words = embeddings.get("words")
    if not words:
        return None
    kinds = embeddings.get("kinds") or sorted({word["kind"] for word in words})
    xs = [word["x"] or 0 for word in words]
    ys = [word["y"] or 0 for word in words]
    wide = (max(xs) - min(xs)) or 1
    high = (max(ys) - min(ys)) or 1
    scale = min((MAP_SIZE[0] - 4 * MAP_MARGIN) / wide, (MAP_SIZE[1] - 2 * MAP_MARGIN) / high)
    places = []
    for word, x, y in zip(words, xs, ys, strict=True):
        across = MAP_MARGIN + scale * (x - min(xs))
        down = MAP_MARGIN + scale * (max(ys) - y)
        look = kinds.index(word["kind"]) if word["kind"] in kinds else len(kinds)
        places.append({"token": word["token"], "x": across, "y": down, "look": look})
    name_some(places)
    places.sort(key=lambda place: place["named"])  # named words are drawn last, above the others
    looks = [(kind, look_of(number), SHAPES[number % len(SHAPES)]) for number, kind in enumerate(kinds)]
    looks.append(("unknown kind", look_of(len(kinds)), SHAPES[len(kinds) % len(SHAPES)]))
    used = {place["look"] for place in places}
    return {
        "width": round(scale * wide + 4 * MAP_MARGIN),
        "height": round(scale * high + 2 * MAP_MARGIN),
        "places": places,
        "looks": looks,
        "legend": [look for number, look in enumerate(looks) if number in used],
    }


def name_some(places: list[dict]) -> None:
    """Choose words whose names do not overlap, the most frequent words first; they come in this order."""
    named = []
    for place in places:
        width = 7 * len(place["token"]) + 8
        overlaps = any(
            abs(place["y"] - other["y"]) < 13 and place["x"] < other["x"] + room and other["x"] < place["x"] + width
            for other, room in named
        )
        place["named"] = not overlaps and len(named) < MOST_LABELS
        if place["named"]:
            named.append((place, width))


def look_of(number: int) -> str:
    """Return the CSS class of the colour of a kind or a line."""
    return f"colour{number % COLOURS}"


# Over training --------------------------------------------------------------------------------------------------------


def training_figures(training: dict | None) -> list[dict]:
    """Return the plots over training: a plot for each score of the heads, the losses, and how far embeddings moved."""
    if not training:
        return []
    steps = training["steps"]
    figures = []
    scores = {}  # {score: {head: values}}
    for head, values_of in (training.get("heads") or {}).items():
        for score, values in values_of.items():
            if max((value or 0 for value in values), default=0) >= ENOUGH:
                scores.setdefault(score, {})[head] = values
    for score, heads in scores.items():
        figures.append(figure(f"Heads: score for “{score}”", steps, heads, from_zero=True))
    if training.get("losses"):
        figures.append(figure("Loss in nats", steps, training["losses"]))
    if training.get("moved"):
        moved = {"change / first length": training["moved"]}
        figures.append(figure("How far the embeddings moved", steps, moved, from_zero=True))
    return figures


def figure(caption: str, steps: list, curves: dict[str, list], from_zero: bool = False) -> dict:
    """Plot curves {name: values} over steps; return the caption, the plot and a legend [(name, attributes)]."""
    if len(curves) > MOST_LINES:
        highest = sorted(curves, key=lambda name: -max(value or 0 for value in curves[name]))[:MOST_LINES]
        curves = {name: curves[name] for name in curves if name in highest}
        caption += f" (the {MOST_LINES} highest)"
    lines = []
    legend = []
    for number, (name, values) in enumerate(curves.items()):
        dash = DASHES[number // COLOURS % len(DASHES)]
        attributes = f'class="curve {look_of(number)}" stroke-dasharray="{dash}"'
        points = list(zip(steps, values, strict=False))
        lines.append((points, attributes, f"<a><title>{html.escape(name)}</title>"))
        legend.append((name, attributes))
    caption += ", over steps"
    return {"caption": caption, "plot": plot(caption, lines, 420, 240, Axes(from_zero=from_zero)), "legend": legend}
