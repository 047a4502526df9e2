"""How weights are updated: AdamW, Muon, and the schedule of the learning rate."""

import math

import torch

from common.devices import has_bfloat16
from model import Transformer
from training.settings import TrainingSettings


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal, for the matrices inside a network (Jordan et al. 2024).

    Each update has the size that AdamW's would have (Liu et al. 2025), so that one learning rate and one decay serve
    both.  Groups: params, all matrices, and parts: into how many matrices, one above the other, each is cut.
    """

    def __init__(self, groups: list[dict], lr: float, momentum: float = 0.95, weight_decay: float = 0.1):
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "parts": 1})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is not None:
                    self.update(matrix, group)

    def update(self, matrix: torch.Tensor, group: dict) -> None:
        state = self.state[matrix]
        if "average" not in state:
            state["average"] = torch.zeros_like(matrix)
        average = state["average"]
        average.lerp_(matrix.grad, 1 - group["momentum"])
        update = matrix.grad.lerp(average, group["momentum"])  # Nesterov's
        parts = update.unflatten(0, (group["parts"], -1))  # (parts, rows, columns)
        scale = 0.2 * math.sqrt(max(parts.shape[1:]))
        matrix.mul_(1 - group["lr"] * group["weight_decay"])
        matrix.add_(orthogonal(parts).flatten(0, 1), alpha=-group["lr"] * scale)


def orthogonal(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Bring the singular values of matrices (..., M, N) near 1 with a Newton-Schulz iteration.

    In bfloat16 where the device has units for it; elsewhere in float32, which is faster than emulating it.
    """
    is_tall = matrices.size(-2) > matrices.size(-1)
    x = matrices.transpose(-1, -2) if is_tall else matrices  # the smaller product of x with itself
    if has_bfloat16(x.device):
        x = x.bfloat16()
    x = x / (torch.linalg.vector_norm(x, dim=(-1, -2), keepdim=True) + 1e-7)
    for _ in range(steps):
        square = x @ x.transpose(-1, -2)
        x = 3.4445 * x + (-4.775 * square + 2.0315 * square @ square) @ x  # Jordan et al.'s coefficients
    if is_tall:
        x = x.transpose(-1, -2)
    return x.type_as(matrices)


def make_optimizers(model: Transformer, settings: TrainingSettings) -> list[torch.optim.Optimizer]:
    """AdamW (Loshchilov and Hutter 2019), with decay on matrices only; with --optimizer muon, for the rest beside Muon.

    Fused products (queries, keys and values; the gate and values of a feed-forward layer) count as several matrices.
    """
    optimizers = []
    taken = set()
    if settings.optimizer == "muon":
        matrices = model.matrices_inside()  # {parts: matrices}
        groups = [{"params": matrices[parts], "parts": parts} for parts in sorted(matrices)]
        optimizers.append(Muon(groups, settings.lr, weight_decay=settings.weight_decay))
        taken = {matrix for group in groups for matrix in group["params"]}
    others = [parameter for parameter in model.parameters() if parameter.requires_grad and parameter not in taken]
    groups = [
        {"params": [p for p in others if p.dim() >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in others if p.dim() < 2], "weight_decay": 0.0},
    ]
    betas = (settings.adam_beta1, settings.adam_beta2)
    fused = others[0].device.type in ("cpu", "cuda")
    return [*optimizers, torch.optim.AdamW(groups, lr=settings.lr, betas=betas, fused=fused)]


def learning_rate(step: int, total_steps: int, settings: TrainingSettings) -> float:
    """The rate of step 0, 1, ..., total_steps - 1: a linear warm-up, then down to min_lr by cosine or linearly."""
    warmup = settings.warmup_steps
    if warmup is None:
        warmup = min(1000, round(0.02 * total_steps))
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    done = (step - warmup) / max(1, total_steps - warmup)  # from 0 to 1
    left = 0.5 * (1 + math.cos(math.pi * done)) if settings.scheduler == "cosine" else 1 - done
    return settings.min_lr + (settings.lr - settings.min_lr) * left


def set_learning_rate(optimizers: list[torch.optim.Optimizer], rate: float) -> None:
    """Let the next step of all optimizers take this rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
