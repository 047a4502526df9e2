"""GRPO: reply several times to each prompt, and make the better replies more probable (Shao et al. 2024).

In reading order: the formulas, `advantages_of` and `grpo_loss`; `Grpo`, the task of a run: `batches` lets the model
reply, `step` updates the weights.  docs/rewards.md explains each symbol.

What differs from the paper: a step's loss is the mean over its tokens, not over its replies, so that each token counts
the same in short and in long replies (DAPO, Yu et al. 2025); the advantage is not divided by the group's deviation,
unless --scale_rewards is given (Dr. GRPO, Liu et al. 2025).
"""

import argparse
import math
from dataclasses import asdict, dataclass

import numpy as np
import torch

from common.devices import Precision
from common.errors import UserError
from common.flags import flag
from model import IGNORED, Transformer
from rewards.replies import SAME_REWARD, Exam, Means, in_epoch, log_probabilities, parts_for, rows_of
from training.settings import TrainingSettings
from training.step import StepResult, update_weights

SEEDS_PER_BATCH = 1 << 32  # more than a batch has replies

# Formulas -------------------------------------------------------------------------------------------------------------


def advantages_of(rewards: np.ndarray, scale: bool = False) -> np.ndarray:
    """Return how much better each reply is than the mean of its group; both arrays: (groups, replies of a group).

    scale: divide by the group's standard deviation, as in the paper.
    """
    advantages = rewards - rewards.mean(1, keepdims=True)
    if scale:
        advantages = advantages / (rewards.std(1, keepdims=True) + 1e-4)
    return advantages


def grpo_loss(
    new: torch.Tensor, old: torch.Tensor, reference: torch.Tensor, advantages: torch.Tensor, clip: float, kl: float
) -> torch.Tensor:
    """Return the loss of each token, (B, T).

    new, old, reference: log-probabilities of the tokens (B, T), of the model now, of the model that wrote them, and of
    the model that the run began with.  advantages (B,): of the replies.
    The policy gradient is clipped as in PPO (Schulman et al. 2017): once the ratio of the probabilities has moved by
    more than `clip` in the right direction, a token's gradient is 0.
    """
    ratio = (new - old).exp()
    advantages = advantages[:, None]
    gain = torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)
    return kl * kl_estimate(new, reference) - gain


def kl_estimate(new: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Return an estimate of the KL divergence of the model now from the first one, for each token (Schulman 2020)."""
    difference = reference - new
    return difference.exp() - difference - 1


# The task -------------------------------------------------------------------------------------------------------------


@dataclass
class GrpoSettings:
    """The settings of --method grpo; each field is a flag of the same name."""

    group_size: int = flag(8, "replies per prompt; grpo compares them, dpo makes a pair of the best and the worst")
    updates: int = flag(2, "steps with the same replies")
    clip: float = flag(
        0.2, "a token stops counting when its probability has changed by this share in the wanted direction"
    )
    kl: float = flag(0.03, "weight of the distance to the model that the run began with; 0: none")
    scale_rewards: bool = flag(
        False, "divide the advantages by their deviation in the group", action=argparse.BooleanOptionalAction
    )

    def __post_init__(self):
        if self.group_size < 2:
            raise UserError(f"--group_size must be at least 2, not {self.group_size}: replies are compared")
        if self.updates < 1:
            raise UserError(f"--updates must be at least 1, not {self.updates}")
        if not 0 < self.clip < 1:
            raise UserError(f"--clip must be above 0 and below 1, not {self.clip}")
        if not 0 <= self.kl < math.inf:
            raise UserError(f"--kl must be 0 or more, not {self.kl}")


@dataclass
class Part:
    """Replies that the device computes together; kept on the CPU.  old, reference: None until the first step."""

    inputs: torch.Tensor  # int64 (B, T)
    targets: torch.Tensor  # int64 (B, T)
    advantages: torch.Tensor  # float32 (B,)
    old: torch.Tensor | None = None  # float32 (B, T)
    reference: torch.Tensor | None = None  # float32 (B, T)


class Grpo:
    """The task of a run with GRPO; see `job.Task`."""

    def __init__(
        self, model: Transformer, reference: Transformer, exam: Exam, how: GrpoSettings, settings: TrainingSettings,
        precision: Precision,
    ):  # fmt: skip
        """model: in training; reference: the one that the run begins with."""
        self.model = model
        self.reference = reference
        self.exam = exam
        self.asker = exam.asker
        self.how = how
        self.settings = settings
        self.precision = precision
        self.temperature = self.asker.writer.sampling.temperature
        self.parts: list[Part] = []  # the newest replies, without groups that are equally good
        self.tokens = 0  # in the newest replies, of all groups
        self.means = Means()

    def batches(self, step: int) -> list[Part]:
        """Return the replies for a step; every --updates steps, the model writes new ones."""
        if step % self.how.updates == 0:
            self.write_replies(step // self.how.updates)
        return self.parts

    def prompts_of(self, batch: int) -> list[int]:
        """Return the numbers of the prompts of a batch of replies; each epoch has its own order."""
        count = self.settings.rows_per_step // self.how.group_size
        places = range(batch * count, (batch + 1) * count)
        return [in_epoch(place, self.exam.for_training, self.settings.seed) for place in places]

    def write_replies(self, batch: int) -> None:
        """Let the model reply --group_size times to each prompt of a batch, and compute the advantages."""
        size = self.how.group_size
        numbers = [number for number in self.prompts_of(batch) for _ in range(size)]
        row_seeds = [batch * SEEDS_PER_BATCH + row for row in range(len(numbers))]
        self.asker.take_weights(self.model)
        replies = self.asker.ask(numbers, row_seeds)
        totals, means = self.asker.score(numbers, replies, self.exam.rewards)
        groups = totals.reshape(-1, size)
        advantages = advantages_of(groups, self.how.scale_rewards).flatten()
        is_equal = np.ptp(groups, axis=1) < SAME_REWARD  # such a group teaches nothing
        self.tokens = sum(len(reply.ids) for reply in replies)
        for name, value in means.items():
            self.means.add(name, value)
        self.means.add("reply_tokens", self.tokens, len(replies))
        self.means.add("equal_groups", is_equal.sum().item(), len(groups))
        used = np.flatnonzero(~np.repeat(is_equal, size))
        self.parts = self.parts_of(
            [self.asker.ids[numbers[row]] for row in used], [replies[row].ids for row in used], advantages[used]
        )

    def parts_of(self, prompts: list[list[int]], replies: list[list[int]], advantages: np.ndarray) -> list[Part]:
        """Return replies with their advantages in parts that suit the device."""
        if not prompts:
            return []
        inputs, targets = rows_of(prompts, replies, self.asker.writer.tokenizer.special["<pad>"])
        advantages = torch.from_numpy(advantages).float()
        parts = []
        for rows, width in parts_for(self.precision.device, targets, self.settings.batch_size):
            of_rows = torch.from_numpy(inputs[rows, :width])
            predicted = torch.from_numpy(targets[rows, :width])
            parts.append(Part(of_rows, predicted, advantages[rows]))
        return parts

    def step(self, network: torch.nn.Module, optimizers: list[torch.optim.Optimizer], parts: list[Part]) -> StepResult:
        """Update the weights once, with the mean loss over the tokens of the newest replies."""
        device = self.precision.device
        total = torch.zeros((), device=device)
        if not parts:
            norm = torch.zeros((), device=device)
            good = torch.tensor(True, device=device)
            return StepResult(total, self.tokens, norm, good, self.precision.loss_scale())
        for part in parts:
            inputs = part.inputs.to(device)
            targets = part.targets.to(device)
            advantages = part.advantages.to(device)
            new = log_probabilities(network, inputs, targets, self.precision, self.temperature)
            if part.old is None:  # the first step: the weights are still those that wrote the replies
                part.old = new.detach().cpu()
                part.reference = self.of_reference(inputs, targets).cpu()
            old = part.old.to(device)
            reference = part.reference.to(device)
            is_reply = targets != IGNORED
            loss = grpo_loss(new, old, reference, advantages, self.how.clip, self.how.kl)[is_reply].sum()
            self.precision.scaler.scale(loss / self.tokens).backward()
            total += loss.detach()
            self.measure(new.detach(), old, reference, advantages, is_reply)
        return update_weights(network, optimizers, self.precision, self.settings, total, self.tokens)

    def of_reference(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the log-probabilities (B, T) that the first model gives to the targets."""
        with torch.no_grad():
            return log_probabilities(self.reference, inputs, targets, self.precision, self.temperature)

    def measure(
        self, new: torch.Tensor, old: torch.Tensor, reference: torch.Tensor, advantages: torch.Tensor,
        is_reply: torch.Tensor,
    ) -> None:  # fmt: skip
        """Measure the distance to the first model, and for how many tokens the policy gradient is clipped."""
        count = int(is_reply.sum())
        self.means.add("kl", kl_estimate(new, reference)[is_reply].sum().item(), count)
        ratio = (new - old).exp()
        too_high = (ratio > 1 + self.how.clip) & (advantages[:, None] > 0)
        too_low = (ratio < 1 - self.how.clip) & (advantages[:, None] < 0)
        self.means.add("clipped", (too_high | too_low)[is_reply].sum().item(), count)

    def measured(self) -> dict[str, float]:
        return self.means.take()

    def score(self, model: Transformer) -> dict[str, float]:
        return self.exam.score(model)

    def state(self) -> dict:
        """Return the newest replies: a run may be stopped between two steps with the same ones."""
        parts = [asdict(part) for part in self.parts]
        return {"parts": parts, "tokens": self.tokens, "means": self.means.state()}

    def restore(self, state: dict) -> None:
        self.parts = [Part(**part) for part in state["parts"]]
        self.tokens = state["tokens"]
        self.means.restore(state["means"])
