"""How much each head and each layer matters: the rise of the loss when it is left out.

A part is left out in two ways.  Zero removes its output; the layers above have never seen that, so the loss may rise
for this reason alone.  The mean of its output over many texts removes only what depends on the text.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F

from common.devices import Precision
from inside.parts import Part, columns_of, parts_of
from inside.recording import hooked
from inside.stories import Batch
from model import IGNORED, Transformer, chunk_rows


class Losses(NamedTuple):
    """Losses of a network on all batches, in nats per token: over all tokens, and over repeated names (NaN: none)."""

    all: float
    names: float


class Rise(NamedTuple):
    """How much the loss rises without a part, in nats per token, if zeros or the mean replace its output."""

    part: Part
    zero: Losses
    mean: Losses


class Forward(NamedTuple):
    """What a network computes for a batch; L is the number of layers."""

    states: list[torch.Tensor]  # L + 1 times (B, T, C): the input of each layer, and the output of the last
    heads: list[torch.Tensor]  # L times (B, T, C): the outputs of the heads, side by side
    others: tuple  # the other arguments of each layer: rotary positions, mask, cache


@torch.no_grad()
def ablate(model: Transformer, batches: list[Batch], precision: Precision) -> tuple[Losses, list[Rise]]:
    """Return the network's losses, and for each head and layer the rise without it; the largest rise by zero first."""
    parts = parts_of(model)
    with precision.autocast():
        means = mean_outputs(model, batches)
        whole = torch.zeros(2, dtype=torch.double)  # summed losses: all tokens, repeated names
        sums = {part: torch.zeros(2, 2, dtype=torch.double) for part in parts}  # rows: zero, mean
        counts = torch.zeros(2, dtype=torch.double)
        for batch in batches:
            forward = run(model, batch)
            whole += summed_losses(model, forward.states[-1], batch)
            counts += torch.tensor([(batch.targets != IGNORED).sum(), batch.is_name.sum()])
            for part in parts:
                sums[part][0] += summed_losses(model, run_without(model, forward, part, 0.0), batch)
                sums[part][1] += summed_losses(model, run_without(model, forward, part, means[part]), batch)
    base = whole / counts
    rises = []
    for part in parts:
        zero, mean = (sums[part] / counts - base).tolist()
        rises.append(Rise(part, Losses(*zero), Losses(*mean)))
    return Losses(*base.tolist()), sorted(rises, key=lambda rise: -rise.zero.all)


def run(model: Transformer, batch: Batch) -> Forward:
    """Run the network on a batch, and keep what `run_without` needs."""
    inputs_of_blocks = []
    heads = []
    outputs = []

    def keep_inputs(module, inputs):
        inputs_of_blocks.append(inputs)

    def keep_heads(module, inputs):
        heads.append(inputs[0])

    def keep_output(module, inputs, output):
        outputs.append(output)

    handles = [model.blocks[-1].register_forward_hook(keep_output)]
    for block in model.blocks:
        handles.append(block.register_forward_pre_hook(keep_inputs))
        handles.append(block.attention.output.register_forward_pre_hook(keep_heads))
    with hooked(*handles):
        model.hidden(batch.ids)
    states = [inputs[0] for inputs in inputs_of_blocks] + outputs
    return Forward(states, heads, inputs_of_blocks[0][1:])


def run_without(model: Transformer, forward: Forward, part: Part, value: torch.Tensor | float) -> torch.Tensor:
    """Return the output of the last layer (B, T, C) if value replaces a part's output.

    What comes before the part stays the same, so only the rest is computed again.
    """
    block = model.blocks[part.layer]
    x = forward.states[part.layer]
    if part.head is None:
        x = x + value
    else:
        heads = forward.heads[part.layer].clone()
        heads[..., columns_of(part, model)] = value
        x = x + block.attention.output(heads)
        x = x + block.feed_forward(block.norm2(x))  # as in `Block.forward`
    for later in model.blocks[part.layer + 1 :]:
        x = later(x, *forward.others)
    return x


def mean_outputs(model: Transformer, batches: list[Batch]) -> dict[Part, torch.Tensor]:
    """Return the mean output of each part over all tokens: (D) for a head, (C) for what a layer adds."""
    shape = (model.config.num_layers, model.config.hidden_size)
    of_heads = torch.zeros(shape, device=model.tokens.weight.device)
    of_layers = torch.zeros_like(of_heads)
    tokens = 0
    for batch in batches:
        counted = batch.targets != IGNORED
        tokens += counted.sum()
        forward = run(model, batch)
        of_heads += torch.stack([heads[counted].float().sum(0) for heads in forward.heads])
        states = torch.stack([state[counted].float().sum(0) for state in forward.states])
        of_layers += states[1:] - states[:-1]
    means = {}
    for part in parts_of(model):
        if part.head is None:
            means[part] = of_layers[part.layer] / tokens
        else:
            means[part] = of_heads[part.layer, columns_of(part, model)] / tokens
    return means


def summed_losses(model: Transformer, x: torch.Tensor, batch: Batch) -> torch.Tensor:
    """x (B, T, C), the output of the last layer -> (2): the losses summed over all tokens, and over repeated names."""
    losses = token_losses(model, x, batch)
    names = losses[batch.is_name[batch.targets != IGNORED]]
    return torch.stack([losses.sum(), names.sum()]).cpu().double()


def token_losses(model: Transformer, x: torch.Tensor, batch: Batch) -> torch.Tensor:
    """x (B, T, C), the output of the last layer -> the loss in nats of each target that is not IGNORED, in their order.

    Only a few logits exist at a time: those of a whole batch may be larger than the memory.
    """
    counted = batch.targets != IGNORED
    hidden = model.norm(x[counted])
    targets = batch.targets[counted]
    rows = chunk_rows(len(targets), model.config.vocab_size, on_cpu=hidden.device.type == "cpu")
    losses = []
    for some, target in zip(hidden.split(rows), targets.split(rows), strict=True):
        losses.append(F.cross_entropy(model.logits(some).float(), target, reduction="none"))
    return torch.cat(losses)
