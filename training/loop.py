"""One training run: the loop, evaluations, checkpoints, and how it goes on after being cut off.

It knows nothing of what the tokens mean; its flags are in settings.py, what a step computes is in steps.py.  In reading
order: `train`; `Trainer`, the loop and then what it calls, in the order in which it calls it.
"""

import contextlib
import dataclasses
import math
import os
import platform
import signal
import sys
import time

import numpy as np
import torch
from tqdm import tqdm

from common.devices import compiled, compiling_pays, describe_device, peak_flops
from common.errors import Interrupted, UserError, file_error, memory_is_full
from common.files import write_json
from common.flags import LENGTH
from common.prefetch import computed_ahead
from common.program import signals_noted
from common.text import printed
from common.weights_files import CHECKPOINT_FORMAT, MODEL_FORMAT, VERSION, read_torch_file, save_model, write_torch_file
from training.lora import merge, merged_weights
from training.optimizer import learning_rate, make_optimizers
from training.resume import SAID_OTHERWISE, Progress, in_words, refuse_another_run
from training.step import EVALUATION_ROWS, ONE_RANK, evaluate, evaluating, micro_batches, perplexity, training_step

SECONDS_BETWEEN_CHECKPOINTS = 600
RECORDS_SIZE = 16 << 20  # bytes that a long run's log, metrics and curves may take


def now():
    """The time of day, with its zone, as ISO 8601 writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def clock(seconds):
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


def seed_everything(seed):
    """Seed what draws numbers: torch, for weights and dropout (the order of the data has a generator of its own)."""
    torch.manual_seed(seed)


def train(model, rows, validation, settings, run, precision, fingerprints, write_sample, ranks=ONE_RANK):
    """Train model on rows (`data.Rows`), evaluate it on validation, and leave the run's records in its folder.

    fingerprints: {"tokenizer": ..., "data": ...}; a checkpoint is gone on with only where they are the same.
    write_sample: a function of the model that returns a text for the log.
    Returns the summary.  Raises Interrupted, after saving a checkpoint, when a signal asks for the end, and UserError
    where the run cannot go on: the disk or the memory is full, another rank has died, the loss is no longer finite.
    """
    trainer = Trainer(model, rows, validation, settings, run, precision, fingerprints, write_sample, ranks)
    try:
        return trainer.train()
    except (UserError, OSError, RuntimeError, MemoryError) as error:
        failure = failed(error, trainer)
        with contextlib.suppress(OSError):  # where the disk is full, the records end with the row before
            trainer.end(f"failed: {failure or type(error).__name__}")
        run.close()
        if failure is None:
            raise
        raise failure from None


def failed(error, trainer):
    """The UserError that says why a run could not go on and what to do; None where only a traceback can say it."""
    run, ranks, device = trainer.run, trainer.ranks.count, trainer.precision.device.type
    if isinstance(error, UserError):
        return error
    if isinstance(error, OSError):
        error.filename = error.filename or str(run.folder)
        return UserError(f"{file_error(error)}; {run.last_checkpoint()}", status=1)
    if memory_is_full(error):
        advice = less_memory(trainer.settings, ranks, device)
        return UserError(f"{advice}; {run.last_checkpoint(go_on=False)}", status=1)
    if ranks > 1 and ("peer" in str(error) or isinstance(error, torch.distributed.DistError)):
        return UserError(f"another process of this run has ended; {run.last_checkpoint()}", status=1)
    return None


def less_memory(settings, ranks, device="cpu"):
    """What to do where the memory is full: the next smaller batches that make the same steps on so many ranks."""
    size, count = settings.batch_size, settings.gradient_accumulation_steps
    full = f"the memory of the {device} is full at --batch_size {size}"
    factor = next((n for n in range(2, size // ranks + 1) if size % (n * ranks) == 0), None)
    if factor is None:
        return f"{full}; take a smaller model or a shorter --max_seq_len"
    pair = f"--batch_size {size // factor} --gradient_accumulation_steps {count * factor}"
    return f"{full}; the same steps in less memory: {pair}"


class Trainer:
    """One run of `train`: the loop, and what it does between steps."""

    def __init__(self, model, rows, validation, settings, run, precision, fingerprints, write_sample, ranks):
        self.model, self.rows, self.validation, self.settings = model, rows, validation, settings
        self.run, self.precision, self.fingerprints, self.write_sample = run, precision, fingerprints, write_sample
        self.ranks, self.signals = ranks, []
        if ranks.rank > 0:  # the weights are rank 0's; what dropout drops is each rank's own
            seed_everything(settings.seed + ranks.rank)
        self.optimizers, self.progress = make_optimizers(model, settings), Progress()
        self.plan()
        self.peak = peak_flops(precision.device, precision.dtype)
        self.eval_steps = settings.eval_steps or max(1, self.total_steps // 20)

    def plan(self):
        """Lay out the run: how many rows come before each of its epochs, after which steps one ends, steps in all."""
        settings, epochs = self.settings, self.settings.epochs or math.inf
        wanted = (settings.max_steps or math.inf) * settings.rows_per_step
        self.rows_before = [0]
        while len(self.rows_before) <= epochs and self.rows_before[-1] < wanted:
            self.rows_before.append(self.rows.rows_before(len(self.rows_before)))
        ends = [math.ceil(count / settings.rows_per_step) for count in self.rows_before[1:]]
        self.total_steps = min(ends[-1], settings.max_steps or math.inf)
        # a run that is counted in steps alone is evaluated by them, however short its epochs are
        self.epoch_ends = {self.total_steps, *(ends if settings.epochs else [])}

    def train(self):
        settings, progress, run = self.settings, self.progress, self.run
        saved_step = self.resume() if run.checkpoint else None
        # kept on the device, so that the host need not wait: loss and tokens since the last log line; bad steps in all,
        # in a row until now, and in the longest row
        on_device, in_a_row = {"device": self.precision.device}, progress.bad_steps_in_a_row
        self.loss = torch.tensor(progress.loss_since_log if self.ranks.rank == 0 else 0.0, **on_device)
        self.tokens = torch.tensor(progress.tokens_since_log, **on_device)
        self.bad = torch.tensor([progress.bad_steps, in_a_row, in_a_row], **on_device)
        self.check_space()
        run.start(saved_step, progress.record_sizes)
        self.describe()
        bar = tqdm(
            total=self.total_steps, initial=progress.step, unit=" steps", disable=not sys.stderr.isatty(), leave=False
        )
        self.model.train()
        with signals_noted() as self.signals, bar:
            network = self.ranks.wrap(self.compile())
            self.saved = time.perf_counter()
            self.began, self.log_began = self.saved - progress.seconds, self.saved - progress.seconds_since_log
            self.saved_step = saved_step if run.goes_on else None
            self.after_step()  # where the run was cut off in an evaluation
            device, rank, ranks = self.precision.device, self.ranks.rank, self.ranks.count
            batches_of = lambda step: micro_batches(self.rows, step, settings, device, rank, ranks)
            for batches in computed_ahead(batches_of, range(progress.step, self.total_steps)):
                if self.is_stale():
                    break
                rate = learning_rate(progress.step, self.total_steps, settings)
                for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
                    group["lr"] = rate
                loss, tokens, norm, good = training_step(
                    network, self.optimizers, self.precision, batches, settings, self.ranks
                )
                self.loss += torch.where(good, loss, 0)
                self.tokens += tokens * good
                in_a_row = (self.bad[1] + 1) * ~good
                self.bad = torch.stack((self.bad[0] + ~good, in_a_row, torch.maximum(self.bad[2], in_a_row)))
                progress.tokens += tokens
                progress.step += 1
                progress.seconds = time.perf_counter() - self.began
                bar.update()
                if device.type == "cpu" or progress.step % settings.max_bad_steps == 0:
                    self.count_bad_steps()
                if progress.step % settings.logging_steps == 0 or progress.step in (1, self.total_steps):
                    self.log(rate, norm)
                self.after_step()
            if self.is_stale():
                run.log(f"early stop: no lower validation loss in {progress.stale_evaluations} evaluations")
            self.count_bad_steps()
            if self.saved_step != progress.step:
                self.save_checkpoint()
            return self.finish()

    def after_step(self):
        """Evaluate if that is due and not yet done; save a checkpoint if one is due; stop if a signal asks for it."""
        step = self.progress.step
        if (
            step
            and (step % self.eval_steps == 0 or step in self.epoch_ends)
            and self.progress.final.get("step") != step
        ):
            self.evaluate()
        signum, due = self.agree(max(self.signals, default=0), self.checkpoint_is_due())
        if signum or due:
            self.count_bad_steps()
        if (signum or (due and not self.progress.bad_steps_in_a_row)) and self.saved_step != step:
            self.save_checkpoint()
        if signum:
            self.stop(signum)

    def describe(self):
        """The first row of metrics.jsonl, or of a resumed run the row that says so, and the same in words."""
        run, progress, (in_layers, in_all) = self.run, self.progress, self.model.num_parameters()
        if not run.goes_on:
            versions = {"python": platform.python_version(), "torch": torch.__version__, "system": platform.platform()}
            hardware = {"device": describe_device(self.precision.device), "processes": self.ranks.count}
            run.record(
                "run", **self.place(), run_id=run.run_id, program=run.args["program"], time=now(), versions=versions,
                hardware=hardware | {"cores": os.cpu_count()}, precision=self.precision.name(), parameters=in_all,
                parameters_in_layers=in_layers, flops_per_token=self.model.flops_per_token(),
                dataset=run.args.get("dataset"), fingerprints=self.fingerprints, total_steps=self.total_steps,
            )  # fmt: skip
        else:  # the records end where the checkpoint was saved
            self.checkpoint_saved()
        if run.checkpoint:
            run.record("resume", **self.place(), time=now())
            run.say(f"going on from {run.checkpoint} at step {progress.step} of {self.total_steps}")
        run.say(f"model: {in_all:,} parameters, {in_layers:,} of them in the layers; {self.model.config.describe()}")
        run.say(
            f"training: {self.rows.texts:,} texts in {self.rows.per_epoch:,} rows of at most {self.rows.length} "
            f"tokens, {'packed' if self.rows.packed else 'padded'}; validation: {self.validation.texts:,} texts"
        )
        epochs = self.epoch(self.total_steps)
        run.say(
            f"{self.total_steps:,} steps of {self.settings.rows_per_step} rows, {epochs:.4g} epochs, "
            f"{self.precision.name()}; run {run.run_id}; records in {run.folder}"
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
        progress, seconds = self.progress, round(self.progress.seconds, 2)
        epoch = round(self.epoch(progress.step), 4)
        return {"step": progress.step, "epoch": epoch, "tokens": progress.tokens, "seconds": seconds}

    def epoch(self, step):
        """How many epochs are done after a step, a part of one included."""
        return float(np.interp(step * self.settings.rows_per_step, self.rows_before, range(len(self.rows_before))))

    def log(self, rate, norm):
        """Record the mean loss and the speed since the last log line."""
        progress, now = self.progress, time.perf_counter()
        (loss,), tokens = self.ranks.sum(self.loss.item()), self.tokens.item()  # waits for the device
        if not tokens:  # no step since the last line that had a loss
            return
        loss /= tokens
        speed = tokens / (now - self.log_began)
        place, norm = self.place(), norm.item()
        left = progress.seconds / progress.step * (self.total_steps - progress.step)
        end = time.strftime("%a %H:%M", time.localtime(time.time() + left))
        self.run.log(
            f"step {progress.step}/{self.total_steps} epoch {place['epoch']:.2f} train_loss {loss:.4f} "
            f"perplexity {perplexity(loss):.2f} lr {rate:.2e} grad_norm {norm:.2f} tokens/s {speed:,.0f} "
            f"{percent('mfu', self.mfu(speed))}elapsed {clock(progress.seconds)} left {clock(left)} end {end}"
        )
        values = {"train_loss": loss, "perplexity": perplexity(loss), "lr": rate}
        values |= {"grad_norm": norm if math.isfinite(norm) else None}  # JSON has no infinity
        tags = {"Loss/train": loss, "Perplexity/train": perplexity(loss), "LearningRate": rate}
        tags |= {"Throughput/tokens_per_second": speed} | ({"Throughput/mfu": self.mfu(speed)} if self.peak else {})
        self.run.record("train", tags, **place, **values, tokens_per_second=round(speed, 1))
        self.loss, self.tokens, self.log_began = torch.zeros_like(self.loss), torch.zeros_like(self.tokens), now

    def count_bad_steps(self):
        """Say how many steps were skipped; raise UserError where there were too many in a row."""
        progress, settings = self.progress, self.settings
        bad, in_a_row, longest = torch.stack(self.ranks.gather(self.bad.cpu())).amax(0).tolist()
        if new := bad - progress.bad_steps:
            progress.bad_steps = bad
            self.run.log(f"step {progress.step}/{self.total_steps} skipped: loss not finite ({new} new, {bad} in all)")
            self.run.record("skip", **self.place(), skipped=bad)
        progress.bad_steps_in_a_row = in_a_row
        if longest >= settings.max_bad_steps:
            raise UserError(
                f"{longest} steps in a row had a loss that is not finite; {self.run.last_checkpoint(go_on=False)}; "
                "train again with a lower --lr, or in float32 (--no-amp)", status=1,
            )  # fmt: skip

    def evaluate(self):
        """Record an evaluation, unless a signal broke it off; save best_model.pth if no other had a lower loss."""
        progress, began = self.progress, time.perf_counter()
        size = min(EVALUATION_ROWS, self.settings.batch_size // self.ranks.count)  # what the memory has room for
        result = evaluate(self.model, self.validation, self.precision, size, self.ranks, lambda: bool(self.signals))
        if result is None:
            return
        progress.final = result = result | {"step": progress.step}
        loss = result["val_loss"]
        is_best = not progress.best or loss < progress.best["val_loss"] or math.isnan(progress.best["val_loss"])
        progress.stale_evaluations = 0 if is_best else progress.stale_evaluations + 1
        if is_best:
            progress.best = result
            self.save_model("best_model.pth", loss)
        place = self.place()
        self.run.log(
            f"step {progress.step}/{self.total_steps} epoch {place['epoch']:.2f} val_loss {in_words(result)} "
            f"tokens/s {self.mean_speed():,.0f}" + (" (the best so far: best_model.pth)" if is_best else "")
        )
        tags = {"Loss/val": loss, "Perplexity/val": result["perplexity"], "BitsPerByte/val": result["bits_per_byte"]}
        self.run.record("eval", tags, **place | result)
        self.sample()
        self.log_began += time.perf_counter() - began  # the speed of training is without evaluations

    def sample(self):
        """Let the model write, record the text, and return it."""
        if self.ranks.rank > 0:
            return None
        with evaluating(self.model):
            text = self.write_sample(self.model)
        self.run.record("sample", **self.place(), text=text)
        self.run.show_text("Sample", text, self.progress.step)
        return text

    def mean_speed(self):
        """Tokens a second since the run's first step, evaluations included."""
        return self.progress.tokens / self.progress.seconds if self.progress.seconds else 0.0

    def is_stale(self):
        return 0 < self.settings.early_stopping_patience <= self.progress.stale_evaluations

    def save_model(self, name, loss):
        tokenizer, run = self.fingerprints["tokenizer"], self.run
        if self.ranks.rank == 0:
            weights = merged_weights(self.model)
            save_model(run.path(name), self.model, tokenizer, self.progress.step, loss, run.run_id, weights)

    def flags(self):
        """What a run that goes on must have in common with the one before, but for FREE_ON_RESUME."""
        flags = dataclasses.asdict(self.settings) | self.model.config.as_dict() | self.fingerprints
        flags |= {"batching": "packed" if self.rows.packed else "padded"}
        flags |= {"precision": self.precision.name(), "rows a step": self.settings.rows_per_step}
        return {name: flags[name] for name in flags if name not in SAID_OTHERWISE}

    def agree(self, signum, due):
        """A signal that any rank got, and whether rank 0 finds a checkpoint due."""
        if self.ranks.count == 1:
            return signum, due
        signals, due = self.ranks.sum(signum, due and self.ranks.rank == 0)
        return signum or (signal.SIGTERM if signals else 0), bool(due)

    def checkpoint_is_due(self):
        if self.settings.save_steps:
            return self.progress.step > 0 and self.progress.step % self.settings.save_steps == 0
        return time.perf_counter() - self.saved > SECONDS_BETWEEN_CHECKPOINTS

    def check_space(self):
        """Raise UserError if the disk has too little room; a checkpoint has the weights and two numbers beside each."""
        settings, weights = self.settings, sum(parameter.nbytes for parameter in self.model.parameters())
        checkpoints = min(settings.keep_checkpoints, self.total_steps // (settings.save_steps or 1) + 1)
        beside_the_old = 1  # a new one is written before the oldest one goes
        self.run.check_space((checkpoints + beside_the_old) * 3 * weights + 3 * weights + RECORDS_SIZE)

    def save_checkpoint(self):
        """Write checkpoint-<step>.pth, all that is needed to go on, and remove the oldest ones."""
        run, progress, began = self.run, self.progress, time.perf_counter()
        self.saved_step, progress.seconds_since_log = progress.step, began - self.log_began
        (progress.loss_since_log,), progress.tokens_since_log = self.ranks.sum(self.loss.item()), self.tokens.item()
        random, device = self.ranks.gather(torch.get_rng_state()), self.precision.device
        random_cuda = self.ranks.gather(torch.cuda.get_rng_state(device)) if device.type == "cuda" else []
        if self.ranks.rank > 0:
            return
        progress.record_sizes = run.flushed_sizes()
        content = {
            "format": CHECKPOINT_FORMAT, "version": VERSION, "run_id": run.run_id,
            "progress": dataclasses.asdict(progress), "flags": self.flags(),
            "model": self.model.state_dict(), "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "scaler": self.precision.scaler.state_dict(), "random": random, "random_cuda": random_cuda,
        }  # fmt: skip
        write_torch_file(run.path(f"checkpoint-{progress.step}.pth"), content)
        for _, old in run.checkpoints()[: -self.settings.keep_checkpoints]:
            with contextlib.suppress(OSError):  # somebody tidied up, or Windows has it open
                old.unlink()
        self.checkpoint_saved()
        self.saved = time.perf_counter()
        self.log_began += self.saved - began

    def checkpoint_saved(self):
        self.run.record("checkpoint", **self.place())
        self.run.log(f"step {self.progress.step}/{self.total_steps} checkpoint-{self.progress.step}.pth saved")

    def resume(self):
        """Put the run back where its checkpoint was saved; returns the step.  Raises UserError for another run's."""
        run, progress, content = self.run, self.progress, self.run.restored
        run.restored = None
        try:
            unasked = self.settings.amp is None and self.settings.amp_dtype is None
            refuse_another_run(run.checkpoint, content["flags"], self.flags(), {"precision"} if unasked else set())
            self.restore(content)
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError) as error:
            reason = printed((str(error) or type(error).__name__).splitlines()[0])
            raise UserError(f"{run.checkpoint} holds nothing that this run can go on from ({reason})") from None
        if not 0 <= progress.step <= self.total_steps:
            raise UserError(
                f"{self.settings.length()} are {self.total_steps} steps, and {run.checkpoint} comes after "
                f"{progress.step}; pass more, or start a new run"
            )
        if any(content["flags"].get(name) != getattr(self.settings, name) for name in LENGTH):
            run.say(f"{self.settings.length()}: the learning rate's course is laid anew over the whole run")
        if any(step != progress.step for step in torch.cat(self.ranks.gather(torch.tensor([progress.step]))).tolist()):
            raise UserError("the processes found different checkpoints; pass the path of one", status=1)
        progress.resumes += 1
        run.run_id = content["run_id"]
        if not run.goes_on or not run.path("best_model.pth").exists():  # the best model stands in another folder
            progress.best, progress.stale_evaluations = {}, 0
        return progress.step

    def restore(self, content):
        """Put back what `save_checkpoint` wrote; raises an error of nearly any kind where it holds something else."""
        self.model.load_state_dict(content["model"])
        for optimizer, saved in zip(self.optimizers, content["optimizers"], strict=True):
            optimizer.load_state_dict(optimizer.state_dict() | {"state": saved["state"]})
            for parameter, state in optimizer.state.items():
                sizes = dict.fromkeys(("exp_avg", "exp_avg_sq"), parameter.shape) | {"step": ()}
                sizes = sizes if isinstance(optimizer, torch.optim.AdamW) else {"average": parameter.shape}
                if {name: value.shape for name, value in state.items()} not in ({}, sizes):
                    raise ValueError("an optimizer's state of another shape")
        if content["scaler"]:
            self.precision.scaler.load_state_dict(content["scaler"])
        mine = lambda states: states[self.ranks.rank % len(states)]
        torch.set_rng_state(mine(content["random"]))
        if self.precision.device.type == "cuda" and content["random_cuda"]:
            torch.cuda.set_rng_state(mine(content["random_cuda"]), self.precision.device)
        for item in dataclasses.fields(Progress):
            value = content["progress"].get(item.name, getattr(self.progress, item.name))
            setattr(self.progress, item.name, item.type(value))
        self.progress.check()

    def stop(self, signum):
        self.run.say(f"stopped after step {self.progress.step} of {self.total_steps}, with a checkpoint saved")
        self.run.say(f"go on with: {self.run.command_to_go_on()}")
        self.end(signal.Signals(signum).name)
        raise Interrupted(signum)

    def end(self, how):
        """The last row of the records, and why the run failed for train.log (the console's line comes later)."""
        self.run.record("end", **self.place(), ended=how, time=now())
        if self.run.log_file and how.startswith("failed: "):
            self.run.write(how.replace("failed", "error", 1), self.run.log_file)

    def finish(self):
        """Save the final model, write a sample with the best one, and sum up."""
        run, progress = self.run, self.progress
        if progress.final["step"] != progress.step:  # an early stop right after the run was gone on with
            self.evaluate()
        final, best = progress.final, progress.best or progress.final
        self.save_model("final_model.pth", final["val_loss"])
        if best is final:
            self.save_model("best_model.pth", final["val_loss"])
        if self.ranks.rank > 0:
            return None
        content = read_torch_file(run.path("best_model.pth"), MODEL_FORMAT)
        merge(self.model)
        self.model.load_state_dict(content["model"])
        if content["step"] != best["step"]:  # saved after the checkpoint that the run went on from, and never surpassed
            best = evaluate(self.model, self.validation, self.precision) | {"step": content["step"]}
        run.say(f"a sample of best_model.pth:\n{self.sample()}", file=sys.stdout)
        summary = {
            f"{kind}_{name}": result[name] for kind, result in (("best", best), ("final", final)) for name in result
        }
        speed, ended = self.mean_speed(), "stopped early" if self.is_stale() else "finished"
        summary |= self.place() | {
            "run_id": run.run_id, "ended": ended, "time": now(), "resumes": progress.resumes,
            "skipped_steps": progress.bad_steps, "tokens_per_second": round(speed, 1),
        }  # fmt: skip
        write_json(run.path("summary.json"), summary)
        self.end(ended)
        for kind, result in (("best", best), ("final", final)):
            path = run.path(f"{kind}_model.pth")
            run.log(f"{kind}: step {result['step']} loss {in_words(result)} -> {path}")
        run.say(
            f"{progress.tokens:,} tokens in {clock(progress.seconds)}, evaluations included: {speed:,.0f} tokens/s"
            f"{percent(', mfu', self.mfu(speed)).rstrip()}; records in {run.folder}"
        )
        return summary


def percent(name, share):
    return "" if share is None else f"{name} {share:.0%} "
