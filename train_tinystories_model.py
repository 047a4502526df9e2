"""Step 2: train a decoder-only transformer on stories.

    python train_tinystories_model.py --amp                                    # TinyStories, on a GPU
    python train_tinystories_model.py --pilot_run --dataset pilot/data/stories      # minutes, after `make pilot`
    python train_tinystories_model.py --preset 8M --amp                        # a known model; see --preset list

Tokenizes the stories once into a cache on disk, trains and evaluates.  The output folder gets the weights (the next
steps use best_model.pth), the log and the curves.
"""

import argparse

from common.console import log
from common.files import naming_flag
from common.flags import FlagParser, flags_in_words, parse_flags, settings_from
from common.program import run_program
from common.text import without_controls
from corpus.notes import ReadingFlags, add_reading_flags
from corpus.splits import open_text
from corpus.token_cache import cache_stories
from data import Rows, load_tokenizer
from generation.sampling import Sampling
from generation.writer import Writer
from model import ARCHITECTURES, CHOICES, ModelConfig, Transformer
from training.job import Job
from training.loop import train
from training.presets import PRESETS, flags_of, preset_table
from training.resume import fingerprints_of
from training.settings import add_data_flags, add_training_flags, seed_everything, start_run

# What --pilot_run changes.  In a few minutes, a small network makes enough steps to learn to copy a name; a large one
# does not.  With rows of 512 tokens, most stories keep their beginning.  Heads of size 64 are fast on a CPU.
PILOT = {
    "max_train_samples": 12_000, "max_eval_samples": 200, "num_layers": 4, "hidden_size": 128, "num_heads": 2,
    "intermediate_size": 256, "max_seq_len": 512, "dropout": 0.0, "batch_size": 8, "epochs": 3, "warmup_steps": 20,
    "optimizer": "muon", "lr": 0.018, "logging_steps": 50, "eval_steps": 400,
}  # fmt: skip
SHAPE = {
    "num_layers": "layers", "hidden_size": "width of a layer", "num_heads": "attention heads per layer",
    "intermediate_size": "width of the MLP", "max_seq_len": "length of the context, in tokens",
}  # fmt: skip
PARTS = {
    "positions": "how a token's position is encoded", "norm": "the normalization", "mlp": "the feed-forward network",
    "bias": "biases in the linear layers", "tie_embeddings": "one matrix for the embeddings and the head",
}  # fmt: skip
BEGINNING = "Once upon a time"  # of the sample stories in the log


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = FlagParser(__doc__)
    group = add_data_flags(parser, "roneneldan/TinyStories")
    add_reading_flags(group, stories=True)
    parser.add_argument(
        "--preset", default="course", choices=(*PRESETS, "list"),
        help="shape and training of a known model; other flags override it; list: print all (default: %(default)s)",
    )  # fmt: skip
    shape = ModelConfig(vocab_size=1)
    for name, meaning in SHAPE.items():
        default = getattr(shape, name)
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{meaning} (default: %(default)s)")
    group = parser.add_argument_group("the model")
    group.add_argument(
        "--dropout", type=float, default=shape.dropout,
        help="share of embeddings and residuals set to 0 at random (default: %(default)s, 0 in a pilot run)",
    )  # fmt: skip
    group.add_argument("--window_size", type=int, help="tokens that a position sees, itself included (default: all)")
    group.add_argument(
        "--arch", default=shape.arch, choices=ARCHITECTURES, help="sets the next five flags (default: %(default)s)"
    )
    for name, meaning in PARTS.items():
        kind = {"choices": CHOICES[name]} if name in CHOICES else {"action": argparse.BooleanOptionalAction}
        group.add_argument(f"--{name}", **kind, help=f"{meaning} (default: set by --arch)")
    add_training_flags(parser, "tinystories_model")
    return parse_flags(parser, flags_below, argv)


def flags_below(given: dict) -> dict:
    """Return the flags that --pilot_run and --preset set, if they are given."""
    pilot = PILOT if given.get("pilot_run") else {}
    preset = given.get("preset")
    return pilot | (flags_of(preset) if preset in PRESETS else {})


def main() -> None:
    args = parse_args()
    if args.preset == "list":
        print(preset_table())
        return
    ranks, run, settings, precision = start_run(args, PILOT)
    if args.preset != "course":
        source, flags = PRESETS[args.preset]
        log.info(f"preset {args.preset}, from {source}: {flags_in_words(args, flags)}")
    tokenizer = load_tokenizer(args.tokenizer_path)
    config = settings_from(args, ModelConfig, vocab_size=tokenizer.vocab_size)

    def read(split, limit):
        return cache_stories(split, tokenizer, args.cache_dir, settings_from(args, ReadingFlags), limit)

    with ranks.first_alone(), naming_flag("--cache_dir", args.cache_dir):
        train_cache, validation_cache = open_text(args, read)
    special = tokenizer.special
    rows = Rows(train_cache, config.max_seq_len, special, packed=args.batching == "packed", seed=settings.seed)
    validation = Rows(validation_cache, config.max_seq_len, special)
    seed_everything(settings.seed)
    model = Transformer(config).to(precision.device)

    def write_sample(model):
        writer = Writer(model, tokenizer, Sampling())
        prompt = [special["<bos>"], *tokenizer.encode(BEGINNING)][: config.max_seq_len]
        (written,) = writer.write([prompt], row_seeds=[0])
        return without_controls(BEGINNING + written.text)

    fingerprints = fingerprints_of(tokenizer, train_cache, validation_cache)
    train(Job(model, rows, validation, settings, run, precision, fingerprints, write_sample, ranks))
    run.draw_curves()
    run.close()
    ranks.close()


if __name__ == "__main__":
    run_program(main)
