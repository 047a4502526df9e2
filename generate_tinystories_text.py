"""Step 3: let the model write.

    python generate_tinystories_text.py --prompt "Once upon a time, there was a"
    python generate_tinystories_text.py --prompt "Lily saw a dragon." --num_samples 3 --temperature 1.2

The story, its beginning included, goes to stdout; a single one appears while it is written.
"""

from checkpoints import load_model
from data import load_tokenizer
from devices import choose_device, ready_to_write
from model import generate
from shell import FlagParser, UserError, add_generation_flags, printable, run_program, sampling, say


def parse_args(argv=None):
    parser = FlagParser(__doc__)
    parser.add_argument("--prompt", default="Once upon a time, there was a", help="default: %(default)r")
    add_generation_flags(parser, "tinystories_model/best_model.pth")
    parser.add_argument("--max_length", type=int, help="instead of --max_new_tokens: the prompt's tokens included")
    parser.add_argument("--num_samples", type=int, default=1, help="stories to write (default: %(default)s)")
    args = parser.parse_args(argv)
    if args.num_samples < 1:
        raise UserError(f"--num_samples must be at least 1, not {args.num_samples}")
    return args


def main():
    args = parse_args()
    tokenizer = load_tokenizer(args.tokenizer_path)
    model, _ = load_model(args.model_path, tokenizer, choose_device(args.device))
    model = ready_to_write(model)
    start = tokenizer.encode(args.prompt)
    prompt = [tokenizer.special["<bos>"], *start]
    context = model.config.max_seq_len
    if len(prompt) > context:
        raise UserError(f"--prompt has {len(start)} tokens, and the model's context is {context}; shorten it")
    if args.max_length is not None:
        if args.max_new_tokens is not None:
            raise UserError("--max_length and --max_new_tokens say the same; pass one of them")
        args.max_new_tokens = args.max_length - len(start)
        if args.max_new_tokens < 1:
            raise UserError(f"--max_length {args.max_length} leaves no room after the prompt's {len(start)} tokens")
    options = sampling(args, tokenizer)
    steps = generate(model, [prompt] * args.num_samples, args.max_new_tokens, **options)
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
