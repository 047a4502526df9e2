"""Look inside a model: losses, attention, the logit lens, ablation and embeddings, on one page.

    python tools/look_inside.py tinystories_model/best_model.pth --text "Once upon a time, Lily had a ball."
    python tools/look_inside.py tinystories_model/best_model.pth --without 2.3 --without layer:1
    python tools/look_inside.py --run tinystories_model        # over training; trained with --keep_models 10

The page is one HTML file that needs no network.  Heads are written LAYER.HEAD and layers layer:LAYER, from 0.
What needs many stories (ablation, what a head does) is measured on the validation stories of --dataset.  With several
models of one shape, the page also shows how these measures changed; everything else is about the last model.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from inside import page_content
from inside.over_training import compare
from inside.parts import read_part, zero_out
from inside.stories import SAMPLE_STORIES, STORIES, read_stories
from pages.inside import write_inside_page

from common.console import log
from common.devices import choose_device
from common.errors import UserError
from common.files import write_json
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

LARGEST_PAGE = 40_000_000  # bytes
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
    group.add_argument("--prompt", default=BEGINNING, help="the beginning of that story (default: %(default)s)")
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
    if args.save and not args.without:
        raise UserError("--save saves the model without the parts of --without; pass --without too")
    if args.watch and not args.run and len(args.models) < 2:
        raise UserError("--watch shows how a loss changed over several models; pass several, or --run")
    if args.text is not None and not args.text.strip():
        raise UserError("--text is empty")
    for path in (args.output, args.json, args.save):
        if path and (Path(path).is_dir() or not Path(path).absolute().parent.is_dir()):
            raise UserError(f"cannot write {path}: it is a folder, or its folder does not exist")


# Loading --------------------------------------------------------------------------------------------------------------


def kept_models(folder: str) -> list[str]:
    """Return the files that --keep_models left in a run's folder, in the order of their steps.  Raises UserError."""
    steps = {path.stem.removeprefix("model-"): path for path in Path(folder).glob("model-*.pth")}
    numbered = sorted((int(step), str(path)) for step, path in steps.items() if step.isdecimal())
    if not numbered:
        raise UserError(f"no model-<step>.pth in {folder}; train with --keep_models 10 to keep some")
    return [path for _, path in numbered]


def load_models(paths: list[str], tokenizer: Tokenizer, device) -> list[tuple[int, Transformer]]:
    """Return (step, model) for each file.  Raises UserError if the models have different shapes."""
    loaded = [load_model(path, tokenizer, device) for path in paths]
    shapes = {model.config.describe() for model, _ in loaded}
    if len(shapes) > 1:
        raise UserError("the models have different shapes; compare models of one shape, best of one run")
    return [(content["step"], model) for model, content in loaded]


# The program ----------------------------------------------------------------------------------------------------------


def look(args: argparse.Namespace) -> dict:
    """Return the content of the page: see `pages.inside` for its keys."""
    tokenizer = load_tokenizer(args.tokenizer_path)
    device = choose_device(args.device)
    paths = kept_models(args.run) if args.run else args.models
    models = load_models(paths, tokenizer, device)
    _, model = models[-1]
    parts = [read_part(text, model) for text in args.without]
    writer = Writer(model, tokenizer, settings_from(args, Sampling), paths[-1])
    stories = read_stories(
        tokenizer, model.config.max_seq_len, args.dataset, args.max_eval_samples, args.cache_dir,
        settings_from(args, ReadingFlags),
    )  # fmt: skip
    ids = stories[0].ids[:-1] if args.text is None else story_prompt(writer, args.text, "--text")
    check_length(ids, model)
    content = {
        "model": paths[-1],
        "shape": model.config.describe(),
        "dataset": f"{args.dataset}, {len(stories):,} stories",
    }
    content |= page_content.of_text(ids, model, tokenizer)
    content |= page_content.of_model(model, tokenizer, stories)
    if parts:
        content["without"] = page_content.of_writing(writer, args.prompt, parts)
    if len(models) > 1:
        log.info(f"comparing {len(models)} models")
        words = {word: first_token(word, tokenizer) for word in args.watch}
        content["training"] = compare(models, stories, words)
        content["training"]["models"] = paths
    if args.save:
        zero_out(model, parts)
        save_model(args.save, model, tokenizer.fingerprint)
        log.info(f"wrote {args.save}, without {', '.join(args.without)}")
    return page_content.finite(content)


def check_length(ids: list[int], model: Transformer) -> None:
    """Raise UserError if the patterns of attention of this text would make the page too large."""
    numbers = len(ids) ** 2 * model.config.num_layers * model.config.num_heads
    if numbers > LARGEST_PAGE:
        raise UserError(f"--text: {len(ids)} tokens would make a page of {numbers / 1e6:,.0f} MB; shorten the text")


def first_token(word: str, tokenizer: Tokenizer) -> int:
    """Return the token with which a word inside a sentence begins."""
    return tokenizer.encode(f" {word.strip()}")[0]


def main() -> None:
    args = parse_args()
    content = look(args)
    write_inside_page(content, args.output)
    log.info(f"wrote {args.output}; open it in a browser")
    if args.json:
        write_json(args.json, content)
        log.info(f"wrote {args.json}")


if __name__ == "__main__":
    run_program(main)
