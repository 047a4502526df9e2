"""Step 3: let the model write.

    python generate_tinystories_text.py --prompt "Once upon a time, there was a"
    python generate_tinystories_text.py --prompt "Lily saw a dragon." --num_samples 3 --temperature 1.2

The story, its beginning included, goes to stdout; a single one appears while it is written.
"""

from data import load_tokenizer
from model import generate
from records import load_model
from shell import FlagParser, UserError, printable, run_program, say
from training import choose_device


def add_generation_flags(parser, model_path, max_new_tokens):
    """The flags that writing and chatting have in common."""
    parser.add_argument("--model_path", default=model_path, help="default: %(default)s")
    parser.add_argument("--tokenizer_path", default="bpe_tokenizer_tinystories.pkl", help="default: %(default)s")
    parser.add_argument(
        "--max_new_tokens", type=int, default=max_new_tokens, help="tokens to write at most (default: %(default)s)"
    )
    parser.add_argument("--min_new_tokens", type=int, default=0, help="no end before so many (default: %(default)s)")
    parser.add_argument(
        "--temperature", type=float, default=0.8, help="below 1 safer, above 1 wilder, 0 the likeliest (default: 0.8)"
    )
    parser.add_argument("--top_k", type=int, default=50, help="draw from the k likeliest tokens; 0: all (default: 50)")
    parser.add_argument(
        "--top_p", type=float, default=1.0, help="draw from the fewest tokens with this probability (default: 1.0)"
    )
    parser.add_argument("--seed", type=int, default=42, help="the same seed writes the same (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto takes cuda, then mps, then cpu (default: %(default)s)")


def check_generation_flags(args):
    if args.max_new_tokens < 1:
        raise UserError(f"--max_new_tokens must be at least 1, not {args.max_new_tokens}")
    if not 0 <= args.min_new_tokens <= args.max_new_tokens:
        raise UserError(f"--min_new_tokens {args.min_new_tokens} must lie between 0 and the tokens to write at most")
    if not 0 <= args.temperature < float("inf"):
        raise UserError(f"--temperature must be 0 or more, not {args.temperature}")
    if args.top_k < 0 or args.seed < 0:
        raise UserError("--top_k and --seed must be 0 or more")
    if not 0 < args.top_p <= 1:
        raise UserError(f"--top_p must be above 0 and at most 1, not {args.top_p}")


def sampling(args, tokenizer):
    """The keyword arguments of `model.generate` that the flags stand for; of special tokens only <eos> may be drawn."""
    end = tokenizer.special["<eos>"]
    return {
        "end": end, "banned": sorted(set(tokenizer.special.values()) - {end}), "min_new_tokens": args.min_new_tokens,
        "temperature": args.temperature, "top_k": args.top_k, "top_p": args.top_p, "seed": args.seed,
    }  # fmt: skip


def parse_args(argv=None):
    parser = FlagParser(__doc__)
    parser.add_argument("--prompt", default="Once upon a time, there was a", help="default: %(default)r")
    add_generation_flags(parser, "tinystories_model/best_model.pth", 200)
    parser.add_argument("--max_length", type=int, help="the same as --max_new_tokens, the prompt's tokens included")
    parser.add_argument("--num_samples", type=int, default=1, help="stories to write (default: %(default)s)")
    args = parser.parse_args(argv)
    if args.num_samples < 1:
        raise UserError(f"--num_samples must be at least 1, not {args.num_samples}")
    return args


def main():
    args = parse_args()
    check_generation_flags(args)
    tokenizer = load_tokenizer(args.tokenizer_path)
    device = choose_device(args.device)
    model, _ = load_model(args.model_path, tokenizer, device)
    start = tokenizer.encode(args.prompt)
    prompt = [tokenizer.special["<bos>"], *start]
    context = model.config.max_seq_len
    if len(prompt) > context:
        raise UserError(f"--prompt has {len(start)} tokens, and the model's context is {context}; shorten it")
    if args.max_length is not None:
        args.max_new_tokens = args.max_length - len(start)
        if args.max_new_tokens < 1:
            raise UserError(f"--max_length {args.max_length} leaves no room after the prompt's {len(start)} tokens")
    steps = generate(model, [prompt] * args.num_samples, args.max_new_tokens, **sampling(args, tokenizer))
    if args.num_samples == 1:
        print(args.prompt, end="", flush=True)
        for piece in tokenizer.stream(tokens[0] for tokens in steps):
            print(printable(piece), end="", flush=True)
        print()
        return
    stories = zip(*steps, strict=True)
    for number, story in enumerate(stories, start=1):
        say(f"--- {number} of {args.num_samples}")
        print(args.prompt + printable(tokenizer.decode([token for token in story if token is not None])))


if __name__ == "__main__":
    run_program(main)
