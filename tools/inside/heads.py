"""What each attention head does, measured: how much of its attention goes where five simple kinds of head look.

For each story, the network reads `<bos> story story`.  In the second copy, it is known where each token stood before:
n tokens earlier.  There, four numbers are averaged over the tokens (after Olsson et al. 2022, "In-context Learning and
Induction Heads"): the attention to

    previous token    the token before
    first token       <bos>; a head that has nothing to do rests there (Xiao et al. 2023, "attention sinks")
    same token        the same token in the first copy
    induction         the token after it in the first copy: what followed this token before

The fifth comes from the first copy, where it is an ordinary story:

    name copying      before a name that the story had before: the attention to the places where it stood
"""

from collections.abc import Iterable

import torch

from inside.recording import record
from inside.stories import Story
from model import Transformer

KINDS = ("previous token", "first token", "same token", "induction", "name copying")
ENOUGH = 0.3  # a head is labelled if this much of its attention goes there; by chance it would be 1/T


def head_scores(model: Transformer, stories: Iterable[Story]) -> dict[str, torch.Tensor]:
    """Return {kind: (L, H) mean attention, from 0 to 1}; without a repeated name, name copying is NaN."""
    shape = (model.config.num_layers, model.config.num_heads)
    sums = {kind: torch.zeros(shape) for kind in KINDS}
    counts = dict.fromkeys(KINDS, 0)
    for story in stories:
        n = min(len(story.ids) - 1, (model.config.max_seq_len - 1) // 2)
        first_copy = story.ids[1 : n + 1]
        attention = record(model, [story.ids[0], *first_copy, *first_copy]).attention  # (L, H, 2n + 1, 2n + 1)
        here = torch.arange(n + 1, 2 * n + 1)  # the positions of the second copy
        there = {
            "previous token": here - 1, "first token": torch.zeros_like(here), "same token": here - n,
            "induction": here - n + 1,
        }  # fmt: skip
        for kind, place in there.items():
            sums[kind] += attention[:, :, here, place].sum(-1)
            counts[kind] += n
        for place, earlier in story.repeated_names.items():
            if place <= n:
                sums["name copying"] += attention[:, :, place - 1, earlier].sum(-1)
                counts["name copying"] += 1
    return {kind: sums[kind] / counts[kind] if counts[kind] else sums[kind] * torch.nan for kind in KINDS}


def label_of(scores: dict[str, float]) -> str | None:
    """Return the kind of head with these scores, {kind: score}; None if none of them is high enough.

    Resting on the first token says least about a head, so another kind goes first.
    """
    enough = [kind for kind in KINDS if scores[kind] >= ENOUGH]
    telling = [kind for kind in enough if kind != "first token"]
    return max(telling or enough, key=scores.get, default=None)
