"""Write the model card of an exported model, its README.md: what it is, its numbers, and how to use it.

In reading order: `run_records`, what is known about its training; cells of the table; `facts_of`, its rows;
`model_card`, which fills the template model_card.md.
"""

import json
import re
from pathlib import Path

from common.errors import one_line
from common.numbers import finite_number, perplexity
from model import Transformer
from pages.templates import TEMPLATES
from training.log_lines import clock

LARGEST_RECORD = 1 << 20  # bytes of summary.json, args.json, or a row of metrics.jsonl
LONGEST_CELL = 200  # characters in a cell of the card's table
FLAGS = ("dataset", "epochs", "batch_size", "gradient_accumulation_steps", "optimizer", "lr", "seed")  # on the card


def run_records(path: str, run_id: str | None) -> tuple[dict, dict]:
    """Return (summary.json, args.json) next to a model file; both are empty if they belong to another run."""
    folder = Path(path).parent
    summary = read_record(folder / "summary.json")
    known = summary.get("run_id")
    if not known:  # a run that was stopped has no summary
        known = read_record(folder / "metrics.jsonl").get("run_id")
    if not run_id or known != run_id:
        return {}, {}
    return summary, read_record(folder / "args.json")


def read_record(path: Path) -> dict:
    """Read the object in a JSON file, or in the first line of a .jsonl; return {} on errors: the card is optional."""
    try:
        with open(path, "rb") as file:
            text = file.readline(LARGEST_RECORD) if path.suffix == ".jsonl" else file.read(LARGEST_RECORD)
        content = json.loads(text)
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def cell(value: object) -> str:
    """Return a value, perhaps from a stranger's file, as one line of plain text for a Markdown table."""
    return re.sub(r"([\\`*_|<>\[\]&#!~])", r"\\\1", one_line(value, LONGEST_CELL))


def flag_text(value: object) -> object:
    """Return the value of a flag for the card; of an absolute path, only the last name."""
    if isinstance(value, list):
        return ", ".join(str(flag_text(one)) for one in value)
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def measured(content: dict, summary: dict) -> list[tuple[str, str]]:
    """Return the known numbers of the model, from its file and its run: [(name, text)]."""
    kind = next((kind for kind in ("best", "final") if summary.get(f"{kind}_step") == content["step"]), None)
    loss = content.get("val_loss")
    rows = [
        ("step", content["step"], "{:,}".format),
        ("validation loss (nats per token)", loss, "{:.4f}".format),
        ("perplexity", loss, lambda loss: f"{perplexity(loss):.2f}"),
        ("bits per byte", summary.get(f"{kind}_bits_per_byte"), "{:.4f}".format),
        ("accuracy", summary.get(f"{kind}_accuracy"), "{:.4f}".format),
        ("tokens predicted in the whole run", summary.get("tokens"), "{:,.0f}".format),
        ("time of the whole run (h:mm:ss)", summary.get("seconds"), clock),
    ]
    return [(what, in_words(value)) for what, value, in_words in rows if finite_number(value) is not None]


def facts_of(model: Transformer, content: dict, summary: dict, args: dict) -> list[tuple[str, object]]:
    """Return what is known of a model and its training: [(name, value)].

    content: its file; summary, args: from `run_records`.
    """
    in_layers, in_all = model.num_parameters()
    rows = [
        ("network", model.config.describe()),
        ("parameters", f"{in_layers:,} in the layers, {in_all:,} in all"),
        *measured(content, summary),
        ("trained with", args.get("program")),
        *((f"--{flag}", flag_text(args.get(flag))) for flag in FLAGS),
    ]
    return [(what, value) for what, value in rows if value is not None]


def kind_of(args: dict) -> str:
    """Return which kind of model the records name, "story" or "chat"; "" if they name none."""
    program = str(args.get("program") or "")
    if "train_tinystories_model" in program:
        return "story"
    return "chat" if program else ""


def model_card(name: str, model: Transformer, class_name: str, content: dict, summary: dict, args: dict) -> str:
    """Return the README.md of the folder: the model, its numbers, and how to use it.  name: the name for loading it."""
    rows = [("class", class_name), *facts_of(model, content, summary, args)]
    known = [(cell(what), cell(value)) for what, value in rows]
    return TEMPLATES.get_template("model_card.md").render(
        name=json.dumps(name), rows=known, is_chat=kind_of(args) != "story", has_summary=bool(summary)
    )
