"""How weights are updated: AdamW, Muon, and the learning-rate schedule."""

import math
from collections import defaultdict
from collections.abc import Callable

import torch

from common.devices import has_bfloat16
from model import Transformer
from training.settings import TrainingSettings


class Muon(torch.optim.Optimizer):
    """Momentum with orthogonal updates, for the matrices inside a network (Jordan et al. 2024).

    Each update is scaled to the size of AdamW's (Liu et al. 2025), so both can share one learning rate and one weight
    decay.  Each group has params, matrices only, and parts: how many stacked matrices each of them contains.
    """

    def __init__(self, groups: list[dict], lr: float, momentum: float = 0.95, weight_decay: float = 0.1):
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "parts": 1})
        self.newton_schulz = newton_schulz

    def compile(self) -> None:
        """Let the compiler fuse the small kernels of an update."""
        self.newton_schulz = torch.compile(newton_schulz, dynamic=False)

    @torch.no_grad()
    def step(self, closure=None) -> None:
        """Update all matrices, those of one shape together: hundreds of small products would leave a GPU idle."""
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
        updates = torch.stack(torch._foreach_lerp(gradients, averages, group["momentum"]))  # Nesterov momentum
        parts = updates.unflatten(1, (group["parts"], -1))  # (matrices, parts, rows, columns)
        # The entries of an orthogonal M x N matrix have a root mean square of 1 / sqrt(max(M, N)), AdamW's about 0.2.
        scale = 0.2 * math.sqrt(max(parts.shape[2:]))
        updates = orthogonal(parts, self.newton_schulz).flatten(1, 2)
        torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(matrices, updates.unbind(), alpha=-group["lr"] * scale)

    def average(self, matrix: torch.Tensor) -> torch.Tensor:
        """Return the moving average of a matrix's gradients."""
        state = self.state[matrix]
        if "average" not in state:
            state["average"] = torch.zeros_like(matrix)
        return state["average"]


def orthogonal(matrices: torch.Tensor, iterate: Callable | None = None) -> torch.Tensor:
    """Bring the singular values of matrices (..., M, N) close to 1.  iterate: `newton_schulz`, compiled or not.

    Uses bfloat16 if the device has units for it; otherwise float32, since emulating bfloat16 is slower.
    """
    is_tall = matrices.size(-2) > matrices.size(-1)
    x = matrices.transpose(-1, -2) if is_tall else matrices  # so that x times its transpose is the smaller product
    if has_bfloat16(x.device):
        x = x.bfloat16()
    x = (iterate or newton_schulz)(x)
    if is_tall:
        x = x.transpose(-1, -2)
    return x.type_as(matrices)


def newton_schulz(x: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Bring the singular values of x (..., M, N), M <= N, close to 1 with matrix products only (Jordan et al. 2024)."""
    x = x / (torch.linalg.vector_norm(x, dim=(-1, -2), keepdim=True) + 1e-7)
    for _ in range(steps):
        square = x @ x.transpose(-1, -2)
        x = 3.4445 * x + (-4.775 * square + 2.0315 * square @ square) @ x  # Jordan et al.'s coefficients
    return x


def make_optimizers(model: Transformer, settings: TrainingSettings) -> list[torch.optim.Optimizer]:
    """Return the optimizers: AdamW (Loshchilov and Hutter 2019), or Muon for inner matrices and AdamW for the rest.

    AdamW decays matrices only.  For Muon, fused matrices (queries, keys and values; the gate and values of a
    feed-forward layer) count as several.
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
    """Return the learning rate of step 0, 1, ..., total_steps - 1.

    It rises linearly during the warm-up, then falls along a cosine or a line.  It would be min_lr at step total_steps,
    one after the last.
    """
    # assignment: schedule, 5 points
    warmup = settings.warmup_steps
    if warmup is None:
        warmup = min(1000, round(0.02 * total_steps))
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    done = (step - warmup) / max(1, total_steps - warmup)  # from 0 to 1
    left = 1 - done
    if settings.scheduler == "cosine":
        left = 0.5 * (1 + math.cos(math.pi * done))
    return settings.min_lr + (settings.lr - settings.min_lr) * left


def set_learning_rate(optimizers: list[torch.optim.Optimizer], rate: float) -> None:
    """Set the learning rate of all optimizers."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
