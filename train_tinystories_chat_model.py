"""Step 4: tune the model on conversations, so that it answers.

    python train_tinystories_chat_model.py --pretrained_model_path tinystories_model/best_model.pth --amp
    python train_tinystories_chat_model.py --pretrained_model_path tinystories_model/best_model.pth \\
        --dataset sample_data/conversations --pilot_run

The shape comes from the model file.  The loss counts only the assistant's tokens, including the <eos> at the end.
"""

import argparse

from common.console import log
from common.errors import UserError
from common.files import naming_flag
from common.flags import FlagParser, parse_flags, settings_from
from common.program import run_program
from common.text import without_controls
from common.weights_files import load_model
from corpus.notes import ReadingFlags, add_reading_flags
from corpus.splits import DIALOGUES_SET_ASIDE, open_text
from corpus.token_cache import cache_dialogues
from data import Rows, load_tokenizer
from generation.prompts import chat_prompt
from generation.sampling import Sampling
from generation.writer import Writer
from training.job import Job
from training.loop import train
from training.lora import LEARNING_RATE, add_adapters
from training.resume import fingerprints_of
from training.settings import add_data_flags, add_training_flags, seed_everything, start_run

PILOT = {
    "max_train_samples": 3000, "max_eval_samples": 200, "batch_size": 16, "epochs": 2, "warmup_steps": 10, "lr": 2e-3,
    "dropout": 0.0, "freeze_embeddings": True, "logging_steps": 20, "eval_steps": 100,
}  # fmt: skip
QUESTION = "Can you tell me a story about a little dog?"  # the log has an answer to it


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = FlagParser(__doc__)
    help_text = "the model to start from: step 2's best_model.pth, or a chat model"
    parser.add_argument("--pretrained_model_path", help=f"{help_text} (required, here or in --config)")
    group = add_data_flags(parser, "bochen0909/tinystories-conversations", batching="padded")
    add_reading_flags(group, dialogues=True)
    parser.add_argument(
        "--lora_rank", type=int, default=0,
        help=f"train only adapters of this rank, with --lr {LEARNING_RATE}; 0: the whole model (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--freeze_embeddings", action=argparse.BooleanOptionalAction, default=False,
        help="do not train the token embeddings, so that words missing from the dialogues are not forgotten "
        "(default: no, yes in a pilot run)",
    )  # fmt: skip
    group = parser.add_argument_group("the model")
    group.add_argument(
        "--dropout", type=float, default=0.1,
        help="share of embeddings and residuals set to 0 at random (default: %(default)s, 0 in a pilot run)",
    )  # fmt: skip
    defaults = {"lr": 5e-4, "epochs": 3, "batch_size": 32, "early_stopping_patience": 5}
    add_training_flags(parser, "tinystories_chat_model", **defaults)
    args = parse_flags(parser, flags_below, argv)
    if args.pretrained_model_path is None:
        raise UserError("--pretrained_model_path is missing; pass step 2's best_model.pth")
    if args.lora_rank < 0:
        raise UserError(f"--lora_rank must be 0 or more, not {args.lora_rank}")
    if args.lora_rank and args.optimizer == "muon":
        raise UserError("--optimizer muon updates whole matrices, --lora_rank parts of them; pass only one of them")
    return args


def flags_below(given: dict) -> dict:
    """Return the flags that --lora_rank and --pilot_run set, if they are given."""
    pilot = PILOT if given.get("pilot_run") else {}
    return pilot | ({"lr": LEARNING_RATE} if given.get("lora_rank") else {})


def main() -> None:
    args = parse_args()
    ranks, run, settings, precision = start_run(args, PILOT)
    tokenizer = load_tokenizer(args.tokenizer_path)
    model, _ = load_model(args.pretrained_model_path, tokenizer, precision.device, dropout=args.dropout)
    special = tokenizer.special
    length = model.config.max_seq_len

    def read(split, limit):
        return cache_dialogues(split, tokenizer, args.cache_dir, length, settings_from(args, ReadingFlags), limit)

    with ranks.first_alone(), naming_flag("--cache_dir", args.cache_dir):
        train_cache, validation_cache = open_text(args, read, "sample_data/conversations", DIALOGUES_SET_ASIDE)
    packed = args.batching == "packed"
    rows = Rows(train_cache, length, special, packed, seed=settings.seed, replies_only=True)
    # One dialogue per row: in a chat, a reply is never separated from its question.
    validation = Rows(validation_cache, length, special, packed=False, replies_only=True)
    seed_everything(settings.seed)
    if args.freeze_embeddings:
        model.tokens.weight.requires_grad_(False)
        model.head_weight().requires_grad_(False)  # the same tensor if the embeddings are tied
    if args.lora_rank:
        trained, weights = add_adapters(model, args.lora_rank)
        log.info(f"LoRA of rank {args.lora_rank}: trains {trained:,} weights, in addition to the model's {weights:,}")

    def write_sample(model):
        writer = Writer(model, tokenizer, Sampling())
        prompt = chat_prompt(writer, [("user", QUESTION)])
        (reply,) = writer.write([prompt.ids], row_seeds=[0])
        return f"user: {QUESTION}\nassistant: {without_controls(reply.text)}"

    fingerprints = fingerprints_of(tokenizer, train_cache, validation_cache)
    fingerprints |= {"lora_rank": args.lora_rank or None, "freeze_embeddings": args.freeze_embeddings}
    train(Job(model, rows, validation, settings, run, precision, fingerprints, write_sample, ranks))
    run.draw_curves()
    run.close()
    ranks.close()


if __name__ == "__main__":
    run_program(main)
