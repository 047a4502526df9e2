"""Replies as training rows: what the model writes, what it is worth, and how probable each token of it was.

In reading order: `Asker`, which lets a copy of the model reply; `Exam`, the rewards for prompts that are set aside;
`Means` and `in_epoch`, small helpers; `TaskRows`, for the plan of the run; `rows_of` and `parts_for`, from replies to
tensors; `log_probabilities`.  In the comments B is the number of rows in a part, T the number of tokens in a row.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from common.console import log
from common.devices import Precision, ready_to_write
from common.errors import UserError
from corpus.dialogues import Rendered
from generation.prompt_files import Prompt
from generation.prompts import chat_prompt
from generation.sampling import Sampling
from generation.writer import Writer, Written
from model import IGNORED, Transformer
from rewards.weighted import Reward, rewards_of, weighted_sum
from training.lora import merged_weights
from training.step import rows_together

SAME_REWARD = 1e-9  # rewards that differ by less are equal, up to rounding


class Reply(NamedTuple):
    """What a model replied: its ids, <eos> included, and the same as text."""

    ids: list[int]
    written: Written


def render_prompt(writer: Writer, prompt: Prompt) -> Rendered:
    """Render a prompt, which is a message or a dialogue."""
    return chat_prompt(writer, prompt.turns or [("user", prompt.prompt)])


def prompt_ids(writer: Writer, prompt: Prompt) -> list[int]:
    """Return the model's input for a prompt."""
    return render_prompt(writer, prompt).ids


class Asker:
    """Gives prompts to a copy of the model; the copy has the number format in which a model writes fastest."""

    def __init__(self, writer: Writer, prompts: list[Prompt], rows: int, may_shorten: bool):
        """writer: with the copy of the model; rows: how many replies are written side by side.

        A prompt and its reply must fit into the context, because they become a training row.  may_shorten: if they do
        not, lower max_new_tokens; otherwise raise UserError.
        """
        writer.model = ready_to_write(writer.model.eval(), rows)
        self.writer = writer
        self.prompts = prompts
        self.rows = rows
        rendered = [render_prompt(writer, prompt) for prompt in prompts]
        self.ids = [prompt.ids for prompt in rendered]
        cut = sum(prompt.dropped > 0 or prompt.question_cut for prompt in rendered)
        if cut:
            log.info(f"prompts that do not fit the model's context, and lose their oldest turns or words: {cut:,}")
        longest = max(range(len(prompts)), key=lambda number: len(self.ids[number]))
        room = writer.context - len(self.ids[longest])
        if may_shorten and writer.sampling.max_new_tokens > room:
            writer.set(max_new_tokens=room)
            log.info(f"replies have at most {room} tokens, so that each fits the context together with its prompt")
        if writer.sampling.max_new_tokens > room:
            raise UserError(
                f"{prompts[longest].place}: next to this prompt, the model's context of {writer.context} tokens has "
                f"room for {room}, not for --max_new_tokens {writer.sampling.max_new_tokens}; pass a smaller number"
            )

    def take_weights(self, model: Transformer) -> None:
        """Copy the weights of the model in training, with LoRA's adapters merged."""
        self.writer.model.load_state_dict(merged_weights(model))

    def ask(self, numbers: list[int], row_seeds: list[int], sampling: Sampling | None = None) -> list[Reply]:
        """Return a reply to each of these prompts.  row_seeds: see `generate`; sampling: another one than usual."""
        replies = []
        usual = self.writer.sampling
        self.writer.sampling = sampling or usual
        for first in range(0, len(numbers), self.rows):
            together = slice(first, first + self.rows)
            prompts = [self.ids[number] for number in numbers[together]]
            for ids in self.writer.write_ids(prompts, row_seeds[together]):
                replies.append(Reply(ids, self.writer.finished(ids)))
        self.writer.sampling = usual
        return replies

    def score(self, numbers: list[int], replies: list[Reply], rewards: list[Reward]) -> tuple[np.ndarray, dict]:
        """Return (the total reward of each reply, the mean of each reward); numbers: those of the prompts."""
        values = []
        for number, reply in zip(numbers, replies, strict=True):
            values.append(rewards_of(rewards, self.prompts[number], reply.written))
        totals = np.array([weighted_sum(rewards, value) for value in values])
        means = {"reward": float(totals.mean())}
        for reward in rewards:
            means[f"reward_{reward.name}"] = float(np.mean([value[reward.name] for value in values]))
        return totals, means


class Exam:
    """The prompts that are set aside, and the rewards that a model gets for them, one reply each."""

    def __init__(self, asker: Asker, rewards: list[Reward], for_training: int, seed: int):
        """for_training: the first so many of the asker's prompts are for training; numbers: those of the others.

        The replies are drawn as a chat draws them.
        """
        self.asker = asker
        self.rewards = rewards
        self.for_training = for_training
        self.numbers = list(range(for_training, len(asker.prompts)))
        self.sampling = Sampling(max_new_tokens=asker.writer.sampling.max_new_tokens, seed=seed)

    def score(self, model: Transformer) -> dict[str, float]:
        """Return {"reward": the mean of the total, "reward_<name>": ...}."""
        self.asker.take_weights(model)
        replies = self.asker.ask(self.numbers, self.numbers, self.sampling)
        _, means = self.asker.score(self.numbers, replies, self.rewards)
        return means


class Means:
    """Means of what was measured since the last log line."""

    def __init__(self):
        self.sums = {}
        self.counts = {}

    def add(self, name: str, total: float, count: int = 1) -> None:
        """Add `count` values with this sum."""
        self.sums[name] = self.sums.get(name, 0.0) + total
        self.counts[name] = self.counts.get(name, 0) + count

    def take(self) -> dict[str, float]:
        """Return the means, those of rewards first, and start again."""
        names = sorted(self.sums, key=lambda name: not name.startswith("reward"))
        means = {name: self.sums[name] / max(1, self.counts[name]) for name in names}
        self.sums = {}
        self.counts = {}
        return means

    def state(self) -> dict:
        return {"sums": self.sums, "counts": self.counts}

    def restore(self, state: dict) -> None:
        self.sums = state["sums"]
        self.counts = state["counts"]


def in_epoch(place: int, count: int, seed: int) -> int:
    """Return which of `count` prompts or pairs is used at a place, 0, 1, ...; each epoch has its own order."""
    epoch, index = divmod(place, count)
    return int(np.random.default_rng([seed, epoch]).permutation(count)[index])


@dataclass
class TaskRows:
    """What the plan of a run must know of its rows.

    texts: how many prompts or pairs there are; per_epoch: how many rows the steps have until each of them was used;
    length: the tokens of a row, at most.
    """

    texts: int
    per_epoch: int
    length: int
    packed: bool = False

    def rows_before(self, epoch: int) -> int:
        return epoch * self.per_epoch


# Rows -----------------------------------------------------------------------------------------------------------------


def rows_of(prompts: list[list[int]], replies: list[list[int]], pad: int) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs and targets, int64 (rows, tokens); the targets are the reply's tokens, <eos> included."""
    width = max(len(prompt) + len(reply) for prompt, reply in zip(prompts, replies, strict=True)) - 1
    inputs = np.full((len(prompts), width), pad)
    targets = np.full((len(prompts), width), IGNORED)
    for row, (prompt, reply) in enumerate(zip(prompts, replies, strict=True)):
        ids = [*prompt, *reply]
        inputs[row, : len(ids) - 1] = ids[:-1]
        targets[row, len(prompt) - 1 : len(ids) - 1] = reply
    return inputs, targets


def parts_for(device: torch.device, targets: np.ndarray, most_rows: int) -> list[tuple[np.ndarray, int]]:
    """Return [(rows, width)]: which rows the device computes together, and how many of their columns.

    targets: (rows, tokens); most_rows: of a part.
    """
    if device.type == "cpu":
        return rows_together(targets)
    rows = np.arange(len(targets))
    return [(rows[first : first + most_rows], targets.shape[1]) for first in range(0, len(rows), most_rows)]


def log_probabilities(
    model: Transformer, inputs: torch.Tensor, targets: torch.Tensor, precision: Precision, temperature: float = 1.0
) -> torch.Tensor:
    """Return the log-probability of each target, float32 (B, T), and 0 for IGNORED; inputs, targets: int64 (B, T).

    temperature: the one that the replies were drawn with: their probabilities are those of logits / temperature.
    """
    with precision.autocast():
        hidden = model.hidden(inputs)
        logits = model.logits(hidden)
    logits = logits.float().transpose(1, 2) / temperature  # (B, V, T)
    return -F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="none")
