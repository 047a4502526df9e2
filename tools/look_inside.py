"""Look inside a model: losses, attention, the logit lens, ablation and embeddings, on one page.

    python tools/look_inside.py tinystories_model/best_model.pth --text "Once upon a time, Lily had a ball."
    python tools/look_inside.py tinystories_model/best_model.pth --without 2.3 --without layer:1
    python tools/look_inside.py --run tinystories_model        # over training; trained with --keep_models 10

The page is one HTML file that needs no network.  Heads are written LAYER.HEAD and layers layer:LAYER, from 0.
What needs many stories (ablation, what a head does) is measured on the validation stories of --dataset.  With several
models of one shape, the page also shows how these measures changed; everything else is about the last model.
"""

import argparse
import itertools
import json
import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from inside import page_content
from inside.over_training import compare
from inside.parts import read_part, zero_out
from inside.stories import SAMPLE_STORIES, STORIES, stories_to_measure
from pages.inside import write_inside_page

from common.console import log
from common.devices import choose_device
from common.errors import UserError
from common.files import check_outputs, written_atomically
from common.flags import FlagParser, add_fields, settings_from
from common.program import run_program
from common.weights_files import load_model, save_model
from corpus.notes import ReadingFlags, add_reading_flags
from corpus.token_cache import default_cache_dir
from data import Tokenizer, load_tokenizer
from generation.prompts import story_prompt
from generation.sampling import Sampling
from generation.writer import Writer
from model import Transformer
from training.run_folder import step_in_name

BEGINNING = "Once upon a time, there was a little girl named Lily."


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = FlagParser(__doc__)
    parser.usage = "python tools/look_inside.py MODEL [MODEL ...] [flags]"
    parser.add_argument("models", nargs="*", metavar="MODEL", help="a model file (.pth); several: over training")
    parser.add_argument("--run", metavar="FOLDER", help="a run's folder, for its model-<step>.pth (--keep_models)")
    parser.add_argument("--tokenizer_path", default="bpe_tokenizer_tinystories.pkl", help="default: %(default)s")
    parser.add_argument("--text", help="the text that the model reads (default: the first story of --dataset)")
    parser.add_argument("--output", default="inside.html", metavar="FILE", help="the page (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the numbers as JSON, too")
    parser.add_argument("--device", default="auto", help="auto uses cuda, else mps, else cpu (default: %(default)s)")
    group = parser.add_argument_group("leaving parts out")
    group.add_argument(
        "--without", action="append", default=[], metavar="PART",
        help="write a story without this head (2.3) or layer (layer:1), beside the same with it; can be repeated",
    )  # fmt: skip
    group.add_argument("--prompt", help=f"the beginning of that story (default: {BEGINNING})")
    group.add_argument("--save", metavar="FILE", help="save the model without these parts, as a model file")
    add_fields(group, Sampling, {})
    group = parser.add_argument_group("the stories that parts are measured on")
    group.add_argument("--dataset", default=SAMPLE_STORIES, help="default: sample_data/stories")
    group.add_argument("--max_eval_samples", type=int, default=STORIES, help="how many stories (default: %(default)s)")
    group.add_argument(
        "--watch", action="append", default=[], metavar="WORD",
        help="with several models: show how the loss of this word changed; can be repeated",
    )  # fmt: skip
    group.add_argument(
        "--cache_dir", default=str(default_cache_dir()), help="for tokenized texts (default: %(default)s)"
    )
    add_reading_flags(group, stories=True)
    args = parser.parse_args(argv)
    check(args)
    return args


def check(args: argparse.Namespace) -> None:
    """Raise UserError for flags that make no sense, before any work is done."""
    if bool(args.models) == bool(args.run):
        raise UserError("pass one or more model files, or --run with the folder of a run")
    if args.max_eval_samples < 1:
        raise UserError(f"--max_eval_samples must be at least 1, not {args.max_eval_samples}")
    for flag in ("save", "prompt"):
        if getattr(args, flag) and not args.without:
            raise UserError(f"--{flag} is for a model without some parts; pass --without too")
    if settings_from(args, Sampling) != Sampling() and not args.without:
        raise UserError("--seed, --temperature and so on are for the story without some parts; pass --without too")
    if args.watch and not args.run and len(args.models) < 2:
        raise UserError("--watch shows how a loss changed over several models; pass several, or --run")
    if not all(word.strip() for word in args.watch):
        raise UserError("--watch is empty; pass a word")
    if args.text is not None and not args.text.strip():
        raise UserError("--text is empty")


def kept_models(folder: str) -> list[str]:
    """Return the files that --keep_models left in a run's folder.  Raises UserError if there are none."""
    paths = [str(path) for path in Path(folder).glob("model-*.pth") if step_in_name(path) is not None]
    if not paths:
        raise UserError(f"no file model-<step>.pth in {folder}; train with --keep_models 10 to keep some")
    return paths


# Loading --------------------------------------------------------------------------------------------------------------


class Loaded(NamedTuple):
    """A model from a file.  step: of its training."""

    step: int
    path: str
    model: Transformer


def load_models(paths: list[str], tokenizer: Tokenizer, device) -> list[Loaded]:
    """Return the models in the order of their steps.  Raises UserError if they cannot be compared."""
    models = []
    for path in paths:
        model, content = load_model(path, tokenizer, device)
        models.append(Loaded(content["step"], path, model))
    models.sort(key=lambda loaded: loaded.step)
    for one, other in itertools.pairwise(models):
        if one.model.config.describe() != other.model.config.describe():
            raise UserError(f"{one.path} and {other.path} have different shapes; pass models of one run")
        if one.step == other.step:
            raise UserError(f"{one.path} and {other.path} are both of step {one.step:,}; pass models of one run")
    return models


def watched_words(words: list[str], tokenizer: Tokenizer) -> dict[str, int]:
    """Return {word: the token with which it begins inside a sentence}."""
    tokens = {}
    for word in words:
        first, *more = tokenizer.encode(f" {word.strip()}")
        tokens[word] = first
        if more:
            log.info(f"--watch {word}: only its first token is watched: {tokenizer.decode([first])!r}")
    return tokens


# The program ----------------------------------------------------------------------------------------------------------


def look(args: argparse.Namespace, models: list[Loaded], tokenizer: Tokenizer) -> dict:
    """Return the content of the page; docs/inside.md lists its keys."""
    *_, (_, path, model) = models
    parts = [read_part(text, model) for text in args.without]
    writer = Writer(model, tokenizer, settings_from(args, Sampling), path)
    stories = stories_to_measure(
        tokenizer, model.config.max_seq_len, args.dataset, args.max_eval_samples, args.cache_dir,
        settings_from(args, ReadingFlags),
    )  # fmt: skip
    ids = stories[0].ids[:-1] if args.text is None else story_prompt(writer, args.text, "--text")
    dataset = "sample_data/stories" if args.dataset == SAMPLE_STORIES else args.dataset
    content = {
        "model": path,
        "shape": model.config.describe(),
        "dataset": f"{dataset}, {len(stories):,} stories",
    }
    content |= page_content.of_text(ids, model, tokenizer)
    content |= page_content.of_model(model, tokenizer, stories)
    if parts:
        content["without"] = page_content.of_writing(writer, args.prompt or BEGINNING, parts)
    if len(models) > 1:
        log.info(f"comparing {len(models)} models")
        steps = [(loaded.step, loaded.model) for loaded in models]
        content["training"] = compare(steps, stories, watched_words(args.watch, tokenizer))
        content["training"]["models"] = [loaded.path for loaded in models]
    return page_content.finite(content)


def main() -> None:
    args = parse_args()
    paths = kept_models(args.run) if args.run else args.models
    check_outputs([args.output, args.json, args.save], [*paths, args.tokenizer_path, args.dataset])
    tokenizer = load_tokenizer(args.tokenizer_path)
    models = load_models(paths, tokenizer, choose_device(args.device))
    content = look(args, models, tokenizer)
    write_inside_page(content, args.output)
    log.info(f"wrote {args.output}; open it in a browser")
    if args.json:
        with written_atomically(args.json) as file:
            file.write(json.dumps(content).encode())
        log.info(f"wrote {args.json}")
    if args.save:
        step, _, model = models[-1]
        zero_out(model, [read_part(text, model) for text in args.without])
        save_model(args.save, model, tokenizer.fingerprint, step)
        log.info(f"wrote {args.save}, without {', '.join(args.without)}")


if __name__ == "__main__":
    run_program(main)
