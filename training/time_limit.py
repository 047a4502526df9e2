"""The number of steps of a run of --minutes.

It is set once, before the run's first step, by timing a few steps and throwing their results away.  From then on the
run is like any other: the learning-rate schedule covers a known number of steps, and a resumed run, which reads the
number from its checkpoint, ends with the same weights.

In reading order: `measure`, how long things take; `steps_that_fit`, the arithmetic.  A job is a `job.Job`.
"""

import copy
import time
from collections.abc import Iterator
from typing import NamedTuple

import torch

from common.numbers import ceil_div
from training.optimizer import set_learning_rate
from training.plan import EVALUATIONS
from training.step import evaluate, evaluating, evaluation_rows, training_step

MEASURING = 0.1  # share of the time, at most, for timing the steps, and the same for the evaluation
MOST_SECONDS = 15
MOST_EVALUATING = 0.1  # share of the time: if 20 evaluations take longer, there are fewer
SECONDS_TO_END = 3  # to save the last files, draw the curves and exit


class Times(NamedTuple):
    """Times in seconds, measured on rank 0."""

    step: float
    evaluation: float
    sample: float


# Measuring ------------------------------------------------------------------------------------------------------------


def measure(job, network: torch.nn.Module, optimizers: list[torch.optim.Optimizer], batches: Iterator[list]) -> Times:
    """Measure how long a step, an evaluation and a sample take, without changing anything that is trained.

    network: the job's model as the loop trains it: compiled, and wrapped for several ranks.  batches: those of one step
    after another.
    """
    seconds = min(MOST_SECONDS, MEASURING * 60 * job.settings.minutes)
    device = job.precision.device
    states = [copy.deepcopy(optimizer.state_dict()["state"]) for optimizer in optimizers]
    scaler = job.precision.scaler.state_dict()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        step = seconds_per_step(job, network, optimizers, batches, seconds)
        rows = int(seconds / step * job.settings.rows_per_step)  # evaluating these is faster than training on them
        evaluation = seconds_per_evaluation(job, rows)
        began = time.perf_counter()
        if job.ranks.rank == 0:
            with evaluating(job.model):
                job.write_sample(job.model)
        sample = time.perf_counter() - began
    for optimizer, state in zip(optimizers, states, strict=True):
        optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
    if scaler:
        job.precision.scaler.load_state_dict(scaler)
    return Times(step, evaluation, of_rank_0(job.ranks, sample))


def seconds_per_step(job, network, optimizers, batches, seconds: float) -> float:
    """Return the mean time of the second half of the steps that fit into these seconds.

    The first steps are a warm-up: on a CPU, the first twenty or so were measured to be up to a third slower.
    """
    set_learning_rate(optimizers, 0.0)  # the weights do not change
    ranks = job.ranks
    ends = []  # the time at the end of each step; the first step may compile and is not counted
    for of_one_step in batches:
        result = training_step(network, optimizers, job.precision, of_one_step, job.settings, ranks)
        result.loss.item()  # waits for the device
        ends.append(time.perf_counter())
        (is_enough,) = ranks.sum(ranks.rank == 0 and len(ends) > 1 and ends[-1] - ends[0] >= seconds)
        if is_enough:
            break
    counted = ends[(len(ends) - 1) // 2 :]
    return of_rank_0(ranks, (counted[-1] - counted[0]) / (len(counted) - 1))


def seconds_per_evaluation(job, rows: int) -> float:
    """Return how long an evaluation takes, estimated from one with this many rows, at least a batch per rank."""
    size = evaluation_rows(job.settings, job.ranks)
    part = copy.copy(job.validation)
    part.per_epoch = min(part.per_epoch, max(rows, size * job.ranks.count))
    began = time.perf_counter()
    evaluate(job.model, part, job.precision, size, job.ranks)
    seconds = time.perf_counter() - began
    return of_rank_0(job.ranks, seconds * job.validation.per_epoch / part.per_epoch)


def of_rank_0(ranks, number: float) -> float:
    """Return rank 0's number on all ranks."""
    (number,) = ranks.sum(number if ranks.rank == 0 else 0)
    return number


# Arithmetic -----------------------------------------------------------------------------------------------------------


def steps_that_fit(seconds: float, times: Times, eval_steps: int | None) -> tuple[int, int]:
    """Return (steps, steps between evaluations) for a run of this length, which ends with an evaluation and a sample.

    eval_steps: the user's choice; None: 20 evaluations, or fewer if they would take more than a tenth of the time.
    There is at least one step and one evaluation.
    """
    seconds -= times.sample + SECONDS_TO_END
    evaluation = times.evaluation + times.sample  # each evaluation also writes a sample
    if eval_steps:
        steps = (seconds - evaluation) / (times.step + evaluation / eval_steps)
        return max(1, int(steps)), eval_steps
    evaluations = max(1, min(EVALUATIONS, int(MOST_EVALUATING * seconds / evaluation)))
    steps = max(1, int((seconds - evaluations * evaluation) / times.step))
    return steps, ceil_div(steps, evaluations)
