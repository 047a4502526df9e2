"""What is saved so that a run can resume, and what must match."""

from dataclasses import dataclass, field

from common.errors import UserError
from common.text import printed
from common.weights_files import CHECKPOINT_FORMAT, read_torch_file
from model import ModelConfig


def read_checkpoint(path):
    """What `training.Trainer.save_checkpoint` wrote, with all its parts.  Raises UserError, Damaged."""
    content = read_torch_file(path, CHECKPOINT_FORMAT)
    parts = {"run_id": str, "progress": dict, "flags": dict, "model": dict, "scaler": dict}
    parts |= {"optimizers": list, "random": list, "random_cuda": list}
    missing = [name for name, kind in parts.items() if not isinstance(content.get(name), kind)]
    if missing:
        raise UserError(f"{path} lacks the {missing[0]} that a run needs to go on")
    return content


# What a run that goes on need not have in common with the one before; another value of any other flag would train
# something else.
FREE_ON_RESUME = {
    "logging_steps", "save_steps", "keep_checkpoints", "eval_steps", "max_bad_steps", "early_stopping_patience",
    "epochs", "max_steps", "compile",
}  # fmt: skip
# What checkpoints that were saved before these came do not say.
ADDED_LATER = {"norm_epsilon": ModelConfig.norm_epsilon, "rotary_base": ModelConfig.rotary_base}
SAID_OTHERWISE = {"amp", "amp_dtype", "batch_size", "gradient_accumulation_steps"}  # as precision and as rows a step


def refuse_another_run(checkpoint, before, now, free=frozenset()):
    """Raise UserError, a line a flag, if the flags that a checkpoint was trained with, before, are not those of now.

    free: names beside FREE_ON_RESUME that may differ.
    """
    lines = []
    flags = {"precision": "--amp, --amp_dtype", "rows a step": "--batch_size x --gradient_accumulation_steps"}
    flags |= {
        "data": "--dataset and its weights, --max_train_samples, --max_eval_samples",
        "tokenizer": "--tokenizer_path",
    }
    for name in sorted(now.keys() - FREE_ON_RESUME - free):
        was = (ADDED_LATER | before).get(name)
        if isinstance(was, (str, int, float, list, type(None))) and was == now[name]:
            continue
        if name in ("data", "tokenizer"):
            lines.append(f"{flags[name]}: not the {name} that {checkpoint} was trained with")
        else:
            flag = flags.get(name, f"--{name}")
            lines.append(f"{flag}: {now[name]}, and {checkpoint} was trained with {printed(was)}")
    if lines:
        raise UserError("\n".join([*lines, "go on with the same, or start a new run"]))


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
    bad_steps: int = 0  # skipped because their loss was not finite
    bad_steps_in_a_row: int = 0
    record_sizes: dict = field(default_factory=dict)  # bytes of the log and the metrics when the checkpoint was saved

    def check(self):
        """Raise ValueError, or another error, where a checkpoint holds what no run can have reached."""
        counts = [value for value in vars(self).values() if not isinstance(value, dict)]
        sizes, results = self.record_sizes.values(), [result for result in (self.best, self.final) if result]
        if not all(-1 < count < 1 << 40 for count in counts) or not all(isinstance(n, int) and n >= 0 for n in sizes):
            raise ValueError("a count that no run reaches")
        for result in results:
            if not isinstance(result["step"], int) or not all(isinstance(n, (int, float)) for n in result.values()):
                raise ValueError("a result that is no number")
            in_words(result)


def in_words(result):
    return (
        f"{result['val_loss']:.4f} perplexity {result['perplexity']:.2f} "
        f"bits_per_byte {result['bits_per_byte']:.4f} accuracy {result['accuracy']:.4f}"
    )


def fingerprints_of(tokenizer, *caches):
    """What a checkpoint must share with the run that goes on from it."""
    return {"tokenizer": tokenizer.fingerprint, "data": [cache.fingerprint() for cache in caches]}
