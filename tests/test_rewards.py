"""Rewards, GRPO and DPO: the functions, the formulas, and the gradients."""

import math
from argparse import Namespace

import numpy as np
import pytest
import torch
from refusals import error_of
from rewards import functions
from rewards.dpo import Dpo, DpoSettings, Pair, dpo_loss
from rewards.grpo import Grpo, GrpoSettings, Part, advantages_of, grpo_loss
from rewards.replies import Means, in_epoch, log_probabilities, parts_for, rows_of
from rewards.weighted import Reward, parse_rewards, rewards_of, weighted_sum
from tiny import SPECIAL, assert_same, make_model

from common.devices import Precision
from generation.prompt_files import Prompt
from generation.writer import Written
from model import IGNORED
from training.lora import Adapted, add_adapters
from training.settings import TrainingSettings

CPU = torch.device("cpu")
FLOAT32 = Precision(CPU, False)
PAD = SPECIAL["<pad>"]
EOS = SPECIAL["<eos>"]


def settings(**changes):
    return TrainingSettings(**{"batch_size": 4, "max_steps": 10, "max_grad_norm": 0.0} | changes)


# The rewards ----------------------------------------------------------------------------------------------------------


def reply(text, ended="eos"):
    return Written(text, len(text.split()), ended)


def prompt(*words):
    return Prompt(0, "Tell me a story.", {"words": list(words)}, "prompts.jsonl, line 1")


@pytest.mark.parametrize(("function", "text", "value"), [
    (functions.words, "The cat sat on a ladder.", 1.0),
    (functions.words, "The cats sat.", 0.5),  # a plural s is allowed
    (functions.words, "The category was new.", 0.0),
    (functions.no_repeat, "The cat sat. The cat sat.", 1.0),
    (functions.no_repeat, "The cat sat down. Then the cat sat down.", 0.0),
    (functions.no_repeat, "", 1.0),
    (functions.length, "cat " * functions.TARGET_LENGTH, 1.0),
    (functions.length, "cat " * (functions.TARGET_LENGTH // 2), 0.5),
    (functions.length, "cat " * (3 * functions.TARGET_LENGTH), 0.0),
    (functions.sentences, "The cat sat.", 1.0),
    (functions.sentences, '"Hello!"', 1.0),
    (functions.sentences, "the cat sat.", 0.0),
    (functions.sentences, "The cat sat", 0.0),
    (functions.sentences, "", 0.0),
])  # fmt: skip
def test_a_reward_measures_what_its_docstring_says(function, text, value):
    assert function(prompt("cat", "ladder"), reply(text)) == pytest.approx(value)


def test_a_reply_ends_by_itself_or_not():
    assert functions.ends(prompt(), reply("The end.")) == 1
    assert functions.ends(prompt(), reply("And then", ended="length")) == 0


def test_a_prompt_without_words_asks_for_nothing():
    assert functions.words(prompt(), reply("A dog.")) == 1


def test_the_total_is_the_weighted_sum():
    rewards = parse_rewards(["words=2", "ends=-0.5", "sentences"], [])
    values = rewards_of(rewards, prompt("cat"), reply("a cat."))
    assert values == {"words": 1.0, "ends": 1.0, "sentences": 0.0}
    assert weighted_sum(rewards, values) == pytest.approx(1.5)


def test_a_reward_with_the_weight_0_is_only_measured():
    rewards = parse_rewards(["words=1", "ends=0"], [])
    assert weighted_sum(rewards, rewards_of(rewards, prompt("cat"), reply("a cat."))) == 1


def test_a_reward_of_the_users_own_file_counts(tmp_path):
    path = tmp_path / "my.py"
    path.write_text("def short(prompt, reply):\n    return -len(reply.text)\n")
    (mine,) = parse_rewards([], [f"{path}:short=0.1"])
    assert (mine.name, mine.weight, mine.of(prompt(), reply("abc"))) == ("short", 0.1, -3)


@pytest.mark.parametrize(("ours", "files", "reason"), [
    (["wrods=1"], [], "--reward wrods: no such reward; there are words, ends, no_repeat, length, sentences"),
    (["words=much"], [], "--reward words=much: the weight must be a number; write words=0.5"),
    (["words=nan"], [], "the weight must be a number"),
    (["words=1", "words=2"], [], "the reward words is given twice"),
    ([], ["lr=3/no.py:short"], "the weight must be a number"),
    ([], ["my.py"], "--reward_file my.py names no function; write FILE.py:FUNCTION"),
    ([], ["no.py:short"], "--reward_file needs FILE.py:FUNCTION, but there is no file no.py"),
    ([], ["my.py:long"], "my.py has no function long"),
    ([], ["broken.py:f"], "broken.py: SyntaxError"),
    ([], ["notes.txt:f"], "the name of a Python file ends in .py"),
])  # fmt: skip
def test_a_reward_that_cannot_be_used_is_refused(tmp_path, monkeypatch, ours, files, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.py").write_text("def short(prompt, reply):\n    return 1\n")
    (tmp_path / "broken.py").write_text("def f(\n")
    (tmp_path / "notes.txt").write_text("")
    assert reason in error_of(parse_rewards, ours, files)


@pytest.mark.parametrize(("body", "reason"), [
    ("return None", "my.py:mine returned None for the prompt Tell me a story.; it must return a finite number"),
    ("return float('nan')", "my.py:mine returned nan"),
    ("return '1'", "my.py:mine returned '1'"),
    ("return 10**400", "it must return a finite number"),
    ("return 1 / 0", "--reward_file my.py:mine, line 2: ZeroDivisionError: division by zero"),
    ("import json; return json.loads(reply.text)", "my.py:mine, line 2: JSONDecodeError"),
])  # fmt: skip
def test_a_reward_function_that_fails_is_named_with_its_line(tmp_path, monkeypatch, body, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.py").write_text(f"def mine(prompt, reply):\n    {body}\n")
    (mine,) = parse_rewards([], ["my.py:mine"])
    assert reason in error_of(mine.of, prompt(), reply("abc"))


@pytest.mark.parametrize("value", [True, np.bool_(True), np.int64(1), np.float32(1), torch.tensor(1.0)])
def test_a_reward_may_be_any_kind_of_number(value):
    assert Reward("mine", 1, lambda prompt, reply: value, "here").of(prompt(), reply("a cat")) == 1


def test_an_error_in_a_reward_of_ours_names_its_flag(monkeypatch):
    (reward,) = parse_rewards(["length"], [])
    monkeypatch.setattr(functions, "TARGET_LENGTH", 0)
    assert error_of(reward.of, prompt(), reply("abc")).startswith("--reward length, line ")


# Rows -----------------------------------------------------------------------------------------------------------------


def test_only_the_tokens_of_the_reply_are_predicted():
    inputs, targets = rows_of([[1, 8, 9], [1, 8]], [[10, 11, EOS], [12, EOS]], PAD)
    assert inputs.tolist() == [[1, 8, 9, 10, 11], [1, 8, 12, PAD, PAD]]
    assert targets.tolist() == [[IGNORED, IGNORED, 10, 11, EOS], [IGNORED, 12, EOS, IGNORED, IGNORED]]


def test_padding_changes_no_log_probability():
    model = make_model()
    prompts, replies = [[2, 8, 9], [2, 8]], [[10, 11, EOS], [12, EOS]]
    with torch.no_grad():
        together = log_probabilities(model, *map(torch.from_numpy, rows_of(prompts, replies, PAD)), FLOAT32)
        alone = log_probabilities(model, *map(torch.from_numpy, rows_of(prompts[1:], replies[1:], PAD)), FLOAT32)
    assert_same(together[1, :3], alone[0])
    assert together[1, 3:].tolist() == [0, 0]


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_log_probabilities_are_those_of_the_logits_divided_by_the_temperature(temperature):
    model = make_model()
    inputs, targets = map(torch.from_numpy, rows_of([[2, 8, 9]], [[10, 11, EOS]], PAD))
    with torch.no_grad():
        found = log_probabilities(model, inputs, targets, FLOAT32, temperature)
        expected = (model(inputs) / temperature).log_softmax(-1)
    assert_same(found[0, 2:], expected[0, [2, 3, 4], [10, 11, EOS]])
    assert found[0, :2].tolist() == [0, 0]


def test_on_a_cpu_rows_of_similar_length_are_computed_together():
    targets = np.full((3, 2000), IGNORED)
    for row, length in enumerate((1000, 10, 1990)):
        targets[row, length - 1] = 5
    parts = parts_for(CPU, targets, most_rows=2)
    assert [(rows.tolist(), width) for rows, width in parts] == [([1, 0], 1024), ([2], 2000)]


def test_on_a_gpu_a_part_has_at_most_as_many_rows_as_a_batch():
    parts = parts_for(torch.device("cuda"), np.full((5, 7), IGNORED), most_rows=2)
    assert [(rows.tolist(), width) for rows, width in parts] == [([0, 1], 7), ([2, 3], 7), ([4], 7)]


def test_each_epoch_uses_every_prompt_once_and_has_its_own_order():
    epochs = [[in_epoch(5 * epoch + place, 5, seed=1) for place in range(5)] for epoch in range(3)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_means_are_over_what_was_added_since_they_were_taken():
    means = Means()
    means.add("kl", 6.0, 3)
    means.add("kl", 2.0, 1)
    assert means.take() == {"kl": 2.0}
    assert means.take() == {}


# GRPO -----------------------------------------------------------------------------------------------------------------


def test_the_advantage_is_the_reward_less_the_mean_of_its_group():
    rewards = np.array([[1.0, 0, 0, 0], [2, 2, 4, 4]])
    assert advantages_of(rewards).tolist() == [[0.75, -0.25, -0.25, -0.25], [-1, -1, 1, 1]]
    assert advantages_of(rewards, scale=True)[1] == pytest.approx([-1, -1, 1, 1], rel=1e-3)


def test_the_gradient_stops_where_a_ratio_is_clipped():
    old = torch.zeros(1, 4)
    ratios = torch.tensor([[1.1, 1.3, 0.9, 0.7]])
    for advantage, expected in ((2.0, [-2.2, 0, -1.8, -1.4]), (-2.0, [2.2, 2.6, 1.8, 0])):
        new = ratios.log().requires_grad_()
        grpo_loss(new, old, old, torch.tensor([advantage]), clip=0.2, kl=0.0).sum().backward()
        assert_same(new.grad, torch.tensor([expected]))


def test_the_estimate_of_the_divergence_is_zero_for_equal_models_and_never_negative():
    new = torch.linspace(-3, 0, 7)[None]
    for shift in (-1.0, 0.0, 1.0):
        losses = grpo_loss(new, new, new + shift, torch.zeros(1), clip=0.2, kl=1.0)
        assert (losses >= 0).all()
        assert torch.equal(losses, torch.zeros_like(losses)) == (shift == 0)


def test_the_estimate_of_the_divergence_is_right_on_average():
    torch.manual_seed(0)
    new, reference = torch.randn(2, 5).log_softmax(-1)
    losses = grpo_loss(new[None], new[None], reference[None], torch.zeros(1), clip=0.2, kl=1.0)[0]
    assert_same((new.exp() * losses).sum(), (new.exp() * (new - reference)).sum())


class Bandit(torch.nn.Module):
    """A model that draws one token, whatever the prompt; its weights are the logits."""

    def __init__(self, logits):
        super().__init__()
        self.theta = torch.nn.Parameter(torch.tensor(logits))

    def hidden(self, ids):
        return torch.ones(*ids.shape, 1)

    def logits(self, hidden):
        return hidden * self.theta


def grpo(model, parts, tokens, how=None, reference=None, **changes):
    """Return the task with these replies; nothing asks the model for others."""
    sampling = Namespace(temperature=1.0)
    exam = Namespace(asker=Namespace(writer=Namespace(sampling=sampling)), for_training=1)
    task = Grpo(model, reference or model, exam, how or GrpoSettings(kl=0.0), settings(**changes), FLOAT32)
    task.parts = parts
    task.tokens = tokens
    return task


def test_on_a_bandit_one_step_of_gradient_descent_equals_the_formula():
    model = Bandit([0.1, -0.4, 0.3, 0.0])
    before = model.theta.detach().clone()
    chosen = torch.tensor([2, 0, 2, 3])
    advantages = torch.tensor([0.5, -0.75, 0.5, -0.25])
    part = Part(torch.zeros(4, 1, dtype=torch.int64), chosen[:, None], advantages)
    rate = 0.3
    grpo(model, [part], tokens=4).step(model, [torch.optim.SGD([model.theta], rate)], [part])
    gradient = torch.zeros(4)  # of the expected reward: the mean of advantage x (one-hot - probabilities)
    for token, advantage in zip(chosen, advantages, strict=True):
        gradient += advantage * (torch.eye(4)[token] - before.softmax(-1)) / 4
    assert_same(model.theta.detach(), before + rate * gradient)


def tokens_of(model, prompts, replies):
    inputs, targets = map(torch.from_numpy, rows_of(prompts, replies, PAD))
    with torch.no_grad():
        return inputs, targets, log_probabilities(model, inputs, targets, FLOAT32)


@pytest.mark.parametrize("lora_rank", [0, 2])
def test_the_gradient_equals_finite_differences_with_clipping_and_divergence(lora_rank):
    model = make_model()
    if lora_rank:
        add_adapters(model, lora_rank)
        for module in model.modules():
            if isinstance(module, Adapted):  # not at zero, where A has no gradient
                torch.nn.init.normal_(module.up, std=0.1)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    reference = make_model(seed=1)
    prompts = [[2, 8, 9], [2, 8], [2, 9, 9]]
    replies = [[10, 11, EOS], [12, EOS], [13, 14, 15, EOS]]
    inputs, targets, now = tokens_of(model, prompts, replies)
    old = now + 0.3 * torch.randn(now.shape, generator=torch.Generator().manual_seed(3))
    *_, of_reference = tokens_of(reference, prompts, replies)
    advantages = torch.tensor([1.0, -0.5, -0.5])
    how = GrpoSettings(kl=0.3)
    is_reply = targets != IGNORED
    ratios = (now - old).exp()[is_reply]
    assert ((ratios - 1).abs() > how.clip).any() and ((ratios - 1).abs() < how.clip).any()

    def loss_at(size):
        """Return the loss after a step of this size in the random direction."""
        with torch.no_grad():
            for weight, start, direction in zip(weights, before, directions, strict=True):
                weight.copy_(start + size * direction)
            new = log_probabilities(model, inputs, targets, FLOAT32)
            losses = grpo_loss(new, old, of_reference, advantages, how.clip, how.kl)
        return losses[is_reply].mean().item()

    before = [weight.detach().clone() for weight in weights]
    part = Part(inputs, targets, advantages, old, of_reference)
    task = grpo(model, [part], int(is_reply.sum()), how, reference)
    task.step(model, [torch.optim.SGD(weights, 1.0)], [part])
    gradients = [start - weight.detach() for weight, start in zip(weights, before, strict=True)]
    generator = torch.Generator().manual_seed(4)
    for _ in range(3):
        directions = [torch.randn(weight.shape, generator=generator) for weight in weights]
        slope = sum((one * other).sum().item() for one, other in zip(gradients, directions, strict=True))
        found = (loss_at(1e-4) - loss_at(-1e-4)) / 2e-4
        assert found == pytest.approx(slope, rel=0.05, abs=0.02)


def test_a_step_in_parts_equals_one_step():
    prompts, replies = [[2, 8, 9], [2, 8]], [[10, 11, EOS], [12, EOS]]
    advantages = torch.tensor([1.0, -1.0])
    changed = []
    for size in (1, 2):
        model = make_model()
        parts = []
        for first in range(0, 2, size):
            rows = slice(first, first + size)
            inputs, targets, _ = tokens_of(model, prompts[rows], replies[rows])
            parts.append(Part(inputs, targets, advantages[rows]))
        result = grpo(model, parts, tokens=5).step(model, [torch.optim.SGD(model.parameters(), 0.1)], parts)
        assert result.tokens == 5 and result.good
        changed.append(model)
    for one, other in zip(*(model.parameters() for model in changed), strict=True):
        assert_same(one, other)


def test_clipped_is_the_share_of_tokens_without_policy_gradient():
    model = Bandit([0.0, 0.0])
    old = torch.tensor([[0.5], [0.5], [0.5]]).log() - torch.tensor([[1.3], [1.3], [0.7]]).log()  # ratios 1.3, 1.3, 0.7
    part = Part(torch.zeros(3, 1, dtype=torch.int64), torch.tensor([[0], [1], [1]]), torch.tensor([1.0, -1.0, -1.0]),
                old, torch.full((3, 1), 0.5).log())  # fmt: skip
    task = grpo(model, [part], tokens=3)
    task.step(model, [torch.optim.SGD([model.theta], 0.1)], [part])
    assert task.measured() == {"kl": 0, "clipped": pytest.approx(2 / 3)}  # not the second: it moved the wrong way


def test_a_step_without_replies_that_differ_changes_nothing():
    model = make_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    result = grpo(model, [], tokens=7).step(model, [optimizer], [])
    assert result.good and result.tokens == 7 and result.loss == 0
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("changes", "reason"), [
    ({"group_size": 1}, "--group_size must be at least 2, not 1"), ({"updates": 0}, "--updates must be at least 1"),
    ({"clip": 0.0}, "--clip must be above 0"), ({"clip": 1.0}, "and below 1"), ({"kl": -0.1}, "--kl must be 0 or more"),
])  # fmt: skip
def test_settings_of_grpo_that_make_no_sense_are_refused(changes, reason):
    assert reason in error_of(GrpoSettings, **changes)


# DPO ------------------------------------------------------------------------------------------------------------------


def test_the_loss_and_the_gradient_of_dpo_equal_the_formula():
    new = torch.tensor([[-3.0, -5.0], [-4.0, -2.0]], requires_grad=True)
    reference = torch.tensor([[-3.5, -4.0], [-4.0, -4.0]])
    beta = 0.5
    losses, margins = dpo_loss(new, reference, beta)
    expected = beta * torch.tensor([0.5 - 0.0, -1.0 - 2.0])
    assert_same(margins.detach(), expected)
    assert_same(losses.detach(), -torch.log(1 / (1 + torch.exp(-expected))))
    losses.sum().backward()
    weight = beta * torch.sigmoid(-expected)  # how wrong the order of the implicit rewards is
    assert_same(new.grad, torch.stack((-weight, weight)))


def dpo(reference, pairs, beta=0.5, **changes):
    exam = Namespace(asker=Namespace(writer=Namespace(tokenizer=Namespace(special=SPECIAL))))
    return Dpo(reference, exam, pairs, beta, settings(**changes), FLOAT32)


PAIRS = [Pair([2, 8, 9], [10, 11, EOS], [12, EOS]), Pair([2, 8], [13, EOS], [14, 15, 16, EOS])]


def test_a_step_of_dpo_equals_the_gradient_of_the_mean_loss_of_the_pairs():
    reference = make_model(seed=1)
    model = make_model()
    task = dpo(reference, PAIRS, batch_size=2)
    (parts,) = [task.batches(0)]
    assert sorted(number for part in parts for number in part) == [0, 1]

    def loss():
        total = 0
        for pair in PAIRS:
            sums = []
            for network in (model, reference):
                for answer in (pair.chosen, pair.rejected):
                    inputs, targets = map(torch.from_numpy, rows_of([pair.prompt], [answer], PAD))
                    sums.append(log_probabilities(network, inputs, targets, FLOAT32).sum())
            better = sums[0] - sums[2]
            worse = sums[1] - sums[3]
            total = total - torch.nn.functional.logsigmoid(0.5 * (better - worse)) / len(PAIRS)
        return total

    gradients = torch.autograd.grad(loss(), list(model.parameters()))
    before = [weight.detach().clone() for weight in model.parameters()]
    result = task.step(model, [torch.optim.SGD(model.parameters(), 1.0)], parts)
    assert result.tokens == 3 + 2 + 2 + 4
    for weight, start, gradient in zip(model.parameters(), before, gradients, strict=True):
        assert_same(weight.detach(), start - gradient, 1e-4)
    measured = task.measured()
    assert set(measured) == {"margin", "preferred"}


def test_dpo_begins_with_a_loss_of_ln_2():
    model = make_model()
    task = dpo(make_model(), PAIRS, batch_size=2)
    result = task.step(model, [torch.optim.SGD(model.parameters(), 0.1)], task.batches(0))
    assert result.loss.item() / result.tokens == pytest.approx(math.log(2), rel=1e-5)


def test_a_beta_that_makes_no_sense_is_refused():
    assert "--beta must be above 0" in error_of(DpoSettings, beta=0.0)
