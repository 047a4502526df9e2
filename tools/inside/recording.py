"""Record what a network computes for one text: attention, the residual stream, and what each layer would predict.

The network has no code for this.  PyTorch's hooks call a function of ours before or after a module computes, with
what goes in and what comes out.  In the comments, T is the number of tokens, L the number of layers, H the number of
heads in a layer, C the hidden size, V the size of the vocabulary.
"""

import contextlib
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch

from model import Attention, Transformer, rotate


class Recording(NamedTuple):
    """What a network computed for one row of T tokens, in float32 on the CPU."""

    attention: torch.Tensor  # (L, H, T, T): how much each token (row) attends to each token (column)
    states: torch.Tensor  # (L + 1, T, C): the residual stream before the first layer, and after each layer
    logits: torch.Tensor  # (T, V)


@contextlib.contextmanager
def hooked(*handles) -> Iterator[None]:
    """Remove hooks when the block ends.  handles: what `register_forward_hook` and the like return."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def record(model: Transformer, ids: list[int]) -> Recording:
    """Run a network, in evaluation mode, on one row of ids and record what it computes."""
    attention = []
    states = []

    def keep_attention(module, inputs):
        attention.append(attention_weights(module, *inputs)[0])

    def keep_state(module, inputs, output):
        if not states:
            states.append(inputs[0][0])
        states.append(output[0])

    handles = []
    for block in model.blocks:
        handles.append(block.attention.register_forward_pre_hook(keep_attention))
        handles.append(block.register_forward_hook(keep_state))
    with hooked(*handles):
        logits = model(torch.tensor([ids], device=model.tokens.weight.device))[0]
    return Recording(torch.stack(attention).float().cpu(), torch.stack(states).float().cpu(), logits.float().cpu())


def attention_weights(
    attention: Attention, x: torch.Tensor, rotary=None, mask: torch.Tensor | None = None, cache=None
) -> torch.Tensor:  # fmt: skip
    """x (B, T, C) -> (B, H, T, T): the weights with which the network adds up values; the rows sum to 1.

    `Attention.forward` computes them inside a kernel that does not return them, so they are computed again here.  The
    arguments are those of `Attention.forward`; cache must be None.
    """
    B, T, _ = x.shape
    q, k, _ = attention.qkv(x).chunk(3, dim=-1)  # each (B, T, C)
    q = q.view(B, T, attention.num_heads, -1).transpose(1, 2)  # (B, H, T, D)
    k = k.view(B, T, attention.num_heads, -1).transpose(1, 2)
    if rotary is not None:
        q = rotate(q, *rotary)
        k = rotate(k, *rotary)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.size(-1))  # (B, H, T, T)
    if mask is None:
        mask = torch.ones(T, T, dtype=torch.bool, device=x.device).tril()
    return scores.masked_fill(~mask, -torch.inf).softmax(-1)


@torch.no_grad()
def logit_lens(model: Transformer, states: torch.Tensor) -> torch.Tensor:
    """states (..., T, C) -> logits (..., T, V): what the network would predict if it ended after these layers.

    The last norm and the head are applied to the states (nostalgebraist 2020, "interpreting GPT: the logit lens").
    For the last layer, this is the network's own prediction.
    """
    states = states.to(model.tokens.weight)
    return model.logits(model.norm(states)).float().cpu()
