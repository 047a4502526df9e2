"""The lines of a run's log, each beside the pattern with which grading reads it.

Logs are kept and graded later: where a wording changes here, its pattern goes on reading the old one.  "device: ..." is
reported by common/devices.py, and its pattern stands there.
"""

import re
import time

from training.step import perplexity

COUNT = r"([\d,]{1,20})"
TIME = r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) "  # with it begins each line that `Run.log` writes


def clock(seconds: float) -> str:
    """Seconds as hours:minutes:seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


# Before the first step ------------------------------------------------------------------------------------------------


def command_line(command: str) -> str:
    """What was typed at the shell."""
    return f"$ {command}"


COMMAND = re.compile(r"^(?:\S+ : )?\$ (.*\btrain_tinystories_.*)")  # PowerShell puts the program's name before it


def pilot_line(flags: str) -> str:
    """What --pilot_run changes."""
    return f"pilot run: with {flags}; a flag given at the shell wins"


PILOT = re.compile(r"^pilot run: ")


def resumed_line(checkpoint: object, step: int, total_steps: int) -> str:
    """From which checkpoint a run goes on."""
    return f"going on from {checkpoint} at step {step} of {total_steps}"


RESUMED = re.compile(rf"going on from .* at step {COUNT} of ")


def model_line(in_all: int, in_layers: int, description: str) -> str:
    """The network and its size."""
    return f"model: {in_all:,} parameters, {in_layers:,} of them in the layers; {description}"


PARAMETERS = re.compile(rf"\bmodel: {COUNT} parameters")
PARAMETERS_IN_LAYERS = re.compile(rf"\bparameters, {COUNT} of them in the layers")


def length_line(steps: int, rows: int, epochs: float, precision: str, run_id: str, folder: object) -> str:
    """How long the run is, and where its records are."""
    return f"{steps:,} steps of {rows} rows, {epochs:.4g} epochs, {precision}; run {run_id}; records in {folder}"


TOTAL_STEPS = re.compile(rf"^{COUNT} steps of ")
RUN_ID = re.compile(r"\brun ([0-9a-f]{32})\b")


# Steps ----------------------------------------------------------------------------------------------------------------


def step_line(step: int, total_steps: int, what: str) -> str:
    """What happened at a step; see the next four."""
    return f"step {step}/{total_steps} {what}"


STEP = re.compile(TIME + r"step ([\d,]{1,15})/([\d,]{1,15}) (.*)")


def training_part(epoch: float, loss: float, rate: float, norm: float, speed: float) -> str:
    """The numbers of the steps since the last line of this kind: names and values in turn."""
    return (
        f"epoch {epoch:.2f} train_loss {loss:.4f} perplexity {perplexity(loss):.2f} lr {rate:.2e} "
        f"grad_norm {norm:.2f} tokens/s {speed:,.0f}"
    )


def time_part(seconds: float, left: float) -> str:
    """How long a run has taken and will take."""
    end = time.strftime("%a %H:%M", time.localtime(time.time() + left))
    return f"elapsed {clock(seconds)} left {clock(left)} end {end}"


def result_part(result: dict) -> str:
    """The numbers of an evaluation after its loss, as `evaluate` returns them."""
    return (
        f"{result['val_loss']:.4f} perplexity {result['perplexity']:.2f} "
        f"bits_per_byte {result['bits_per_byte']:.4f} accuracy {result['accuracy']:.4f}"
    )


# What a line's values are called in metrics.jsonl; "[tokens/s" and "loss" stand in older logs and at the end.
COLUMNS = {"tokens/s": "tokens_per_second", "[tokens/s": "tokens_per_second", "loss": "val_loss"}
COLUMNS |= {name: name for name in ("epoch", "train_loss", "val_loss", "perplexity", "lr", "grad_norm")}
COLUMNS |= {"bits_per_byte": "bits_per_byte", "accuracy": "accuracy"}


def skipped_part(new: int, in_all: int) -> str:
    """How many steps were left out because their loss was not finite."""
    return f"skipped: loss not finite ({new} new, {in_all} in all)"


SKIPPED = re.compile(r"^skipped\b")


def checkpoint_part(step: int) -> str:
    """That a checkpoint was written."""
    return f"checkpoint-{step}.pth saved"


CHECKPOINT = re.compile(r"^checkpoint-")


# The end --------------------------------------------------------------------------------------------------------------


def stopped_line(step: int, total_steps: int) -> str:
    """That a signal ended the run."""
    return f"stopped after step {step} of {total_steps}, with a checkpoint saved"


def early_stop_line(evaluations: int) -> str:
    """That --early_stopping_patience ended the run."""
    return f"early stop: no lower validation loss in {evaluations} evaluations"


# A run that failed has an error of ours, of Python or of the shell as its last line.
ERROR = re.compile(r"^(error: .*|[\w.]*(?:Error|Exception|Interrupt)\b.*|interrupted|stopped after step .*)")


def sample_line(text: str) -> str:
    """What the best model writes, on lines of its own up to the next line with a time."""
    return f"a sample of best_model.pth:\n{text}"


SAMPLE = re.compile(r"^a sample of ")


def end_line(kind: str, result: dict, path: object) -> str:
    """The best or the final evaluation."""
    return f"{kind}: step {result['step']} loss {result_part(result)} -> {path}"


END = re.compile(TIME + r"(best|final): step ([\d,]{1,15}) (.*?) -> ")


def total_line(tokens: int, seconds: float, speed: float, mfu: str, folder: object) -> str:
    """What the whole run took; mfu: as `mfu_part` has it."""
    mfu = f", {mfu.strip()}" if mfu else ""
    return (
        f"{tokens:,} tokens in {clock(seconds)}, evaluations included: {speed:,.0f} tokens/s{mfu}; records in {folder}"
    )


TOKENS = re.compile(rf"^{COUNT} tokens in ")


def mfu_part(share: float | None) -> str:
    """The share of the device's peak, where that is known; ends with a space."""
    return "" if share is None else f"mfu {share:.0%} "
