"""A scaling law for the losses of models, L(N, D) = E + A / N^alpha + B / D^beta, and its fit (Hoffmann et al. 2022).

N: parameters.  D: training tokens.  C = 6 N D: compute, in operations.
"""

import itertools
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F

DELTA = 1e-3  # of the Huber loss, as in Hoffmann et al.
LARGEST_EXPONENT = 2.0  # of alpha and beta; Hoffmann et al. start from 0 to 2
STARTS = (0.3, 0.8)  # of alpha and of beta


class Result(NamedTuple):
    """The result of a run.  size: layers x width.  loss: the final validation loss, in nats per token."""

    size: str
    parameters: int
    tokens: int
    loss: float
    epochs: float = 0.0

    @property
    def compute(self) -> float:
        """C, in operations."""
        return 6 * self.parameters * self.tokens


class Fit(NamedTuple):
    """The law L(N, D) = E + A / N^alpha + B / D^beta."""

    E: float
    A: float
    alpha: float
    B: float
    beta: float


def predicted_loss(fit: Fit, parameters: float, tokens: float) -> float:
    """Return the loss that the law predicts, in nats per token, for this many parameters and training tokens."""
    return fit.E + fit.A / parameters**fit.alpha + fit.B / tokens**fit.beta


def fit_law(results: list[Result]) -> Fit:
    """Fit the law by approach 3 of Hoffmann et al.: minimize the Huber loss of the log losses with L-BFGS.

    L-BFGS starts from a grid of alpha and beta; for each pair, least squares find the E, A and B to start from.
    """
    columns = [(math.log(run.parameters), math.log(run.tokens), math.log(run.loss)) for run in results]
    log_n, log_d, log_loss = torch.tensor(columns, dtype=torch.float64).T  # each (runs,)
    n = log_n - log_n.mean()  # centred, A and B hardly depend on alpha and beta: L-BFGS needs fewer steps
    d = log_d - log_d.mean()

    def objective(x: torch.Tensor) -> torch.Tensor:
        """Compute the objective of x (5,): log E, log A, log B, and logits of alpha and beta / `LARGEST_EXPONENT`."""
        alpha, beta = LARGEST_EXPONENT * x[3:].sigmoid()
        terms = torch.stack((x[0].expand_as(n), x[1] - alpha * n, x[2] - beta * d))  # (3, runs), as logarithms
        return F.huber_loss(terms.logsumexp(0), log_loss, delta=DELTA, reduction="sum") / DELTA**2

    found = []  # (value, x)
    for alpha, beta in itertools.product(STARTS, repeat=2):
        terms = torch.stack((torch.ones_like(n), (-alpha * n).exp(), (-beta * d).exp()), dim=1)  # (runs, 3)
        factors = torch.linalg.lstsq(terms, log_loss.exp()[:, None]).solution[:, 0]
        exponents = torch.tensor([alpha, beta], dtype=torch.float64) / LARGEST_EXPONENT
        x = torch.cat((factors.clamp(min=0.01).log(), exponents.logit())).requires_grad_()
        optimizer = torch.optim.LBFGS([x], max_iter=200, tolerance_change=1e-9, line_search_fn="strong_wolfe")

        def closure(x=x, optimizer=optimizer) -> torch.Tensor:
            optimizer.zero_grad()
            value = objective(x)
            value.backward()
            return value

        optimizer.step(closure)
        found.append((objective(x).item(), x.detach()))
    _, x = min((pair for pair in found if math.isfinite(pair[0])), key=lambda pair: pair[0])
    alpha, beta = (LARGEST_EXPONENT * x[3:].sigmoid()).tolist()
    log_a = x[1] + alpha * log_n.mean()
    log_b = x[2] + beta * log_d.mean()
    return Fit(math.exp(x[0]), math.exp(log_a), alpha, math.exp(log_b), beta)


def error_of(fit: Fit, run: Result) -> float:
    """Return the relative error of the law for a run; positive if the law is above the run's loss."""
    return predicted_loss(fit, run.parameters, run.tokens) / run.loss - 1


def root_mean_square(numbers: list[float]) -> float:
    return math.hypot(*numbers) / math.sqrt(len(numbers))


def leave_one_out_error(results: list[Result]) -> float:
    """Leave out one run after the other, and return the root mean square of the relative errors of the laws at it."""
    errors = []
    for number, run in enumerate(results):
        others = results[:number] + results[number + 1 :]
        errors.append(error_of(fit_law(others), run))
    return root_mean_square(errors)


def compute_optimal(fit: Fit, compute: float) -> tuple[float, float]:
    """Return (N, D) with the lowest loss for a compute of 6 N D operations (Hoffmann et al. 2022, equation 4)."""
    exponents = fit.alpha + fit.beta
    g = (fit.alpha * fit.A / (fit.beta * fit.B)) ** (1 / exponents)
    return g * (compute / 6) ** (fit.beta / exponents), (compute / 6) ** (fit.alpha / exponents) / g
