"""The stories on which a network is measured, as tokens, and the places in them where a name comes again."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from scoring.measures import CAPITALIZED, names_in

from corpus.notes import ReadingFlags
from corpus.sources import open_dataset
from corpus.splits import validation_texts
from corpus.token_cache import cache_stories, default_cache_dir
from data import Tokenizer
from model import IGNORED

SAMPLE_STORIES = str(Path(__file__).resolve().parents[2] / "sample_data/stories")
STORIES = 100
BATCH_TOKENS = 4096


@dataclass
class Story:
    """A story as a network reads it.

    ids: `<bos> text <eos>`, cut to the context.  repeated_names: for each token that begins a name which the story had
    before, {its position: the positions of those before}.
    """

    ids: list[int]
    repeated_names: dict[int, list[int]]


def stories_to_measure(
    tokenizer: Tokenizer, context: int, dataset: str = SAMPLE_STORIES, most: int = STORIES,
    cache_dir: str | Path | None = None, how: ReadingFlags | None = None,
) -> list[Story]:  # fmt: skip
    """Return validation stories of a dataset, or its last training stories if it has no validation split.

    context: longer stories are cut to this many tokens.  most: at most this many stories.  Raises UserError.
    """

    def read(split, limit):
        return cache_stories(split, tokenizer, cache_dir or default_cache_dir(), how or ReadingFlags(), limit)

    cache = validation_texts(open_dataset(dataset), read, most)
    rows = [cache.tokens[start:end].tolist()[:context] for start, end in itertools.pairwise(cache.starts)]
    names = names_in(tokenizer.decode(ids) for ids in rows)
    return [Story(ids, repeated_names(ids, tokenizer, names)) for ids in rows]


def repeated_names(ids: list[int], tokenizer: Tokenizer, names: set[str]) -> dict[int, list[int]]:
    """Return {position: earlier positions} of the tokens that begin a name which the text had before."""
    begins = {}  # {the character at which a token begins: its position}
    text = ""
    for position, token in enumerate(ids):
        begins[len(text)] = position
        text += tokenizer.decode([token])
    seen = {}  # {name: its positions so far}
    repeated = {}
    for found in CAPITALIZED.finditer(text):
        name, start = found[0], found.start()
        begin = start - 1 if text[start - 1 : start] == " " else start  # a token begins with its space
        if name not in names or begin not in begins:
            continue
        position = begins[begin]
        if name in seen:
            repeated[position] = list(seen[name])
        seen.setdefault(name, []).append(position)
    return repeated


@dataclass
class Batch:
    """Stories of similar length, padded on the right.  All are (B, T)."""

    ids: torch.Tensor
    targets: torch.Tensor  # the next tokens; IGNORED after the end of a story
    is_name: torch.Tensor  # bool: whether the target begins a name that stood before


def batches_of(stories: list[Story], device: torch.device) -> Iterator[Batch]:
    """Yield the stories, sorted by length, in batches of about BATCH_TOKENS tokens."""
    waiting = sorted(stories, key=lambda story: len(story.ids))
    while waiting:
        length = len(waiting[0].ids)
        count = 1
        while count < len(waiting) and (count + 1) * len(waiting[count].ids) <= BATCH_TOKENS:
            count += 1
            length = len(waiting[count - 1].ids)
        ids = torch.zeros(count, length, dtype=torch.long)
        targets = torch.full((count, length), IGNORED)
        is_name = torch.zeros(count, length, dtype=torch.bool)
        for row, story in enumerate(waiting[:count]):
            tokens = torch.tensor(story.ids)
            ids[row, : len(tokens)] = tokens
            targets[row, : len(tokens) - 1] = tokens[1:]
            is_name[row, [position - 1 for position in story.repeated_names]] = True
        yield Batch(ids.to(device), targets.to(device), is_name.to(device))
        waiting = waiting[count:]
