"""One training run: step, log, evaluate, and save when due.

This code does not know what the tokens mean.  step.py computes a step, plan.py sets the length of the run, resume.py
saves and restores checkpoints, reports.py writes the records.  In reading order: `train`; `Trainer`, first the loop,
then the methods that it calls, in the order of the calls.
"""

import contextlib
import itertools
import math
import signal
import time
from collections.abc import Iterator

import torch
from tqdm import tqdm

from common import STARTED
from common.console import log
from common.devices import WORTH_COMPILING, compiled, compiling_pays, has_bfloat16
from common.errors import Interrupted, UserError
from common.numbers import perplexity
from common.prefetch import computed_ahead
from common.program import noted_signals
from common.weights_files import MODEL_FORMAT, read_torch_file, save_model
from training import log_lines
from training.device_check import check_device
from training.job import Job
from training.lora import merge, merged_weights
from training.optimizer import Muon, learning_rate, make_optimizers, set_learning_rate
from training.plan import Plan
from training.reports import Reporter, explain
from training.resume import Checkpoints, Progress, resume
from training.run_folder import command_to_resume, last_checkpoint
from training.settings import seed_everything
from training.step import Meter, StepResult, evaluate, evaluating, evaluation_rows, micro_batches, training_step
from training.time_limit import measure, of_rank_0, steps_that_fit


def train(job: Job) -> dict | None:
    """Train a model, evaluate it, and write the run's records into its folder.

    Returns the summary; None on ranks above 0.  After a signal, saves a checkpoint and raises Interrupted.  Raises
    UserError if the run cannot continue: the disk or the memory is full, another rank has died, or too many losses
    are not finite.
    """
    trainer = Trainer(job)
    try:
        return trainer.train()
    except (UserError, OSError, RuntimeError, MemoryError) as error:
        failure = explain(error, job)
        reason = failure or type(error).__name__
        with contextlib.suppress(OSError):  # on a full disk, this line is missing from the log
            job.run.write_log(f"error: {reason}")
        with contextlib.suppress(OSError):
            trainer.report.end(f"failed: {reason}")
        job.run.close()
        if failure is None:
            raise
        raise failure from None


class Trainer:
    """One run of `train`: the loop, and everything between the steps."""

    def __init__(self, job: Job):
        self.job = job
        self.model = job.model
        self.settings = job.settings
        self.precision = job.precision
        self.ranks = job.ranks
        if self.ranks.rank > 0:  # the weights come from rank 0; dropout differs between ranks
            seed_everything(self.settings.seed + self.ranks.rank)
        self.optimizers = make_optimizers(self.model, self.settings)
        self.progress = Progress()
        self.plan = Plan(job.rows, self.settings)
        self.report = Reporter(job, self.plan, self.progress)
        self.checkpoints = Checkpoints(job, self.optimizers, self.progress)
        self.signals = []
        self.was_compiled = None  # whether the resumed run was compiled; None: unknown

    def train(self) -> dict | None:
        """Run the training loop to its end."""
        progress, settings = self.progress, self.settings
        self.begin()
        bar = tqdm(total=self.plan.total_steps, initial=progress.step, unit=" steps", disable=None, leave=False)
        with noted_signals() as self.signals, bar:
            network = self.ranks.wrap(self.compile())  # the same weights as self.model
            if not self.is_length_known():
                self.fix_length(network)
            total_steps = self.plan.total_steps
            bar.total = total_steps
            self.report.first_row(self.checkpoints.compiled)
            self.began = time.perf_counter() - progress.seconds  # as if a resumed run had never paused
            self.last_logged = time.perf_counter() - progress.seconds_since_log
            self.after_step()  # a run that was stopped during an evaluation repeats it now
            for batches in self.batches(range(progress.step, total_steps)):
                if self.should_stop_early():
                    break
                rate = learning_rate(progress.step, total_steps, settings)
                set_learning_rate(self.optimizers, rate)
                result = self.take_step(network, batches)
                self.meter.add(result)  # sums loss and skipped steps on the GPU: the CPU need not wait for it
                progress.tokens += result.tokens
                progress.step += 1
                progress.seconds = time.perf_counter() - self.began
                bar.update()
                if self.is_time_to_count_bad_steps():
                    self.count_bad_steps()
                if self.is_time_to_log():
                    self.report_training(rate, result)
                self.after_step()  # evaluate, save, stop: whatever is due
            if self.should_stop_early():
                self.report.early_stop()
            self.count_bad_steps()
            if self.checkpoints.newest_step != progress.step:
                self.save_checkpoint()
            return self.finish()

    # Before the first step --------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Check the device and the disk, restore a run that resumes, and open the records."""
        progress, run = self.progress, self.job.run
        if self.precision.device.type != "cpu" and run.args.get("device_check"):
            check_device(self.model.config, self.precision)
        resumed_step = None
        if run.checkpoint:
            self.was_compiled = resume(self.job, self.optimizers, progress, self.plan)
            resumed_step = progress.step
        if run.goes_on:
            self.checkpoints.newest_step = resumed_step
        self.meter = Meter(self.precision.device, progress, self.ranks)
        run.check_space(self.checkpoints.space_needed(self.plan.total_steps))
        run.start(resumed_step, progress.record_sizes)
        self.report.beginning()
        if self.is_length_known():
            self.report.length()
        self.model.train()

    def compile(self) -> torch.nn.Module:
        """Return the model to train: compiled if it should be and if that works on all ranks.

        Evaluations use the model that is not compiled.
        """
        network = self.model
        if self.should_compile():
            network = compiled(self.model, self.precision, self.batches_of(0))
            (worked,) = self.ranks.sum(network is not self.model)
            if worked < self.ranks.count:
                network = self.model
        is_compiled = network is not self.model
        if is_compiled and self.precision.device.type == "cuda":
            for optimizer in self.optimizers:
                if isinstance(optimizer, Muon):
                    optimizer.compile()
        if self.was_compiled is not None and self.was_compiled != is_compiled:
            before = "was" if self.was_compiled else "was not"
            log.info(f"the run {before} compiled before; its final weights may differ in the last bits")
        self.checkpoints.compiled = is_compiled
        return network

    def should_compile(self) -> bool:
        """Return whether to compile.  --compile auto: as the resumed run did; a new run if it is long enough."""
        settings, precision, rows = self.settings, self.precision, self.job.rows
        if settings.compile != "auto":
            return settings.compile == "on"
        if self.was_compiled is not None:
            return self.was_compiled
        if settings.minutes:
            is_long = 60 * settings.minutes > WORTH_COMPILING.get(precision.device.type, math.inf)
            flops = math.inf if is_long else 0
            return rows.packed and compiling_pays(precision.device, self.report.peak, precision.dtype, flops)
        tokens = self.plan.total_steps * settings.rows_per_step * rows.length / self.ranks.count
        flops = tokens * self.model.flops_per_token()
        return rows.packed and compiling_pays(precision.device, self.report.peak, precision.dtype, flops)

    def is_length_known(self) -> bool:
        """Return True, except for a run of --minutes that has not yet measured its speed."""
        return not self.settings.minutes or self.progress.total_steps > 0

    def fix_length(self, network: torch.nn.Module) -> None:
        """Set how many steps a run of --minutes has.  A signal that arrives meanwhile is handled afterwards."""
        settings, progress = self.settings, self.progress
        batches = computed_ahead(self.batches_of, itertools.count(progress.step))
        times = measure(self.job, network, self.optimizers, batches)
        passed = time.perf_counter() - STARTED + progress.seconds  # since the start, and before the resume
        seconds = of_rank_0(self.ranks, 60 * settings.minutes - passed)
        steps, progress.eval_steps = steps_that_fit(seconds, times, settings.eval_steps)
        progress.total_steps = progress.step + steps
        self.plan.lay_out(progress.total_steps, progress.eval_steps)
        self.job.run.check_space(self.checkpoints.space_needed(progress.total_steps))
        self.report.measured(times, seconds)
        self.report.length()

    def batches_of(self, step: int) -> list:
        """Return the micro-batches of one step."""
        return micro_batches(self.job.rows, step, self.settings, self.precision.device, self.ranks)

    def batches(self, steps: range) -> Iterator[list]:
        """Yield the micro-batches of each step."""
        if self.job.task:  # the model may write them, as it is at that step
            return map(self.job.task.batches, steps)
        return computed_ahead(self.batches_of, steps)

    def take_step(self, network: torch.nn.Module, batches: list) -> StepResult:
        """Update the weights once."""
        if self.job.task:
            return self.job.task.step(network, self.optimizers, batches)
        return training_step(network, self.optimizers, self.precision, batches, self.settings, self.ranks)

    # After each step --------------------------------------------------------------------------------------------------

    def is_time_to_count_bad_steps(self) -> bool:
        """Return True after each step on a CPU; on a GPU less often, since the CPU must wait for the result."""
        return self.precision.device.type == "cpu" or self.progress.step % self.settings.max_bad_steps == 0

    def count_bad_steps(self) -> None:
        """Report how many steps were skipped; raise UserError if there were too many in a row."""
        progress = self.progress
        bad, in_a_row, longest = self.meter.read_bad(self.ranks)
        new = bad - progress.bad_steps
        progress.bad_steps = bad
        progress.bad_steps_in_a_row = in_a_row
        if new:
            self.report.skipped(new, bad)
        if longest >= self.settings.max_bad_steps:
            raise UserError(
                f"{longest} steps in a row had a loss or a gradient that is not finite; "
                f"{last_checkpoint(self.job.run.folder, with_command=False)}; train again with {self.other_flags()}",
                status=1,
            )

    def other_flags(self) -> str:
        """Return the flags that may help when losses or gradients are not finite."""
        flags = ["a lower --lr"]
        dtype = self.precision.dtype
        if dtype == torch.float16 and has_bfloat16(self.precision.device):
            flags.append("--amp_dtype bfloat16")
        if dtype != torch.float32:
            flags.append("--no-amp")
        if self.checkpoints.compiled:
            flags.append("--compile off")
        return " or ".join(flags)

    def is_time_to_log(self) -> bool:
        """Return True every --logging_steps, and after the first and the last step."""
        step = self.progress.step
        return step % self.settings.logging_steps == 0 or step in (1, self.plan.total_steps)

    def report_training(self, rate: float, result: StepResult) -> None:
        """Report the mean loss and the speed since the last report."""
        loss, tokens = self.meter.read(self.ranks)  # waits for the device
        if not tokens:  # all steps were skipped
            return
        now = time.perf_counter()
        speed = tokens / (now - self.last_logged)
        measured = self.job.task.measured() if self.job.task else {"perplexity": perplexity(loss / tokens)}
        self.report.training(loss / tokens, measured, speed, rate, result)
        self.meter.start_again()
        self.last_logged = now

    def should_stop_early(self) -> bool:
        """Return whether too many evaluations in a row brought no better model."""
        patience = self.settings.early_stopping_patience  # 0: never stop early
        return patience > 0 and self.progress.stale_evaluations >= patience

    def after_step(self) -> None:
        """Evaluate if due and not yet done; save a checkpoint if due; stop after a signal."""
        step = self.progress.step
        if self.plan.evaluates_after(step) and self.progress.final.get("step") != step:
            self.evaluate()
        signum, due = self.agree(max(self.signals, default=0), self.checkpoints.is_due(step))
        if signum or due:
            self.count_bad_steps()
        goes_wrong = self.progress.bad_steps_in_a_row > 0  # then a checkpoint would be useless
        is_saved = self.checkpoints.newest_step == step
        if not is_saved and (signum or (due and not goes_wrong)):
            self.save_checkpoint()
        if signum:
            self.stop(signum)

    def agree(self, signum: int, due: bool) -> tuple[int, bool]:
        """Return the same on all ranks: a signal that any rank got, and whether a checkpoint is due on rank 0."""
        if self.ranks.count == 1:
            return signum, due
        signals, due = self.ranks.sum(signum, due and self.ranks.rank == 0)
        return signum or (signal.SIGTERM if signals else 0), bool(due)

    def evaluate(self) -> None:
        """Evaluate and report, unless a signal interrupts; save best_model.pth if the model is the best so far."""
        progress = self.progress
        size = evaluation_rows(self.settings, self.ranks)
        with self.left_out_of_speed():
            result = evaluate(self.model, self.job.validation, self.precision, size, self.ranks, self.is_asked_to_stop)
            if result is None:
                return
            result |= self.score()
            result["step"] = progress.step
            is_best = is_better(result, progress.best)
            progress.final = result
            if is_best:
                progress.best = result
                progress.stale_evaluations = 0
                self.save_model("best_model.pth", result["val_loss"])
            else:
                progress.stale_evaluations += 1
            if progress.step in self.plan.steps_of_kept_models():
                self.save_model(f"model-{progress.step}.pth", result["val_loss"])
            self.report.evaluation(result, is_best)
            self.sample()

    def score(self) -> dict[str, float]:
        """Return what the job's task adds to an evaluation."""
        if self.job.task is None:
            return {}
        with evaluating(self.model):
            return self.job.task.score(self.model)

    @contextlib.contextmanager
    def left_out_of_speed(self) -> Iterator[None]:
        """Leave the time of this block out of the logged tokens per second (but not out of the run's seconds)."""
        paused_at = time.perf_counter()
        yield
        self.last_logged += time.perf_counter() - paused_at

    def is_asked_to_stop(self) -> bool:
        return bool(self.signals)

    def sample(self) -> str | None:
        """Let the model write a text, and report it."""
        if self.ranks.rank > 0:
            return None
        with evaluating(self.model):
            text = self.job.write_sample(self.model)
        self.report.sample(text)
        return text

    def save_model(self, name: str, loss: float) -> None:
        """Write a model file, with LoRA's adapters merged into the weights."""
        if self.ranks.rank == 0:
            run, tokenizer = self.job.run, self.job.fingerprints["tokenizer"]
            weights = merged_weights(self.model)
            save_model(run.path(name), self.model, tokenizer, self.progress.step, loss, run.run_id, weights)

    def save_checkpoint(self) -> None:
        """Write a checkpoint to resume from after this step."""
        progress = self.progress
        progress.seconds_since_log = time.perf_counter() - self.last_logged
        progress.loss_since_log, progress.tokens_since_log = self.meter.read(self.ranks)
        with self.left_out_of_speed():
            self.checkpoints.save()
            if self.ranks.rank == 0:
                self.report.checkpoint()

    # The end ----------------------------------------------------------------------------------------------------------

    def stop(self, signum: int) -> None:
        log.info(log_lines.STOPPED.format(step=self.progress.step, total_steps=self.plan.total_steps))
        log.info(log_lines.TO_RESUME.format(command_to_resume()))
        self.report.end(signal.Signals(signum).name)
        raise Interrupted(signum)

    def finish(self) -> dict | None:
        """Save the final model, let the best one write a sample, and return the summary."""
        progress = self.progress
        if progress.final["step"] != progress.step:  # a run resumed with a smaller patience ends at once
            self.evaluate()
        final = progress.final
        best = progress.best or final
        self.save_model("final_model.pth", final["val_loss"])
        if best is final:
            self.save_model("best_model.pth", final["val_loss"])
        if self.ranks.rank > 0:
            return None
        best = self.load_best(best)
        ended = "stopped early" if self.should_stop_early() else "finished"
        return self.report.summary(ended, best, final, self.sample())

    def load_best(self, best: dict) -> dict:
        """Load best_model.pth into the model; return its evaluation, which is `best` in most cases."""
        content = read_torch_file(self.job.run.path("best_model.pth"), MODEL_FORMAT)
        merge(self.model)
        self.model.load_state_dict(content["model"])
        if content["step"] == best["step"]:
            return best
        # saved after the checkpoint that the run resumed from; no model since then was better
        return evaluate(self.model, self.job.validation, self.precision) | self.score() | {"step": content["step"]}


def is_better(result: dict, best: dict) -> bool:
    """Return whether an evaluation has a higher reward than the best one before; without rewards, a lower loss."""
    if "reward" in result:
        return result["reward"] > best.get("reward", -math.inf)
    best_loss = best.get("val_loss", math.nan)
    return math.isnan(best_loss) or result["val_loss"] < best_loss
