"""Step 2: train a decoder-only transformer on stories.

    python train_tinystories_model.py --amp                                    # TinyStories, on a GPU
    python train_tinystories_model.py --pilot_run --dataset sample_data/stories     # minutes, on a laptop
    python train_tinystories_model.py --preset 8M --amp                        # a known model; --preset list: which

Tokenizes the stories once into a cache on disk, trains, evaluates, and leaves a folder with the weights (best_model.pth
is what the next steps take), the log and the curves.
"""

import argparse

from common.flags import FlagParser, parse_flags, settings_from
from common.program import run_program
from common.text import printable
from corpus.splits import open_text
from corpus.token_cache import cache_stories
from data import Rows, load_tokenizer
from generation.sampling import Sampling
from generation.writer import Writer
from model import ARCHITECTURES, CHOICES, ModelConfig, Transformer
from training.loop import seed_everything, train
from training.presets import PRESETS, flags_of, table
from training.resume import fingerprints_of
from training.settings import add_data_flags, add_training_flags, in_effect, start_run

# What --pilot_run changes.  A thousand stories are too few for large steps: small batches learn more from them.
PILOT = {
    "max_train_samples": 1000, "max_eval_samples": 200, "batch_size": 8, "epochs": 5, "warmup_steps": 20,
    "optimizer": "muon", "lr": 3e-3, "dropout": 0.0, "logging_steps": 20, "eval_steps": 100,
}  # fmt: skip
SHAPE = {
    "num_layers": "layers", "hidden_size": "width of a layer", "num_heads": "heads a layer",
    "intermediate_size": "width of the mlp", "max_seq_len": "the context, in tokens",
}  # fmt: skip


def parse_args(argv=None):
    parser = FlagParser(__doc__)
    group = add_data_flags(parser, "roneneldan/TinyStories")
    group.add_argument("--text_column", default="text", help="the column that holds the story (default: %(default)s)")
    parser.add_argument(
        "--preset", default="course", choices=(*PRESETS, "list"),
        help="shape and training of a known model; flags beside it win; list prints them (default: %(default)s)",
    )  # fmt: skip
    shape = ModelConfig(vocab_size=1)
    for name, meaning in SHAPE.items():
        default = getattr(shape, name)
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{meaning} (default: %(default)s)")
    group = parser.add_argument_group("the model")
    group.add_argument(
        "--dropout", type=float, default=shape.dropout,
        help="on embeddings and residuals (default: %(default)s, 0 in a pilot run)",
    )  # fmt: skip
    group.add_argument("--window_size", type=int, help="tokens that a position sees (default: all before it)")
    group.add_argument(
        "--arch", default=shape.arch, choices=ARCHITECTURES, help="the bundle of the next five (default: %(default)s)"
    )
    for name, choices in CHOICES.items():
        group.add_argument(f"--{name}", choices=choices, help="default: as --arch says")
    for name in ("bias", "tie_embeddings"):
        group.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, help="default: as --arch says")
    add_training_flags(parser, "tinystories_model")
    return parse_flags(parser, PILOT, argv, {name: flags_of(name) for name in PRESETS})


def main():
    args = parse_args()
    if args.preset == "list":
        print(table())
        return
    ranks, run, settings, precision = start_run(args, PILOT)
    if args.preset != "course":
        source, flags = PRESETS[args.preset]
        run.say(f"preset {args.preset}, from {source}: {in_effect(args, flags)}")
    tokenizer = load_tokenizer(args.tokenizer_path)
    args.vocab_size = tokenizer.vocab_size
    config = settings_from(args, ModelConfig)
    read = lambda split, limit: cache_stories(
        split, tokenizer, args.cache_dir, args.text_column, limit, run.say, args.skip_bad_rows
    )
    with ranks.first_alone():
        train_cache, validation_cache = open_text(args, read, run.say)
    packed, length, special = args.batching == "packed", config.max_seq_len, tokenizer.special
    rows = Rows(train_cache, length, special, packed, seed=settings.seed)
    validation = Rows(validation_cache, length, special)
    seed_everything(settings.seed)
    model = Transformer(config).to(precision.device)

    def write_sample(model):
        writer, start = Writer(model, tokenizer, Sampling()), "Once upon a time"
        prompt = [special["<bos>"], *tokenizer.encode(start)][:length]
        return printable(start + writer.write([prompt], keys=[0])[0].text)

    fingerprints = fingerprints_of(tokenizer, train_cache, validation_cache)
    train(model, rows, validation, settings, run, precision, fingerprints, write_sample, ranks)
    run.draw_curves()
    run.close()
    ranks.close()


if __name__ == "__main__":
    run_program(main)
