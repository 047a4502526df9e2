"""What a training run is given: `Job`.  A run that learns something other than the next token has a `Task`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from common.devices import Precision
from common.ranks import ONE_RANK, Ranks
from data import Rows
from model import Transformer
from training.run_folder import Run
from training.settings import TrainingSettings
from training.step import StepResult


class Task(Protocol):
    """What a run learns, if not the next token of each row; for example tools/rewards/grpo.py.

    The job's rows then need only what the plan of the run uses; see `TaskRows` in tools/rewards/replies.py.
    """

    def batches(self, step: int) -> list:
        """Return the batches of a step; they may be texts that the model writes at this moment."""

    def step(self, network: torch.nn.Module, optimizers: list[torch.optim.Optimizer], batches: list) -> StepResult:
        """Update the weights once."""

    def measured(self) -> dict[str, float]:
        """Return means over the steps since the last call, for the log."""

    def score(self, model: Transformer) -> dict[str, float]:
        """Return what an evaluation adds to the validation loss; the highest "reward" makes the best model."""

    def state(self) -> dict:
        """Return tensors and plain values that a checkpoint needs, so that a resumed run is the same run."""

    def restore(self, state: dict) -> None:
        """Continue from a `state`."""


@dataclass
class Job:
    """What a run trains, on which data, and where its records go.

    fingerprints: {"tokenizer": ..., "data": ...}; a checkpoint can be resumed only if they are the same.
    write_sample: a function that takes the model and returns a text for the log.
    task: None for the next token of each row, as in steps 2 and 4.
    """

    model: Transformer
    rows: Rows
    validation: Rows
    settings: TrainingSettings
    run: Run
    precision: Precision
    fingerprints: dict
    write_sample: Callable[[Transformer], str]
    ranks: Ranks = ONE_RANK
    task: Task | None = None
