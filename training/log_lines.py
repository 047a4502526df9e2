"""The lines of a run's log, each next to the pattern that grading reads it with.

Grading also reads old logs: when a wording changes here, its pattern must still match the old one.
"device: ..." is in common/devices.py.
"""

import re

COUNT = r"([\d,]{1,20})"
TIME = r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) "  # at the start of each line that `Run.log` writes
READ_BEGINNING = re.compile(  # of a line, in a log whose lines may be cut
    rf"{TIME}|\$ |device: |model: |training: |resuming from |a sample of |{COUNT} (?:steps of|tokens in) "
)

# Before the first step ------------------------------------------------------------------------------------------------

COMMAND = "$ {}"
TRAINER = r"\btrain_(?:tinystories_|with_rewards)"  # in the command of a trainer
READ_COMMAND = re.compile(rf"^(?:\S+ : )?\$ (.*{TRAINER}.*)")  # PowerShell puts the program's name before it

PILOT = "pilot run: with {}; a flag given at the shell wins"
READ_PILOT = re.compile(r"^pilot run: ")

RESUMED = "resuming from {checkpoint} at step {step} of {total_steps}"  # older logs: "going on from ..."
READ_RESUMED = re.compile(rf"(?:resuming|going on) from .* at step {COUNT} of ")

MODEL = "model: {in_all:,} parameters, {in_layers:,} of them in the layers; {shape}"
READ_PARAMETERS_IN_LAYERS = re.compile(rf"\bparameters, {COUNT} of them in the layers")

DATA = "training: {texts:,} texts in {rows:,} rows of at most {length} tokens, {batching}; validation: {held:,} texts"
CUT = "training: {cut:,} texts are longer than {length} tokens, and lose their ends; --batching packed keeps them"

FIXED = "{minutes}: a step takes {step:.3g} s, an evaluation {evaluation:.3g} s"
TOO_SHORT = "{minutes} is too short for one evaluation; the run has only one step; pass a smaller --max_eval_samples"
LENGTH = "{steps:,} steps of {rows} rows, {epochs:.4g} epochs, {precision}; run {run_id}; records in {folder}"
READ_TOTAL_STEPS = re.compile(rf"^{COUNT} steps of ")
READ_RUN_ID = re.compile(r"\brun ([0-9a-f]{32})\b")

LARGE_STEPS = "a step has {rows:,} rows, an epoch only {per_epoch:,}; pass a smaller --batch_size or use more data"
LONG_WARMUP = "the warm-up ({:,} steps) takes the whole run ({:,} steps); pass a smaller --warmup_steps"
FEW_STEPS = "the run has too few steps to learn much ({:,}); pass a smaller --batch_size, or train longer"

# Steps ----------------------------------------------------------------------------------------------------------------

STEP = "step {step}/{total_steps} {what}"  # what: TRAINED, EVALUATED, SKIPPED or SAVED
READ_STEP = re.compile(TIME + r"step ([\d,]{1,15})/([\d,]{1,15}) (.*)")

TRAINED = (
    "epoch {epoch:.2f} train_loss {loss:.4f} {measured}lr {rate:.2e} grad_norm {norm:.2f} "
    "{scale}tokens/s {speed:,.0f} {mfu}elapsed {elapsed} left {left} end {end}"
)
READ_TRAINED = re.compile(r"\btrain_loss ")
RESULT = "{val_loss:.4f} perplexity {perplexity:.2f} bits_per_byte {bits_per_byte:.4f} accuracy {accuracy:.4f}"
EVALUATED = "epoch {epoch:.2f} val_loss {result} tokens/s {speed:,.0f}{best}"
READ_EVALUATED = re.compile(r"\bval_loss ")
BEST = " (the best so far: best_model.pth)"
LOSS_SCALE = "loss_scale {:g} "  # in float16
MFU = "mfu {:.0%} "
# {name in a log line: name in metrics.jsonl}; "[tokens/s" is in older logs, "loss" in the last lines of a log.
READ_COLUMNS = {"tokens/s": "tokens_per_second", "[tokens/s": "tokens_per_second", "loss": "val_loss"}
OWN_NAMES = ("epoch", "train_loss", "val_loss", "perplexity", "lr", "grad_norm", "bits_per_byte", "accuracy", "reward")
READ_COLUMNS |= {name: name for name in OWN_NAMES}

SKIPPED = "skipped: loss or gradient not finite ({new} new, {in_all} in all)"  # older logs: "loss not finite"
READ_SKIPPED = re.compile(r"^skipped\b")

SAVED = "checkpoint-{}.pth saved"
READ_SAVED = re.compile(r"^checkpoint-")

# The end --------------------------------------------------------------------------------------------------------------

EARLY_STOP = "early stop: no {what} in {evaluations} evaluations"
READ_EARLY_STOP = re.compile(rf"^(?:{TIME})?early stop: ")
STOPPED = "stopped after step {step} of {total_steps}; checkpoint saved"  # older logs: ", with a checkpoint saved"
TO_RESUME = "to resume: {}"  # older logs: "go on with: ..."
# Why a run ended early: a line of our programs, of Python or of the shell.
READ_ERROR = re.compile(
    r"^(?:\S+: line \d+: +\d+ )?(error: .*|[\w.]*(?:Error|Exception|Interrupt)\b.*|interrupted|stopped after step .*"
    r"|(?:Killed|Terminated|Segmentation fault)\b.*)"
)

SAMPLE = "a sample of best_model.pth:\n{}"
READ_SAMPLE = re.compile(r"^a sample of ")

END = "{kind}: step {step} loss {result} -> {path}"  # kind: best or final
READ_END = re.compile(TIME + r"(best|final): step ([\d,]{1,15}) (.*?) -> ")

TOTAL = "{tokens:,} tokens in {time}, evaluations included: {speed:,.0f} tokens/s{mfu}; records in {folder}"
READ_TOKENS = re.compile(rf"^{COUNT} tokens in ")


def clock(seconds: float) -> str:
    """Format seconds as hours:minutes:seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


def in_words(measured: dict[str, float]) -> str:
    """Format what was measured as "name value name value ", with a space at the end unless it is empty."""
    words = ""
    for name, value in measured.items():
        digits = 2 if name == "perplexity" else 3
        words += f"{name} {value:.{digits}f} "
    return words


def rewards_in(result: dict) -> list[str]:
    """Return the names of the rewards in an evaluation: "reward", their sum, and "reward_<name>" for each."""
    return [name for name in result if name.startswith("reward")]


def result_of(result: dict) -> str:
    """Format an evaluation: RESULT, then the rewards if there are any."""
    rewards = {name: result[name] for name in rewards_in(result)}
    return f"{RESULT.format(**result)} {in_words(rewards)}".rstrip()
