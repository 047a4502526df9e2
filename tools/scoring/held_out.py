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


def held_out_rows(
    context: int, tokenizer: Tokenizer, splits: dict[str, Split], args: argparse.Namespace, dialogues: bool
) -> Rows:
    """Return the validation texts as rows for a model with this context, as the trainers make them."""
    how = settings_from(args, ReadingFlags)

    def read(split, limit):
        if dialogues:
            return cache_dialogues(split, tokenizer, args.cache_dir, context, how, limit)
        return cache_stories(split, tokenizer, args.cache_dir, how, limit)

    set_aside = DIALOGUES_SET_ASIDE if dialogues else STORIES_SET_ASIDE
    cache = validation_texts(splits, read, args.max_eval_samples, set_aside)
    return Rows(cache, context, tokenizer.special, packed=not dialogues, replies_only=dialogues)


def held_out_scores(
    model: Transformer, tokenizer: Tokenizer, splits: dict[str, Split], args: argparse.Namespace, dialogues: bool,
    precision: Precision,
) -> dict:  # fmt: skip
    """Return {"loss", "perplexity", "bits_per_byte"} on the validation texts, computed as the trainers do."""
    rows = held_out_rows(model.config.max_seq_len, tokenizer, splits, args, dialogues)
    result = evaluate(model, rows, precision)
    return {"loss": result["val_loss"], "perplexity": result["perplexity"], "bits_per_byte": result["bits_per_byte"]}
