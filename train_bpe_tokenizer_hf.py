"""Step 1: learn a byte-level BPE tokenizer from stories.

    python train_bpe_tokenizer_hf.py                                    # TinyStories, from the hub
    python train_bpe_tokenizer_hf.py --dataset sample_data/stories      # the small set of stories of this project
    python train_bpe_tokenizer_hf.py --from_pretrained gpt2             # use GPT-2's instead of learning one
    python train_bpe_tokenizer_hf.py --inspect "Once upon a time"       # show the tokens of a text

The stories are read as a stream and are never in memory as a whole.  Some are set aside, to measure the tokenizer on
text that it was not trained on.  The program writes one file, which every later step reads.
"""

import argparse
import itertools
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from tqdm import tqdm

from common.console import log
from common.errors import UserError
from common.files import check_can_be_written
from common.flags import FlagParser, settings_from
from common.program import run_program
from corpus.notes import Notes, ReadingFlags, add_reading_flags
from corpus.other_tokenizers import open_pretrained
from corpus.sources import open_dataset
from corpus.stories import read_stories
from data import SPECIAL_TOKENS, Tokenizer, load_tokenizer, train_tokenizer, wrap_tokenizer

DATASET = "roneneldan/TinyStories"
VOCAB_SIZE = 10_000
HELD_OUT = 200  # stories to measure on, at most
HELD_OUT_EVERY = 100  # without a validation split, one story in this many is set aside


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = FlagParser(__doc__)
    parser.add_argument(
        "--dataset", metavar="TEXT",
        help=f"hub name, folder, or .jsonl, .json, .txt, .csv, .parquet file (default: {DATASET}); "
        "with --from_pretrained, used only to measure",
    )  # fmt: skip
    parser.add_argument("--sample", type=int, metavar="N", help="use the first N stories (default: all)")
    parser.add_argument("--vocab_size", type=int, help=f"tokens in the vocabulary (default: {VOCAB_SIZE})")
    parser.add_argument(
        "--output", default="bpe_tokenizer_tinystories.pkl", help="the file to write (default: %(default)s)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    parser.add_argument(
        "--from_pretrained", metavar="NAME",
        help="use an existing byte-level BPE instead of learning one: a tokenizer.json, a folder with it or with "
        "vocab.json and merges.txt, a hub name, or tiktoken:ENCODING",
    )  # fmt: skip
    parser.add_argument(
        "--inspect", metavar="TEXT",
        help="show the tokens of this text, with the tokenizer in --output or from --from_pretrained; write nothing",
    )  # fmt: skip
    group = parser.add_argument_group("the data")
    add_reading_flags(group, stories=True)
    args = parser.parse_args(argv)
    check_args(args)
    if args.vocab_size is None:
        args.vocab_size = VOCAB_SIZE
    return args


def check_args(args: argparse.Namespace) -> None:
    """Raise UserError for flags that make no sense, alone or together."""
    learning = [name for name in ("sample", "vocab_size") if getattr(args, name) is not None]
    if args.inspect is not None and args.dataset:
        learning.append("dataset")
    other = "from_pretrained" if args.inspect is None else "inspect"
    if learning and getattr(args, other) is not None:
        raise UserError(f"--{learning[0]} is for learning a tokenizer, and makes no sense with --{other}")
    smallest = len(SPECIAL_TOKENS) + 256
    if args.vocab_size is not None and args.vocab_size < smallest:
        raise UserError(f"--vocab_size must be at least {smallest}: 256 bytes and {len(SPECIAL_TOKENS)} special tokens")
    if args.sample is not None and args.sample < 1:
        raise UserError(f"--sample must be at least 1, not {args.sample}")


def main() -> None:
    args = parse_args()
    output = Path(args.output)
    if args.inspect is not None:
        inspect(args, output)
        return
    if output.is_dir():
        raise UserError(f"--output {output} is a folder; pass the name of a file")
    if output.exists() and not args.overwrite:
        raise UserError(f"{output} already exists; pass --overwrite to replace it, or another --output")
    check_can_be_written("--output", output.parent)
    began = time.perf_counter()
    tokenizer = wrap(args) if args.from_pretrained else learn(args)
    tokenizer.save(output)
    print(f"wrote {output} ({output.stat().st_size:,} bytes) after {time.perf_counter() - began:.1f} s")


# Learning -------------------------------------------------------------------------------------------------------------


class CountedStories:
    """Yields stories, counts them and their bytes, and sets every n-th one aside."""

    def __init__(self, stories: Iterable[str], set_aside_every: int | None = None):
        self.stories = stories
        self.set_aside_every = set_aside_every
        self.set_aside = []
        self.count = 0
        self.bytes = 0

    def __iter__(self) -> Iterator[str]:
        for number, story in enumerate(tqdm(self.stories, unit=" stories", disable=None), start=1):
            if self.set_aside_every and number % self.set_aside_every == 10:
                if len(self.set_aside) < HELD_OUT:
                    self.set_aside.append(story)
                continue
            self.count += 1
            self.bytes += len(story.encode())
            yield story


def learn(args: argparse.Namespace) -> Tokenizer:
    """Learn a tokenizer from the stories, and print what it is like."""
    name = args.dataset or DATASET
    splits = open_dataset(name)
    how = settings_from(args, ReadingFlags)
    notes = Notes()
    stories = read_stories(splits["train"], how, notes=notes)
    sampled = itertools.islice(stories, args.sample) if args.sample else stories
    counted = CountedStories(sampled, None if args.sample or "validation" in splits else HELD_OUT_EVERY)
    tokenizer = train_tokenizer(counted, args.vocab_size)
    print(f"stories: {counted.count:,} ({counted.bytes:,} bytes) from {name}")
    if "validation" in splits:
        held_out = list(read_stories(splits["validation"], how, HELD_OUT, notes))
    else:
        held_out = counted.set_aside or list(itertools.islice(stories, HELD_OUT))
    for line in notes.lines():
        print(line)
    print_findings(tokenizer, args.vocab_size, held_out)
    return tokenizer


def print_findings(tokenizer: Tokenizer, wanted: int, held_out: list[str]) -> None:
    """Print what was learned: the vocabulary size, the compression, and ten of the tokens in the order of learning."""
    if tokenizer.vocab_size < wanted:
        print(
            f"vocabulary: {tokenizer.vocab_size:,} tokens, fewer than the requested {wanted:,}: "
            "no other pair occurs twice in this text; use more stories"
        )
    else:
        print(f"vocabulary: {tokenizer.vocab_size:,} tokens")
    if held_out:
        print_compression(tokenizer, held_out, "stories that it was not trained on")
    else:
        print("bytes per token: not measured, because no stories are left that it was not trained on")
    first = len(SPECIAL_TOKENS) + 256
    learned = range(first, tokenizer.vocab_size)
    if learned:
        print("ten of the learned tokens, in the order in which they were learned:")
        places = sorted({learned[round(i * (len(learned) - 1) / 9)] for i in range(10)})
        print("  " + "  ".join(f"{token}: {tokenizer.decode([token])!r}" for token in places))


def print_compression(tokenizer: Tokenizer, held_out: list[str], which: str) -> None:
    """Print the bytes per token for some stories; which: a description of the stories."""
    size = sum(len(story.encode()) for story in held_out)
    tokens = sum(map(len, tokenizer.encode_batch(held_out)))
    print(f"bytes per token: {size / tokens:.2f}, on {len(held_out):,} {which}")


# Using an existing tokenizer ------------------------------------------------------------------------------------------


def wrap(args: argparse.Namespace) -> Tokenizer:
    """Return the tokenizer that --from_pretrained names, and print what it is like."""
    tokenizer = take_over(args.from_pretrained)
    print(f"vocabulary: {tokenizer.vocab_size:,} tokens, those of {args.from_pretrained} and the special tokens")
    print("special tokens: " + "  ".join(f"{token} {number}" for token, number in tokenizer.special.items()))
    if args.dataset:
        notes = Notes()
        splits = open_dataset(args.dataset)
        split = splits.get("validation", splits["train"])
        stories = list(read_stories(split, settings_from(args, ReadingFlags), HELD_OUT, notes))
        print_compression(tokenizer, stories, f"stories of {args.dataset}")
        for line in notes.lines():
            print(line)
    return tokenizer


def take_over(name: str) -> Tokenizer:
    """Return the tokenizer that --from_pretrained names, and log what was left out of it."""
    text, left_out = open_pretrained(name)
    for remark in left_out:
        log.info(f"{name}: left out: {remark}")
    return wrap_tokenizer(text, name)


# Inspecting -----------------------------------------------------------------------------------------------------------


def inspect(args: argparse.Namespace, output: Path) -> None:
    """Print the tokens of a text, with the tokenizer in --output or from --from_pretrained."""
    if args.from_pretrained:
        tokenizer = take_over(args.from_pretrained)
    elif output.is_file():
        tokenizer = load_tokenizer(output)
    else:
        raise UserError(f"no tokenizer file {output}; learn one first, without --inspect, or pass another --output")
    print_tokens(tokenizer, args.inspect)


def print_tokens(tokenizer: Tokenizer, text: str) -> None:
    """Print each token's id, its text (its bytes, if they are not whole characters), and its bytes."""
    ids = tokenizer.encode(text)
    contents = [tokenizer.bytes_of(token) for token in ids]
    shown = []
    for content in contents:
        try:
            shown.append(repr(content.decode()))
        except UnicodeDecodeError:
            shown.append(repr(content))
    width = max(map(len, shown), default=0)
    for token, content, piece in zip(ids, contents, shown, strict=True):
        print(f"{token:>7}  {piece:<{width}}  {content.hex(' ')}")
    size = sum(map(len, contents))
    print(f"{len(ids):,} tokens, {size:,} bytes" + (f": {size / len(ids):.2f} bytes per token" if ids else ""))


if __name__ == "__main__":
    run_program(main)
