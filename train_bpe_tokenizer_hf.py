"""Step 1: learn a byte-level BPE tokenizer from stories.

    python train_bpe_tokenizer_hf.py                                    # TinyStories, from the hub
    python train_bpe_tokenizer_hf.py --dataset sample_data/stories      # the project's own small stories

The stories are read as a stream and never stand in memory together.  Some are set aside, to see afterwards how well the
tokenizer does on text that it has not seen.  Writes one file, which every later step reads.
"""

import itertools
import sys
import time
from pathlib import Path

from tqdm import tqdm

from data import SPECIAL_TOKENS, train_tokenizer
from mixture import add_skip_flag
from shell import FlagParser, UserError, run_program
from sources import BadRows, open_dataset, read_stories

HELD_OUT = 200  # stories to measure on
HELD_OUT_EVERY = 100  # where there is no validation split, each one of so many is set aside


def parse_args(argv=None):
    parser = FlagParser(__doc__)
    parser.add_argument(
        "--dataset", default="roneneldan/TinyStories",
        help="hub name, folder, or .jsonl, .json, .txt, .csv, .parquet file (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--sample", type=int, metavar="N", help="use the first N stories (default: all)")
    parser.add_argument("--vocab_size", type=int, default=10_000, help="tokens to reach (default: %(default)s)")
    parser.add_argument(
        "--output", default="bpe_tokenizer_tinystories.pkl", help="the file to write (default: %(default)s)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it is there")
    group = parser.add_argument_group("the data")
    group.add_argument("--text_column", default="text", help="the column that holds the story (default: %(default)s)")
    add_skip_flag(group)
    args = parser.parse_args(argv)
    smallest = len(SPECIAL_TOKENS) + 256
    if args.vocab_size < smallest:
        raise UserError(f"--vocab_size must be at least {smallest}: 256 bytes and {len(SPECIAL_TOKENS)} special tokens")
    if args.sample is not None and args.sample < 1:
        raise UserError(f"--sample must be at least 1, not {args.sample}")
    return args


class Counted:
    """An iterator over stories that counts them and their bytes, and sets every n-th aside."""

    def __init__(self, stories, set_aside_every=None):
        self.stories, self.set_aside_every = stories, set_aside_every
        self.count, self.bytes, self.set_aside = 0, 0, []

    def __iter__(self):
        for number, story in enumerate(tqdm(self.stories, unit=" stories", disable=not sys.stderr.isatty()), start=1):
            if self.set_aside_every and number % self.set_aside_every == 10:
                if len(self.set_aside) < HELD_OUT:
                    self.set_aside.append(story)
                continue
            self.count += 1
            self.bytes += len(story.encode())
            yield story


def print_findings(tokenizer, wanted, held_out):
    """Say what was learned: the size reached, how far it compresses, and ten of its tokens from short to long."""
    if tokenizer.vocab_size < wanted:
        print(
            f"vocabulary: {tokenizer.vocab_size:,} tokens, fewer than the {wanted:,} asked for: "
            "this text has no more pairs that occur twice; more stories would give more"
        )
    else:
        print(f"vocabulary: {tokenizer.vocab_size:,} tokens")
    if held_out:
        size = sum(len(story.encode()) for story in held_out)
        tokens = sum(map(len, tokenizer.encode_batch(held_out)))
        print(f"bytes per token: {size / tokens:.2f}, on {len(held_out):,} stories that it was not trained on")
    else:
        print("bytes per token: not measured, as no stories are left that it was not trained on")
    first = len(SPECIAL_TOKENS) + 256
    learned = range(first, tokenizer.vocab_size)
    if learned:
        print("ten of the learned tokens, from the first (the most frequent) to the last:")
        places = sorted({learned[round(i * (len(learned) - 1) / 9)] for i in range(10)})
        print("  " + "  ".join(f"{token}: {tokenizer.decode([token])!r}" for token in places))


def main():
    args = parse_args()
    output = Path(args.output)
    if output.exists() and not args.overwrite:
        raise UserError(f"{output} is already there; pass --overwrite to replace it, or --output another name")
    if output.is_dir():
        raise UserError(f"--output {output} is a folder; name a file")
    began = time.perf_counter()
    splits = open_dataset(args.dataset)
    bad = BadRows(args.skip_bad_rows)
    stories = read_stories(splits["train"], args.text_column, bad=bad)
    sampled = itertools.islice(stories, args.sample) if args.sample else stories
    counted = Counted(sampled, None if args.sample or "validation" in splits else HELD_OUT_EVERY)
    tokenizer = train_tokenizer(counted, args.vocab_size)
    print(f"stories: {counted.count:,} ({counted.bytes:,} bytes) from {args.dataset}")
    if "validation" in splits:
        held_out = list(read_stories(splits["validation"], args.text_column, HELD_OUT, bad))
    else:
        held_out = counted.set_aside or list(itertools.islice(stories, HELD_OUT))
    if bad.count:
        print(bad.summary())
    print_findings(tokenizer, args.vocab_size, held_out)
    tokenizer.save(output)
    print(f"wrote {output} ({output.stat().st_size:,} bytes) after {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    run_program(main)
