"""The arithmetic of training: what one step and one evaluation compute.

In reading order: `micro_batches`, the rows of a step; `training_step`, one update of the weights; `evaluate`.

Words: a step is one optimizer update; tokens are tokens predicted, padding never counted; loss is the mean
cross-entropy in nats per predicted token; bits per byte is that loss / ln 2 x tokens / bytes, which compares across
vocabularies.
"""

import contextlib
import math

import numpy as np
import torch
import torch.nn.functional as F

from common.ranks import Ranks
from model import IGNORED

CPU_TOKENS = 2048  # tokens that go through the network at a time on a CPU, so that their activations stay in its caches
WIDTHS = 32  # rows are padded to a multiple of this: few shapes, for each of which a library may prepare something
LOGITS_ROWS = 2048  # positions whose logits an evaluation holds at a time
EVALUATION_ROWS = 32
ONE_RANK = Ranks(1)


def micro_batches(rows, step, settings, device, rank=0, ranks=1):
    """A rank's share of a step's rows: a list of (inputs, targets), int64 on the CPU, small enough for the device."""
    share, size = settings.rows_per_step // ranks, settings.batch_size // ranks
    first = step * settings.rows_per_step + rank * share
    return [
        batch
        for start in range(0, share, size)
        for batch in cut_for(device, *rows.batch(first + start, min(size, share - start), WIDTHS))
    ]


def cut_for(device, inputs, targets):
    """Turn a batch, arrays (rows, tokens), into tensors that suit the device: a list of (inputs, targets).

    For a CPU, rows of similar length come together, at most CPU_TOKENS tokens in a part, and what lies after a row's
    last predicted token is cut off.
    """
    if device.type != "cpu":
        tensors = torch.from_numpy(inputs), torch.from_numpy(targets)
        return [tuple(tensor.pin_memory() for tensor in tensors) if device.type == "cuda" else tensors]
    lengths = np.maximum(1, ((targets != IGNORED) * np.arange(1, targets.shape[1] + 1)).max(axis=1))
    lengths = np.minimum(-(-lengths // WIDTHS) * WIDTHS, targets.shape[1])
    order, first, parts = np.argsort(lengths, kind="stable"), 0, []
    for last in range(1, len(order) + 1):
        if last == len(order) or (last - first + 1) * lengths[order[last]] > CPU_TOKENS:
            part, width = order[first:last], lengths[order[last - 1]]
            parts.append((torch.from_numpy(inputs[part, :width]), torch.from_numpy(targets[part, :width])))
            first = last
    return parts


def training_step(model, optimizers, precision, batches, settings, ranks=ONE_RANK):
    """One update from the mean loss over all predicted tokens of the micro-batches of all ranks.

    Where the loss or the gradient is not finite, nothing is updated (overflows of float16's scaled gradients too, which
    are the scaler's business).  Returns (this rank's summed loss in nats; tokens predicted by all ranks; the gradient's
    norm; whether the loss was finite), all but the tokens as tensors on the device.
    """
    (tokens,) = ranks.sum(sum(int((targets != IGNORED).sum()) for _, targets in batches))
    total = torch.zeros((), device=precision.device)
    for number, (inputs, targets) in enumerate(batches, start=1):
        together = contextlib.nullcontext() if ranks.count == 1 or number == len(batches) else model.no_sync()
        with together:
            with precision.autocast():
                loss = model(*(t.to(precision.device, non_blocking=True) for t in (inputs, targets)))
            # the ranks' gradients are averaged, and shall be summed
            precision.scaler.scale(loss * (ranks.count / max(1, tokens))).backward()
        total += loss.detach()
    for optimizer in optimizers:
        precision.scaler.unscale_(optimizer)
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm or math.inf)
    # CUDA's scaler leaves a step out without making the host wait to know; but two optimizers must agree
    must_know = len(optimizers) > 1 or not precision.scaler.is_enabled()
    for optimizer in optimizers if not must_know or torch.isfinite(norm) else []:
        precision.scaler.step(optimizer)
    model.zero_grad(set_to_none=True)
    precision.update_scaler()
    return total, int(tokens), norm, torch.isfinite(total if precision.dtype == torch.float16 else norm)


@contextlib.contextmanager
def evaluating(model):
    """Without dropout and gradients."""
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train()


def evaluate(model, rows, precision, batch_size=EVALUATION_ROWS, ranks=ONE_RANK, stopped=lambda: False):
    """Loss, perplexity, bits per byte and accuracy over all rows of one epoch, shared out among the ranks.

    stopped: asked before each batch; once it says yes on any rank, the evaluation is broken off and None is returned.
    """
    loss = correct = torch.zeros((), device=precision.device)
    tokens = 0
    with evaluating(model), precision.autocast():
        for first in range(ranks.rank * batch_size, rows.per_epoch, ranks.count * batch_size):
            if stopped():
                break
            batch = rows.batch(first, min(batch_size, rows.per_epoch - first))
            for inputs, targets in cut_for(precision.device, *batch):
                tokens += int((targets != IGNORED).sum())
                hidden = model.hidden(inputs.to(precision.device)).flatten(0, 1)
                targets = targets.flatten().to(precision.device)
                for x, target in zip(hidden.split(LOGITS_ROWS), targets.split(LOGITS_ROWS), strict=True):
                    logits = model.logits(x).float()
                    loss = loss + F.cross_entropy(logits, target, ignore_index=IGNORED, reduction="sum")
                    correct = correct + (logits.argmax(-1) == target).sum()
    loss, correct, tokens, broken_off = ranks.sum(loss.item(), correct.item(), tokens, stopped())
    if broken_off:
        return None
    mean = loss / tokens
    return {
        "val_loss": mean,
        "perplexity": perplexity(mean),
        "bits_per_byte": mean / math.log(2) * tokens / max(1, rows.bytes),
        "accuracy": correct / tokens,
    }


def perplexity(loss):
    return math.exp(min(loss, 700))
