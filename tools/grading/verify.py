"""Recompute the validation loss of best_model.pth on the same texts, and compare it with the one in the records."""

import re
from argparse import Namespace
from collections.abc import Iterator

import torch

from common.console import silence
from common.devices import Precision
from common.errors import UserError, one_line
from common.numbers import finite_number
from common.weights_files import load_model
from corpus.notes import ReadingFlags
from corpus.sources import Split, open_dataset
from corpus.splits import DIALOGUES_SET_ASIDE, STORIES_SET_ASIDE, training_and_validation
from corpus.token_cache import TokenCache, cache_dialogues, cache_stories
from data import Rows, Tokenizer, load_tokenizer
from grading.facts import kind_of
from grading.findings import Flag, problem, question
from grading.submissions import Submission
from grading.unpacking import TOKENIZER
from training.step import evaluate

NOT_RECOMPUTED = "the validation loss could not be recomputed"
TOLERANCE = 0.005  # nats per token; evaluating in half precision, as a run may do, changed it by less than 0.001


def verified(run: Submission, args: Namespace) -> Iterator[Flag]:
    """Yield findings about the claimed loss.  args: the flags of grade_runs.py."""
    kind = kind_of(run)
    is_chat = kind in ("chat", "rewards")
    dataset = args.chat_dataset if is_chat else args.dataset
    if kind is None or not dataset or "best_model.pth" not in run.models:
        return
    try:
        tokenizer = load_tokenizer(run.paths.get(TOKENIZER, args.tokenizer_path))
        with silence():  # for many runs, the messages about loading would be too many
            network, _ = load_model(run.paths["best_model.pth"], tokenizer)
            length = network.config.max_seq_len
            texts = validation_texts(dataset, is_chat, tokenizer, args.cache_dir, length, run.args or {})
    except UserError as error:
        reason, *_ = re.split("(?:;|, or) pass --", str(error))  # without advice about flags of the trainers
        other_network = "do not match its config" in reason
        for_student = f"{NOT_RECOMPUTED}: best_model.pth does not fit the course's model.py"
        yield question(f"{NOT_RECOMPUTED}: {reason}", for_student if other_network else NOT_RECOMPUTED)
        return
    data = run.first_row.get("fingerprints", {}).get("data")
    if isinstance(data, list) and data[1:] != [texts.fingerprint()]:  # training texts, validation texts
        is_known = len(data) > 1 and isinstance(data[1], list) and data[1]
        count = one_line(data[1][0]) if is_known else "unknown"
        text = f"the run was evaluated on {count} texts, which are not the {len(texts):,} validation texts of {dataset}"
        yield question(f"{NOT_RECOMPUTED}: {text}", f"{NOT_RECOMPUTED}: the run was evaluated on other texts")
        return
    rows = Rows(texts, length, tokenizer.special, packed=not is_chat, replies_only=is_chat)
    loss = evaluate(network, rows, Precision(torch.device("cpu")))["val_loss"]
    claimed = finite_number((run.summary or {}).get("best_val_loss")) or run.models["best_model.pth"].val_loss
    if claimed is None or abs(loss - claimed) > TOLERANCE:
        said = "none" if claimed is None else f"{claimed:.4f}"
        yield problem(f"best_model.pth: the recomputed validation loss is {loss:.4f}, but the run claims {said}")


def validation_texts(
    dataset: str, is_chat: bool, tokenizer: Tokenizer, cache_dir: str, context: int, flags: dict
) -> TokenCache:
    """Read the validation texts of a run with these flags."""
    how = reading_flags(flags)

    def read(split: Split, limit: int | None) -> TokenCache:
        if is_chat:
            return cache_dialogues(split, tokenizer, cache_dir, context, how, limit)
        return cache_stories(split, tokenizer, cache_dir, how, limit)

    splits = open_dataset(dataset)
    most = flags.get("max_eval_samples")
    if "validation" in splits:  # then the training texts need not be read
        return read(splits["validation"], most)
    set_aside = DIALOGUES_SET_ASIDE if is_chat else STORIES_SET_ASIDE
    _, held_out = training_and_validation(splits, read, flags.get("max_train_samples"), most, set_aside)
    return held_out


def reading_flags(flags: dict) -> ReadingFlags:
    """Return how a run read its files.  flags: from args.json; values of the wrong type are ignored."""
    how = ReadingFlags()
    for name, default in vars(how).items():
        if isinstance(flags.get(name), str if default is None else type(default)):
            setattr(how, name, flags[name])
    return how
