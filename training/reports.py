"""What a run says of itself: lines of the log, rows of metrics.jsonl, TensorBoard's curves, summary.json.

The words of the lines are in log_lines.py.
"""

from __future__ import annotations

import os
import platform
import time
from typing import TYPE_CHECKING

import torch

from common.console import RESULT, log
from common.devices import describe_device, peak_flops
from common.files import write_json
from common.numbers import finite_number
from training import log_lines
from training.plan import Plan
from training.resume import Progress
from training.step import perplexity

if TYPE_CHECKING:
    from training.loop import Job


class Reporter:
    """Reports what happens in a run, as far as `progress` says that it is."""

    def __init__(self, job: Job, plan: Plan, progress: Progress):
        self.job = job
        self.run = job.run
        self.plan = plan
        self.progress = progress
        self.peak = peak_flops(job.precision.device, job.precision.dtype)

    def place(self) -> dict:
        """The fields that every row of metrics.jsonl has."""
        progress = self.progress
        return {
            "step": progress.step,
            "epoch": round(self.plan.epoch(progress.step), 4),
            "tokens": progress.tokens,
            "seconds": round(progress.seconds, 2),
        }

    def log_step(self, what: str) -> None:
        """Report what happened at this step."""
        self.run.log(log_lines.step_line(self.progress.step, self.plan.total_steps, what))

    def mfu(self, tokens_per_second: float) -> float | None:
        """The share of the devices' peak that a speed is, None where the peak is not known (Chowdhery et al. 2022)."""
        if self.peak is None:
            return None
        return tokens_per_second * self.job.model.flops_per_token() / (self.peak * self.job.ranks.count)

    def mean_speed(self) -> float:
        """Tokens a second since the run's first step, evaluations included."""
        return self.progress.tokens / self.progress.seconds if self.progress.seconds else 0.0

    # Before the first step --------------------------------------------------------------------------------------------

    def beginning(self) -> None:
        """What is trained: the first row of metrics.jsonl, or that the run was resumed."""
        run, job, rows = self.run, self.job, self.job.rows
        in_layers, in_all = job.model.num_parameters()
        total_steps = self.plan.total_steps
        if run.goes_on:  # the records end where the checkpoint was saved
            self.checkpoint()
        else:
            versions = {"python": platform.python_version(), "torch": torch.__version__, "system": platform.platform()}
            device = describe_device(job.precision.device)
            run.record(
                "run", **self.place(), run_id=run.run_id, program=run.args["program"], time=time_of_day(),
                versions=versions, hardware={"device": device, "processes": job.ranks.count, "cores": os.cpu_count()},
                precision=job.precision.name(), parameters=in_all, parameters_in_layers=in_layers,
                flops_per_token=job.model.flops_per_token(), dataset=run.args.get("dataset"),
                fingerprints=job.fingerprints, total_steps=total_steps,
            )  # fmt: skip
        if run.checkpoint:
            run.record("resume", **self.place(), time=time_of_day())
            log.info(log_lines.resumed_line(run.checkpoint, self.progress.step, total_steps))
        log.info(log_lines.model_line(in_all, in_layers, job.model.config.describe()))
        log.info(
            f"training: {rows.texts:,} texts in {rows.per_epoch:,} rows of at most {rows.length} tokens, "
            f"{'packed' if rows.packed else 'padded'}; validation: {job.validation.texts:,} texts"
        )
        length = total_steps, job.settings.rows_per_step, self.plan.epoch(total_steps)
        log.info(log_lines.length_line(*length, job.precision.name(), run.run_id, run.folder))

    # Steps ------------------------------------------------------------------------------------------------------------

    def training(self, loss: float, tokens_per_second: float, rate: float, norm: float) -> None:
        """The mean loss and the speed since the last line of this kind."""
        progress = self.progress
        mfu = self.mfu(tokens_per_second)
        seconds_left = progress.seconds / progress.step * (self.plan.total_steps - progress.step)
        epoch = self.plan.epoch(progress.step)
        numbers = log_lines.training_part(epoch, loss, rate, norm, tokens_per_second)
        times = log_lines.time_part(progress.seconds, seconds_left)
        self.log_step(f"{numbers} {log_lines.mfu_part(mfu)}{times}")
        tags = {
            "Loss/train": loss,
            "Perplexity/train": perplexity(loss),
            "LearningRate": rate,
            "Throughput/tokens_per_second": tokens_per_second,
        }
        if mfu is not None:
            tags["Throughput/mfu"] = mfu
        self.run.record(
            "train", tags, **self.place(), train_loss=loss, perplexity=perplexity(loss), lr=rate,
            grad_norm=finite_number(norm), tokens_per_second=round(tokens_per_second, 1),
        )  # fmt: skip

    def evaluation(self, result: dict, is_best: bool) -> None:
        """What `evaluate` found."""
        epoch = self.plan.epoch(self.progress.step)
        numbers = f"epoch {epoch:.2f} val_loss {log_lines.result_part(result)} tokens/s {self.mean_speed():,.0f}"
        self.log_step(numbers + (" (the best so far: best_model.pth)" if is_best else ""))
        tags = {
            "Loss/val": result["val_loss"],
            "Perplexity/val": result["perplexity"],
            "BitsPerByte/val": result["bits_per_byte"],
        }
        self.run.record("eval", tags, **self.place() | result)

    def sample(self, text: str) -> None:
        """What the model wrote."""
        self.run.record("sample", **self.place(), text=text)
        self.run.show_text("Sample", text, self.progress.step)

    def skipped(self, new: int, in_all: int) -> None:
        """How many steps were left out."""
        self.log_step(log_lines.skipped_part(new, in_all))
        self.run.record("skip", **self.place(), skipped=in_all)

    def checkpoint(self) -> None:
        """That the checkpoint of this step is there."""
        self.run.record("checkpoint", **self.place())
        self.log_step(log_lines.checkpoint_part(self.progress.step))

    # The end ----------------------------------------------------------------------------------------------------------

    def end(self, how: str) -> None:
        """The last row of the records."""
        self.run.record("end", **self.place(), ended=how, time=time_of_day())

    def failure(self, reason: object) -> None:
        """Why the run failed; the console's line comes later."""
        self.end(f"failed: {reason}")
        if self.run.log_file:
            self.run.train_log.write(f"error: {reason}")

    def summary(self, ended: str, best: dict, final: dict, sample: str) -> dict:
        """Write summary.json, and the last lines of the log; best and final: evaluations."""
        run, progress = self.run, self.progress
        speed = self.mean_speed()
        log.info(log_lines.sample_line(sample), extra=RESULT)
        summary = {f"best_{name}": value for name, value in best.items()}
        summary |= {f"final_{name}": value for name, value in final.items()}
        summary |= self.place() | {
            "run_id": run.run_id, "ended": ended, "time": time_of_day(), "resumes": progress.resumes,
            "skipped_steps": progress.bad_steps, "tokens_per_second": round(speed, 1),
        }  # fmt: skip
        write_json(run.path("summary.json"), summary)
        self.end(ended)
        run.log(log_lines.end_line("best", best, run.path("best_model.pth")))
        run.log(log_lines.end_line("final", final, run.path("final_model.pth")))
        mfu = log_lines.mfu_part(self.mfu(speed))
        log.info(log_lines.total_line(progress.tokens, progress.seconds, speed, mfu, run.folder))
        return summary


def time_of_day() -> str:
    """The time with its zone, as ISO 8601 writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
