"""How much each head and each layer matters: the rise of the loss when it is left out.

A part is left out in two ways.  Zero removes its output; the layers above have never seen that, so the loss may rise
for this reason alone.  The mean of its output over many texts removes only what depends on the text.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F

from common.devices import Precision
from inside.parts import Part, columns_of, left_out, parts_of
from inside.recording import hooked
from inside.stories import Batch
from model import IGNORED, Transformer

LOGITS_ROWS = 2048  # positions whose logits are computed at a time


class Losses(NamedTuple):
    """Losses of a network on all batches, in nats per token: over all tokens, and over repeated names (NaN: none)."""

    all: float
    names: float


class Rise(NamedTuple):
    """How much the loss rises without a part, in nats per token, if zeros or the mean replace its output."""

    part: Part
    zero: Losses
    mean: Losses


@torch.no_grad()
def ablate(model: Transformer, batches: list[Batch], precision: Precision) -> tuple[Losses, list[Rise]]:
    """Return the network's losses, and for each head and layer the rise without it; the largest rise by zero first."""
    parts = parts_of(model)
    with precision.autocast():
        means = mean_outputs(model, batches)
        whole = torch.zeros(2, dtype=torch.double)  # summed losses: all tokens, repeated names
        sums = {part: torch.zeros(2, 2, dtype=torch.double) for part in parts}  # rows: zero, mean
        counts = torch.zeros(2)
        for batch in batches:
            states, others, logits_input = inputs_of_blocks(model, batch)
            whole += summed_losses(model, logits_input, batch)
            counts += torch.tensor([(batch.targets != IGNORED).sum(), batch.is_name.sum()])
            for part in parts:
                for row, value in enumerate((0.0, means[part])):
                    x = states[part.layer]  # what comes before the part stays the same
                    with left_out(model, part, value):
                        for block in model.blocks[part.layer :]:
                            x = block(x, *others)
                    sums[part][row] += summed_losses(model, model.norm(x), batch)
    base = whole / counts
    rises = [Rise(part, *(Losses(*row) for row in (sums[part] / counts - base).tolist())) for part in parts]
    return Losses(*base.tolist()), sorted(rises, key=lambda rise: -rise.zero.all)


def inputs_of_blocks(model: Transformer, batch: Batch) -> tuple[list[torch.Tensor], tuple, torch.Tensor]:
    """Run the network; return (the first argument of each block, the other arguments, the input of the head)."""
    seen = []

    def keep(block, inputs):
        seen.append(inputs)

    with hooked(*(block.register_forward_pre_hook(keep) for block in model.blocks)):
        hidden = model.hidden(batch.ids)
    return [inputs[0] for inputs in seen], seen[0][1:], hidden


def outputs_of_parts(model: Transformer, batch: Batch) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Run the network; return for each layer (the heads' outputs side by side, what the layer adds), each (B, T, C)."""
    heads = []
    added = []

    def keep_heads(module, inputs):
        heads.append(inputs[0])

    def keep_added(module, inputs, output):
        added.append(output - inputs[0])

    handles = []
    for block in model.blocks:
        handles.append(block.attention.output.register_forward_pre_hook(keep_heads))
        handles.append(block.register_forward_hook(keep_added))
    with hooked(*handles):
        model.hidden(batch.ids)
    return heads, added


def mean_outputs(model: Transformer, batches: list[Batch]) -> dict[Part, torch.Tensor]:
    """Return the mean output of each part over all tokens: (D) for a head, (C) for what a layer adds."""
    shape = (model.config.num_layers, model.config.hidden_size)
    of_heads = torch.zeros(shape, device=model.tokens.weight.device)
    of_layers = torch.zeros_like(of_heads)
    tokens = 0
    for batch in batches:
        counted = batch.targets != IGNORED
        tokens += counted.sum()
        heads, added = outputs_of_parts(model, batch)
        of_heads += torch.stack([output[counted].float().sum(0) for output in heads])
        of_layers += torch.stack([output[counted].float().sum(0) for output in added])
    means = {}
    for part in parts_of(model):
        if part.head is None:
            means[part] = of_layers[part.layer] / tokens
        else:
            means[part] = of_heads[part.layer, columns_of(part, model)] / tokens
    return means


def summed_losses(model: Transformer, hidden: torch.Tensor, batch: Batch) -> torch.Tensor:
    """hidden (B, T, C), the input of the head -> (2): the losses summed over all tokens, and over repeated names."""
    counted = batch.targets != IGNORED
    targets = batch.targets[counted]
    names = batch.is_name[counted]
    sums = torch.zeros(2, dtype=torch.double)
    pieces = zip(hidden[counted].split(LOGITS_ROWS), targets.split(LOGITS_ROWS), names.split(LOGITS_ROWS), strict=True)
    for x, target, is_name in pieces:
        losses = F.cross_entropy(model.logits(x).float(), target, reduction="none")
        sums += torch.stack([losses.sum(), losses[is_name].sum()]).double().cpu()
    return sums
