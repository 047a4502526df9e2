"""The flags that both trainers share: `TrainingSettings` and others; and `start_run`, which checks them."""

import argparse
import importlib.util
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from common.console import log
from common.devices import Precision, choose_device
from common.errors import UserError
from common.flags import LENGTH, OF_THE_RUN, add_fields, flag, flags_in_words, settings_from
from common.ranks import Ranks
from corpus.token_cache import default_cache_dir
from training import log_lines
from training.resume import RECORDED_OTHERWISE, refuse_another_run
from training.run_folder import Run, command

MOST_ROWS = 1 << 16  # per step; all of them are in memory together


@dataclass
class TrainingSettings:
    """The settings of a training run; each field is a flag of the same name."""

    batch_size: int = flag(64, "rows per step, multiplied by --gradient_accumulation_steps", first=True)
    epochs: int | None = flag(5, "passes through the training data", type=int, first=True)
    max_steps: int | None = flag(
        None, "steps, instead of --epochs; with both, the first limit reached ends the run", type=int, first=True
    )
    minutes: int | None = flag(
        None, "minutes for the whole program, instead of --epochs; sets the number of steps", type=int, first=True
    )
    lr: float = flag(1e-3, "peak learning rate", first=True)
    min_lr: float = flag(0.0, "learning rate at the end of the schedule")
    warmup_steps: int | None = flag(None, "steps of linear warm-up (default: 2%% of the run, at most 1,000)", type=int)
    scheduler: str = flag("cosine", "how the learning rate falls after the warm-up", choices=("cosine", "linear"))
    optimizer: str = flag("adamw", "muon: for the inner matrices, with AdamW for the rest", choices=("adamw", "muon"))
    weight_decay: float = flag(0.1, "weight decay, for matrices only")
    adam_beta1: float = flag(0.9, "AdamW's first beta")
    adam_beta2: float = flag(0.95, "AdamW's second beta")
    max_grad_norm: float = flag(1.0, "scale gradients with a larger norm down to this one; 0: never")
    gradient_accumulation_steps: int = flag(1, "micro-batches whose gradients are summed for one step")
    seed: int = flag(42, "for the initial weights, the order of the data and dropout")
    eval_steps: int | None = flag(
        None,
        "steps between evaluations; with --epochs, each epoch also ends with one (default: 20 evaluations)",
        type=int,
    )
    save_steps: int | None = flag(None, "steps between checkpoints (default: one about every 10 minutes)", type=int)
    keep_checkpoints: int = flag(2, "how many of the newest checkpoints to keep")
    keep_models: int = flag(0, "keep the weights of this many evaluations, spread over the run, as model-<step>.pth")
    logging_steps: int = flag(100, "steps between log lines")
    max_bad_steps: int = flag(20, "stop after this many skipped steps in a row (NaN or infinite)")
    early_stopping_patience: int = flag(0, "stop after this many evaluations without a better model; 0: never")
    amp: bool | None = flag(
        None, "half precision (default: with --amp_dtype, and on a CPU with bfloat16 units)", first=True,
        action=argparse.BooleanOptionalAction,
    )  # fmt: skip
    amp_dtype: str | None = flag(
        None, "type of half precision (default: float16; bfloat16 on a CPU)", type=str, choices=("float16", "bfloat16")
    )
    compile: str = flag(
        "auto", "torch.compile; auto: for long runs with packed rows, if it pays", choices=("auto", "on", "off")
    )

    def __post_init__(self):
        at_least_1 = ("batch_size", "gradient_accumulation_steps", "logging_steps", "keep_checkpoints", "max_bad_steps")
        for name in (*at_least_1, *LENGTH, "eval_steps", "save_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name} must be at least 1, not {value}")
        if self.rows_per_step > MOST_ROWS:
            raise UserError(
                f"--batch_size times --gradient_accumulation_steps gives {self.rows_per_step:,} rows per step; "
                f"pass smaller numbers, for at most {MOST_ROWS:,}"
            )
        if self.minutes and (self.epochs or self.max_steps):
            raise UserError(f"{flags_in_words(self, LENGTH, ' and ')}: each sets the length of the run; pass only one")
        if self.epochs is None and self.max_steps is None and self.minutes is None:
            raise UserError("--epochs, --max_steps and --minutes are all null; one must set the length of the run")
        for name in (
            "min_lr",
            "warmup_steps",
            "weight_decay",
            "max_grad_norm",
            "keep_models",
            "early_stopping_patience",
            "seed",
        ):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise UserError(f"--{name} must be 0 or more, not {value}")
        if self.seed >= 2**63:
            raise UserError(f"--seed must be below 2**63, not {self.seed}")
        for name in ("adam_beta1", "adam_beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"--{name} must be at least 0 and below 1, not {getattr(self, name)}")
        if not 0 < self.lr < math.inf or self.min_lr > self.lr:
            raise UserError(f"--lr {self.lr} must be above 0 and at least --min_lr {self.min_lr}")

    @property
    def rows_per_step(self) -> int:
        """Return the rows of a step, over all ranks together."""
        return self.batch_size * self.gradient_accumulation_steps

    def length(self) -> str:
        return flags_in_words(self, LENGTH, " ")


def add_data_flags(parser: argparse.ArgumentParser, dataset: str, batching: str = "packed") -> argparse._ArgumentGroup:
    """Add the flags for the data; return their group in --help, for more of them."""
    parser.add_argument(
        "--dataset", action="append", default=[dataset], metavar="NAME[=WEIGHT]",
        help=f"hub name, folder or file; repeat to mix several; WEIGHT: the share of each (default: {dataset})",
    )  # fmt: skip
    parser.add_argument(
        "--tokenizer_path",
        default="bpe_tokenizer_tinystories.pkl",
        help="tokenizer file from step 1 (default: %(default)s)",
    )
    group = parser.add_argument_group("the data")
    group.add_argument(
        "--batching", default=batching, choices=("packed", "padded"),
        help="packed: several texts per row; padded: one per row, cut to fit (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--cache_dir", default=str(default_cache_dir()), help="folder for tokenized text (default: %(default)s)"
    )
    group.add_argument(
        "--max_train_samples", type=int, help="at most this many training texts per data set (default: all)"
    )
    group.add_argument(
        "--max_eval_samples", type=int, help="at most this many validation texts per data set (default: all)"
    )
    return group


def add_training_flags(
    parser: argparse.ArgumentParser, output_dir: str, without: tuple[str, ...] = (), **defaults
) -> None:  # fmt: skip
    """Add the flags for the training and the run; defaults override those of `TrainingSettings`.

    without: the settings that are no flags of this program.
    """
    add_fields(parser.add_argument_group("training"), TrainingSettings, defaults, parser, without)
    parser.add_argument("--output_dir", default=output_dir, help="output folder (default: %(default)s)")
    parser.add_argument(
        "--resume_from_checkpoint", metavar="WHICH",
        help="resume a run: a checkpoint file, latest, or auto (latest if there is one)",
    )  # fmt: skip
    parser.add_argument(
        "--pilot_run",
        action="store_true",
        help="a run of a few minutes, with suitable settings: few texts in steps 2 and 4, a small network in step 2",
    )
    group = parser.add_argument_group("the run")
    group.add_argument("--overwrite", action="store_true", help="replace the run in the output folder")
    group.add_argument(
        "--config", metavar="FILE",
        help="flags from a JSON file; they override --preset and --pilot_run. From a run's args.json: all except "
        + ", ".join(OF_THE_RUN),
    )  # fmt: skip
    group.add_argument(
        "--device", default="auto", help="auto: cuda if available, else mps, else cpu (default: %(default)s)"
    )
    group.add_argument(
        "--device_check", action=argparse.BooleanOptionalAction, default=True,
        help="before training, compare the device's results with the CPU's (default: on)",
    )  # fmt: skip
    group.add_argument(
        "--wandb", action="store_true", help="send the curves to Weights & Biases (without an account: later)"
    )


# Checking the flags ---------------------------------------------------------------------------------------------------


def start_run(args: argparse.Namespace, pilot: dict) -> tuple[Ranks, Run, TrainingSettings, Precision]:
    """Check a trainer's flags and choose its device.  pilot: the flags that --pilot_run sets.

    Writes nothing.  Raises UserError for flags that make no sense, alone or together.
    """
    ranks = Ranks()
    settings = settings_from(args, TrainingSettings)
    run = Run(args, writes=ranks.rank == 0)
    if args.wandb and not importlib.util.find_spec("wandb"):
        raise UserError('--wandb needs Weights & Biases: pip install -e ".[wandb]"')
    if settings.batch_size % ranks.count:
        raise UserError(
            f"--batch_size {settings.batch_size} cannot be split equally among {ranks.count} processes; "
            f"pass a multiple of {ranks.count}"
        )
    for name in ("max_train_samples", "max_eval_samples"):
        value = getattr(args, name, None)  # not every program has both
        if value is not None and value < 1:
            raise UserError(f"--{name} must be at least 1, not {value}")
    if Path(args.cache_dir).is_file():
        raise UserError(f"--cache_dir {args.cache_dir} is a file; name a folder")
    if run.restored:  # compares some flags before any work is done; `resume` compares the rest
        now = {name: value for name, value in vars(settings).items() if name not in RECORDED_OTHERWISE}
        refuse_another_run(run.checkpoint, run.restored["flags"], now)
    log.info(log_lines.COMMAND.format(command(sys.argv)))
    if args.pilot_run:
        log.info(log_lines.PILOT.format(flags_in_words(args, pilot)))
    device = choose_device(args.device, ranks.local_rank if ranks.count > 1 else None)
    return ranks, run, settings, choose_precision(device, settings, run.restored)


def choose_precision(device: torch.device, settings: TrainingSettings, checkpoint: dict | None) -> Precision:
    """Return the precision that the flags ask for; without such flags, a resumed run keeps its own if it can."""
    if checkpoint is None or settings.amp is not None or settings.amp_dtype is not None:
        return Precision(device, settings.amp, settings.amp_dtype)
    before = checkpoint["flags"].get("precision")
    if before in ("float16", "bfloat16"):
        return Precision(device, True, before)
    return Precision(device, False)


def seed_everything(seed: int) -> None:
    """Seed torch, for the initial weights and dropout (the order of the data has its own generator)."""
    torch.manual_seed(seed)
