"""Score a model on the test of skills: of two texts, does it give the right one the higher probability?

In reading order: `log_probabilities`, which asks a model; `answers`, which compares the two texts of each item;
`skill_scores`, the share of each skill; `wilson_interval`, how sure it is.  The items are made by skill_items.py.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

from common.errors import UserError
from data import Tokenizer
from model import IGNORED, Transformer
from scoring.skill_items import Item
from training.step import evaluating

BATCH_SIZE = 32  # texts at a time
ALL = "all"  # the name of the row for all skills together
NORMAL_95 = 1.959964  # 95% of a normal distribution lie within this many standard deviations of its mean

Scorer = Callable[[list[str]], list[float]]  # texts -> the logarithm of each one's probability


def log_probabilities(model: Transformer, tokenizer: Tokenizer, texts: list[str]) -> list[float]:
    """Return the log-probability of each text in nats: the sum over its tokens, after <bos>, without <eos>.

    Computed in float32.  Raises UserError for a text that is longer than the context.
    """
    start = tokenizer.special["<bos>"]
    rows = [[start, *ids] for ids in tokenizer.encode_batch(texts)]
    longest = max(len(row) for row in rows) - 1
    context = model.config.max_seq_len
    if longest > context:
        raise UserError(
            f"the test of skills has texts of up to {longest} tokens, but the model was trained with --max_seq_len "
            f"{context}; train one with at least --max_seq_len {longest}"
        )
    scores = [0.0] * len(rows)
    order = sorted(range(len(rows)), key=lambda number: len(rows[number]))  # texts of one batch are about as long
    with evaluating(model):
        for first in range(0, len(order), BATCH_SIZE):
            numbers = order[first : first + BATCH_SIZE]
            inputs, targets = padded([rows[number] for number in numbers], tokenizer.special["<pad>"])
            values = sums_of(model, inputs, targets)
            for number, value in zip(numbers, values, strict=True):
                scores[number] = value
    return scores


def padded(rows: list[list[int]], padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (inputs, targets), int64 (rows, tokens): at each position the token, and the one that follows it."""
    width = max(len(row) for row in rows) - 1
    inputs = torch.full((len(rows), width), padding)
    targets = torch.full((len(rows), width), IGNORED)
    for number, row in enumerate(rows):
        inputs[number, : len(row) - 1] = torch.tensor(row[:-1])
        targets[number, : len(row) - 1] = torch.tensor(row[1:])
    return inputs, targets


def sums_of(model: Transformer, inputs: torch.Tensor, targets: torch.Tensor) -> list[float]:
    """Return for each row the sum of the log-probabilities of its targets."""
    device = model.tokens.weight.device
    logits = model(inputs.to(device)).float()  # (B, T, V)
    losses = F.cross_entropy(
        logits.flatten(0, 1), targets.to(device).flatten(), ignore_index=IGNORED, reduction="none"
    )  # (B x T,)
    return (-losses.view(targets.shape).sum(dim=1)).tolist()


# Scores ---------------------------------------------------------------------------------------------------------------


def answers(items: list[Item], score: Scorer) -> list[dict]:
    """Return for each item its texts, both log-probabilities, and whether the right text has the higher one."""
    right_scores = score([item.context + item.right for item in items])
    wrong_scores = score([item.context + item.wrong for item in items])
    rows = []
    for item, right, wrong in zip(items, right_scores, wrong_scores, strict=True):
        rows.append(
            {
                "skill": item.skill,
                "context": item.context,
                "right": item.right,
                "wrong": item.wrong,
                "log_probability_of_right": right,
                "log_probability_of_wrong": wrong,
                "passed": right > wrong,
            }
        )
    return rows


def skill_scores(rows: list[dict]) -> dict[str, dict]:
    """Return {skill: {"right", "total", "share", "low", "high"}} from `answers`, and the same for all of them."""
    passed = {}
    for row in rows:
        passed.setdefault(row["skill"], []).append(row["passed"])
    passed[ALL] = [row["passed"] for row in rows]
    scores = {}
    for skill, results in passed.items():
        right = sum(results)
        total = len(results)
        low, high = wilson_interval(right, total)
        scores[skill] = {"right": right, "total": total, "share": right / total, "low": low, "high": high}
    return scores


def wilson_interval(right: int, total: int) -> tuple[float, float]:
    """Return the 95% interval of a share (Wilson 1927), which also holds close to 0 and 1."""
    share = right / total
    z = NORMAL_95
    shrink = 1 + z**2 / total
    middle = (share + z**2 / (2 * total)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    return max(0.0, middle - half), min(1.0, middle + half)
