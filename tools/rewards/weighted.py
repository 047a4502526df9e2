"""Which rewards count, and how much: --reward and --reward_file."""

import importlib.util
import inspect
import math
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError, one_line
from common.numbers import finite_number
from generation.prompt_files import Prompt
from generation.writer import Written
from rewards import functions

OURS = {
    name: function
    for name, function in vars(functions).items()
    if inspect.isfunction(function) and function.__module__ == functions.__name__
}


@dataclass
class Reward:
    """A reward and its weight.  name: of its function; place: the flag that names it, for messages."""

    name: str
    weight: float
    function: Callable[[Prompt, Written], float]
    place: str

    def of(self, prompt: Prompt, reply: Written) -> float:
        """Return the reward of a reply.  Raises UserError if the function fails or returns no number."""
        try:
            value = self.function(prompt, reply)
        except Exception as error:  # a student's code may raise anything
            reason = one_line(f"{type(error).__name__}: {error}")
            raise UserError(f"{self.place}, {line_of(error, self.function)}: {reason}") from error
        try:
            number = math.nan if isinstance(value, str) else float(value)  # also a number of numpy or torch
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if finite_number(number) is None:
            asked = one_line(prompt.prompt)
            raise UserError(f"{self.place} returned {value!r} for the prompt {asked}; it must return a finite number")
        return number


def line_of(error: Exception, function: Callable) -> str:
    """Return where an error was raised: the last line of the function's own file that was running."""
    file = getattr(getattr(function, "__code__", None), "co_filename", None)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"line {lines[-1]}" if lines else "in code that it calls"


def parse_rewards(ours: list[str], files: list[str]) -> list[Reward]:
    """Return the rewards of --reward NAME=WEIGHT and --reward_file FILE:FUNCTION=WEIGHT, whose code is run."""
    rewards = []
    for text in ours:
        name, weight = split_weight("--reward", text)
        if name not in OURS:
            raise UserError(f"--reward {one_line(name)}: no such reward; there are {', '.join(OURS)}")
        rewards.append(Reward(name, weight, OURS[name], f"--reward {name}"))
    for text in files:
        place, weight = split_weight("--reward_file", text)
        path, colon, name = place.rpartition(":")
        if not colon:
            raise UserError(f"--reward_file {one_line(text)} names no function; write FILE.py:FUNCTION")
        rewards.append(Reward(name, weight, function_in(path, name), f"--reward_file {place}"))
    names = [reward.name for reward in rewards]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"the reward {name} is given twice; give it once, with its weight")
    return rewards


def split_weight(flag: str, text: str) -> tuple[str, float]:
    """Return (name, weight) of NAME=WEIGHT, or of NAME with the weight 1."""
    name, sign, weight = text.rpartition("=")
    if not sign:
        return text, 1.0
    try:
        number = finite_number(float(weight))
    except ValueError:
        number = None
    if number is None:
        raise UserError(f"{flag} {one_line(text)}: the weight must be a number; write {name}=0.5")
    return name, number


def function_in(path: str, name: str) -> Callable:
    """Return the function with this name in a Python file; the file's code is run."""
    if not Path(path).is_file():
        raise UserError(f"--reward_file needs FILE.py:FUNCTION, but there is no file {path}")
    spec = importlib.util.spec_from_file_location(f"reward_file_{Path(path).stem}", path)
    if spec is None:
        raise UserError(f"--reward_file {path}: the name of a Python file ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # data classes in the file look themselves up here
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UserError(f"--reward_file {path}: {one_line(f'{type(error).__name__}: {error}')}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise UserError(f"--reward_file {path} has no function {one_line(name)}")
    return function


def rewards_of(rewards: list[Reward], prompt: Prompt, reply: Written) -> dict[str, float]:
    """Return {name: reward}, without the weights."""
    return {reward.name: reward.of(prompt, reply) for reward in rewards}


def weighted_sum(rewards: list[Reward], values: dict[str, float]) -> float:
    """Return the total reward: the sum of the values, each times its weight."""
    return sum(reward.weight * values[reward.name] for reward in rewards)
