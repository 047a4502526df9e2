"""Check one run: are its records complete, and do they agree with each other?

`problems_of` runs all checks, also those of impossible_numbers.py; each check is a function that takes a run and yields
findings.  A problem is visible in the records; a question also comes up for honest runs.
"""

import math
import re
from collections.abc import Iterator

from common.errors import one_line
from common.numbers import finite_number
from grading.facts import (
    best_evaluation,
    by_step,
    ended,
    evaluations,
    flags_typed,
    is_finished,
    last_step,
    progress,
    signs_of_pilot,
    was_resumed,
    words_of,
)
from grading.findings import PRINTED, SECONDS, Flag, close, problem, question
from grading.impossible_numbers import backwards, clocks, speeds, too_fast, within_rows
from grading.submissions import Submission
from grading.unpacking import BOARD
from training.run_folder import RECORDS

WORDS = {
    "train_loss": "the training loss", "val_loss": "the validation loss", "perplexity": "the perplexity",
    "bits_per_byte": "the number of bits per byte", "accuracy": "the accuracy", "lr": "the learning rate",
    "tokens_per_second": "the number of tokens per second", "reward": "the reward",
}  # fmt: skip
TAGS = {  # of TensorBoard, which stores float32
    "Loss/train": ("train", "train_loss"), "Loss/val": ("eval", "val_loss"), "Perplexity/val": ("eval", "perplexity"),
    "Perplexity/train": ("train", "perplexity"), "BitsPerByte/val": ("eval", "bits_per_byte"),
    "LearningRate": ("train", "lr"), "Throughput/tokens_per_second": ("train", "tokens_per_second"),
}  # fmt: skip
SCORES = ("val_loss", "perplexity", "bits_per_byte", "accuracy", "reward")
FULL = (1e-9, 1e-9)  # between two files that store all digits
FLOAT32 = (0.06, 1e-5)  # the speed is rounded to a tenth in metrics.jsonl
KILLED = ": was the run killed after it saved that model and before its next checkpoint?"


def problems_of(run: Submission) -> list[Flag]:
    """Return all findings about one run."""
    flags = [problem(text) for text in run.problems]
    checks = (
        unfinished, pilot, missing, command_and_args, log_and_metrics, devices, run_ids, closing_lines,
        board_and_metrics, within_rows, summary_and_metrics, models_and_metrics, models_and_args, backwards, clocks,
        speeds, too_fast,
    )  # fmt: skip
    for check in checks:
        try:
            flags.extend(check(run))
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
            text = f"its records have values that no run writes ({type(error).__name__} in {check.__name__})"
            flags.append(problem(text))
    return flags


# Is the run complete? -------------------------------------------------------------------------------------------------


def unfinished(run: Submission) -> Iterator[Flag]:
    if is_finished(run) or not (run.rows or run.log_name):
        return
    how = ended(run) or run.log.error
    reason = f" ({how})" if how else " (they do not say why)"
    if how == "finished":
        reason = ", although they say that it is finished"
    elif run.log.unreadable and not how:
        reason = " as far as the log can be read"
    yield problem(f"not finished: the records end at step {progress(run)}{reason}")


def pilot(run: Submission) -> Iterator[Flag]:
    signs = signs_of_pilot(run)
    if signs:
        yield problem(f"a pilot run, not a full run, according to {' and '.join(signs)}")


def missing(run: Submission) -> Iterator[Flag]:
    lacking = [name for name in RECORDS if name not in run.paths]
    if len(lacking) == len(RECORDS):
        if run.log_name:
            yield problem("only a console log was handed in: there are no other records to compare it with")
        return
    if not has_event_file(run):
        lacking.append("TensorBoard's event file")
    if lacking:
        *most, last = lacking
        names = f"{', '.join(most)} and {last} were" if most else f"{last} was"
        used = used_instead(run)
        yield problem("; ".join([f"{names} not handed in", *(used[name] for name in lacking if name in used)]))
    if "metrics.jsonl" in run.paths and not run.first_row:
        yield problem("metrics.jsonl is missing its first row, which describes the run")


def used_instead(run: Submission) -> dict[str, str]:
    """Return {name of a file: what the grading uses if that file is missing}."""
    used = {}
    if flags_typed(run):
        used["args.json"] = f"the flags come from the command in {run.log_name}"
    if run.log.rows:
        used["metrics.jsonl"] = f"the numbers come from {run.log_name}"
    if run.log_name:
        used["train.log"] = "the console log is used instead"
    return used


def has_event_file(run: Submission) -> bool:
    return any(name.startswith(BOARD) for name in run.paths)


# Do its files agree with each other? ----------------------------------------------------------------------------------


def command_and_args(run: Submission) -> Iterator[Flag]:
    """Compare args.json with the command in the log, except for paths, which a shell may have quoted."""
    typed = flags_typed(run)
    if typed is None or run.args is None:
        return
    words = [word.partition("=")[0] for word in words_of(run.log.command)]
    wrong = []
    for name, value in typed.items():
        was_typed = f"--{name}" in words or f"--no-{name}" in words
        items = value if isinstance(value, list) else [value]
        is_path = any(isinstance(item, str) and not re.fullmatch(r"\w+", item) for item in items)
        if was_typed and not is_path and name != "overwrite" and run.args.get(name) != value:
            wrong.append(f"--{name} is {run.args.get(name)} in args.json but {value} in the command in the log")
    if wrong:
        yield problem("; ".join(wrong))


def run_ids(run: Submission) -> Iterator[Flag]:
    ids = {name: model.run_id for name, model in run.models.items()} | {run.log_name: run.log.run_id}
    if run.summary is not None:
        ids["summary.json"] = run.summary.get("run_id", "none")
    for name, run_id in ids.items():
        if differ(run_id, run.first_row.get("run_id")):
            yield problem(f"{name} and metrics.jsonl have different run ids: they come from different runs")


def log_and_metrics(run: Submission) -> Iterator[Flag]:
    if not run.log_name or not run.rows:
        return
    for curve, tolerance in PRINTED.items():
        yield from compare(run, run.log_name, by_step(run.log.rows, *curve), curve, tolerance)
    if run.log_name == "train.log" and run.log.command is None:
        yield problem("train.log does not contain the command that started the run")


def devices(run: Submission) -> Iterator[Flag]:
    device = run.first_row.get("hardware", {}).get("device")
    if device and run.log.devices and run.log_name == "train.log" and device not in run.log.devices:
        said = one_line(run.log.devices[0])
        yield problem(f"the device is {one_line(device)} in metrics.jsonl but {said} in train.log")


def board_and_metrics(run: Submission) -> Iterator[Flag]:
    if not run.rows or not has_event_file(run):
        return
    for tag, curve in TAGS.items():
        values = {step: value for step, _, value in run.board.get(tag, [])}
        yield from compare(run, "TensorBoard's file", values, curve, FLOAT32)


def compare(
    run: Submission, here: str, ours: dict[int, float], curve: tuple[str, str], tolerance: tuple[float, float]
) -> Iterator[Flag]:
    """Compare a curve from another file, ours = {step: value}, with the same curve in metrics.jsonl.

    here: the other file, as the message names it; curve: (event, name) of the values in metrics.jsonl.
    """
    event, name = curve
    theirs = by_step(run.rows, event, name)
    wrong = sorted(step for step in ours.keys() & theirs.keys() if not close(ours[step], theirs[step], tolerance))
    if wrong:
        step = wrong[0]
        more = f" (steps that differ: {len(wrong):,})" if len(wrong) > 1 else ""
        values = f"{ours[step]:.7g} in {here} but {theirs[step]:.7g} in metrics.jsonl"
        yield problem(f"{WORDS[name]} at step {step:,} is {values}{more}")
    end = math.inf if is_finished(run) else last_step(run)  # a killed run may have written to only one of the files
    only_here = sorted(step for step in ours.keys() - theirs.keys() if step < end)
    only_there = sorted(step for step in theirs.keys() - ours.keys() if step < end)
    if name.endswith("_loss") and only_here:
        yield problem(f"metrics.jsonl is missing {WORDS[name]} of {steps_in_words(only_here)}, which {here} has")
    elif name.endswith("_loss") and only_there and here != "the log":  # a console log may lack a part of a run
        yield problem(f"{here} is missing {WORDS[name]} of {steps_in_words(only_there)}, which metrics.jsonl has")


def steps_in_words(steps: list[int]) -> str:
    return f"step {steps[0]:,}" + (f" (and {len(steps) - 1:,} more)" if len(steps) > 1 else "")


def differ(one: object, other: object) -> bool:
    """Return whether two values are both known and different."""
    return None not in (one, other) and one != other


def closing_lines(run: Submission) -> Iterator[Flag]:
    """Compare the log's last lines, `best: ...` and `final: ...`, with the evaluations in metrics.jsonl or the log."""
    there = "metrics.jsonl" if run.rows else "the line of that step"
    losses = by_step(run.history, "eval", "val_loss")
    for kind, line in (("best", run.log.best), ("final", run.log.final)):
        held = losses.get(line["step"]) if line else None
        if held is not None and not close(line.get("val_loss", math.inf), held, PRINTED["eval", "val_loss"]):
            text = f"according to the end of the log, the {kind} model has the validation loss {line.get('val_loss')}"
            yield problem(f"{text} at step {line['step']:,}, but {there} gives {held:.7g}")


def summary_and_metrics(run: Submission) -> Iterator[Flag]:
    """Compare summary.json with metrics.jsonl or, if that is missing, with the log."""
    evaluated = evaluations(run)
    if run.summary is None or not evaluated:
        return
    there = "metrics.jsonl" if run.rows else "the log"
    if not is_finished(run):
        yield problem(f'summary.json says "{run.summary.get("ended")}", but {there} shows an unfinished run')
        return
    best = best_evaluation(run)
    tolerances = {name: FULL if run.rows else PRINTED["eval", name] for name in SCORES}
    expected = {f"final_{name}": (evaluated[-1].get(name), tolerances[name]) for name in SCORES}
    if was_resumed(run) and run.summary.get("best_step") not in [row["step"] for row in evaluated]:
        yield question(f"the best_step of summary.json has no evaluation in {there}{KILLED}")
    else:
        expected |= {f"best_{name}": (best.get(name), tolerances[name]) for name in SCORES}
    if run.rows:
        for name, tolerance in (("step", 0), ("tokens", 0), ("seconds", SECONDS)):
            expected[name] = (run.rows[-1].get(name), (tolerance, 0))
    for name, (value, tolerance) in expected.items():
        claimed = finite_number(run.summary.get(name))
        if value is not None and (claimed is None or not close(claimed, value, tolerance)):
            said = "missing" if claimed is None else f"{claimed:.7g}"
            yield problem(f"summary.json: {name} is {said}, but {there} gives {value:.7g}")


def in_words(value: object) -> str:
    return ", ".join(map(one_line, value if isinstance(value, list) else [value]))


def models_and_args(run: Submission) -> Iterator[Flag]:
    args = run.args or {}
    data = run.first_row.get("dataset")
    if differ(args.get("dataset"), data):
        text = f"--dataset is {in_words(args['dataset'])} in args.json but {in_words(data)} in metrics.jsonl"
        yield question(f"{text}: was the run resumed with another path?") if was_resumed(run) else problem(text)
    for name, model in run.models.items():
        if differ(model.tokenizer_fingerprint, run.first_row.get("fingerprints", {}).get("tokenizer")):
            yield problem(f"{name} was trained with a different tokenizer from the one in metrics.jsonl")
        numbers = {key: value for key, value in model.config.items() if isinstance(value, (int, float))}
        wrong = [key for key, value in numbers.items() if differ(args.get(key), value)]
        if wrong:
            said = "; ".join(f"--{key} is {args[key]} in args.json but {numbers[key]} in {name}" for key in wrong)
            yield problem(said)


def models_and_metrics(run: Submission) -> Iterator[Flag]:
    """Check that step and loss in a model file are those of an evaluation, and for the best model of the best one."""
    losses = by_step(run.rows, "eval", "val_loss")
    for name, model in run.models.items():
        held = losses.get(model.step)
        is_best = name == "best_model.pth"
        if None not in (held, model.val_loss) and close(model.val_loss, held, (1e-6, 1e-6)):
            best = best_evaluation(run)
            if is_best and "reward" in best and model.step != best["step"]:
                where = f"step {model.step:,}, but the run reached its highest reward at step {best['step']:,}"
                yield problem(f"{name} comes from {where}")
            elif is_best and "reward" not in best and model.val_loss > best["val_loss"] + 1e-6:
                said = f"{model.val_loss:.7g}, but the run reached {best['val_loss']:.7g}"
                yield problem(f"{name} has the validation loss {said}")
        elif losses and is_best and (was_resumed(run) or not is_finished(run)):
            text = f"{name} comes from an evaluation at step {model.step:,} that is not in metrics.jsonl"
            yield question(text + KILLED)
        elif losses:
            there = "no evaluation of that step" if held is None else f"{held:.7g}"
            said = "no validation loss" if model.val_loss is None else f"the validation loss {model.val_loss:.7g}"
            yield problem(f"{name} records {said} at step {model.step:,}, but metrics.jsonl has {there}")
