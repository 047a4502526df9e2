"""Held-out text: what it contains, and a model's loss on it, computed as the trainers do."""

import argparse

from common.devices import Precision
from common.errors import UserError
from common.flags import settings_from
from corpus.dialogue_rows import holds_dialogue
from corpus.notes import Notes, ReadingFlags, Wanted, name_in
from corpus.sources import Split
from corpus.splits import DIALOGUES_SET_ASIDE, STORIES_SET_ASIDE, validation_texts
from corpus.stories import holds_story
from corpus.token_cache import cache_dialogues, cache_stories
from data import Rows, Tokenizer
from model import Transformer
from training.step import evaluate


def holds_dialogues(split: Split, column: str) -> bool:
    """Return whether a split contains dialogues: whether its first readable row is not a story."""
    wanted = Wanted(lambda value: holds_story(value, column) or holds_dialogue(value))
    first = next((row for row, _ in split.rows(wanted, Notes()) if not isinstance(row, UserError)), None)
    return not isinstance(first, str) and (not isinstance(first, dict) or name_in(first, column) is None)


def held_out_scores(
    model: Transformer, tokenizer: Tokenizer, splits: dict[str, Split], args: argparse.Namespace, dialogues: bool,
    precision: Precision,
) -> dict:  # fmt: skip
    """Return {"loss", "perplexity", "bits_per_byte"} on the validation texts, computed as the trainers do."""
    length = model.config.max_seq_len
    how = settings_from(args, ReadingFlags)

    def read(split, limit):
        if dialogues:
            return cache_dialogues(split, tokenizer, args.cache_dir, length, how, limit)
        return cache_stories(split, tokenizer, args.cache_dir, how, limit)

    set_aside = DIALOGUES_SET_ASIDE if dialogues else STORIES_SET_ASIDE
    cache = validation_texts(splits, read, args.max_eval_samples, set_aside)
    rows = Rows(cache, length, tokenizer.special, packed=not dialogues, replies_only=dialogues)
    result = evaluate(model, rows, precision)
    return {"loss": result["val_loss"], "perplexity": result["perplexity"], "bits_per_byte": result["bits_per_byte"]}
