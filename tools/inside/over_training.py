"""How a network changed while it was trained: the same measures for each of its models."""

import torch

from common.devices import Precision
from inside.ablation import run, token_losses
from inside.heads import KINDS, head_scores
from inside.stories import Batch, Story, batches_of
from model import IGNORED, Transformer

STORIES_FOR_EACH_MODEL = 20  # to measure the heads


def compare(models: list[tuple[int, Transformer]], stories: list[Story], words: dict[str, int]) -> dict:
    """Return the content of the page's section "training" for models of the same shape, as (step, model).

    words: {a watched word: the id of its first token}.
    """
    first = models[0][1].tokens.weight.float()
    batches = list(batches_of(stories, first.device))
    precision = Precision(first.device, amp=None)
    scores = [head_scores(model, stories[:STORIES_FOR_EACH_MODEL]) for _, model in models]
    losses = [watched_losses(model, batches, words, precision) for _, model in models]
    config = models[0][1].config
    heads = {}
    for layer in range(config.num_layers):
        for head in range(config.num_heads):
            heads[f"{layer}.{head}"] = {kind: [row[kind][layer, head].item() for row in scores] for kind in KINDS}
    return {
        "steps": [step for step, _ in models],
        "heads": heads,
        "losses": {name: [row[name] for row in losses] for name in losses[0]},
        "moved": [((model.tokens.weight.float() - first).norm() / first.norm()).item() for _, model in models],
    }


@torch.no_grad()
def watched_losses(
    model: Transformer, batches: list[Batch], words: dict[str, int], precision: Precision
) -> dict[str, float]:  # fmt: skip
    """Return mean losses in nats: over all tokens, names that come again, and each watched word (NaN: none)."""
    sums = {}
    counts = {}
    for batch in batches:
        with precision.autocast():
            losses = token_losses(model, run(model, batch).states[-1], batch)
        for name, is_watched in watched_places(batch, words).items():
            sums[name] = sums.get(name, 0.0) + losses[is_watched].sum().item()
            counts[name] = counts.get(name, 0) + is_watched.sum().item()
    return {name: sums[name] / counts[name] if counts[name] else float("nan") for name in sums}


def watched_places(batch: Batch, words: dict[str, int]) -> dict[str, torch.Tensor]:
    """Return {what is watched: which of the targets that are not IGNORED belong to it, as bool}."""
    counted = batch.targets != IGNORED
    targets = batch.targets[counted]
    places = {"all tokens": torch.ones_like(targets, dtype=torch.bool), "names that come again": batch.is_name[counted]}
    for word, token in words.items():
        places[word] = targets == token
    return places
