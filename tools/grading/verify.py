"""Is the validation loss that a run claims the one of its best_model.pth?  Computed again, on the same texts."""

import torch

from common.console import silence
from common.devices import Precision
from common.errors import UserError
from common.weights_files import load_model
from corpus.sources import open_dataset
from corpus.splits import DIALOGUES_SET_ASIDE, STORIES_SET_ASIDE, training_and_validation
from corpus.token_cache import cache_dialogues, cache_stories
from data import Rows, load_tokenizer
from grading.edited_records import first_row, number, problem, program, question
from training.step import evaluate

TOLERANCE = 0.005  # nats a token; half precision, in which a run may have evaluated, moved it by less than 0.001


def verified(run, args):
    """Flags about one run: none if its loss is the one that it claims.  args: the flags of grade_runs.py."""
    kind = program(run)
    dataset = {"story": args.dataset, "chat": args.chat_dataset}.get(kind)
    path, model = run.paths.get("best_model.pth"), run.models.get("best_model.pth")
    if not dataset or not model:
        return []
    try:
        tokenizer = load_tokenizer(str(run.paths.get("tokenizer", args.tokenizer_path)))
        with silence():  # of many runs at once nobody reads how each was opened
            network, _ = load_model(path, tokenizer)
            cache = validation_texts(
                dataset, kind, tokenizer, args.cache_dir, network.config.max_seq_len, run.args or {}
            )
    except UserError as error:
        return [question(f"its validation loss could not be computed again: {error}")]
    data = first_row(run).get("fingerprints", {}).get("data")
    if isinstance(data, list) and data[1:] != [cache.fingerprint()]:
        held = data[1][0] if len(data) > 1 and isinstance(data[1], list) and data[1] else "unknown"
        text = f"it was evaluated on {held} texts, {dataset} has {len(cache):,}, or others"
        return [question(f"its validation loss could not be computed again: {text}")]
    is_chat, length = kind == "chat", network.config.max_seq_len
    rows = Rows(cache, length, tokenizer.special, packed=not is_chat, replies_only=is_chat)
    loss = evaluate(network, rows, Precision(torch.device("cpu"), amp=False))["val_loss"]
    claimed = number((run.summary or {}).get("best_val_loss")) or model.val_loss
    if claimed is None or abs(loss - claimed) > TOLERANCE:
        said = "none" if claimed is None else f"{claimed:.4f}"
        return [problem(f"best_model.pth has the validation loss {loss:.4f}, computed again, and {said} is claimed")]
    return []


def validation_texts(dataset, kind, tokenizer, cache_dir, context, flags):
    """The token cache of the texts that a run with these flags is evaluated on."""
    skip = bool(flags.get("skip_bad_rows"))
    if kind == "chat":
        read = lambda split, limit: cache_dialogues(split, tokenizer, cache_dir, context, limit, skip)
    else:
        column = str(flags.get("text_column", "text"))
        read = lambda split, limit: cache_stories(split, tokenizer, cache_dir, column, limit, skip)
    splits, (train, evaluation) = open_dataset(dataset), (flags.get(f"max_{n}_samples") for n in ("train", "eval"))
    if "validation" in splits:
        return read(splits["validation"], evaluation)
    set_aside = DIALOGUES_SET_ASIDE if kind == "chat" else STORIES_SET_ASIDE
    return training_and_validation(splits, read, train, evaluation, set_aside)[1]
