"""The arithmetic of training: one step and one evaluation.

In reading order: `micro_batches`, the rows of a step; `training_step`, one update of the weights; `Meter`, sums over
the steps since the last log line; `evaluate`.

Terms: a step is one optimizer update; tokens are predicted tokens, without padding; loss is the mean cross-entropy in
nats per predicted token; bits per byte is loss / ln 2 x tokens / bytes, which can be compared across vocabularies.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from common.devices import Precision
from common.numbers import ceil_div, perplexity
from common.prefetch import computed_ahead
from common.ranks import ONE_RANK, Ranks
from data import Rows
from model import IGNORED, Transformer
from training.settings import TrainingSettings

CPU_TOKENS = 2048  # tokens that a CPU computes at a time, so that their activations stay in its caches
WIDTHS = 32  # rows are padded to a multiple of this: libraries prepare something for each shape, so few are better
LOGITS_ROWS = 2048  # positions whose logits an evaluation computes at a time
EVALUATION_ROWS = 32

Batch = tuple[torch.Tensor, torch.Tensor]  # inputs and targets, int64 (rows, tokens)


# The rows of a step ---------------------------------------------------------------------------------------------------


def micro_batches(
    rows: Rows, step: int, settings: TrainingSettings, device: torch.device, ranks: Ranks = ONE_RANK
) -> list[Batch]:
    """Return a rank's share of a step's rows, on the CPU, in parts that are small enough for the device."""
    share = settings.rows_per_step // ranks.count
    size = settings.batch_size // ranks.count
    first = step * settings.rows_per_step + ranks.rank * share
    batches = []
    for start in range(0, share, size):
        inputs, targets = rows.batch(first + start, min(size, share - start), WIDTHS)
        batches += cut_for(device, inputs, targets)
    return batches


def cut_for(device: torch.device, inputs: np.ndarray, targets: np.ndarray) -> list[Batch]:
    """Turn a batch, arrays (rows, tokens), into tensors that suit the device.

    For a CPU, rows of similar length form parts of at most CPU_TOKENS tokens (or of one row), without the columns
    after the last predicted token.
    """
    if device.type == "cuda":
        return [(torch.from_numpy(inputs).pin_memory(), torch.from_numpy(targets).pin_memory())]
    if device.type != "cpu":
        return [(torch.from_numpy(inputs), torch.from_numpy(targets))]
    parts = []
    for rows, width in rows_together(targets):
        parts.append((torch.from_numpy(inputs[rows, :width]), torch.from_numpy(targets[rows, :width])))
    return parts


def rows_together(targets: np.ndarray) -> list[tuple[np.ndarray, int]]:
    """Return [(rows, width)], the parts of `cut_for` for a CPU; targets: (rows, tokens)."""
    positions = np.arange(1, targets.shape[1] + 1)
    lengths = np.maximum(1, ((targets != IGNORED) * positions).max(axis=1))  # up to the last predicted token
    lengths = np.minimum(ceil_div(lengths, WIDTHS) * WIDTHS, targets.shape[1])
    order = np.argsort(lengths, kind="stable")
    parts = []
    first = 0
    for last in range(1, len(order) + 1):
        if last == len(order) or (last - first + 1) * lengths[order[last]] > CPU_TOKENS:
            parts.append((order[first:last], lengths[order[last - 1]]))
            first = last
    return parts


# One step -------------------------------------------------------------------------------------------------------------


class StepResult(NamedTuple):
    """The result of a step; tensors stay on the device, so that the host need not wait for it."""

    loss: torch.Tensor  # summed over this rank's tokens, in nats (with rewards: that of the method)
    tokens: int  # predicted by all ranks
    norm: torch.Tensor  # of the gradient, before clipping
    # bool: whether loss and gradient were finite.  In float16 gradients that overflow are normal: the scaler lowers the
    # loss scale, and the run continues.  So they count as good, unless the scale is below 1 already.
    good: torch.Tensor
    loss_scale: torch.Tensor  # the factor of the loss: 1, except in float16


def training_step(
    network: torch.nn.Module, optimizers: list[torch.optim.Optimizer], precision: Precision, batches: list[Batch],
    settings: TrainingSettings, ranks: Ranks = ONE_RANK,
) -> StepResult:  # fmt: skip
    """Update the weights once, with the mean loss over all predicted tokens of all micro-batches and ranks."""
    predicted = sum(int((targets != IGNORED).sum()) for _, targets in batches)
    (tokens,) = ranks.sum(predicted)
    total = torch.zeros((), device=precision.device)
    for number, (inputs, targets) in enumerate(batches, start=1):
        adds_up_alone = ranks.count > 1 and number < len(batches)  # ranks exchange gradients at the last micro-batch
        exchange = network.no_sync() if adds_up_alone else contextlib.nullcontext()
        with exchange:
            with precision.autocast():
                inputs = inputs.to(precision.device, non_blocking=True)
                targets = targets.to(precision.device, non_blocking=True)
                loss = network(inputs, targets)
            # DistributedDataParallel averages gradients over the ranks, but here they must be summed
            share = loss * (ranks.count / max(1, tokens))
            precision.scaler.scale(share).backward()
        total += loss.detach()
    return update_weights(network, optimizers, precision, settings, total, int(tokens))


def update_weights(
    network: torch.nn.Module, optimizers: list[torch.optim.Optimizer], precision: Precision, settings: TrainingSettings,
    loss: torch.Tensor, tokens: int,
) -> StepResult:  # fmt: skip
    """Update the weights once with the gradients that they have, and return the result of the step.

    loss, tokens: for the result.  If the loss or the gradient is not finite, nothing is updated.
    """
    for optimizer in optimizers:
        precision.scaler.unscale_(optimizer)
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), settings.max_grad_norm or math.inf)
    # CUDA's scaler skips a step that is not finite, and the host need not wait to find out.  The host must find out if
    # there is no scaler, or if two optimizers must agree.
    host_must_know = len(optimizers) > 1 or not precision.scaler.is_enabled()
    is_left_out = host_must_know and not torch.isfinite(norm)
    if not is_left_out:
        for optimizer in optimizers:
            precision.scaler.step(optimizer)
    network.zero_grad(set_to_none=True)
    good = torch.isfinite(norm)
    loss_scale = precision.loss_scale()
    if precision.dtype == torch.float16:
        # Scaled gradients may overflow now and then; the scaler then lowers the scale.  Below 1 this is not the cause.
        good |= torch.isfinite(loss) & (loss_scale >= 1)
    precision.update_scaler()
    return StepResult(loss, tokens, norm, good, loss_scale)


class Meter:
    """Sums over the steps since the last log line, kept on the device so that the host never waits for it.

    loss: summed, in nats; tokens: predicted; both without skipped steps.  bad_steps: all skipped steps; bad_in_a_row:
    those up to now without a good one between; longest_bad: the longest such series since the run began or resumed.
    """

    def __init__(self, device: torch.device, progress, ranks: Ranks = ONE_RANK):
        """progress: the `resume.Progress` of a run, with the sums from its checkpoint."""
        self.loss = torch.tensor(progress.loss_since_log if ranks.rank == 0 else 0.0, device=device)  # sum of all ranks
        self.tokens = torch.tensor(progress.tokens_since_log, device=device)
        self.bad_steps = torch.tensor(progress.bad_steps, device=device)
        self.bad_in_a_row = torch.tensor(progress.bad_steps_in_a_row, device=device)
        self.longest_bad = self.bad_in_a_row.clone()

    def add(self, result: StepResult) -> None:
        self.loss += torch.where(result.good, result.loss, 0)
        self.tokens += result.tokens * result.good
        self.bad_steps += ~result.good
        self.bad_in_a_row = (self.bad_in_a_row + 1) * ~result.good
        self.longest_bad = torch.maximum(self.longest_bad, self.bad_in_a_row)

    def read(self, ranks: Ranks) -> tuple[float, int]:
        """Return (loss, tokens) over all ranks; waits for the device."""
        (loss,) = ranks.sum(self.loss.item())
        return loss, self.tokens.item()

    def start_again(self) -> None:
        self.loss = torch.zeros_like(self.loss)
        self.tokens = torch.zeros_like(self.tokens)

    def read_bad(self, ranks: Ranks) -> list[int]:
        """Return [bad_steps, bad_in_a_row, longest_bad], each the largest of all ranks; waits for the device."""
        counts = torch.stack((self.bad_steps, self.bad_in_a_row, self.longest_bad)).cpu()
        return torch.stack(ranks.gather(counts)).amax(0).tolist()


# Evaluation -----------------------------------------------------------------------------------------------------------


def evaluation_rows(settings: TrainingSettings, ranks: Ranks) -> int:
    """Return how many rows a rank evaluates at a time: at most as many as it trains on, which fit into its memory."""
    return min(EVALUATION_ROWS, settings.batch_size // ranks.count)


@contextlib.contextmanager
def evaluating(model: Transformer) -> Iterator[None]:
    """Turn off dropout and gradients in the block."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def never() -> bool:
    return False


def evaluate(
    model: Transformer, rows: Rows, precision: Precision, batch_size: int = EVALUATION_ROWS, ranks: Ranks = ONE_RANK,
    stopped: Callable[[], bool] = never,
) -> dict | None:  # fmt: skip
    """Return loss, perplexity, bits per byte and accuracy over all rows of one epoch, split among the ranks.

    stopped: called before each batch; if it returns True on any rank, the result is None.
    """
    device = precision.device
    loss = torch.zeros((), device=device)
    correct = torch.zeros((), device=device)
    tokens = 0

    def parts_from(first: int) -> list[Batch]:
        return cut_for(device, *rows.batch(first, min(batch_size, rows.per_epoch - first)))

    starts = range(ranks.rank * batch_size, rows.per_epoch, ranks.count * batch_size)
    with evaluating(model), precision.autocast():
        for parts in computed_ahead(parts_from, starts):
            if stopped():
                break
            for inputs, targets in parts:
                tokens += int((targets != IGNORED).sum())
                hidden = model.hidden(inputs.to(device, non_blocking=True)).flatten(0, 1)  # (rows x tokens, C)
                targets = targets.flatten().to(device, non_blocking=True)
                for x, target in zip(hidden.split(LOGITS_ROWS), targets.split(LOGITS_ROWS), strict=True):
                    logits = model.logits(x).float()
                    loss = loss + F.cross_entropy(logits, target, ignore_index=IGNORED, reduction="sum")
                    correct = correct + (logits.argmax(-1) == target).sum()
    loss, correct, tokens, interrupted = ranks.sum(loss.item(), correct.item(), tokens, stopped())
    if interrupted:
        return None
    mean = loss / tokens
    return {
        "val_loss": mean,
        "perplexity": perplexity(mean),
        "bits_per_byte": mean / math.log(2) * tokens / max(1, rows.bytes),
        "accuracy": correct / tokens,
    }
