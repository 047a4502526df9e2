"""How weights are updated: AdamW, Muon, and the schedule of the learning rate."""

import math
from collections import defaultdict
from collections.abc import Callable

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
        self.newton_schulz = newton_schulz

    def compile(self) -> None:
        """Let the compiler join the small kernels of an update."""
        self.newton_schulz = torch.compile(newton_schulz, dynamic=False)

    @torch.no_grad()
    def step(self, closure=None) -> None:
        """Update all matrices, those of one shape together: hundreds of small products would keep a GPU waiting."""
        for group in self.param_groups:
            of_one_shape = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    of_one_shape[matrix.shape].append(matrix)
            for matrices in of_one_shape.values():
                self.update(matrices, group)

    def update(self, matrices: list[torch.Tensor], group: dict) -> None:
        """Update matrices of one shape."""
        gradients = [matrix.grad for matrix in matrices]
        averages = [self.average(matrix) for matrix in matrices]
        torch._foreach_lerp_(averages, gradients, 1 - group["momentum"])
        updates = torch.stack(torch._foreach_lerp(gradients, averages, group["momentum"]))  # Nesterov's
        parts = updates.unflatten(1, (group["parts"], -1))  # (matrices, parts, rows, columns)
        scale = 0.2 * math.sqrt(max(parts.shape[2:]))
        updates = orthogonal(parts, self.newton_schulz).flatten(1, 2)
        torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(matrices, updates.unbind(), alpha=-group["lr"] * scale)

    def average(self, matrix: torch.Tensor) -> torch.Tensor:
        """The moving average of a matrix's gradients."""
        state = self.state[matrix]
        if "average" not in state:
            state["average"] = torch.zeros_like(matrix)
        return state["average"]


def orthogonal(matrices: torch.Tensor, iterate: Callable | None = None) -> torch.Tensor:
    """Bring the singular values of matrices (..., M, N) near 1.  iterate: `newton_schulz`, as it is or compiled.

    In bfloat16 where the device has units for it; elsewhere in float32, which is faster than emulating it.
    """
    is_tall = matrices.size(-2) > matrices.size(-1)
    x = matrices.transpose(-1, -2) if is_tall else matrices  # the smaller product of x with itself
    if has_bfloat16(x.device):
        x = x.bfloat16()
    x = (iterate or newton_schulz)(x)
    if is_tall:
        x = x.transpose(-1, -2)
    return x.type_as(matrices)


def newton_schulz(x: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Bring the singular values of x (..., M, N), M <= N, near 1 by products alone (Jordan et al. 2024)."""
    x = x / (torch.linalg.vector_norm(x, dim=(-1, -2), keepdim=True) + 1e-7)
    for _ in range(steps):
        square = x @ x.transpose(-1, -2)
        x = 3.4445 * x + (-4.775 * square + 2.0315 * square @ square) @ x  # Jordan et al.'s coefficients
    return x


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
