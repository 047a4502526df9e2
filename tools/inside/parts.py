"""The parts of a network that can be left out: a head, `2.3`, or a whole layer, `layer:1`.  Both count from 0.

A head is left out by replacing its output (before the output matrix of its layer) with zeros or with its mean over many
texts.  A layer is left out by replacing what it adds to the residual stream.
"""

import contextlib
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch

from common.errors import UserError
from inside.recording import hooked
from model import Block, Transformer


class Part(NamedTuple):
    """A head of a layer, or the whole layer if head is None."""

    layer: int
    head: int | None = None

    def __str__(self) -> str:
        return f"layer:{self.layer}" if self.head is None else f"{self.layer}.{self.head}"


def parts_of(model: Transformer) -> list[Part]:
    """Return all heads and all layers of a network."""
    layers = range(model.config.num_layers)
    heads = [Part(layer, head) for layer in layers for head in range(model.config.num_heads)]
    return heads + [Part(layer) for layer in layers]


def read_part(text: str, model: Transformer) -> Part:
    """Return the part that a --without flag names.  Raises UserError if the network has no such part."""
    found = re.fullmatch(r"(\d+)\.(\d+)|layer:(\d+)", text)
    part = None
    if found:
        layer, head, whole = found.groups()
        part = Part(int(whole)) if whole else Part(int(layer), int(head))
    if part not in parts_of(model):
        raise UserError(
            f"--without {text}: no such part; pass LAYER.HEAD, from 0.0 to {model.config.num_layers - 1}."
            f"{model.config.num_heads - 1}, or layer:LAYER, from layer:0 to layer:{model.config.num_layers - 1}"
        )
    return part


def columns_of(part: Part, model: Transformer) -> slice:
    """Return which numbers in the input of its layer's output matrix are from this head."""
    size = model.config.head_size
    return slice(part.head * size, (part.head + 1) * size)


@contextlib.contextmanager
def left_out(model: Transformer, part: Part, value: torch.Tensor | float = 0.0) -> Iterator[None]:
    """Leave a part out in the block: a number, or a vector (D) for a head and (C) for a layer, replaces its output."""
    block = model.blocks[part.layer]
    if part.head is None:

        def replace_layer(module: Block, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
            return inputs[0] + torch.as_tensor(value).to(inputs[0])

        handle = block.register_forward_hook(replace_layer)
    else:
        columns = columns_of(part, model)

        def replace_head(module: torch.nn.Linear, inputs: tuple) -> tuple:
            heads = inputs[0].clone()  # (B, T, C), all heads side by side
            heads[..., columns] = value
            return (heads,)

        handle = block.attention.output.register_forward_pre_hook(replace_head)
    with hooked(handle):
        yield


@contextlib.contextmanager
def all_left_out(model: Transformer, parts: Iterable[Part]) -> Iterator[None]:
    """Leave several parts out in the block, by zero."""
    with contextlib.ExitStack() as stack:
        for part in parts:
            stack.enter_context(left_out(model, part))
        yield


@torch.no_grad()
def zero_out(model: Transformer, parts: Iterable[Part]) -> None:
    """Set weights to zero, for good, so that the network computes the same as with these parts left out by zero."""
    for part in parts:
        block = model.blocks[part.layer]
        if part.head is not None:
            block.attention.output.weight[:, columns_of(part, model)] = 0
            continue
        for linear in (block.attention.output, block.feed_forward.down):
            for parameter in linear.parameters():
                parameter.zero_()
