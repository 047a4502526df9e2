"""What a trainer's flags lead to before any work is done: the ranks, the run's folder, the device."""

import argparse
import importlib.util
import sys
from typing import NamedTuple

import torch

from common.console import log
from common.devices import Precision, choose_device
from common.errors import UserError
from common.flags import flags_in_words, settings_from
from common.ranks import Ranks
from training.log_lines import command_line, pilot_line
from training.resume import RECORDED_OTHERWISE, refuse_another_run
from training.run_folder import Run, command
from training.settings import TrainingSettings


class Started(NamedTuple):
    """What both trainers begin with."""

    ranks: Ranks
    run: Run
    settings: TrainingSettings
    precision: Precision


def start_run(args: argparse.Namespace, pilot: dict) -> Started:
    """Check a trainer's flags and find its device; pilot: the flags that --pilot_run sets.

    Nothing is written yet.  Raises UserError for flags that make no sense, alone or together.
    """
    ranks = Ranks()
    settings = settings_from(args, TrainingSettings)
    run = Run(args, writes=ranks.rank == 0)
    if args.wandb and not importlib.util.find_spec("wandb"):
        raise UserError('--wandb needs Weights & Biases: pip install -e ".[wandb]"')
    if settings.batch_size % ranks.count:
        raise UserError(f"--batch_size {settings.batch_size} cannot be shared equally by {ranks.count} processes")
    for name in ("max_train_samples", "max_eval_samples"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UserError(f"--{name} must be at least 1, not {getattr(args, name)}")
    if run.restored:  # what can be said before any work is done; `resume` compares the rest
        now = {name: value for name, value in vars(settings).items() if name not in RECORDED_OTHERWISE}
        refuse_another_run(run.checkpoint, run.restored["flags"], now)
    log.info(command_line(command(sys.argv)))
    if args.pilot_run:
        log.info(pilot_line(flags_in_words(args, pilot)))
    device = choose_device(args.device, ranks.local_rank if ranks.count > 1 else None)
    return Started(ranks, run, settings, choose_precision(device, settings, run.restored))


def choose_precision(device: torch.device, settings: TrainingSettings, checkpoint: dict | None) -> Precision:
    """The precision that the flags ask for; where they ask for none, a resumed run keeps its own if it can."""
    if checkpoint is None or settings.amp is not None or settings.amp_dtype is not None:
        return Precision(device, settings.amp, settings.amp_dtype)
    before = checkpoint["flags"].get("precision")
    if before in ("float16", "bfloat16"):
        return Precision(device, True, before)
    return Precision(device, False)


def seed_everything(seed: int) -> None:
    """Seed what draws numbers: torch, for weights and dropout (the order of the data has a generator of its own)."""
    torch.manual_seed(seed)
