"""Step 1: learn a byte-level BPE tokenizer from stories.

    python train_bpe_tokenizer_hf.py                                    # TinyStories, from the hub
    python train_bpe_tokenizer_hf.py --dataset sample_data/stories      # the project's own small stories
    python train_bpe_tokenizer_hf.py --from_pretrained gpt2             # not learned: GPT-2's
    python train_bpe_tokenizer_hf.py --inspect "Once upon a time"       # how the file that is there cuts a text

The stories are read as a stream and never stand in memory together.  Some are set aside, to see afterwards how well the
tokenizer does on text that it has not seen.  Writes one file, which every later step reads.
"""

import itertools
import sys
import time
from pathlib import Path

from tqdm import tqdm

from common.console import say
from common.errors import UserError
from common.flags import FlagParser
from common.program import run_program
from corpus.other_tokenizers import open_pretrained
from corpus.sources import BadRows, open_dataset, read_stories
from data import SPECIAL_TOKENS, load_tokenizer, train_tokenizer, wrap_tokenizer
from training.settings import add_skip_flag

DATASET, VOCAB_SIZE = "roneneldan/TinyStories", 10_000
HELD_OUT = 200  # stories to measure on
HELD_OUT_EVERY = 100  # where there is no validation split, each one of so many is set aside


def parse_args(argv=None):
    parser = FlagParser(__doc__)
    parser.add_argument(
        "--dataset", metavar="TEXT",
        help=f"hub name, folder, or .jsonl, .json, .txt, .csv, .parquet file (default: {DATASET}); "
        "with --from_pretrained only to measure on",
    )  # fmt: skip
    parser.add_argument("--sample", type=int, metavar="N", help="use the first N stories (default: all)")
    parser.add_argument("--vocab_size", type=int, help=f"tokens to reach (default: {VOCAB_SIZE})")
    parser.add_argument(
        "--output", default="bpe_tokenizer_tinystories.pkl", help="the file to write (default: %(default)s)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it is there")
    parser.add_argument(
        "--from_pretrained", metavar="NAME",
        help="take over an existing byte-level BPE instead of learning one: a tokenizer.json, a folder with it or with "
        "vocab.json and merges.txt, a hub name, or tiktoken:ENCODING",
    )  # fmt: skip
    parser.add_argument(
        "--inspect", metavar="TEXT",
        help="show how the file that --output names, or what --from_pretrained does, cuts this text; write nothing",
    )  # fmt: skip
    group = parser.add_argument_group("the data")
    group.add_argument("--text_column", default="text", help="the column that holds the story (default: %(default)s)")
    add_skip_flag(group)
    args = parser.parse_args(argv)
    learning = [name for name in ("sample", "vocab_size") if getattr(args, name) is not None]
    if args.inspect is not None and args.dataset:
        learning.append("dataset")
    if learning and (args.inspect is not None or args.from_pretrained):
        other = "from_pretrained" if args.inspect is None else "inspect"
        raise UserError(f"--{learning[0]} is for a tokenizer that is learned, and makes no sense with --{other}")
    args.vocab_size = VOCAB_SIZE if args.vocab_size is None else args.vocab_size
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


def print_tokens(tokenizer, text):
    """Say how a text is cut: each token's id, its text (bytes where it is no whole character), and its bytes."""
    tokens = [(token, tokenizer.bytes_of(token)) for token in tokenizer.encode(text)]
    shown = []
    for _, content in tokens:
        try:
            shown.append(repr(content.decode()))
        except UnicodeDecodeError:
            shown.append(repr(content))
    width = max(map(len, shown), default=0)
    for (token, content), piece in zip(tokens, shown, strict=True):
        print(f"{token:>7}  {piece:<{width}}  {content.hex(' ')}")
    size = sum(len(content) for _, content in tokens)
    print(f"{len(tokens):,} tokens, {size:,} bytes" + (f": {size / len(tokens):.2f} bytes per token" if tokens else ""))


def print_compression(tokenizer, held_out, which):
    """Say how far it squeezes some stories; which: what they are."""
    size = sum(len(story.encode()) for story in held_out)
    tokens = sum(map(len, tokenizer.encode_batch(held_out)))
    print(f"bytes per token: {size / tokens:.2f}, on {len(held_out):,} {which}")


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
        print_compression(tokenizer, held_out, "stories that it was not trained on")
    else:
        print("bytes per token: not measured, as no stories are left that it was not trained on")
    first = len(SPECIAL_TOKENS) + 256
    learned = range(first, tokenizer.vocab_size)
    if learned:
        print("ten of the learned tokens, from the first (the most frequent) to the last:")
        places = sorted({learned[round(i * (len(learned) - 1) / 9)] for i in range(10)})
        print("  " + "  ".join(f"{token}: {tokenizer.decode([token])!r}" for token in places))


def learn(args):
    """A tokenizer learned from the stories, and what is to be seen of it."""
    name = args.dataset or DATASET
    splits = open_dataset(name)
    bad = BadRows(args.skip_bad_rows)
    stories = read_stories(splits["train"], args.text_column, bad=bad)
    sampled = itertools.islice(stories, args.sample) if args.sample else stories
    counted = Counted(sampled, None if args.sample or "validation" in splits else HELD_OUT_EVERY)
    tokenizer = train_tokenizer(counted, args.vocab_size)
    print(f"stories: {counted.count:,} ({counted.bytes:,} bytes) from {name}")
    if "validation" in splits:
        held_out = list(read_stories(splits["validation"], args.text_column, HELD_OUT, bad))
    else:
        held_out = counted.set_aside or list(itertools.islice(stories, HELD_OUT))
    if bad.count:
        print(bad.summary())
    print_findings(tokenizer, args.vocab_size, held_out)
    return tokenizer


def take_over(name):
    """The tokenizer that --from_pretrained names; what is left out of it goes to stderr."""
    text, left_out = open_pretrained(name)
    for remark in left_out:
        say(f"{name}: left out is {remark}")
    return wrap_tokenizer(text, name)


def wrap(args):
    """The tokenizer that --from_pretrained names, and what is to be seen of it."""
    tokenizer = take_over(args.from_pretrained)
    print(f"vocabulary: {tokenizer.vocab_size:,} tokens, those of {args.from_pretrained} and the special tokens")
    print("special tokens: " + "  ".join(f"{token} {number}" for token, number in tokenizer.special.items()))
    if args.dataset:
        splits, bad = open_dataset(args.dataset), BadRows(args.skip_bad_rows)
        split = splits.get("validation", splits["train"])
        print_compression(
            tokenizer, list(read_stories(split, args.text_column, HELD_OUT, bad)), f"stories of {args.dataset}"
        )
        if bad.count:
            print(bad.summary())
    return tokenizer


def main():
    args = parse_args()
    output = Path(args.output)
    if args.inspect is not None:
        if not args.from_pretrained and not output.is_file():
            raise UserError(
                f"no tokenizer file {output} to look at; learn it first, without --inspect, or pass --output"
            )
        print_tokens(take_over(args.from_pretrained) if args.from_pretrained else load_tokenizer(output), args.inspect)
        return
    if output.exists() and not args.overwrite:
        raise UserError(f"{output} is already there; pass --overwrite to replace it, or --output another name")
    if output.is_dir():
        raise UserError(f"--output {output} is a folder; name a file")
    began = time.perf_counter()
    tokenizer = wrap(args) if args.from_pretrained else learn(args)
    tokenizer.save(output)
    print(f"wrote {output} ({output.stat().st_size:,} bytes) after {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    run_program(main)
