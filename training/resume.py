"""Checkpoints: what is saved, what must match, and how a run resumes.

In reading order: `Progress`, how far a run is; `Checkpoints`, what is saved and when; `resume`, the way back, with
`refuse_another_run` (what must match) and `restore`.  A job is a `job.Job`.
"""

import contextlib
import dataclasses
import math
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from common.console import log
from common.errors import UserError, one_line, reason_of
from common.flags import LENGTH, REMOVED
from common.weights_files import CHECKPOINT_FORMAT, VERSION, read_torch_file, write_torch_file
from model import ModelConfig

SECONDS_BETWEEN_CHECKPOINTS = 600
RECORDS_SIZE = 16 << 20  # bytes for a long run's log, metrics and curves
# Flags that may change when a run resumes.  A change of any other flag would train something else.
FREE_ON_RESUME = {
    "logging_steps", "save_steps", "keep_checkpoints", "keep_models", "eval_steps", "max_bad_steps",
    "early_stopping_patience", "epochs", "max_steps", "minutes", "compile",
}  # fmt: skip
# Flags that older checkpoints lack, and the values that apply to them.
ADDED_LATER = {
    "norm_epsilon": ModelConfig.norm_epsilon, "rotary_base": ModelConfig.rotary_base, "freeze_embeddings": False,
}  # fmt: skip
# Flags that a checkpoint contains in another form: as `precision` and as `rows a step`.
RECORDED_OTHERWISE = {"amp", "amp_dtype", "batch_size", "gradient_accumulation_steps"}
# For entries of a checkpoint that are not named like a flag: the flags that set them.
FLAGS = {
    "precision": "--amp, --amp_dtype",
    "rows a step": "--batch_size x --gradient_accumulation_steps",
    "data": "--dataset and its weights, --max_train_samples, --max_eval_samples, --prompts_file, "
    "--pairs_file, --reward_file",
    "tokenizer": "--tokenizer_path",
    "first model": "--pretrained_model_path",
}
PARTS = {  # of a checkpoint, and their types
    "run_id": str, "progress": dict, "flags": dict, "model": dict, "scaler": dict, "optimizers": list, "random": list,
    "random_cuda": list,
}  # fmt: skip


@dataclass
class Progress:
    """How far a run is."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    resumes: int = 0
    best: dict = field(default_factory=dict)  # the evaluation of the best model, from `evaluate`
    final: dict = field(default_factory=dict)  # the latest evaluation
    stale_evaluations: int = 0  # since the best one
    loss_since_log: float = 0.0  # summed over the tokens, in nats; with rewards, that of the method: it may be negative
    tokens_since_log: int = 0
    seconds_since_log: float = 0.0
    bad_steps: int = 0  # skipped because the loss or the gradient was not finite
    bad_steps_in_a_row: int = 0
    total_steps: int = 0  # of a run of --minutes, once it is known
    eval_steps: int = 0  # the same
    record_sizes: dict = field(default_factory=dict)  # bytes of the log and the metrics when the checkpoint was saved

    def check(self) -> None:
        """Raise ValueError, or another error, if a checkpoint has values that no run can reach."""
        counts = {name: value for name, value in vars(self).items() if not isinstance(value, dict)}
        if not math.isfinite(counts.pop("loss_since_log")):
            raise ValueError("a loss that is not finite")
        if not all(-1 < count < 1 << 40 for count in counts.values()):
            raise ValueError("a count that no run reaches")
        if not all(isinstance(size, int) and size >= 0 for size in self.record_sizes.values()):
            raise ValueError("an impossible file size")
        for result in filter(None, (self.best, self.final)):
            numbers = [result[name] for name in ("val_loss", "perplexity", "bits_per_byte", "accuracy")]
            if not isinstance(result["step"], int) or not all(isinstance(number, (int, float)) for number in numbers):
                raise ValueError("a result that is not a number")


# Saving ---------------------------------------------------------------------------------------------------------------


class Checkpoints:
    """Writes a run's checkpoints.  newest_step: the step of the newest one in the run's folder."""

    def __init__(self, job, optimizers: list[torch.optim.Optimizer], progress: Progress):
        self.job = job
        self.optimizers = optimizers
        self.progress = progress
        self.newest_step = None
        self.compiled = False  # whether the network is compiled
        self.saved_at = time.perf_counter()

    def is_due(self, step: int) -> bool:
        """Return whether to save now: every --save_steps, or without that flag every ten minutes."""
        save_steps = self.job.settings.save_steps
        if save_steps:
            return step > 0 and step % save_steps == 0
        return time.perf_counter() - self.saved_at > SECONDS_BETWEEN_CHECKPOINTS

    def save(self) -> None:
        """Write checkpoint-<step>.pth, which has everything needed to resume, and remove the oldest checkpoints."""
        run = self.job.run
        if self.job.ranks.rank == 0:
            self.progress.record_sizes = run.flushed_sizes()
        content = self.content()
        self.newest_step = self.progress.step
        if self.job.ranks.rank > 0:
            return
        write_torch_file(run.path(f"checkpoint-{self.progress.step}.pth"), content)
        for _, old in checkpoints_in(run.folder)[: -self.job.settings.keep_checkpoints]:
            with contextlib.suppress(OSError):  # already deleted, or still open on Windows
                old.unlink()
        self.saved_at = time.perf_counter()

    def content(self) -> dict:
        """Return the content of a checkpoint; all ranks must call this, since each has its own random state."""
        job = self.job
        device = job.precision.device
        random = job.ranks.gather(torch.get_rng_state())
        random_cuda = []
        if device.type == "cuda":
            random_cuda = job.ranks.gather(torch.cuda.get_rng_state(device))
        return {
            "format": CHECKPOINT_FORMAT,
            "version": VERSION,
            "run_id": job.run.run_id,
            "progress": dataclasses.asdict(self.progress),
            "compiled": self.compiled,
            "flags": what_must_match(job),
            "model": job.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "scaler": job.precision.scaler.state_dict(),
            "random": random,
            "random_cuda": random_cuda,
            "task": job.task.state() if job.task else {},
        }

    def space_needed(self, total_steps: int) -> int:
        """Return how many bytes a run's files need; a checkpoint has at most three numbers per weight."""
        settings = self.job.settings
        weights = sum(parameter.nbytes for parameter in self.job.model.parameters())
        most = total_steps // (settings.save_steps or 1) + 1
        checkpoints = min(settings.keep_checkpoints, most) + 1  # a new one is written before the oldest is deleted
        # best_model.pth, final_model.pth, and a new best model before the old one is deleted
        models = 3 + min(settings.keep_models, total_steps)
        return checkpoints * 3 * weights + models * weights + RECORDS_SIZE


def fingerprints_of(tokenizer, *caches) -> dict:
    """Return fingerprints of the tokenizer and the texts; a resumed run must have the same."""
    return {"tokenizer": tokenizer.fingerprint, "data": [cache.fingerprint() for cache in caches]}


def what_must_match(job) -> dict:
    """Return the values that are compared when a run resumes; those in FREE_ON_RESUME may differ."""
    flags = dataclasses.asdict(job.settings) | job.model.config.as_dict() | job.fingerprints
    flags["batching"] = "packed" if job.rows.packed else "padded"
    flags["precision"] = job.precision.name()
    flags["rows a step"] = job.settings.rows_per_step
    return {name: value for name, value in flags.items() if name not in RECORDED_OTHERWISE}


def checkpoints_in(folder: Path) -> list[tuple[int, Path]]:
    """Return (step, path) of a folder's checkpoints, the newest last."""
    numbered = [(path.stem.removeprefix("checkpoint-"), path) for path in folder.glob("checkpoint-*.pth")]
    return sorted((int(number), path) for number, path in numbered if number.isdecimal())


# Resuming -------------------------------------------------------------------------------------------------------------


def read_checkpoint(path: str | Path) -> dict:
    """Read a checkpoint and check that it has all its parts.  Raises UserError, Damaged."""
    content = read_torch_file(path, CHECKPOINT_FORMAT)
    for name, kind in PARTS.items():
        if not isinstance(content.get(name), kind):
            raise UserError(f"{path} lacks the {name} that a run needs to resume; pass another checkpoint")
    return content


def resume(job, optimizers: list[torch.optim.Optimizer], progress: Progress, plan) -> bool | None:
    """Restore a run from its checkpoint.  Raises UserError for a checkpoint of another run.

    plan: a `plan.Plan`.  For a run of --minutes, its number of steps is set; if that number is not known yet, to the
    steps done so far.  Returns whether the run's network was compiled; None if the checkpoint is too old to tell.
    """
    run = job.run
    content = run.restored
    run.restored = None  # it is as large as the model and the optimizers together
    try:
        # Without a flag for it, a run may resume in another precision, on another machine.
        asked_for_none = job.settings.amp is None and job.settings.amp_dtype is None
        free = {"precision"} if asked_for_none else set()
        refuse_another_run(run.checkpoint, content["flags"], what_must_match(job), free)
        restore(job, content, optimizers, progress)
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError) as error:
        reason = one_line(reason_of(error))
        raise UserError(f"this run cannot resume from {run.checkpoint} ({reason}); pass another checkpoint") from None
    has_new_length = any(content["flags"].get(name) != getattr(job.settings, name) for name in LENGTH)
    if has_new_length:
        progress.total_steps = progress.eval_steps = 0
    if job.settings.minutes:
        plan.lay_out(progress.total_steps or max(1, progress.step), job.settings.eval_steps or progress.eval_steps)
    if not 0 <= progress.step <= plan.total_steps:
        raise UserError(
            f"{job.settings.length()} gives {plan.total_steps} steps, but {run.checkpoint} is already at step "
            f"{progress.step}; pass more, or start a new run"
        )
    if has_new_length:
        log.info(f"{job.settings.length()}: the learning-rate schedule now covers the new length")
    steps = job.ranks.gather(torch.tensor([progress.step]))
    if any(step.item() != progress.step for step in steps):
        raise UserError("the processes found different checkpoints; pass the path of one", status=1)
    progress.resumes += 1
    run.run_id = content["run_id"]
    if not run.goes_on or not run.path("best_model.pth").exists():  # the best model is in another folder
        progress.best = {}
        progress.stale_evaluations = 0
    was_compiled = content.get("compiled")
    return was_compiled if isinstance(was_compiled, bool) else None


def refuse_another_run(checkpoint: Path, before: dict, now: dict, free=frozenset()) -> None:
    """Raise UserError, one line per flag, if a checkpoint was trained with other flags.

    before: the checkpoint's flags; now: those of this run; free: names that may differ, in addition to FREE_ON_RESUME.
    """
    lines = []
    before = ADDED_LATER | before
    for name in sorted(now.keys() - FREE_ON_RESUME - free):
        was = before.get(name)
        if isinstance(was, (str, int, float, list, type(None))) and was == now[name]:
            continue
        flag = FLAGS.get(name, f"--{name}")
        if name in ("data", "tokenizer", "first model"):
            lines.append(f"{flag}: not the {name} that {checkpoint} was trained with")
        else:
            lines.append(f"{flag}: {now[name]}, but {checkpoint} was trained with {one_line(was)}")
    for name, idle in REMOVED.items():
        if before.get(name, idle) != idle:
            lines.append(f"--{name}: {checkpoint} was trained with this flag, which no longer exists")
    if lines:
        raise UserError("\n".join([*lines, "resume with the same flags, or start a new run"]))


def restore(job, content: dict, optimizers: list[torch.optim.Optimizer], progress: Progress) -> None:
    """Restore a job from `Checkpoints.content`.  Raises an error of almost any kind if content is something else."""
    job.model.load_state_dict(content["model"])
    for optimizer, saved in zip(optimizers, content["optimizers"], strict=True):
        optimizer.load_state_dict(optimizer.state_dict() | {"state": saved["state"]})
        check_optimizer_state(optimizer)
    if content["scaler"]:
        job.precision.scaler.load_state_dict(content["scaler"])
    rank = job.ranks.rank
    torch.set_rng_state(content["random"][rank % len(content["random"])])
    if job.precision.device.type == "cuda" and content["random_cuda"]:
        state = content["random_cuda"][rank % len(content["random_cuda"])]
        torch.cuda.set_rng_state(state, job.precision.device)
    if job.task:
        job.task.restore(content["task"])
    for item in dataclasses.fields(Progress):
        value = content["progress"].get(item.name, getattr(progress, item.name))
        kind = type(getattr(progress, item.name))
        setattr(progress, item.name, kind(value))
    progress.check()


def check_optimizer_state(optimizer: torch.optim.Optimizer) -> None:
    """Raise ValueError unless each parameter has no state yet, or state of its own shape."""
    for parameter, state in optimizer.state.items():
        if isinstance(optimizer, torch.optim.AdamW):
            shapes = {"exp_avg": parameter.shape, "exp_avg_sq": parameter.shape, "step": ()}
        else:  # Muon
            shapes = {"average": parameter.shape}
        if state and {name: value.shape for name, value in state.items()} != shapes:
            raise ValueError("optimizer state of another shape")
