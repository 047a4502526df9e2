"""DPO: learn from pairs of a better and a worse reply, without letting the model reply (Rafailov et al. 2023).

In reading order: the formula, `dpo_loss`; `Pair`, `read_pairs` and `make_pairs`, where pairs come from; `Dpo`, the
task of a run.  docs/rewards.md explains each symbol.
"""

import json
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from tqdm import tqdm

from common.console import log
from common.devices import Precision
from common.errors import UserError
from common.files import written_atomically
from common.flags import flag
from generation.prompt_files import Prompt
from generation.writer import Writer
from model import Transformer
from rewards.replies import SAME_REWARD, Exam, Means, in_epoch, log_probabilities, prompt_ids, rows_of
from training.settings import TrainingSettings
from training.step import CPU_TOKENS, StepResult, update_weights

# The formula ----------------------------------------------------------------------------------------------------------


def dpo_loss(new: torch.Tensor, reference: torch.Tensor, beta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss and the margin of each pair, both (pairs,).

    new, reference (2, pairs): log-probabilities of whole replies, of the model now and of the model that the run began
    with; row 0: of the better replies, row 1: of the worse ones.
    The implicit reward of a reply is beta times the logarithm of how many times more probable it has become.  The
    margin is how much higher that of the better reply is; the loss is the cross-entropy of choosing it.
    """
    implicit = beta * (new - reference)
    margin = implicit[0] - implicit[1]
    return -F.logsigmoid(margin), margin


# Pairs ----------------------------------------------------------------------------------------------------------------


class Pair(NamedTuple):
    """A prompt with a better and a worse reply, as ids; the replies end with <eos>."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]

    def longest(self) -> int:
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))


def read_pairs(rows: list[Prompt], writer: Writer) -> list[Pair]:
    """Return the pairs in rows, which are prompts with `chosen` and `rejected`.

    Leaves out pairs that are longer than the context, and logs how many.  Raises UserError, naming the place.
    """
    end = writer.tokenizer.special["<eos>"]
    pairs = []
    for row in rows:
        replies = []
        for name in ("chosen", "rejected"):
            text = reply_text(row.extra.get(name))
            if text is None:
                raise UserError(
                    f'{row.place}: no text as "{name}"; a pair has the keys "prompt", "chosen" and "rejected"'
                )
            replies.append([*writer.tokenizer.encode(text), end])
        pair = Pair(prompt_ids(writer, row), *replies)
        if pair.longest() <= writer.context + 1:  # the last token is predicted, but is no input
            pairs.append(pair)
    if len(pairs) < len(rows):
        left_out = len(rows) - len(pairs)
        log.info(f"pairs left out, because they do not fit the context of {writer.context} tokens: {left_out:,}")
    return pairs


def reply_text(value: object) -> str | None:
    """Return the text of a reply: a text, or a list with one turn of the assistant; None for anything else."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        value = value[0].get("content")
    if not isinstance(value, str) or not value.strip():
        return None
    return value.strip()


def make_pairs(exam: Exam, replies_per_prompt: int, path: str) -> None:
    """Let the model reply several times to each prompt; write the best and the worst reply into a file of pairs.

    Replies that are empty or do not end by themselves are not used, nor prompts whose replies have the same reward.
    """
    asker = exam.asker
    numbers = [number for number in range(exam.for_training) for _ in range(replies_per_prompt)]
    row_seeds = list(range(len(numbers)))
    log.info(f"the model writes {len(numbers):,} replies, to make pairs of them")
    written = []
    for first in tqdm(range(0, len(numbers), asker.rows), unit=" batches", disable=None, leave=False):
        together = slice(first, first + asker.rows)
        written += asker.ask(numbers[together], row_seeds[together])
    rows = []
    ended = 0  # prompts with at least two replies that ended
    for number in range(exam.for_training):
        replies = written[number * replies_per_prompt : (number + 1) * replies_per_prompt]
        replies = [reply for reply in replies if reply.written.ended == "eos" and reply.written.text.strip()]
        if len(replies) < 2:
            continue
        ended += 1
        totals, _ = asker.score([number] * len(replies), replies, exam.rewards)
        best = int(totals.argmax())
        worst = int(totals.argmin())
        if totals[best] - totals[worst] < SAME_REWARD:
            continue
        prompt = asker.prompts[number]
        row = {"prompt": prompt.prompt} | prompt.extra
        row |= {"chosen": replies[best].written.text, "rejected": replies[worst].written.text}
        row |= {"chosen_reward": float(totals[best]), "rejected_reward": float(totals[worst])}
        rows.append(json.dumps(row, ensure_ascii=False))
    if not ended:
        raise UserError("no pairs: the replies do not end by themselves; pass a larger --max_new_tokens")
    if not rows:
        raise UserError("no pairs: for each prompt, all replies have the same reward; pass other rewards or prompts")
    with written_atomically(path) as file:
        file.write("".join(f"{row}\n" for row in rows).encode())
    log.info(f"{len(rows):,} pairs from {exam.for_training:,} prompts -> {path}")


# The task -------------------------------------------------------------------------------------------------------------


@dataclass
class DpoSettings:
    """The settings of --method dpo; each field is a flag of the same name."""

    beta: float = flag(0.1, "how strongly the model is held near the model that the run began with")

    def __post_init__(self):
        if not 0 < self.beta < math.inf:
            raise UserError(f"--beta must be above 0, not {self.beta}")


class Dpo:
    """The task of a run with DPO; see `job.Task`.  A row of the plan is a pair."""

    def __init__(
        self, reference: Transformer, exam: Exam, pairs: list[Pair], beta: float, settings: TrainingSettings,
        precision: Precision,
    ):  # fmt: skip
        """reference: the model that the run begins with."""
        self.exam = exam
        self.pairs = pairs
        self.beta = beta
        self.settings = settings
        self.precision = precision
        self.pad = exam.asker.writer.tokenizer.special["<pad>"]
        self.means = Means()
        self.of_reference = torch.zeros(2, len(pairs), device=precision.device)  # its log-probabilities of the replies
        with torch.no_grad():
            for numbers in self.parts_of(list(range(len(pairs)))):
                self.of_reference[:, numbers], _ = self.log_probabilities(reference, numbers)

    def batches(self, step: int) -> list[list[int]]:
        """Return the numbers of a step's pairs, in parts; each epoch has its own order."""
        count = self.settings.rows_per_step
        numbers = []
        for place in range(step * count, (step + 1) * count):
            numbers.append(in_epoch(place, len(self.pairs), self.settings.seed))
        return self.parts_of(numbers)

    def parts_of(self, numbers: list[int]) -> list[list[int]]:
        """Return the numbers of pairs in parts that suit the device; pairs of similar length are together."""
        numbers = sorted(numbers, key=lambda number: self.pairs[number].longest())
        size = self.settings.batch_size
        if self.precision.device.type == "cpu":
            size = max(1, CPU_TOKENS // (2 * self.pairs[numbers[-1]].longest()))
        return [numbers[first : first + size] for first in range(0, len(numbers), size)]

    def log_probabilities(self, network: torch.nn.Module, numbers: list[int]) -> tuple[torch.Tensor, int]:
        """Return (log-probabilities of the replies of some pairs, (2, pairs); how many tokens they have)."""
        pairs = [self.pairs[number] for number in numbers]
        prompts = [pair.prompt for pair in pairs]
        replies = [*(pair.chosen for pair in pairs), *(pair.rejected for pair in pairs)]
        inputs, targets = rows_of([*prompts, *prompts], replies, self.pad)
        device = self.precision.device
        inputs = torch.from_numpy(inputs).to(device)
        targets = torch.from_numpy(targets).to(device)
        of_tokens = log_probabilities(network, inputs, targets, self.precision)
        return of_tokens.sum(1).view(2, -1), sum(map(len, replies))

    def step(
        self, network: torch.nn.Module, optimizers: list[torch.optim.Optimizer], parts: list[list[int]]
    ) -> StepResult:
        """Update the weights once, with the mean loss over the pairs."""
        pairs = sum(map(len, parts))
        total = torch.zeros((), device=self.precision.device)
        tokens = 0
        for numbers in parts:
            new, count = self.log_probabilities(network, numbers)
            losses, margins = dpo_loss(new, self.of_reference[:, numbers], self.beta)
            loss = losses.sum() / pairs
            self.precision.scaler.scale(loss).backward()
            total += loss.detach()
            tokens += count
            self.means.add("margin", margins.sum().item(), len(numbers))
            self.means.add("preferred", (margins > 0).sum().item(), len(numbers))
        # The log divides by the tokens, so the loss is multiplied by them here.
        return update_weights(network, optimizers, self.precision, self.settings, total * tokens, tokens)

    def measured(self) -> dict[str, float]:
        return self.means.take()

    def score(self, model: Transformer) -> dict[str, float]:
        return self.exam.score(model)

    def state(self) -> dict:
        return {"means": self.means.state()}

    def restore(self, state: dict) -> None:
        self.means.restore(state["means"])
