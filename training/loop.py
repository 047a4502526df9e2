"""One training run: step, log, evaluate, save when due.

It knows nothing of what the tokens mean.  What a step computes is in step.py, how long the run is in plan.py, what is
saved so that it can resume in resume.py, what it says of itself in reports.py.  In reading order: `train`; `Trainer`,
the loop and then what it calls, in the order in which it calls it.
"""

import contextlib
import itertools
import math
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from tqdm import tqdm

from common import STARTED
from common.console import log
from common.devices import WORTH_COMPILING, Precision, compiled, compiling_pays, has_bfloat16
from common.errors import Interrupted, UserError
from common.prefetch import computed_ahead
from common.program import noted_signals
from common.ranks import ONE_RANK, Ranks
from common.weights_files import MODEL_FORMAT, read_torch_file, save_model
from data import Rows
from model import Transformer
from training import log_lines
from training.device_check import check_device
from training.lora import merge, merged_weights
from training.optimizer import Muon, learning_rate, make_optimizers, set_learning_rate
from training.plan import Plan
from training.reports import Reporter, explain
from training.resume import Checkpoints, Progress, resume
from training.run_folder import Run, command_to_resume, last_checkpoint
from training.settings import TrainingSettings, seed_everything
from training.step import Meter, StepResult, evaluate, evaluating, evaluation_rows, micro_batches, training_step
from training.time_limit import measure, of_rank_0, steps_that_fit


@dataclass
class Job:
    """What a run trains, on what, and where its records go.

    fingerprints: {"tokenizer": ..., "data": ...}; a checkpoint is resumed only where they are the same.
    write_sample: a function of the model that returns a text for the log.
    """

    model: Transformer
    rows: Rows
    validation: Rows
    settings: TrainingSettings
    run: Run
    precision: Precision
    fingerprints: dict
    write_sample: Callable[[Transformer], str]
    ranks: Ranks = ONE_RANK


def train(job: Job) -> dict | None:
    """Train a model, evaluate it, and leave the run's records in its folder.

    Returns the summary.  Raises Interrupted, after saving a checkpoint, when a signal asks for the end, and UserError
    where the run cannot go on: the disk or the memory is full, another rank has died, the loss is no longer finite.
    """
    trainer = Trainer(job)
    try:
        return trainer.train()
    except (UserError, OSError, RuntimeError, MemoryError) as error:
        failure = explain(error, job)
        reason = failure or type(error).__name__
        with contextlib.suppress(OSError):  # where the disk is full, the records end with the row before
            job.run.write_log(f"error: {reason}")
        with contextlib.suppress(OSError):
            trainer.report.end(f"failed: {reason}")
        job.run.close()
        if failure is None:
            raise
        raise failure from None


class Trainer:
    """One run of `train`: the loop, and what it does between steps."""

    def __init__(self, job: Job):
        self.job = job
        self.model = job.model
        self.settings = job.settings
        self.precision = job.precision
        self.ranks = job.ranks
        if self.ranks.rank > 0:  # the weights are rank 0's; what dropout drops is each rank's own
            seed_everything(self.settings.seed + self.ranks.rank)
        self.optimizers = make_optimizers(self.model, self.settings)
        self.progress = Progress()
        self.plan = Plan(job.rows, self.settings)
        self.report = Reporter(job, self.plan, self.progress)
        self.checkpoints = Checkpoints(job, self.optimizers, self.progress)
        self.signals = []
        self.was_compiled = None  # whether the run was that is resumed; None: nothing is known of it

    def train(self) -> dict | None:
        """Run the loop to its end."""
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
            self.after_step()  # a resumed run may have been stopped during an evaluation: it comes now
            for batches in computed_ahead(self.batches_of, range(progress.step, total_steps)):
                if self.should_stop_early():
                    break
                rate = learning_rate(progress.step, total_steps, settings)
                set_learning_rate(self.optimizers, rate)
                result = training_step(network, self.optimizers, self.precision, batches, settings, self.ranks)
                self.meter.add(result)  # loss and skipped steps are added up on the GPU: the CPU need not wait for it
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
                self.job.run.log(log_lines.EARLY_STOP.format(progress.stale_evaluations))
            self.count_bad_steps()
            if self.checkpoints.newest_step != progress.step:
                self.save_checkpoint()
            return self.finish()

    # Before the first step --------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Resume, if that is asked for, and open the records."""
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
        """The model compiled, if that is asked for or pays, and works on all ranks; evaluation goes without."""
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
            log.info(f"the run {before} compiled before: it does not end with the same weights to the last bit")
        self.checkpoints.compiled = is_compiled
        return network

    def should_compile(self) -> bool:
        """As the flag says; auto: as the run that is resumed did, a new run where it is long enough."""
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
        """Always but in a run of --minutes that has not yet measured."""
        return not self.settings.minutes or self.progress.total_steps > 0

    def fix_length(self, network: torch.nn.Module) -> None:
        """Fix how many steps a run of --minutes has; a signal that comes meanwhile waits until that is done."""
        settings, progress = self.settings, self.progress
        batches = computed_ahead(self.batches_of, itertools.count(progress.step))
        speed = measure(self.job, network, self.optimizers, batches)
        passed = time.perf_counter() - STARTED + progress.seconds  # the program's, and the resumed run's
        seconds = of_rank_0(self.ranks, 60 * settings.minutes - passed)
        steps, progress.eval_steps = steps_that_fit(seconds, speed, settings.eval_steps)
        progress.total_steps = progress.step + steps
        self.plan.lay_out(progress.total_steps, progress.eval_steps)
        self.job.run.check_space(self.checkpoints.space_needed(progress.total_steps))
        self.report.measured(speed, seconds)
        self.report.length()

    def batches_of(self, step: int) -> list:
        """The micro-batches of one step."""
        return micro_batches(self.job.rows, step, self.settings, self.precision.device, self.ranks)

    # After each step --------------------------------------------------------------------------------------------------

    def is_time_to_count_bad_steps(self) -> bool:
        """On a CPU after each step; on a GPU, for whose result the CPU must wait, only now and then."""
        return self.precision.device.type == "cpu" or self.progress.step % self.settings.max_bad_steps == 0

    def count_bad_steps(self) -> None:
        """Report how many steps were skipped; raise UserError where there were too many in a row."""
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
        """What helps where losses or gradients are not finite."""
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
        """Also after the first and the last step."""
        step = self.progress.step
        return step % self.settings.logging_steps == 0 or step in (1, self.plan.total_steps)

    def report_training(self, rate: float, result: StepResult) -> None:
        """Report the mean loss and the speed since the last time."""
        loss, tokens = self.meter.read(self.ranks)  # waits for the device
        if not tokens:  # all steps were skipped
            return
        now = time.perf_counter()
        speed = tokens / (now - self.last_logged)
        self.report.training(loss / tokens, speed, rate, result.norm.item(), result.loss_scale.item())
        self.meter.start_again()
        self.last_logged = now

    def should_stop_early(self) -> bool:
        """Whether so many evaluations were no better that the run should stop early."""
        return 0 < self.settings.early_stopping_patience <= self.progress.stale_evaluations

    def after_step(self) -> None:
        """Evaluate if that is due and not yet done; save a checkpoint if one is due; stop if a signal asks for it."""
        step = self.progress.step
        if self.plan.evaluates_after(step) and self.progress.final.get("step") != step:
            self.evaluate()
        signum, due = self.agree(max(self.signals, default=0), self.checkpoints.is_due(step))
        if signum or due:
            self.count_bad_steps()
        goes_wrong = self.progress.bad_steps_in_a_row > 0  # then a checkpoint helps nobody
        is_saved = self.checkpoints.newest_step == step
        if not is_saved and (signum or (due and not goes_wrong)):
            self.save_checkpoint()
        if signum:
            self.stop(signum)

    def agree(self, signum: int, due: bool) -> tuple[int, bool]:
        """A signal that any rank got, and whether rank 0 finds a checkpoint due."""
        if self.ranks.count == 1:
            return signum, due
        signals, due = self.ranks.sum(signum, due and self.ranks.rank == 0)
        return signum or (signal.SIGTERM if signals else 0), bool(due)

    def evaluate(self) -> None:
        """Report an evaluation, unless a signal broke it off; save best_model.pth if no other had a lower loss."""
        progress = self.progress
        size = evaluation_rows(self.settings, self.ranks)
        with self.left_out_of_speed():
            result = evaluate(self.model, self.job.validation, self.precision, size, self.ranks, self.is_asked_to_stop)
            if result is None:
                return
            result["step"] = progress.step
            best_loss = progress.best.get("val_loss", math.nan)
            is_best = math.isnan(best_loss) or result["val_loss"] < best_loss
            progress.final = result
            if is_best:
                progress.best = result
                progress.stale_evaluations = 0
                self.save_model("best_model.pth", result["val_loss"])
            else:
                progress.stale_evaluations += 1
            self.report.evaluation(result, is_best)
            self.sample()

    @contextlib.contextmanager
    def left_out_of_speed(self) -> Iterator[None]:
        """Leave the time of this block out of the tokens a second that are logged (not out of the run's seconds)."""
        paused_at = time.perf_counter()
        yield
        self.last_logged += time.perf_counter() - paused_at

    def is_asked_to_stop(self) -> bool:
        return bool(self.signals)

    def sample(self) -> str | None:
        """Let the model write, and report the text."""
        if self.ranks.rank > 0:
            return None
        with evaluating(self.model):
            text = self.job.write_sample(self.model)
        self.report.sample(text)
        return text

    def save_model(self, name: str, loss: float) -> None:
        """Write a model file, LoRA's adapters merged into the weights."""
        if self.ranks.rank == 0:
            run, tokenizer = self.job.run, self.job.fingerprints["tokenizer"]
            weights = merged_weights(self.model)
            save_model(run.path(name), self.model, tokenizer, self.progress.step, loss, run.run_id, weights)

    def save_checkpoint(self) -> None:
        """Write all that is needed to resume after this step."""
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
        """Save the final model, let the best one write, and sum up."""
        progress = self.progress
        if progress.final["step"] != progress.step:  # resumed with a smaller patience, the run ended at once
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
        """Put the weights of best_model.pth into the model; returns their evaluation, which best should be."""
        content = read_torch_file(self.job.run.path("best_model.pth"), MODEL_FORMAT)
        merge(self.model)
        self.model.load_state_dict(content["model"])
        if content["step"] == best["step"]:
            return best
        # saved after the checkpoint from which the run resumed, and never surpassed
        return evaluate(self.model, self.job.validation, self.precision) | {"step": content["step"]}
