"""The lines of a run's log, each beside the pattern with which grading reads it.

Logs are kept and graded later: where a wording changes here, its pattern goes on reading the old one, too.
"device: ..." is in common/devices.py.
"""

import re

COUNT = r"([\d,]{1,20})"
TIME = r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) "  # with it begins each line that `Run.log` writes

# Before the first step ------------------------------------------------------------------------------------------------

COMMAND = "$ {}"
READ_COMMAND = re.compile(r"^(?:\S+ : )?\$ (.*\btrain_tinystories_.*)")  # PowerShell puts the program's name before it

PILOT = "pilot run: with {}; a flag given at the shell wins"
READ_PILOT = re.compile(r"^pilot run: ")

RESUMED = "going on from {checkpoint} at step {step} of {total_steps}"
READ_RESUMED = re.compile(rf"going on from .* at step {COUNT} of ")

MODEL = "model: {in_all:,} parameters, {in_layers:,} of them in the layers; {shape}"
READ_PARAMETERS_IN_LAYERS = re.compile(rf"\bparameters, {COUNT} of them in the layers")

DATA = "training: {texts:,} texts in {rows:,} rows of at most {length} tokens, {batching}; validation: {held:,} texts"

FIXED = "{minutes}: a step takes {step:.3g} s, an evaluation {evaluation:.3g} s"
TOO_SHORT = "{minutes} is too short for one evaluation; the run takes one step; pass a smaller --max_eval_samples"
LENGTH = "{steps:,} steps of {rows} rows, {epochs:.4g} epochs, {precision}; run {run_id}; records in {folder}"
READ_TOTAL_STEPS = re.compile(rf"^{COUNT} steps of ")
READ_RUN_ID = re.compile(r"\brun ([0-9a-f]{32})\b")

LARGE_STEPS = "a step has {rows:,} rows, and an epoch has {per_epoch:,}: pass a smaller --batch_size, or take more data"
FEW_STEPS = "the run has too few steps to learn much ({:,}); a smaller --batch_size or a longer run has more"

# Steps ----------------------------------------------------------------------------------------------------------------

STEP = "step {step}/{total_steps} {what}"  # with one of the next four
READ_STEP = re.compile(TIME + r"step ([\d,]{1,15})/([\d,]{1,15}) (.*)")

TRAINED = (
    "epoch {epoch:.2f} train_loss {loss:.4f} perplexity {perplexity:.2f} lr {rate:.2e} grad_norm {norm:.2f} "
    "{scale}tokens/s {speed:,.0f} {mfu}elapsed {elapsed} left {left} end {end}"
)
READ_TRAINED = re.compile(r"\btrain_loss ")
RESULT = "{val_loss:.4f} perplexity {perplexity:.2f} bits_per_byte {bits_per_byte:.4f} accuracy {accuracy:.4f}"
EVALUATED = "epoch {epoch:.2f} val_loss {result} tokens/s {speed:,.0f}{best}"
READ_EVALUATED = re.compile(r"\bval_loss ")
BEST = " (the best so far: best_model.pth)"
LOSS_SCALE = "loss_scale {:g} "  # in float16
MFU = "mfu {:.0%} "
# What the names of a line's values are in metrics.jsonl; "[tokens/s" stands in older logs, "loss" in the last lines.
READ_COLUMNS = {"tokens/s": "tokens_per_second", "[tokens/s": "tokens_per_second", "loss": "val_loss"}
OWN_NAMES = ("epoch", "train_loss", "val_loss", "perplexity", "lr", "grad_norm", "bits_per_byte", "accuracy")
READ_COLUMNS |= {name: name for name in OWN_NAMES}

SKIPPED = "skipped: loss or gradient not finite ({new} new, {in_all} in all)"  # before: "loss not finite"
READ_SKIPPED = re.compile(r"^skipped\b")

SAVED = "checkpoint-{}.pth saved"
READ_SAVED = re.compile(r"^checkpoint-")

# The end --------------------------------------------------------------------------------------------------------------

EARLY_STOP = "early stop: no lower validation loss in {} evaluations"
STOPPED = "stopped after step {step} of {total_steps}, with a checkpoint saved"
TO_RESUME = "go on with: {}"
# Why a run did not come to its end: a line of ours, of Python or of the shell.
READ_ERROR = re.compile(r"^(error: .*|[\w.]*(?:Error|Exception|Interrupt)\b.*|interrupted|stopped after step .*)")

SAMPLE = "a sample of best_model.pth:\n{}"
READ_SAMPLE = re.compile(r"^a sample of ")

END = "{kind}: step {step} loss {result} -> {path}"  # kind: best or final
READ_END = re.compile(TIME + r"(best|final): step ([\d,]{1,15}) (.*?) -> ")

TOTAL = "{tokens:,} tokens in {time}, evaluations included: {speed:,.0f} tokens/s{mfu}; records in {folder}"
READ_TOKENS = re.compile(rf"^{COUNT} tokens in ")


def clock(seconds: float) -> str:
    """Seconds as hours:minutes:seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
