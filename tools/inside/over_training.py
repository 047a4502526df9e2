"""How a network changed while it was trained: the same measures for each of its models."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from common.devices import Precision
from inside.heads import KINDS, head_scores
from inside.stories import Batch, Story, batches_of
from model import IGNORED, Transformer

STORIES_FOR_HEADS = 20  # for each model


def compare(models: list[tuple[int, Transformer]], stories: list[Story], words: dict[str, int]) -> dict:
    """Return the content of the page's section "training" for models of the same shape, as (step, model).

    words: {a watched word: the id of its first token}.
    """
    first = models[0][1].tokens.weight.float()
    device = models[0][1].tokens.weight.device
    batches = list(batches_of(stories, device))
    precision = Precision(device, amp=None)
    scores = [head_scores(model, stories[:STORIES_FOR_HEADS]) for _, model in models]
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
    """Return mean losses in nats: over all tokens, over names that come again, and over each watched word."""
    watched: dict[str, Callable[[Batch], torch.Tensor]] = {
        "all tokens": lambda batch: batch.targets != IGNORED,
        "names that come again": lambda batch: batch.is_name,
    }
    for word, token in words.items():
        watched[word] = lambda batch, token=token: batch.targets == token
    sums = dict.fromkeys(watched, 0.0)
    counts = dict.fromkeys(watched, 0)
    for batch in batches:
        with precision.autocast():
            logits = model(batch.ids)
        losses = F.cross_entropy(logits.float().transpose(1, 2), batch.targets, ignore_index=IGNORED, reduction="none")
        for name, places_in in watched.items():
            places = places_in(batch)
            sums[name] += losses[places].sum().item()
            counts[name] += places.sum().item()
    return {name: sums[name] / counts[name] if counts[name] else float("nan") for name in watched}
