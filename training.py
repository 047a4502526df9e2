"""One training run: its flags, the loop, evaluation, checkpoints.

It knows nothing of what the tokens mean.  In reading order: `TrainingSettings` and the flags; a step and an evaluation;
`train`, the loop; what the loop calls, in the order in which it calls it.

Words: a step is one optimizer update; tokens are tokens predicted, padding never counted; loss is the mean
cross-entropy in nats per predicted token; bits per byte is that loss / ln 2 x tokens / bytes, which compares across
vocabularies.
"""

import argparse
import contextlib
import dataclasses
import math
import os
import platform
import signal
import sys
import time
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from data import computed_ahead
from devices import Precision, choose_device, compiled, compiling_pays, describe_device, peak_flops
from model import IGNORED
from optimizer import learning_rate, make_optimizers
from ranks import Ranks
from records import MODEL_FORMAT, VERSION, Run, read_torch_file, save_model
from shell import (
    Interrupted,
    UserError,
    add_fields,
    flag,
    leave_terminal,
    settings_from,
    write_json,
    written_atomically,
)

CHECKPOINT_FORMAT = "tinystories-checkpoint"
CPU_TOKENS = 2048  # tokens that go through the network at a time on a CPU, so that their activations stay in its caches
WIDTHS = 32  # rows are padded to a multiple of this: few shapes, for each of which a library may prepare something
LOGITS_ROWS = 2048  # positions whose logits an evaluation holds at a time
SECONDS_BETWEEN_CHECKPOINTS = 600
ONE_RANK = Ranks(1)


# Settings and flags ---------------------------------------------------------------------------------------------------


@dataclass
class TrainingSettings:
    """What one training run does; each field is a flag of the same name."""

    batch_size: int = flag(64, "rows a micro-step; a step has batch_size x gradient_accumulation_steps rows")
    epochs: int = flag(5, "times through the training data")
    lr: float = flag(1e-3, "highest learning rate")
    min_lr: float = flag(0.0, "learning rate at the end of the schedule")
    warmup_steps: int | None = flag(None, "steps of linear warm-up (default: 2%% of the run, at most 1,000)", type=int)
    scheduler: str = flag("cosine", "how the learning rate falls after the warm-up", choices=("cosine", "linear"))
    optimizer: str = flag("adamw", "muon: for the matrices inside, with AdamW for the rest", choices=("adamw", "muon"))
    weight_decay: float = flag(0.1, "decay of the weights, on matrices only")
    adam_beta1: float = flag(0.9, "AdamW's first beta")
    adam_beta2: float = flag(0.95, "AdamW's second beta")
    max_grad_norm: float = flag(1.0, "gradients longer than this are scaled down to it; 0: never")
    gradient_accumulation_steps: int = flag(1, "micro-steps whose gradients are added up to one step")
    seed: int = flag(42, "for the initial weights, the order of the data and dropout")
    eval_steps: int | None = flag(
        None, "steps between evaluations; each epoch's end has one too (default: 20 a run)", type=int
    )
    save_steps: int | None = flag(None, "steps between checkpoints (default: one about every 10 minutes)", type=int)
    keep_checkpoints: int = flag(2, "newest checkpoints to keep")
    logging_steps: int = flag(100, "steps between log lines")
    early_stopping_patience: int = flag(0, "stop after so many evaluations without a lower validation loss; 0: never")
    amp: bool | None = flag(
        None, "half precision (default: on a CPU with bfloat16 units only)", action=argparse.BooleanOptionalAction
    )
    amp_dtype: str | None = flag(
        None, "the half precision (default: float16, on a CPU bfloat16)", type=str, choices=("float16", "bfloat16")
    )
    compile: str = flag("auto", "torch.compile; auto: a long run on CUDA, packed rows", choices=("auto", "on", "off"))

    def __post_init__(self):
        for name in ("batch_size", "epochs", "gradient_accumulation_steps", "logging_steps", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} must be at least 1, not {getattr(self, name)}")
        for name in ("eval_steps", "save_steps"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"--{name} must be at least 1, not {getattr(self, name)}")
        for name in ("min_lr", "warmup_steps", "weight_decay", "max_grad_norm", "early_stopping_patience", "seed"):
            if getattr(self, name) is not None and not getattr(self, name) >= 0:
                raise UserError(f"--{name} must not be negative, not {getattr(self, name)}")
        if self.seed >= 2**63:
            raise UserError(f"--seed must be below 2 to the 63, not {self.seed}")
        for name in ("adam_beta1", "adam_beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"--{name} must be at least 0 and below 1, not {getattr(self, name)}")
        if not 0 < self.lr < math.inf or self.min_lr > self.lr:
            raise UserError(f"--lr {self.lr} must be above 0 and not below --min_lr {self.min_lr}")

    @property
    def rows_per_step(self):
        return self.batch_size * self.gradient_accumulation_steps


def add_training_flags(parser, output_dir, **defaults):
    """The flags that both trainers have in common."""
    add_fields(parser.add_argument_group("training"), TrainingSettings, defaults)
    group = parser.add_argument_group("the run")
    group.add_argument("--output_dir", default=output_dir, help="the run's folder (default: %(default)s)")
    group.add_argument("--overwrite", action="store_true", help="replace the run that the folder holds")
    group.add_argument(
        "--resume_from_checkpoint", metavar="PATH|latest|auto",
        help="go on from a checkpoint: a file, the folder's newest, or that one if there is any, else start",
    )  # fmt: skip
    group.add_argument("--device", default="auto", help="auto takes cuda, then mps, then cpu (default: %(default)s)")
    group.add_argument(
        "--pilot_run", action="store_true",
        help="minutes, on at most 1,000 training and 200 validation texts, with settings chosen so that it learns",
    )  # fmt: skip


def start_run(args, pilot):
    """(ranks, run, settings, precision) of a trainer's flags; pilot: the flags that --pilot_run sets.

    Nothing is written yet.  Raises UserError for flags that make no sense, alone or together.
    """
    ranks, settings = Ranks(), settings_from(args, TrainingSettings)
    run = Run(args, writes=ranks.rank == 0)
    if settings.batch_size % ranks.count:
        raise UserError(f"--batch_size {settings.batch_size} cannot be shared equally by {ranks.count} processes")
    for name in ("max_train_samples", "max_eval_samples"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UserError(f"--{name} must be at least 1, not {getattr(args, name)}")
    if args.pilot_run:
        changes = ", ".join(f"--{name} {getattr(args, name)}" for name in pilot)
        run.say(f"pilot run: with {changes}; a flag given at the shell wins")
    device = choose_device(args.device, run.say, ranks.local_rank if ranks.count > 1 else None)
    return ranks, run, settings, Precision(device, args.amp, args.amp_dtype, run.say)


# The loop -------------------------------------------------------------------------------------------------------------


@dataclass
class Progress:
    """How far a run is; saved in its checkpoints."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    resumes: int = 0
    best: dict = field(default_factory=dict)  # the evaluation with the lowest loss, as `evaluate` returns it
    final: dict = field(default_factory=dict)  # the newest one
    stale_evaluations: int = 0  # since the best one
    loss_since_log: float = 0.0  # summed, in nats
    tokens_since_log: int = 0
    seconds_since_log: float = 0.0


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

    Returns (this rank's summed loss in nats, a tensor on the device; tokens predicted by all ranks; the gradient's
    norm, a tensor).
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
    # After an overflow the scaler leaves out AdamW's step, and the host need not wait to know; two must agree
    left_out = len(optimizers) > 1 and precision.scaler.is_enabled() and not torch.isfinite(norm)
    for optimizer in [] if left_out else optimizers:
        precision.scaler.step(optimizer)
    model.zero_grad(set_to_none=True)
    precision.scaler.update()
    return total, int(tokens), norm


@contextlib.contextmanager
def evaluating(model):
    """Without dropout and gradients."""
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train()


def evaluate(model, rows, precision, batch_size=32, ranks=ONE_RANK):
    """Loss, perplexity, bits per byte and accuracy over all rows of one epoch, shared out among the ranks."""
    loss = correct = torch.zeros((), device=precision.device)
    tokens = 0
    with evaluating(model), precision.autocast():
        for first in range(ranks.rank * batch_size, rows.per_epoch, ranks.count * batch_size):
            batch = rows.batch(first, min(batch_size, rows.per_epoch - first))
            for inputs, targets in cut_for(precision.device, *batch):
                tokens += int((targets != IGNORED).sum())
                hidden = model.hidden(inputs.to(precision.device)).flatten(0, 1)
                targets = targets.flatten().to(precision.device)
                for x, target in zip(hidden.split(LOGITS_ROWS), targets.split(LOGITS_ROWS), strict=True):
                    logits = model.logits(x).float()
                    loss = loss + F.cross_entropy(logits, target, ignore_index=IGNORED, reduction="sum")
                    correct = correct + (logits.argmax(-1) == target).sum()
    loss, correct, tokens = ranks.sum(loss.item(), correct.item(), tokens)
    mean = loss / tokens
    return {
        "val_loss": mean,
        "perplexity": perplexity(mean),
        "bits_per_byte": mean / math.log(2) * tokens / max(1, rows.bytes),
        "accuracy": correct / tokens,
    }


def perplexity(loss):
    return math.exp(min(loss, 700))


def clock(seconds):
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


# What may be another on resuming; every other setting would train something else.
FREE_ON_RESUME = {
    "logging_steps", "save_steps", "keep_checkpoints", "eval_steps", "early_stopping_patience", "epochs", "compile",
}  # fmt: skip


@contextlib.contextmanager
def signals_noted():
    """A list of the SIGINT, SIGTERM or SIGHUP that came; a second Ctrl-C ends the program at once."""
    noted, before = [], {}

    def note(signum, frame):
        if noted and signum == signal.SIGINT:
            raise KeyboardInterrupt
        noted.append(signum)
        if signal.Signals(signum).name == "SIGHUP":
            leave_terminal()
        message = f"{signal.Signals(signum).name}: finishing this step and saving a checkpoint\n"
        with contextlib.suppress(OSError):
            os.write(2, message.encode())  # print could be what the signal interrupted

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # Windows has no SIGHUP, nohup has it ignored
        signum = getattr(signal, name, None)
        if signum and signal.getsignal(signum) is not signal.SIG_IGN:
            before[signum] = signal.signal(signum, note)
    try:
        yield noted
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def seed_everything(seed):
    """Seed what draws numbers: torch, for weights and dropout (the order of the data has a generator of its own)."""
    torch.manual_seed(seed)


def train(model, rows, validation, settings, run, precision, fingerprints, write_sample, ranks=ONE_RANK):
    """Train model on rows (`data.Rows`), evaluate it on validation, and leave the run's records in its folder.

    fingerprints: {"tokenizer": ..., "data": ...}; a checkpoint is gone on with only where they are the same.
    write_sample: a function of the model that returns a text for the log.
    Returns the summary.  Raises Interrupted, after saving a checkpoint, when a signal asks for the end.
    """
    try:
        return Trainer(model, rows, validation, settings, run, precision, fingerprints, write_sample, ranks).train()
    except torch.OutOfMemoryError:
        half, twice = max(1, settings.batch_size // 2), 2 * settings.gradient_accumulation_steps
        raise UserError(
            f"the GPU's memory is full at --batch_size {settings.batch_size}; the same steps in less memory: "
            f"--batch_size {half} --gradient_accumulation_steps {twice}",
            status=1,
        ) from None


class Trainer:
    """One run of `train`: the loop, and what it does between steps."""

    def __init__(self, model, rows, validation, settings, run, precision, fingerprints, write_sample, ranks):
        self.model, self.rows, self.validation, self.settings = model, rows, validation, settings
        self.run, self.precision, self.fingerprints, self.write_sample = run, precision, fingerprints, write_sample
        self.ranks = ranks
        if ranks.rank > 0:  # the weights are rank 0's; what dropout drops is each rank's own
            seed_everything(settings.seed + ranks.rank)
        self.optimizers, self.progress = make_optimizers(model, settings), Progress()
        self.loss_since_log, self.saved_step = torch.zeros((), device=precision.device), None
        steps_until = lambda epoch: math.ceil(epoch * rows.per_epoch / settings.rows_per_step)
        self.epoch_ends = {steps_until(epoch) for epoch in range(1, settings.epochs + 1)}
        self.total_steps = max(self.epoch_ends)
        self.peak = peak_flops(precision.device, precision.dtype)
        self.eval_steps = settings.eval_steps or max(1, self.total_steps // 20)

    def train(self):
        settings, progress = self.settings, self.progress
        if self.run.checkpoint:
            self.resume()
        self.run.start(progress.step if self.run.checkpoint else None)
        self.describe()
        bar = tqdm(
            total=self.total_steps, initial=progress.step, unit=" steps", disable=not sys.stderr.isatty(), leave=False
        )
        self.model.train()
        with signals_noted() as signals, bar:
            network = self.ranks.wrap(self.compile())
            self.saved = time.perf_counter()
            self.began, self.log_began = self.saved - progress.seconds, self.saved - progress.seconds_since_log
            device, rank, ranks = self.precision.device, self.ranks.rank, self.ranks.count
            batches_of = lambda step: micro_batches(self.rows, step, settings, device, rank, ranks)
            for batches in computed_ahead(batches_of, range(progress.step, self.total_steps)):
                if self.is_stale():
                    break
                rate = learning_rate(progress.step, self.total_steps, settings)
                for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
                    group["lr"] = rate
                loss, tokens, norm = training_step(
                    network, self.optimizers, self.precision, batches, settings, self.ranks
                )
                self.loss_since_log += loss
                progress.tokens_since_log += tokens
                progress.tokens += tokens
                progress.step += 1
                progress.seconds = time.perf_counter() - self.began
                bar.update()

                last = progress.step == self.total_steps
                if progress.step % settings.logging_steps == 0 or progress.step == 1 or last:
                    self.log(rate, norm)
                if progress.step % self.eval_steps == 0 or progress.step in self.epoch_ends:
                    self.evaluate()
                signum, due = self.agree(max(signals, default=0), self.checkpoint_is_due())
                if signum or due:
                    self.save_checkpoint()
                if signum:
                    self.stop(signum)
            if self.is_stale():
                self.run.log(f"early stop: no lower validation loss in {progress.stale_evaluations} evaluations")
            if self.saved_step != progress.step:
                self.save_checkpoint()
            return self.finish()

    def describe(self):
        """The first row of metrics.jsonl, or of a resumed run the row that says so, and the same in words."""
        run, progress, (in_layers, in_all) = self.run, self.progress, self.model.num_parameters()
        if progress.step:
            run.record("resume", step=progress.step, seconds=round(progress.seconds, 1))
            run.say(f"going on from {run.checkpoint} at step {progress.step} of {self.total_steps}")
        else:
            versions = {"python": platform.python_version(), "torch": torch.__version__, "system": platform.platform()}
            run.record(
                "run", step=0, run_id=run.run_id, versions=versions, device=describe_device(self.precision.device),
                precision=self.precision.name(), parameters=in_all, parameters_in_layers=in_layers,
                fingerprints=self.fingerprints, started=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                total_steps=self.total_steps,
            )  # fmt: skip
        run.say(f"model: {in_all:,} parameters, {in_layers:,} of them in the layers; {self.model.config.describe()}")
        run.say(
            f"training: {len(self.rows.cache):,} texts in {self.rows.per_epoch:,} rows of at most {self.rows.length} "
            f"tokens, {'packed' if self.rows.packed else 'padded'}; validation: {len(self.validation.cache):,} texts"
        )
        run.say(
            f"{self.total_steps:,} steps of {self.settings.rows_per_step} rows, {self.settings.epochs} epochs, "
            f"{self.precision.name()}; records in {run.folder}"
        )

    def compile(self):
        """The model compiled, if that is asked for or pays, and works on all ranks; evaluation goes without."""
        settings, precision, rows = self.settings, self.precision, self.rows
        tokens = self.total_steps * settings.rows_per_step * rows.length / self.ranks.count
        pays = compiling_pays(precision.device, self.peak, precision.dtype, tokens * self.model.flops_per_token())
        if settings.compile == "off" or (settings.compile == "auto" and not (pays and rows.packed)):
            return self.model
        batches = micro_batches(rows, 0, settings, precision.device, ranks=self.ranks.count)
        network = compiled(self.model, precision, batches, self.run.say)
        (worked,) = self.ranks.sum(network is not self.model)
        return network if worked == self.ranks.count else self.model

    def mfu(self, tokens_per_second):
        """The share of the devices' peak that a speed is, None where the peak is not known (Chowdhery et al. 2022)."""
        return self.peak and tokens_per_second * self.model.flops_per_token() / (self.peak * self.ranks.count)

    def place(self):
        """The fields that every row of metrics.jsonl has: step, epoch, tokens and seconds."""
        progress, rows_seen = self.progress, self.progress.step * self.settings.rows_per_step
        epoch = min(self.settings.epochs, rows_seen / self.rows.per_epoch)
        seconds = round(progress.seconds, 2)
        return {"step": progress.step, "epoch": round(epoch, 4), "tokens": progress.tokens, "seconds": seconds}

    def log(self, rate, norm):
        """Record the mean loss and the speed since the last log line."""
        progress, now = self.progress, time.perf_counter()
        (loss,) = self.ranks.sum(self.loss_since_log.item())  # waits for the device
        loss /= max(1, progress.tokens_since_log)
        speed = progress.tokens_since_log / (now - self.log_began)
        place, norm = self.place(), norm.item()
        left = progress.seconds / progress.step * (self.total_steps - progress.step)
        end = time.strftime("%a %H:%M", time.localtime(time.time() + left))
        self.run.log(
            f"step {progress.step}/{self.total_steps} epoch {place['epoch']:.2f} train_loss {loss:.4f} "
            f"perplexity {perplexity(loss):.2f} lr {rate:.2e} grad_norm {norm:.2f} tokens/s {speed:,.0f} "
            f"{percent('mfu', self.mfu(speed))}elapsed {clock(progress.seconds)} left {clock(left)} end {end}"
        )
        values = {"train_loss": loss, "perplexity": perplexity(loss), "lr": rate, "grad_norm": norm}
        tags = {"Loss/train": loss, "Perplexity/train": perplexity(loss), "LearningRate": rate}
        tags |= {"Throughput/tokens_per_second": speed} | ({"Throughput/mfu": self.mfu(speed)} if self.peak else {})
        self.run.record("train", tags, **place, **values, tokens_per_second=round(speed, 1))
        self.loss_since_log, progress.tokens_since_log, self.log_began = torch.zeros_like(self.loss_since_log), 0, now

    def evaluate(self):
        """Record an evaluation; save best_model.pth if no other had a lower loss."""
        progress, began = self.progress, time.perf_counter()
        progress.final = result = evaluate(self.model, self.validation, self.precision, ranks=self.ranks) | {
            "step": progress.step
        }
        loss = result["val_loss"]
        is_best = not progress.best or loss < progress.best["val_loss"]
        progress.stale_evaluations = 0 if is_best else progress.stale_evaluations + 1
        if is_best:
            progress.best = result
            self.save_model("best_model.pth", loss)
        place = self.place()
        self.run.log(
            f"step {progress.step}/{self.total_steps} epoch {place['epoch']:.2f} {describe_evaluation(result)}"
            + (" (the best so far: best_model.pth)" if is_best else "")
        )
        tags = {"Loss/val": loss, "Perplexity/val": result["perplexity"], "BitsPerByte/val": result["bits_per_byte"]}
        self.run.record("eval", tags, **place | result)
        self.log_began += time.perf_counter() - began  # the speed of training is without evaluations

    def is_stale(self):
        return 0 < self.settings.early_stopping_patience <= self.progress.stale_evaluations

    def save_model(self, name, loss):
        tokenizer, run = self.fingerprints["tokenizer"], self.run
        if self.ranks.rank == 0:
            save_model(run.path(name), self.model, tokenizer, self.progress.step, loss, run.run_id)

    def flags(self):
        """What a run that goes on must have in common with the one before, but for FREE_ON_RESUME."""
        batching = {"batching": "packed" if self.rows.packed else "padded"}
        batching |= {"amp": self.precision.name(), "amp_dtype": None}  # what came of the flags on this device
        return dataclasses.asdict(self.settings) | self.model.config.as_dict() | batching | self.fingerprints

    def agree(self, signum, due):
        """A signal that any rank got, and whether rank 0 finds a checkpoint due."""
        if self.ranks.count == 1:
            return signum, due
        signals, due = self.ranks.sum(signum, due and self.ranks.rank == 0)
        return signum or (signal.SIGTERM if signals else 0), bool(due)

    def checkpoint_is_due(self):
        if self.settings.save_steps:
            return self.progress.step % self.settings.save_steps == 0
        return time.perf_counter() - self.saved > SECONDS_BETWEEN_CHECKPOINTS

    def save_checkpoint(self):
        """Write checkpoint-<step>.pth, all that is needed to go on, and remove the oldest ones."""
        run, progress, began = self.run, self.progress, time.perf_counter()
        self.saved_step, progress.seconds_since_log = progress.step, began - self.log_began
        (progress.loss_since_log,) = self.ranks.sum(self.loss_since_log.item())
        random = self.ranks.gather(torch.get_rng_state())
        if self.ranks.rank > 0:
            return
        content = {
            "format": CHECKPOINT_FORMAT, "version": VERSION, "run_id": run.run_id,
            "progress": dataclasses.asdict(progress), "flags": self.flags(),
            "model": self.model.state_dict(), "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "scaler": self.precision.scaler.state_dict(), "random": random,
            "random_cuda": torch.cuda.get_rng_state_all() if self.precision.device.type == "cuda" else [],
        }  # fmt: skip
        with written_atomically(run.path(f"checkpoint-{progress.step}.pth")) as file:
            torch.save(content, file)
        for _, old in run.checkpoints()[: -self.settings.keep_checkpoints]:
            old.unlink()
        run.record("checkpoint", **self.place())
        self.saved = time.perf_counter()
        self.log_began += self.saved - began

    def resume(self):
        """Put the run back where its checkpoint was saved.  Raises UserError if that was another run."""
        run, content = self.run, read_torch_file(self.run.checkpoint, CHECKPOINT_FORMAT)
        before, now = content["flags"], self.flags()
        changed = [name for name in now if name not in FREE_ON_RESUME and before.get(name) != now[name]]
        if changed:
            names = ", ".join(f"--{name} {before.get(name)} (now {now[name]})" for name in changed)
            raise UserError(f"{run.checkpoint} was trained with {names}; go on with the same, or start a new run")
        self.model.load_state_dict(content["model"])
        for optimizer, state in zip(self.optimizers, content["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        if content["scaler"]:
            self.precision.scaler.load_state_dict(content["scaler"])
        torch.set_rng_state(content["random"][self.ranks.rank % len(content["random"])])
        if self.precision.device.type == "cuda" and content["random_cuda"]:
            torch.cuda.set_rng_state_all(content["random_cuda"])
        for name, value in content["progress"].items():
            setattr(self.progress, name, value)
        if self.ranks.rank == 0:
            self.loss_since_log += self.progress.loss_since_log
        self.progress.resumes += 1
        run.run_id = content["run_id"]
        if not run.goes_on or not run.path("best_model.pth").exists():  # the best model stands in another folder
            self.progress.best, self.progress.stale_evaluations = {}, 0

    def stop(self, signum):
        self.run.say(f"stopped after step {self.progress.step} of {self.total_steps}, with a checkpoint saved")
        self.run.say(f"go on with: {self.run.command_to_go_on()}")
        raise Interrupted(signum)

    def finish(self):
        """Save the final model, write a sample with the best one, and sum up."""
        run, progress = self.run, self.progress
        final, best = progress.final, progress.best or progress.final
        self.save_model("final_model.pth", final["val_loss"])
        if best is final:
            self.save_model("best_model.pth", final["val_loss"])
        if self.ranks.rank > 0:
            return None
        self.model.load_state_dict(read_torch_file(run.path("best_model.pth"), MODEL_FORMAT)["model"])
        with evaluating(self.model):
            sample = self.write_sample(self.model)
        run.record("sample", **self.place(), text=sample)
        run.say(f"a sample of best_model.pth:\n{sample}", file=sys.stdout)
        summary = {
            f"{kind}_{name}": result[name] for kind, result in (("best", best), ("final", final)) for name in result
        }
        speed = progress.tokens / progress.seconds
        summary |= self.place() | {
            "run_id": run.run_id, "ended": "finished", "resumes": progress.resumes,
            "tokens_per_second": round(speed, 1),
        }  # fmt: skip
        write_json(run.path("summary.json"), summary)
        run.record("end", **self.place(), ended="finished")
        for kind, result in (("best", best), ("final", final)):
            run.log(f"{kind}: step {result['step']} {describe_evaluation(result)} -> {run.path(kind + '_model.pth')}")
        run.say(
            f"{progress.tokens:,} tokens in {clock(progress.seconds)}, evaluations included: {speed:,.0f} tokens/s"
            f"{percent(', mfu', self.mfu(speed)).rstrip()}; records in {run.folder}"
        )
        return summary


def percent(name, share):
    return "" if share is None else f"{name} {share:.0%} "


def describe_evaluation(result):
    return (
        f"val_loss {result['val_loss']:.4f} perplexity {result['perplexity']:.2f} "
        f"bits_per_byte {result['bits_per_byte']:.4f} accuracy {result['accuracy']:.4f}"
    )
