"""Export a model as one HTML file that runs it in any browser, without a network: for friends, and for a phone.

    python tools/export_web.py tinystories_chat_model/best_model.pth --output my_model.html
    python tools/export_web.py tinystories_model/best_model.pth --output my_model.html --title "Ana's stories"

The file contains the weights, the tokenizer and plain JavaScript: tools/pages/web_model.js, web_writer.js, web_page.js.
Open it with a double click, send it by e-mail, or put it on any web page.  The weights are rounded to 8 bits (--weights
float16: to 16 bits, twice the size).  So the model is measured before and after, on --dataset.

In reading order: what can be exported; `compare`, what rounding changes; the program.  pages/web.py fills the page.
"""

import argparse
import copy
import json
import math
import sys
from pathlib import Path
from typing import NamedTuple

import tokenizers
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from formats.quantized import FLOAT16, round_weights
from pages.model_card import facts_of, flag_text, kind_of, run_records
from pages.web import Page, web_page
from scoring.held_out import held_out_rows, holds_dialogues

from common.console import log
from common.errors import UserError, one_line
from common.files import check_outputs, written_atomically
from common.flags import FlagParser
from common.program import run_program
from common.weights_files import load_model
from corpus.notes import add_reading_flags
from corpus.other_tokenizers import BYTE_LEVEL
from corpus.sources import open_dataset
from corpus.token_cache import default_cache_dir
from data import Rows, Tokenizer, load_tokenizer
from model import IGNORED, Transformer

SAMPLES = Path(__file__).resolve().parents[1] / "sample_data"
TITLE = "A small language model"
ROWS = 16  # of the texts, at a time: a row has 256 x 10,000 logits
LARGE = 50  # MB


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = FlagParser(__doc__)
    parser.usage = "python tools/export_web.py MODEL --output FILE [flags]"
    parser.add_argument("model", metavar="MODEL", help="a model file, for example best_model.pth")
    parser.add_argument("--output", required=True, metavar="FILE", help="the .html file to write")
    parser.add_argument("--tokenizer_path", default="bpe_tokenizer_tinystories.pkl", help="default: %(default)s")
    parser.add_argument(
        "--weights", choices=["int8", FLOAT16], default="int8",
        help="how weights are stored: 8 bits and a scale for each row, or 16 bits (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--kind", choices=["story", "chat"], help="which tab is open at first (default: by args.json next to the model)"
    )
    parser.add_argument("--title", default=TITLE, help="the heading of the page (default: %(default)s)")
    parser.add_argument(
        "--license", default="none given: ask the author", metavar="TEXT",
        help="what others may do with the model, at the foot of the page, for example MIT (default: %(default)s)",
    )  # fmt: skip
    group = parser.add_argument_group("the texts on which the model is measured before and after")
    group.add_argument("--dataset", help="default: sample_data/conversations for a chat model, else stories")
    group.add_argument("--max_eval_samples", type=int, default=50, help="how many texts (default: %(default)s)")
    group.add_argument(
        "--cache_dir", default=str(default_cache_dir()), help="for tokenized texts (default: %(default)s)"
    )
    add_reading_flags(group, stories=True, dialogues=True)
    args = parser.parse_args(argv)
    if args.max_eval_samples < 1:
        raise UserError(f"--max_eval_samples must be at least 1, not {args.max_eval_samples}")
    if Path(args.output).suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--output {args.output}: browsers open a file by its ending; name it something.html")
    if not args.title.strip():
        raise UserError("--title is empty")
    check_outputs([args.output], [args.model, args.tokenizer_path, args.dataset])
    return args


# What can be exported -------------------------------------------------------------------------------------------------


def check_tokenizer(tokenizer: Tokenizer, path: str) -> None:
    """Raise UserError unless web_model.js cuts texts into the same tokens."""
    if not isinstance(tokenizer.backend, tokenizers.Tokenizer):
        raise UserError(f"{path} cannot be exported: it is not a byte-level BPE like those of step 1")
    content = json.loads(tokenizer.backend.to_str())
    if content["pre_tokenizer"] not in (BYTE_LEVEL, BYTE_LEVEL | {"use_regex": False}):
        kind = one_line(content["pre_tokenizer"]["type"])
        raise UserError(f"{path} cannot be exported: it cuts texts in another way than GPT-2 (pre-tokenizer: {kind})")
    if content["model"].get("ignore_merges"):
        raise UserError(f"{path} cannot be exported: it takes whole words before it merges (ignore_merges)")
    typed = [token["content"] for token in content["added_tokens"] if not token["special"]]
    if typed:
        raise UserError(f"{path} cannot be exported: it finds the token {one_line(typed[0])} before it cuts a text")


def check_network(model: Transformer, path: str) -> None:
    """Raise UserError for a network that web_model.js does not compute."""
    if model.config.mlp == "gelu_exact":
        raise UserError(f"{path} cannot be exported: it was trained with --mlp gelu_exact; train it with --mlp gelu")


# What rounding changes ------------------------------------------------------------------------------------------------


class Change(NamedTuple):
    """Bits per byte before and after rounding; same: the share of positions with the same likeliest token."""

    before: float
    after: float
    same: float


@torch.inference_mode()
def compare(model: Transformer, rounded: Transformer, rows: Rows) -> Change:
    """Compare a model with its rounded copy on the texts in rows, in float32; each of them runs once."""
    bits_before = 0.0
    bits_after = 0.0
    same = 0
    positions = 0
    for first in range(0, rows.per_epoch, ROWS):
        inputs, targets = map(torch.from_numpy, rows.batch(first, min(ROWS, rows.per_epoch - first)))
        is_predicted = targets != IGNORED
        targets = targets[is_predicted]
        logits = model(inputs)[is_predicted]  # (positions, V)
        logits_after = rounded(inputs)[is_predicted]
        bits_before += F.cross_entropy(logits, targets, reduction="sum").item() / math.log(2)
        bits_after += F.cross_entropy(logits_after, targets, reduction="sum").item() / math.log(2)
        same += int((logits.argmax(-1) == logits_after.argmax(-1)).sum())
        positions += len(targets)
    return Change(bits_before / rows.bytes, bits_after / rows.bytes, same / positions)


# The program ----------------------------------------------------------------------------------------------------------


def main() -> None:
    args = parse_args()
    tokenizer = load_tokenizer(args.tokenizer_path)
    check_tokenizer(tokenizer, args.tokenizer_path)
    model, content = load_model(args.model, tokenizer)
    check_network(model, args.model)
    summary, flags = run_records(args.model, content.get("run_id"))
    kind = args.kind or kind_of(flags)
    if not kind:
        log.info("no args.json of its run next to the model: taken for a story model; if it is not, pass --kind chat")
        kind = "story"
    dataset = args.dataset or str(SAMPLES / ("conversations" if kind == "chat" else "stories"))
    splits = open_dataset(dataset)
    dialogues = holds_dialogues(splits["train"], args.text_column)
    rows = held_out_rows(model.config.max_seq_len, tokenizer, splits, args, dialogues)

    rounded = copy.deepcopy(model)
    size = round_weights(rounded, args.weights)
    change = compare(model, rounded, rows)
    stored = f"{args.weights}, {size / 1e6:.3g} MB"
    bits = f"bits per byte {change.before:.4f} before and {change.after:.4f} after rounding"
    same = f"the same likeliest token at {change.same:.1%} of positions"
    measured_on = f"on {rows.texts:,} texts of {flag_text(dataset)}"
    log.info(f"weights: {stored}; {measured_on}: {bits}, {same}")

    card = [
        *facts_of(model, content, summary, flags),
        ("weights", f"{stored}; {measured_on}: {bits}"),
        ("licence", args.license),
    ]
    page = Page(args.title, kind, [(what, one_line(value, 200)) for what, value in card])
    text = web_page(page, model, tokenizer, args.weights)
    with written_atomically(args.output) as file:
        file.write(text.encode(errors="replace"))
    megabytes = Path(args.output).stat().st_size / 1e6
    if megabytes > LARGE:
        log.info(f"a file of {megabytes:.0f} MB may be too large for phones: the page unpacks all weights to 32 bits")
    print(f"wrote {args.output} ({megabytes:.3g} MB); open it in a browser")


if __name__ == "__main__":
    run_program(main)
