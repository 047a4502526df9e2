"""Step 4: tune the model on conversations, so that it answers.

    python train_tinystories_chat_model.py --pretrained_model_path tinystories_model/best_model.pth --amp
    python train_tinystories_chat_model.py --pretrained_model_path tinystories_model/best_model.pth \\
        --dataset sample_data/conversations --pilot_run

The shape comes from the model file.  The loss counts only what the assistant says, the <eos> that ends it included.
"""

from checkpoints import load_model
from data import Rows, add_data_flags, cache_dialogues, fingerprints_of, load_tokenizer, open_text, render_dialogue
from model import generate
from shell import FlagParser, UserError, parse_flags, printable, run_program
from swapping import SimilarWords
from training import add_training_flags, seed_everything, start_run, train

PILOT = {
    "max_train_samples": 1000, "max_eval_samples": 200, "batch_size": 16, "epochs": 16, "dropout": 0.0,
    "swap_words": 0.8, "logging_steps": 20, "eval_steps": 50,
}  # fmt: skip
QUESTION = "Can you tell me a story about a little dog?"


def parse_args(argv=None):
    parser = FlagParser(__doc__)
    parser.add_argument(
        "--pretrained_model_path", required=True, help="the model to go on from, step 2's best_model.pth"
    )
    kinds = "hub name, folder, or a .jsonl, .json or .parquet file of rows with a list `conversation` of turns"
    add_data_flags(parser, "bochen0909/tinystories-conversations", kinds, batching="padded")
    parser.add_argument("--dropout", type=float, default=0.1, help="default: %(default)s, 0 in a pilot run")
    parser.add_argument(
        "--swap_words", type=float, default=0.0, metavar="P",
        help="replace uncommon words of a dialogue by similar ones with this probability (default: %(default)s, "
        f"{PILOT['swap_words']} in a pilot run)",
    )  # fmt: skip
    defaults = {"lr": 5e-4, "epochs": 3, "batch_size": 32, "early_stopping_patience": 5}
    add_training_flags(parser, "tinystories_chat_model", **defaults)
    return parse_flags(parser, PILOT, argv)


def main():
    args = parse_args()
    if not 0 <= args.swap_words <= 1:
        raise UserError(f"--swap_words must lie between 0 and 1, not {args.swap_words}")
    ranks, run, settings, precision = start_run(args, PILOT)
    tokenizer = load_tokenizer(args.tokenizer_path)
    model, _ = load_model(args.pretrained_model_path, tokenizer, precision.device, run.say, dropout=args.dropout)
    special, length = tokenizer.special, model.config.max_seq_len
    read = lambda split, limit: cache_dialogues(
        split, tokenizer, args.cache_dir, length, limit, run.say, args.skip_bad_rows
    )
    with ranks.first_alone():
        train_cache, validation_cache = open_text(args, read, run.say, "sample_data/conversations")
    packed = args.batching == "packed"
    change = None
    if args.swap_words:
        vectors = model.tokens.weight.detach().float().cpu().numpy()
        change = SimilarWords(tokenizer, train_cache, vectors, args.swap_words).swapped
    rows = Rows(train_cache, length, special, packed, seed=settings.seed, replies_only=True, change=change)
    # A dialogue a row: a reply that is cut off from its question would be measured on what no chat ever asks for.
    validation = Rows(validation_cache, length, special, packed=False, replies_only=True)
    seed_everything(settings.seed)

    def write_sample(model):
        prompt, _, _ = render_dialogue(tokenizer, [("user", QUESTION)], length, open_ended=True)
        banned = set(special.values()) - {special["<eos>"]}
        new = generate(model, [prompt], 150, end=special["<eos>"], banned=banned, temperature=0.8)
        return f"user: {QUESTION}\nassistant: {printable(tokenizer.decode([tokens[0] for tokens in new]))}"

    fingerprints = fingerprints_of(tokenizer, train_cache, validation_cache) | {"swap_words": args.swap_words}
    train(model, rows, validation, settings, run, precision, fingerprints, write_sample, ranks)
    run.close()
    ranks.close()


if __name__ == "__main__":
    run_program(main)
