"""Facts from the records of a run: the columns of the table, the curves, and the flags that are not the default ones.

In reading order: `facts_of`; how far the run got; `differences`.
"""

import operator
import shlex

import train_with_rewards

import train_tinystories_chat_model
import train_tinystories_model
from common.errors import UserError
from common.flags import LENGTH
from grading.submissions import Submission
from training.presets import PRESETS

PARSERS = {
    "story": train_tinystories_model.parse_args, "chat": train_tinystories_chat_model.parse_args,
    "rewards": train_with_rewards.parse_args,
}  # fmt: skip
PROGRAMS = {"train_tinystories_chat_model": "chat", "train_with_rewards": "rewards"}  # all others: story
CURVES = {"val_loss": "eval", "train_loss": "train", "lr": "train", "tokens_per_second": "train"}
FREE = {  # flags that each student may choose freely
    "output_dir", "cache_dir", "tokenizer_path", "overwrite", "resume_from_checkpoint", "device", "program",
    "pretrained_model_path", "vocab_size", "wandb", "logging_steps", "save_steps", "keep_checkpoints", "keep_models",
    "pilot_run", "config", "preset", "prompts_file", "pairs_file",
}  # fmt: skip


def facts_of(run: Submission) -> dict:
    """Return a row of the table, {column: value}, with the same columns for every run; None is an unknown value."""
    best = best_evaluation(run) or {}
    seconds = highest(run, "seconds")
    tokens = highest(run, "tokens")
    texts = samples(run)
    state = f"stopped at {progress(run)}" if run.history else None
    return {
        "model": kind_of(run),
        "state": "finished" if is_finished(run) else state,
        "steps": highest(run, "step"),
        "tokens": run.log.tokens if tokens is None else tokens,
        "vocabulary": vocabulary_of(run),
        "validation loss": rounded(best.get("val_loss"), 4),
        "perplexity": rounded(best.get("perplexity"), 2),
        "bits per byte": rounded(best.get("bits_per_byte"), 4),
        "reward": rounded(best.get("reward"), 3),
        "hours": None if seconds is None else round(seconds / 3600, 2),
        "device": ", then ".join(devices_of(run)) or None,
        "pilot run": is_pilot(run),
        "differs from the default flags": differences(run),
        "sample": texts[-1][1] if texts else None,
    }


def rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def highest(run: Submission, name: str) -> float | None:
    return max((row[name] for row in run.history if name in row), default=None)


def evaluations(run: Submission) -> list[dict]:
    return [row for row in run.history if row["event"] == "eval" and row.get("val_loss") is not None]


def best_evaluation(run: Submission) -> dict | None:
    """Return the evaluation that makes the best model: with rewards the highest reward, else the lowest loss."""
    found = evaluations(run)
    rewarded = [row for row in found if row.get("reward") is not None]
    if rewarded:
        highest_reward = max(row["reward"] for row in rewarded)
        best = [row for row in rewarded if row["reward"] == highest_reward]
        claimed = (run.summary or {}).get("best_step")  # a log has rounded rewards, so several may be the highest
        return next((row for row in best if row["step"] == claimed), best[0])
    return min(found, key=operator.itemgetter("val_loss"), default=None)


def by_step(rows: list[dict], event: str, name: str) -> dict[int, float]:
    """Return {step: value} of a field; if a step occurs twice, its last value counts."""
    return {row["step"]: row[name] for row in rows if row["event"] == event and row.get(name) is not None}


def curves(run: Submission) -> dict[str, list[tuple]]:
    """Return the curves of the report, {name: [(step, value)]}."""
    return {name: sorted(by_step(run.history, event, name).items()) for name, event in CURVES.items()}


def samples(run: Submission) -> list[tuple[int, str]]:
    """Return [(step, text)] of the samples that were written during the run.

    After the last step, the best model writes one more; if it is the last model, it writes the same text again.
    """
    texts = [(row["step"], row["text"]) for row in run.rows if row["event"] == "sample"]
    if not texts and run.log.sample:
        texts.append((last_step(run), run.log.sample))
    return list(dict.fromkeys(texts))  # without repetitions


def devices_of(run: Submission) -> list[str]:
    """Return the devices that the records name, each once; a resumed run may have had several."""
    first = run.first_row.get("hardware", {}).get("device")
    return list(dict.fromkeys(device for device in (first, *run.log.devices) if device))


def vocabulary_of(run: Submission) -> int | None:
    """Return the number of tokens in the vocabulary, as the model files record it; None if there is no model file."""
    return next((model.config.get("vocab_size") for model in run.models.values()), None)


def signs_of_pilot(run: Submission) -> list[str]:
    """Return which records say that the run is a pilot run: args.json, the log."""
    signs = {"args.json": (run.args or {}).get("pilot_run"), "the log": run.log.pilot}
    return [sign for sign, is_seen in signs.items() if is_seen]


def is_pilot(run: Submission) -> bool | None:
    """Return whether the run is a pilot run; None if the records do not say."""
    if signs_of_pilot(run):
        return True
    return None if run.args is None and run.log.command is None else False


# How far the run got --------------------------------------------------------------------------------------------------


def was_resumed(run: Submission) -> bool:
    return any(row["event"] == "resume" for row in run.history)


def last_step(run: Submission) -> int:
    return highest(run, "step") or 0


def total_steps(run: Submission) -> int | None:
    """Return the length of the run in steps, as of the last resume: a resumed run may be longer or shorter."""
    return run.log.total_steps or run.first_row.get("total_steps")


def progress(run: Submission) -> str:
    """Return how far the run got, for example "12 of 30"."""
    total = total_steps(run)
    return f"{last_step(run):,}" + (f" of {total:,}" if total else "")


def ended(run: Submission) -> str | None:
    """Return how the run ended, as its records say; None if they do not say."""
    if run.rows:
        return run.rows[-1].get("ended")
    if not run.log.best or not run.log.final:
        return None
    return "stopped early" if run.log.stopped_early else "finished"


def is_finished(run: Submission) -> bool:
    """Return whether the run finished, both by what its records say and by its number of steps."""
    how = ended(run)
    if how == "stopped early":
        return run.args is None or bool(run.args.get("early_stopping_patience"))
    total = total_steps(run)
    return how == "finished" and (not total or last_step(run) >= total)


# Flags ----------------------------------------------------------------------------------------------------------------


def kind_of(run: Submission) -> str | None:
    """Return which trainer made the run: a key of PARSERS; None if the records do not say."""
    said = (run.args or {}).get("program") or run.first_row.get("program") or run.log.command
    return kind_named_in(str(said)) if said else None


def kind_named_in(text: str) -> str:
    """Return the kind of run of the trainer that a text names."""
    return next((kind for program, kind in PROGRAMS.items() if program in text), "story")


def words_of(command: str) -> list[str]:
    """Return the words of a logged command.  A backslash is part of a word, because Windows uses it in paths."""
    return shlex.split(command.replace("\\", r"\\"))


def flags_typed(run: Submission) -> dict | None:
    """Return the flags of the command in the log; None if there is none, or if it reads flags from a file."""
    try:
        words = words_of(run.log.command or "")
        scripts = [word for word in words if word.endswith(".py")]
        if not scripts or any(word.partition("=")[0] == "--config" for word in words):
            return None
        kind = kind_named_in(scripts[0])
        return vars(PARSERS[kind](words[words.index(scripts[0]) + 1 :]))
    except (UserError, ValueError, SystemExit):
        return None


def differences(run: Submission) -> str | None:
    """Return the flags that differ from the default flags, or from the run's preset or pilot settings, as one text."""
    kind = kind_of(run)
    flags = run.args or flags_typed(run)
    if kind is None or flags is None:
        return None
    words = []
    if flags.get("pilot_run"):
        words.append("--pilot_run")
    preset = flags.get("preset")
    if kind == "story" and preset in list(PRESETS) and preset != "course":  # in submitted files it may have any type
        words += ["--preset", preset]
    if kind == "rewards" and flags.get("method") == "dpo":
        words += ["--method", "dpo"]
    usual = vars(PARSERS[kind](needed_flags(kind, words) + words))
    for name, value in usual.items():
        held = flags.get(name, value)
        replaced = name in LENGTH and held is None  # another flag sets the length
        if held != value and name not in FREE and not replaced:
            words.append(as_typed(name, held))
    return " ".join(words) or "nothing"


def needed_flags(kind: str, words: list[str]) -> list[str]:
    """Return the flags that a trainer refuses to start without, with any value."""
    names = []
    if kind != "story":
        names.append("--pretrained_model_path")
    if kind == "rewards":
        names.append("--prompts_file")
    if "dpo" in words:
        names.append("--pairs_file")
    words = []
    for name in names:
        words += [name, "any"]
    return words


def as_typed(name: str, value: object) -> str:
    """Return a flag as it is typed at the shell: --amp, --no-amp, --lr 0.001."""
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    values = value if isinstance(value, list) else [value]
    return " ".join(map(str, [f"--{name}", *values]))
