"""LoRA: tune a model with small matrices that are added to its own; its own do not change (Hu et al. 2021).

Each matrix W (out, in) gets A (rank, in) and B (out, rank): y = W x becomes y = W x + s B A x, with s = alpha / rank.
Only A and B are trained.  B starts at zero, so the tuned model starts equal to the original one.  W + s B A has the
shape of W, so a saved model looks like any other.  In reading order: `Adapted`, one matrix; `add_adapters`;
`merged_weights` and `merge`, the way back.
"""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F

from common.errors import UserError
from model import Transformer

ALPHA = 32  # with alpha / rank, the best learning rate hardly depends on the rank
LEARNING_RATE = 5e-3  # ten times that of a whole model


class Adapted(nn.Module):
    """A linear layer and its low-rank adapter."""

    def __init__(self, linear: nn.Linear, rank: int):
        super().__init__()
        self.linear = linear
        self.scale = ALPHA / rank
        device = linear.weight.device
        self.down = nn.Parameter(torch.empty(rank, linear.in_features, device=device))  # A
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank, device=device))  # B
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (..., in) -> (..., out)."""
        return self.linear(x) + F.linear(F.linear(x, self.down), self.up) * self.scale

    def weight(self) -> torch.Tensor:
        """Return layer and adapter as one matrix (out, in)."""
        return self.linear.weight + self.up @ self.down * self.scale


def add_adapters(model: Transformer, rank: int) -> tuple[int, int]:
    """Add an adapter to each matrix in a model's blocks, and freeze everything else.

    Returns (weights of the adapters, the model's own weights).  Raises UserError if the rank is larger than that of the
    smallest matrix.
    """
    _, in_all = model.num_parameters()
    linears = [module for module in model.blocks.modules() if isinstance(module, nn.Linear)]
    smallest = min(min(linear.weight.shape) for linear in linears)
    if rank > smallest:
        raise UserError(
            f"--lora_rank {rank} is too high: the rank of the model's smallest matrix is {smallest}; pass a lower one"
        )
    model.requires_grad_(False)
    for parent in list(model.blocks.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                setattr(parent, name, Adapted(child, rank))
    return sum(p.numel() for p in model.parameters() if p.requires_grad), in_all


def merged_weights(model: Transformer) -> dict[str, torch.Tensor]:
    """Return a model's weights with its adapters merged, under the usual names; without adapters, unchanged."""
    weights = model.state_dict()
    for path, module in model.named_modules():
        if isinstance(module, Adapted):
            for name in ("down", "up", "linear.weight"):
                del weights[f"{path}.{name}"]
            if f"{path}.linear.bias" in weights:
                weights[f"{path}.bias"] = weights.pop(f"{path}.linear.bias")
            weights[f"{path}.weight"] = module.weight().detach()
    return weights


def merge(model: Transformer) -> None:
    """Turn an adapted model back into an ordinary one that computes the same."""
    weights = merged_weights(model)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Adapted):
                setattr(parent, name, child.linear)
    model.load_state_dict(weights)
