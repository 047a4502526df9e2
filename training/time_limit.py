"""How many steps a run of --minutes has.

The number is fixed once, before the run's first step, from how long a few steps take whose results are thrown away.
So the run is like any other from its first step on: the learning rate's warm-up and fall are laid over a known number
of steps, and a resumed run, which finds the number in its checkpoint, ends with the same weights.

In reading order: `measure`, how long things take; `steps_that_fit`, the arithmetic.  A job is a `loop.Job`.
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

MEASURING = 0.1  # of the time, at most, for each of steps and evaluation
MOST_SECONDS = 15
MOST_EVALUATING = 0.1  # of the time: where 20 evaluations take longer, there are fewer
SECONDS_TO_END = 3  # to save the last files, draw the curves and leave


class Speed(NamedTuple):
    """Seconds that rank 0 measured."""

    step: float
    evaluation: float
    sample: float


# Measuring ------------------------------------------------------------------------------------------------------------


def measure(job, network: torch.nn.Module, optimizers: list[torch.optim.Optimizer], batches: Iterator[list]) -> Speed:
    """How long a step, an evaluation and a sample take, with nothing changed of what is trained.

    network: the job's model as it is trained, compiled and shared by the ranks.  batches: of one step after the other.
    """
    seconds = min(MOST_SECONDS, MEASURING * 60 * job.settings.minutes)
    device = job.precision.device
    states = [copy.deepcopy(optimizer.state_dict()["state"]) for optimizer in optimizers]
    scaler = job.precision.scaler.state_dict()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        step = seconds_per_step(job, network, optimizers, batches, seconds)
        rows = int(seconds / step * job.settings.rows_per_step)  # an evaluation is faster than the training
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
    return Speed(step, evaluation, of_rank_0(job.ranks, sample))


def seconds_per_step(job, network, optimizers, batches, seconds: float) -> float:
    """The mean over the second half of the steps that fit into so many seconds.

    The first steps warm up: on a CPU some twenty were measured to be slower, by up to a third.
    """
    set_learning_rate(optimizers, 0.0)  # the weights stay as they are, to the last bit
    ranks = job.ranks
    ends = []  # when each step ended; the first one, which may compile, does not count
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
    """How long an evaluation takes, from one of so many rows, at least a batch of each rank."""
    size = evaluation_rows(job.settings, job.ranks)
    part = copy.copy(job.validation)
    part.per_epoch = min(part.per_epoch, max(rows, size * job.ranks.count))
    began = time.perf_counter()
    evaluate(job.model, part, job.precision, size, job.ranks)
    seconds = time.perf_counter() - began
    return of_rank_0(job.ranks, seconds * job.validation.per_epoch / part.per_epoch)


def of_rank_0(ranks, number: float) -> float:
    """Rank 0's number, on all ranks."""
    (number,) = ranks.sum(number if ranks.rank == 0 else 0)
    return number


# Arithmetic -----------------------------------------------------------------------------------------------------------


def steps_that_fit(seconds: float, speed: Speed, eval_steps: int | None) -> tuple[int, int]:
    """(steps, steps between evaluations) of a run of so many seconds, which ends with an evaluation and a sample.

    eval_steps: as the user wants it; None: 20 evaluations, or fewer where they would take more than a tenth of the
    time.  At least one step and one evaluation.
    """
    seconds -= speed.sample + SECONDS_TO_END
    evaluation = speed.evaluation + speed.sample  # each writes a sample, too
    if eval_steps:
        steps = (seconds - evaluation) / (speed.step + evaluation / eval_steps)
        return max(1, int(steps)), eval_steps
    evaluations = max(1, min(EVALUATIONS, int(MOST_EVALUATING * seconds / evaluation)))
    steps = max(1, int((seconds - evaluations * evaluation) / speed.step))
    return steps, ceil_div(steps, evaluations)
