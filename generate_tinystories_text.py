"""Step 3: let the model write stories.

    python generate_tinystories_text.py --prompt "Once upon a time, there was a"
    python generate_tinystories_text.py --prompt "Lily saw a dragon." --num_samples 3 --temperature 1.2
    python generate_tinystories_text.py --prompts_file beginnings.txt --output_file stories.jsonl

The story goes to stdout, including its beginning; a single story appears while it is written.  With --prompts_file,
each sample is a JSON object; its "text" is the part after the prompt.
"""

import argparse

from common.console import log
from common.errors import UserError
from common.flags import FlagParser
from common.program import run_program
from common.text import without_controls
from generation.prompt_files import (
    Prompt,
    Samples,
    add_prompt_flags,
    check_prompt_flags,
    read_prompts,
    rows_at_once,
    write_samples,
)
from generation.prompts import story_prompt
from generation.writer import Writer, add_generation_flags, load_writer

PROMPT = "Once upon a time, there was a"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = FlagParser(__doc__)
    parser.add_argument("--prompt", help=f"how the story begins (default: {PROMPT!r})")
    parser.add_argument("--max_length", type=int, help="like --max_new_tokens, but including the prompt's tokens")
    add_generation_flags(parser, "tinystories_model/best_model.pth")
    add_prompt_flags(parser)
    args = parser.parse_args(argv)
    check_prompt_flags(args)
    for flag in ("max_new_tokens", "prompts_file"):
        if args.max_length is not None and getattr(args, flag) is not None:
            raise UserError(f"--max_length and --{flag} do not go together; pass one of them")
    if args.prompts_file and args.prompt is not None:
        raise UserError("--prompt and --prompts_file do not go together; pass one of them")
    return args


def main() -> None:
    args = parse_args()
    prompts = read_prompts(args.prompts_file) if args.prompts_file else None
    writer = load_writer(args, rows_at_once(args))
    if prompts:
        write_samples(Samples(writer, prompts, args.num_samples), args.output_file, args.batch_size, args.overwrite)
        return
    text = PROMPT if args.prompt is None else args.prompt
    prompt = story_prompt(writer, text)
    limit = f"--max_new_tokens {writer.sampling.max_new_tokens}"
    if args.max_length is not None:
        limit_length(writer, args.max_length, len(prompt) - 1)
        limit = f"--max_length {args.max_length}"
    if args.num_samples > 1:
        write_several(writer, text, args.num_samples, args.batch_size, limit)
        return
    print(text, end="", flush=True)
    for piece in writer.stream(prompt):
        print(without_controls(piece), end="", flush=True)
    print()
    if writer.ended == "length":
        log.info(f"stopped at {limit}; the story may be unfinished")


def limit_length(writer: Writer, max_length: int, prompt_tokens: int) -> None:
    """Limit the prompt and the story together to max_length tokens."""
    if max_length <= prompt_tokens:
        raise UserError(f"--max_length {max_length} leaves no room after the prompt's {prompt_tokens} tokens")
    writer.set(max_new_tokens=max_length - prompt_tokens)


def write_several(writer: Writer, text: str, num_samples: int, batch_size: int, limit: str) -> None:
    """Print several stories with the same beginning; limit: the flag that limits their length."""
    samples = Samples(writer, [Prompt(0, text, {}, "--prompt")], num_samples)
    stopped = 0
    for rows in samples.rows(batch_size=batch_size):
        for row in rows:
            log.info(f"--- {row['sample'] + 1} of {num_samples}")
            print(text + without_controls(row["text"]))
            stopped += row["ended"] == "length"
    if stopped:
        log.info(f"{stopped:,} of {num_samples:,} stories stopped at {limit}; they may be unfinished")


if __name__ == "__main__":
    run_program(main)
