"""The length of a run: its epochs, its steps, and when it is evaluated."""

import math

import numpy as np

from common.errors import UserError
from common.numbers import ceil_div
from data import Rows
from training.settings import TrainingSettings

MOST_EPOCHS = 1_000_000  # of a run
MOST_EPOCHS_A_STEP = 100
EVALUATIONS = 20  # of a run without --eval_steps


class Plan:
    """The plan of a run, made before its first step.

    rows_before: how many rows come before each epoch, and before the end.  total_steps: of the run.  epoch_ends: the
    steps after which an epoch ends.  eval_steps: steps between evaluations.  For a run of --minutes, `lay_out` is
    called again once its length is known.
    """

    def __init__(self, rows: Rows, settings: TrainingSettings):
        self.rows = rows
        self.settings = settings
        self.rows_per_step = settings.rows_per_step
        epochs_a_step = self.rows_per_step / rows.per_epoch
        if epochs_a_step > MOST_EPOCHS_A_STEP:
            raise UserError(
                f"a step of {self.rows_per_step:,} rows (--batch_size times --gradient_accumulation_steps) would use "
                f"the {rows.per_epoch:,} rows of an epoch {epochs_a_step:,.0f} times; pass a smaller --batch_size"
            )
        max_steps = 1 if settings.minutes else settings.max_steps  # 1 until the length is known
        self.lay_out(max_steps, settings.eval_steps)

    def lay_out(self, max_steps: int | None, eval_steps: int | None) -> None:
        """Plan a run of at most max_steps steps; None: its epochs alone set the length."""
        rows, settings = self.rows, self.settings
        epochs = settings.epochs or math.inf
        max_steps = max_steps or math.inf
        if min(epochs, max_steps * self.rows_per_step / rows.per_epoch) > MOST_EPOCHS:
            raise UserError(f"{settings.length()} would be more than {MOST_EPOCHS:,} epochs; pass a smaller number")
        self.rows_before = [0]
        while len(self.rows_before) <= epochs and self.rows_before[-1] < max_steps * self.rows_per_step:
            self.rows_before.append(rows.rows_before(len(self.rows_before)))
        ends = [ceil_div(count, self.rows_per_step) for count in self.rows_before[1:]]
        self.total_steps = min(ends[-1], max_steps)
        # a run whose length is given in steps alone has no evaluations at the ends of epochs
        self.epoch_ends = {self.total_steps, *(ends if settings.epochs else [])}
        self.eval_steps = eval_steps or max(1, self.total_steps // EVALUATIONS)

    def epoch(self, step: int) -> float:
        """Return how many epochs are done after a step, including the fraction of the current one."""
        return float(np.interp(step * self.rows_per_step, self.rows_before, range(len(self.rows_before))))

    def evaluates_after(self, step: int) -> bool:
        return step > 0 and (step % self.eval_steps == 0 or step in self.epoch_ends)

    def steps_of_kept_models(self) -> set[int]:
        """Return the steps after which --keep_models keeps the weights: those of evaluations, spread evenly."""
        evaluations = sorted({*range(self.eval_steps, self.total_steps + 1, self.eval_steps), *self.epoch_ends})
        evaluations = [step for step in evaluations if step <= self.total_steps]
        count = min(self.settings.keep_models, len(evaluations))
        return {evaluations[ceil_div(number * len(evaluations), count) - 1] for number in range(1, count + 1)}
