"""How weights are updated: AdamW, Muon, and the course of the learning rate."""

import math

import torch

from common.devices import has_bfloat16


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal, for the matrices inside a network (Jordan et al. 2024).

    Each update has the size that AdamW's would have (Liu et al. 2025), so that one learning rate and one decay serve
    both.  Groups: params, all matrices, and parts: into how many matrices, one above the other, each is cut.
    """

    def __init__(self, groups, lr, momentum=0.95, weight_decay=0.1):
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "parts": 1})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                if "average" not in self.state[matrix]:
                    self.state[matrix]["average"] = torch.zeros_like(matrix)
                average = self.state[matrix]["average"]
                average.lerp_(matrix.grad, 1 - group["momentum"])
                update = matrix.grad.lerp(average, group["momentum"])  # Nesterov's
                parts = update.unflatten(0, (group["parts"], -1))
                scale = 0.2 * math.sqrt(max(parts.shape[1:]))
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(orthogonal(parts).flatten(0, 1), alpha=-group["lr"] * scale)


def orthogonal(matrices, steps=5):
    """Bring the singular values of matrices (..., M, N) near 1 with a Newton-Schulz iteration.

    In bfloat16 where the device has units for it; elsewhere in float32, which is faster than emulating it.
    """
    x = matrices.transpose(-1, -2) if matrices.size(-2) > matrices.size(-1) else matrices
    if has_bfloat16(x.device):
        x = x.bfloat16()
    x = x / (torch.linalg.vector_norm(x, dim=(-1, -2), keepdim=True) + 1e-7)
    for _ in range(steps):
        square = x @ x.transpose(-1, -2)
        x = 3.4445 * x + (-4.775 * square + 2.0315 * square @ square) @ x
    return (x.transpose(-1, -2) if matrices.size(-2) > matrices.size(-1) else x).type_as(matrices)


def make_optimizers(model, settings):
    """AdamW (Loshchilov and Hutter 2019), with decay on matrices only; with --optimizer muon, for the rest beside Muon.

    Fused products (queries, keys and values; the gate and values of a feed-forward layer) count as several matrices.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    inside = [(name, p) for name, p in named if settings.optimizer == "muon" and "blocks." in name and p.dim() == 2]
    others = [p for name, p in named if not any(p is matrix for _, matrix in inside)]
    optimizers = []
    if inside:
        parts = lambda name: 3 if "qkv" in name else 2 if ".up." in name and model.config.mlp == "swiglu" else 1
        groups = [{"params": [p for name, p in inside if parts(name) == count], "parts": count} for count in (1, 2, 3)]
        groups = [group for group in groups if group["params"]]
        optimizers.append(Muon(groups, settings.lr, weight_decay=settings.weight_decay))
    groups = [
        {"params": [p for p in others if p.dim() >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in others if p.dim() < 2], "weight_decay": 0.0},
    ]
    betas, fused = (settings.adam_beta1, settings.adam_beta2), others[0].device.type in ("cpu", "cuda")
    return [*optimizers, torch.optim.AdamW(groups, lr=settings.lr, betas=betas, fused=fused)]


def learning_rate(step, total_steps, settings):
    """The rate of step 0, 1, ..., total_steps - 1: a linear warm-up, then down to min_lr by cosine or linearly."""
    warmup = min(1000, round(0.02 * total_steps)) if settings.warmup_steps is None else settings.warmup_steps
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    done = (step - warmup) / max(1, total_steps - warmup)
    left = 0.5 * (1 + math.cos(math.pi * done)) if settings.scheduler == "cosine" else 1 - done
    return settings.min_lr + (settings.lr - settings.min_lr) * left
