"""Byte-pair encoding (Sennrich et al. 2016) from nothing: learn the merges of a tokenizer, in plain Python.

    python docs/bpe_from_scratch.py                                # from the sample stories
    python docs/bpe_from_scratch.py my_stories.txt --merges 500

At first, each byte is a token.  Then the most frequent pair of neighbours becomes a new token, again and again.
`train_tokenizer` in data.py learns the same merges with a library, which is faster: it does not count all pairs anew
for each merge.  A word is a tuple of tokens, and a token is bytes: (b"f", b"ox").
"""

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.errors import UserError
from common.flags import FlagParser
from common.program import run_program
from common.text import without_surrogates
from corpus.other_tokenizers import BYTES
from corpus.sources import open_dataset
from corpus.stories import read_stories
from data import SPECIAL_TOKENS

STORIES = Path(__file__).resolve().parents[1] / "sample_data/stories"
FIRST_ID = len(SPECIAL_TOKENS) + 256  # the id of the first merged token in a tokenizer of step 1
Word = tuple[bytes, ...]
Pair = tuple[bytes, bytes]
# GPT-2's rule: a space belongs to the word after it, and no token contains parts of two words.  The library's rule has
# \p{L} for letters.  Python has no \p: [^\W\d_] is the same, except that it also has rare numbers, such as ².
WORD = re.compile(r"'(?:[sdmt]|ll|ve|re)| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")


def count_words(texts: Iterable[str]) -> dict[Word, int]:
    """Cut texts into words of single bytes, and return how often each word occurs."""
    counts = Counter()
    for text in texts:
        counts.update(WORD.findall(without_surrogates(text)))
    return {tuple(bytes([byte]) for byte in word.encode()): count for word, count in counts.items()}


def count_pairs(words: dict[Word, int]) -> dict[Pair, int]:
    """Return how often each pair of neighbours occurs in all words; words: {word: how often it occurs}."""
    # assignment: bpe_merge, 3 points
    counts = Counter()
    for word, count in words.items():
        for pair in zip(word, word[1:], strict=False):
            counts[pair] += count
    return counts


def most_frequent(counts: dict[Pair, int], ids: dict[bytes, int]) -> Pair:
    """Return the pair with the highest count; of several, the one whose tokens have the lowest ids.

    The ids of the first tokens are compared, then those of the second, as the library does.
    """
    # assignment: bpe_merge, 2 points
    highest = max(counts.values())
    most_frequent_pairs = [pair for pair, count in counts.items() if count == highest]
    return min(most_frequent_pairs, key=lambda pair: (ids[pair[0]], ids[pair[1]]))


def merge(word: Word, pair: Pair) -> Word:
    """Return the word with each occurrence of the pair, from left to right, joined into one token."""
    # assignment: bpe_merge, 5 points
    merged = []
    place = 0
    while place < len(word):
        if word[place : place + 2] == pair:
            merged.append(word[place] + word[place + 1])
            place += 2
        else:
            merged.append(word[place])
            place += 1
    return tuple(merged)


def learn_merges(texts: Iterable[str], most: int) -> Iterator[tuple[Pair, int]]:
    """Yield (pair, how often it occurs) for at most this many merges; a pair that occurs only once is not merged."""
    words = count_words(texts)
    ids = {bytes([byte]): number for number, byte in enumerate(BYTES.values())}  # in the order of the library
    for _ in range(most):
        counts = count_pairs(words)
        pair = most_frequent(counts, ids) if counts else None
        if pair is None or counts[pair] < 2:
            return
        yield pair, counts[pair]
        ids.setdefault(pair[0] + pair[1], len(ids))  # the same bytes may come from two pairs
        words = {merge(word, pair): count for word, count in words.items()}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = FlagParser(__doc__)
    parser.usage = "python docs/bpe_from_scratch.py [FILE] [flags]"
    parser.add_argument("file", nargs="?", metavar="FILE", default=STORIES, help="stories (default: the samples)")
    parser.add_argument("--merges", type=int, default=50, help="how many at most (default: %(default)s)")
    args = parser.parse_args(argv)
    if not Path(args.file).exists():
        raise UserError(f"no file or folder {args.file}; pass stories on this computer, in a form that step 1 reads")
    if args.merges < 1:
        raise UserError(f"--merges must be at least 1, not {args.merges}")
    return args


def main() -> None:
    args = parse_args()
    texts = read_stories(open_dataset(str(args.file))["train"])
    for token, (pair, count) in enumerate(learn_merges(texts, args.merges), start=FIRST_ID):
        print(f"{token:5}  {pair[0] + pair[1]!s:20} = {pair[0]} + {pair[1]}, {count:,} times")


if __name__ == "__main__":
    run_program(main)
