"""The reports of a run: lines of its log, rows of metrics.jsonl, TensorBoard's curves, summary.json.

The wording of the log lines is in log_lines.py.
"""

import math
import os
import platform
import time

import torch

from common.console import RESULT, log
from common.devices import describe_device, peak_flops
from common.errors import UserError, file_error, memory_is_full
from common.files import write_json
from training import log_lines
from training.plan import Plan
from training.resume import Progress
from training.run_folder import last_checkpoint
from training.step import StepResult
from training.time_limit import Times

LEAST_STEPS = 20  # with fewer, a model learns little
TAGS = {"perplexity": "Perplexity/train"}  # TensorBoard's name of what a training line measures; else Rewards/<name>


class Reporter:
    """Reports what happens in a run.  job: a `job.Job`; progress: how far the run is."""

    def __init__(self, job, plan: Plan, progress: Progress):
        self.job = job
        self.run = job.run
        self.plan = plan
        self.progress = progress
        self.peak = None  # of a job with a task, the speed includes more than training
        if job.task is None:
            self.peak = peak_flops(job.precision.device, job.precision.dtype)

    def record(self, event: str, tags: dict | None = None, **values) -> None:
        """Write a row of metrics.jsonl.  tags: the values for TensorBoard."""
        self.run.record(event, tags, **self.place(), **values)

    def place(self) -> dict:
        """Return the fields that every row has."""
        progress = self.progress
        epoch = round(self.plan.epoch(progress.step), 4)
        seconds = round(progress.seconds, 2)
        return {"step": progress.step, "epoch": epoch, "tokens": progress.tokens, "seconds": seconds}

    def log_step(self, what: str) -> None:
        line = log_lines.STEP.format(step=self.progress.step, total_steps=self.plan.total_steps, what=what)
        self.run.log(line)

    def mfu(self, tokens_per_second: float) -> float | None:
        """Return a speed as a share of the devices' peak (Chowdhery et al. 2022); None if the peak is unknown."""
        if self.peak is None:
            return None
        return tokens_per_second * self.job.model.flops_per_token() / (self.peak * self.job.ranks.count)

    def mean_speed(self) -> float:
        """Return the tokens per second since the run's first step, evaluations included."""
        return self.progress.tokens / self.progress.seconds if self.progress.seconds else 0.0

    def beginning(self) -> None:
        """Log the model and the data, and the checkpoint that a run resumes from."""
        run, job, rows = self.run, self.job, self.job.rows
        in_layers, in_all = job.model.num_parameters()
        total_steps = self.plan.total_steps
        if run.goes_on:  # the records were cut just before this line
            self.checkpoint()
        if run.checkpoint:
            place = {"checkpoint": run.checkpoint, "step": self.progress.step, "total_steps": total_steps}
            log.info(log_lines.RESUMED.format(**place))
        shape = job.model.config.describe()
        log.info(log_lines.MODEL.format(in_all=in_all, in_layers=in_layers, shape=shape))
        if job.task:  # its program has described the data
            return
        batching = "packed" if rows.packed else "padded"
        log.info(
            log_lines.DATA.format(
                texts=rows.texts, rows=rows.per_epoch, length=rows.length, batching=batching,
                held=job.validation.texts,
            )
        )  # fmt: skip
        if cut := rows.texts_cut():
            log.info(log_lines.CUT.format(cut=cut, length=rows.length))

    def length(self) -> None:
        """Log the length of the run."""
        job, run, total_steps = self.job, self.run, self.plan.total_steps
        log.info(
            log_lines.LENGTH.format(
                steps=total_steps, rows=job.settings.rows_per_step, epochs=self.plan.epoch(total_steps),
                precision=job.precision.name(), run_id=run.run_id, folder=run.folder,
            )
        )  # fmt: skip
        self.warn_of_few_steps()

    def measured(self, times: Times, seconds: float) -> None:
        """Log the times that set the length of a run of --minutes, and warn if the time is too short."""
        minutes = self.job.settings.length()
        log.info(log_lines.FIXED.format(minutes=minutes, step=times.step, evaluation=times.evaluation))
        if seconds < times.evaluation:
            log.info(log_lines.TOO_SHORT.format(minutes=minutes))

    def warn_of_few_steps(self) -> None:
        """Warn if a step has more rows than an epoch, if the warm-up has no end, and if the run has very few steps."""
        settings, rows, steps = self.job.settings, self.job.rows, self.plan.total_steps
        if settings.rows_per_step > rows.per_epoch:
            log.info(log_lines.LARGE_STEPS.format(rows=settings.rows_per_step, per_epoch=rows.per_epoch))
        if (settings.warmup_steps or 0) >= steps:
            log.info(log_lines.LONG_WARMUP.format(settings.warmup_steps, steps))
        if steps < LEAST_STEPS and steps != settings.max_steps:
            log.info(log_lines.FEW_STEPS.format(steps))

    def first_row(self, compiled: bool) -> None:
        """Write the first row of metrics.jsonl, with model and hardware; if the run was resumed, a `resume` row."""
        run, job = self.run, self.job
        in_layers, in_all = job.model.num_parameters()
        if not run.goes_on:
            device = describe_device(job.precision.device)
            self.record(
                "run", run_id=run.run_id, program=run.args["program"], time=time_of_day(),
                versions={
                    "python": platform.python_version(), "torch": torch.__version__, "system": platform.platform(),
                },
                hardware={"device": device, "processes": job.ranks.count, "cores": os.cpu_count()},
                precision=job.precision.name(), compiled=compiled, parameters=in_all, parameters_in_layers=in_layers,
                flops_per_token=job.model.flops_per_token(), dataset=run.args.get("dataset"),
                fingerprints=job.fingerprints, total_steps=self.plan.total_steps,
            )  # fmt: skip
        if run.checkpoint:
            self.record("resume", time=time_of_day(), compiled=compiled)

    def training(self, loss: float, measured: dict, speed: float, rate: float, last: StepResult) -> None:
        """Report the mean loss and the speed, in tokens per second, since the last report.

        measured: {name: value}, other means since then.  last: the last step.
        """
        progress = self.progress
        mfu = self.mfu(speed)
        norm = last.norm.item()
        loss_scale = last.loss_scale.item()
        seconds_left = progress.seconds / progress.step * (self.plan.total_steps - progress.step)
        line = log_lines.TRAINED.format(
            epoch=self.plan.epoch(progress.step), loss=loss, measured=log_lines.in_words(measured), rate=rate,
            norm=norm, speed=speed, mfu="" if mfu is None else log_lines.MFU.format(mfu),
            scale="" if loss_scale == 1 else log_lines.LOSS_SCALE.format(loss_scale),
            elapsed=log_lines.clock(progress.seconds), left=log_lines.clock(seconds_left),
            end=time.strftime("%a %H:%M", time.localtime(time.time() + seconds_left)),
        )  # fmt: skip
        self.log_step(line)
        tags = {"Loss/train": loss, "LearningRate": rate}
        tags |= {TAGS.get(name, f"Rewards/{name}"): value for name, value in measured.items()}
        tags["Throughput/tokens_per_second"] = speed
        if mfu is not None:
            tags["Throughput/mfu"] = mfu
        self.record(
            "train", tags, train_loss=loss, **measured, lr=rate, grad_norm=norm if math.isfinite(norm) else None,
            loss_scale=loss_scale, tokens_per_second=round(speed, 1),
        )  # fmt: skip

    def evaluation(self, result: dict, is_best: bool) -> None:
        """Report the result of `evaluate`."""
        line = log_lines.EVALUATED.format(
            epoch=self.plan.epoch(self.progress.step), result=log_lines.result_of(result), speed=self.mean_speed(),
            best=log_lines.BEST if is_best else "",
        )  # fmt: skip
        self.log_step(line)
        names = {"Loss/val": "val_loss", "Perplexity/val": "perplexity", "BitsPerByte/val": "bits_per_byte"}
        names |= {f"Rewards/val_{name}": name for name in log_lines.rewards_in(result)}
        values = {name: value for name, value in result.items() if name != "step"}
        self.record("eval", {tag: result[name] for tag, name in names.items()}, **values)

    def early_stop(self) -> None:
        what = "higher reward" if self.job.task else "lower validation loss"
        self.run.log(log_lines.EARLY_STOP.format(what=what, evaluations=self.progress.stale_evaluations))

    def sample(self, text: str) -> None:
        self.record("sample", text=text)
        self.run.show_text("Sample", text, self.progress.step)

    def skipped(self, new: int, in_all: int) -> None:
        self.log_step(log_lines.SKIPPED.format(new=new, in_all=in_all))
        self.record("skip", skipped=in_all)

    def checkpoint(self) -> None:
        self.record("checkpoint")
        self.log_step(log_lines.SAVED.format(self.progress.step))

    def end(self, how: str) -> None:
        self.record("end", ended=how, time=time_of_day())
        self.run.end_board()

    def summary(self, ended: str, best: dict, final: dict, sample: str) -> dict:
        """Write summary.json and the last lines of the log; return the summary.  best, final: evaluations."""
        run, progress = self.run, self.progress
        speed = self.mean_speed()
        log.info(log_lines.SAMPLE.format(sample), extra=RESULT)
        summary = {f"best_{name}": value for name, value in best.items()}
        summary |= {f"final_{name}": value for name, value in final.items()}
        summary |= self.place() | {
            "run_id": run.run_id, "ended": ended, "time": time_of_day(), "resumes": progress.resumes,
            "skipped_steps": progress.bad_steps, "tokens_per_second": round(speed, 1),
        }  # fmt: skip
        run.end_board()  # before summary.json, which marks a run that ended well
        write_json(run.path("summary.json"), summary)
        self.end(ended)
        for kind, result in (("best", best), ("final", final)):
            numbers = log_lines.result_of(result)
            path = run.path(f"{kind}_model.pth")
            run.log(log_lines.END.format(kind=kind, step=result["step"], result=numbers, path=path))
        mfu = self.mfu(speed)
        mfu = "" if mfu is None else f", {log_lines.MFU.format(mfu).strip()}"
        time_taken = log_lines.clock(progress.seconds)
        total = {"tokens": progress.tokens, "time": time_taken, "speed": speed, "mfu": mfu, "folder": run.folder}
        log.info(log_lines.TOTAL.format(**total))
        return summary


def time_of_day() -> str:
    """Return the time with its zone, in ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


# Failures -------------------------------------------------------------------------------------------------------------


def explain(error: Exception, job) -> UserError | None:
    """Return an error that explains why a `job.Job` failed and what to do; None if only a traceback can explain it."""
    folder = job.run.folder
    if isinstance(error, UserError):
        return error
    if isinstance(error, OSError):
        error.filename = error.filename or str(folder)
        reason = f"{file_error(error)}; {last_checkpoint(folder)}"
    elif memory_is_full(error):
        advice = less_memory(job.settings, job.ranks.count, job.precision.device.type)
        reason = f"{advice}; {last_checkpoint(folder, with_command=False)}"
    elif job.ranks.count > 1 and ("peer" in str(error) or isinstance(error, torch.distributed.DistError)):
        reason = f"another process of this run has ended; {last_checkpoint(folder)}"
    else:
        return None
    return UserError(reason, status=1)


def less_memory(settings, ranks: int, device: str = "cpu") -> str:
    """Return what to do when memory is full: the next smaller batches that give the same steps on this many ranks."""
    size = settings.batch_size
    full = f"out of memory on {device} at --batch_size {size}"
    factor = next((n for n in range(2, size // ranks + 1) if size % (n * ranks) == 0), None)
    if factor is None:
        return f"{full}; use a smaller model or a shorter --max_seq_len"
    count = settings.gradient_accumulation_steps * factor
    flags = f"--batch_size {size // factor} --gradient_accumulation_steps {count}"
    return f"{full}; for the same steps in less memory pass {flags}"
