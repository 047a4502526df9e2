"""What is wrong or odd with a run that was handed in: every finding is a sentence that gives its reason.

In reading order: `problems_of`, all checks of one run, and the checks; `facts_of`, what the table says of it;
`Traces` and `pairs`, what two runs have in common that two runs do not have.  A problem can be read off the records; a
question is something that also happens honestly.
"""

import math
import re
import shlex
from collections import defaultdict
from dataclasses import dataclass, field

from pages.report import Flag

from common.devices import PEAK_TFLOPS, known_card
from common.errors import UserError
from common.flags import LENGTH
from training.presets import PRESETS

FILES = ("args.json", "train.log", "metrics.jsonl", "summary.json", "best_model.pth", "final_model.pth")
EVENTS = "events.out.tfevents."
WORDS = {
    "train_loss": "the training loss", "val_loss": "the validation loss", "perplexity": "the perplexity",
    "bits_per_byte": "the bits per byte", "accuracy": "the accuracy", "lr": "the learning rate",
    "tokens_per_second": "the tokens per second", "tokens": "the tokens", "step": "the last step",
    "seconds": "the seconds",
}  # fmt: skip
CURVES = {"val_loss": "eval", "train_loss": "train", "lr": "train", "tokens_per_second": "train"}
# What the log prints of metrics.jsonl's numbers: half a unit of the last digit, and the same as a share.
PRINTED = {
    ("train", "train_loss"): (6e-5, 0), ("train", "perplexity"): (6e-3, 0), ("train", "lr"): (0, 6e-3),
    ("train", "tokens_per_second"): (0.6, 0), ("eval", "val_loss"): (6e-5, 0), ("eval", "perplexity"): (6e-3, 0),
    ("eval", "bits_per_byte"): (6e-5, 0), ("eval", "accuracy"): (6e-5, 0),
}  # fmt: skip
# TensorBoard's tags, which hold float32
BOARD = {
    "Loss/train": ("train", "train_loss"), "Loss/val": ("eval", "val_loss"), "Perplexity/val": ("eval", "perplexity"),
    "Perplexity/train": ("train", "perplexity"), "BitsPerByte/val": ("eval", "bits_per_byte"),
    "LearningRate": ("train", "lr"), "Throughput/tokens_per_second": ("train", "tokens_per_second"),
}  # fmt: skip
FLOAT32 = (0.06, 1e-5)  # the speed is rounded to a tenth in metrics.jsonl
SECONDS = 2  # by which two clocks of one run may differ
KILLED = ": was the run killed after it saved that model, and before its next checkpoint?"


def problem(text):
    return Flag("problem", text)


def question(text):
    return Flag("question", text)


def problems_of(run, programs):
    """All findings about one `Submission`, a list of Flags.  programs: see `differences`."""
    flags = [problem(text) for text in run.problems]
    checks = (unfinished, pilot, missing, command_and_args, log_and_metrics, closing_lines, board_and_metrics)
    for check in (*checks, within_rows, summary_and_metrics, models_and_metrics, backwards, clocks, too_fast):
        try:
            flags += check(run, programs) if check is command_and_args else check(run)
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
            flags.append(problem(f"its records hold what no run writes ({type(error).__name__} in {check.__name__})"))
    return flags


# What the checks have in common ---------------------------------------------------------------------------------------


def number(value):
    """A finite number, or None."""
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return value if usable else None


def first_row(run):
    return next((row for row in run.rows if row["event"] == "run"), {})


def by_step(rows, event, name):
    """{step: value} of a field; where a step came twice, its last value."""
    return {row["step"]: row[name] for row in rows if row["event"] == event and row.get(name) is not None}


def close(one, other, tolerance):
    absolute, relative = tolerance
    return abs(one - other) <= absolute + relative * max(abs(one), abs(other))


def disagreements(what, here, ours, there, theirs, tolerance):
    """At most one Flag for two curves, {step: value} of two files: where they differ at a step that both have."""
    wrong = [step for step in sorted(ours.keys() & theirs.keys()) if not close(ours[step], theirs[step], tolerance)]
    if not wrong:
        return []
    step, more = wrong[0], f", and {len(wrong) - 1:,} more steps" if wrong[1:] else ""
    values = f"{ours[step]:.7g} and {theirs[step]:.7g} at step {step:,}{more}"
    return [problem(f"{here} and {there} disagree on {what}: {values}")]


def absences(what, here, ours, there, theirs):
    """At most one Flag: steps that one file has and the other has not."""
    for name, steps, other in ((there, ours.keys() - theirs.keys(), here), (here, theirs.keys() - ours.keys(), there)):
        if steps:
            more = f", and of {len(steps) - 1:,} more steps" if len(steps) > 1 else ""
            return [problem(f"{name} lacks {what} of step {min(steps):,}{more}, which {other} has")]
    return []


def resumed(run):
    return any(row["event"] == "resume" for row in run.rows or (run.log.rows if run.log else []))


def settled(run, curve):
    """Of {step: value} what every record must have: a kill may come between one file's line and the next one's."""
    return curve if is_finished(run) else {step: value for step, value in curve.items() if step < last_step(run)}


def last_step(run):
    return max((row["step"] for row in run.rows or (run.log.rows if run.log else [])), default=0)


def total_steps(run):
    """Of the last sitting: a run may go on with more or fewer epochs than it began with."""
    return (run.log and run.log.total_steps) or first_row(run).get("total_steps")


def ended(run):
    """How the run ended, in its own words; None where its records just stop."""
    rows = [row for row in run.rows if row["event"] == "end"]
    if run.rows:
        return rows[-1].get("ended") if rows and rows[-1] is run.rows[-1] else None
    return "finished" if run.log and run.log.ended else None


def is_finished(run):
    """Whether the run came to its end, as it says and as its steps say."""
    how, total = ended(run), total_steps(run)
    if how == "stopped early":
        return run.args is None or bool(run.args.get("early_stopping_patience"))
    return how == "finished" and (not run.rows or not total or last_step(run) >= total)


# The checks: each takes a run and returns Flags -----------------------------------------------------------------------


def unfinished(run):
    if is_finished(run) or not (run.rows or run.log):
        return []
    how, total = ended(run) or (run.log and run.log.error), total_steps(run)
    reached = f"at step {last_step(run):,}" + (f" of {total:,}" if total else "")
    return [problem(f"not finished: the records end {reached}" + (f" ({how})" if how else ", without a word"))]


def pilot(run):
    """A pilot run, by each of the records that would say so."""
    signs = {
        "args.json says so": bool((run.args or {}).get("pilot_run")),
        "the log says so": bool(run.log and run.log.pilot),
    }
    said = [sign for sign, seen in signs.items() if seen]
    return [problem(f"a pilot run, not a full one: {', '.join(said)}")] if said else []


def missing(run):
    lacking = [name for name in FILES if name not in run.files]
    if not any(name.startswith(EVENTS) for name in run.files):
        lacking.append("TensorBoard's event file")
    if "metrics.jsonl" in run.files and not first_row(run):
        lacking.append("the first row of metrics.jsonl, which says what the run is")
    if not set(FILES) & run.files:
        return [problem("only a console log was handed in: nothing can be compared with it")] if run.log else []
    return [problem(f"missing: {', '.join(lacking)}")] if lacking else []


def command_and_args(run, programs):
    """args.json against what was typed, as the log's command has it, but for paths, which a shell may have quoted."""
    typed, held = flags_typed(run, programs), run.args
    if typed is None or held is None:
        return []
    words = shlex.split(run.log.command)
    named = {word.removeprefix("--").removeprefix("no-").split("=")[0] for word in words if word.startswith("--")}
    plain = lambda value: (
        isinstance(value, (bool, int, float)) or (isinstance(value, str) and re.fullmatch(r"\w+", value))
    )
    wrong = [
        f"--{name} is {held.get(name)} in args.json and {value} in the log's command"
        for name, value in vars(typed).items()
        if name in named - {"overwrite"} and plain(value) and held.get(name) != value
    ]
    return [problem("; ".join(wrong))] if wrong else []


def log_and_metrics(run):
    """Every number that the log prints; a console's log may lack sittings, the run's own may not."""
    if not run.log or not run.rows:
        return []
    flags, here = [], "train.log" if "train.log" in run.files else "the log"
    for (event, name), tolerance in PRINTED.items():
        ours, theirs = by_step(run.log.rows, event, name), by_step(run.rows, event, name)
        flags += disagreements(WORDS[name], here, ours, "metrics.jsonl", theirs, tolerance)
        if name.endswith("_loss"):
            ours, theirs = settled(run, ours), settled(run, theirs)
            if here != "train.log":
                theirs = {step: value for step, value in theirs.items() if step in ours}
            flags += absences(WORDS[name], here, ours, "metrics.jsonl", theirs)
    if here == "train.log" and run.log.command is None:
        flags.append(problem("train.log lacks the command with which it begins"))
    if run.log.run_id and (of := first_row(run).get("run_id")) and run.log.run_id != of:
        flags.append(problem(f"{here} is of another run than metrics.jsonl"))
    return flags


def closing_lines(run):
    """The log's last lines, `best: ...` and `final: ...`, against the evaluations, or those of the log itself."""
    rows, there = (run.rows, "metrics.jsonl") if run.rows else (run.log.rows if run.log else [], "its own lines")
    evaluations, flags = by_step(rows, "eval", "val_loss"), []
    for kind in ("best", "final"):
        line = getattr(run.log, kind) if run.log else None
        held = evaluations.get(line["step"]) if line else None
        if line and held is not None and not close(line.get("val_loss", math.inf), held, PRINTED["eval", "val_loss"]):
            text = f"the log's line on the {kind} model and {there} disagree on the validation loss"
            flags.append(problem(f"{text}: {line.get('val_loss')} and {held:.7g} at step {line['step']:,}"))
    return flags


def board_and_metrics(run):
    if not run.rows or not any(name.startswith(EVENTS) for name in run.files):
        return []
    flags = []
    for tag, (event, name) in BOARD.items():
        ours = {step: value for step, _, value in run.board.get(tag, [])}
        theirs, what = by_step(run.rows, event, name), WORDS[name]
        flags += disagreements(what, "TensorBoard's file", ours, "metrics.jsonl", theirs, FLOAT32)
        if name.endswith("_loss"):
            ours, theirs = settled(run, ours), settled(run, theirs)
            flags += absences(what, "TensorBoard's file", ours, "metrics.jsonl", theirs)
    return flags


def within_rows(run):
    """Perplexity = e^loss, and as many bytes a token in each evaluation as in the first."""
    for row in run.rows:
        loss, perplexity = row.get("val_loss", row.get("train_loss")), row.get("perplexity")
        if None not in (loss, perplexity) and not close(perplexity, math.exp(min(loss, 700)), (1e-6, 1e-4)):
            where = f"metrics.jsonl, step {row['step']:,}"
            return [problem(f"{where}: the perplexity {row['perplexity']:.7g} is not e to the loss {loss:.7g}")]
    rates = [
        row["bits_per_byte"] / row["val_loss"]
        for row in run.rows
        if row["event"] == "eval" and row["val_loss"] and row["bits_per_byte"] is not None
    ]
    if rates and not close(min(rates), max(rates), (0, 1e-4)):
        return [problem("metrics.jsonl: bits per byte and validation loss are not in one proportion at all steps")]
    return []


def summary_and_metrics(run):
    """summary.json against metrics.jsonl, or, where that is not there, against the log."""
    if run.summary is None:
        return []
    rows, there = (run.rows, "metrics.jsonl") if run.rows else (run.log.rows if run.log else [], "the log")
    evaluations = [row for row in rows if row["event"] == "eval" and row.get("val_loss") is not None]
    if not evaluations:
        return []
    if not is_finished(run):
        return [problem(f"summary.json says {run.summary.get('ended')}, and {there} does not come to an end")]
    best, final = min(evaluations, key=lambda row: row["val_loss"]), evaluations[-1]
    kinds, flags = (("best", best), ("final", final)), []
    if resumed(run) and number(run.summary.get("best_step")) not in by_step(rows, "eval", "val_loss"):
        kinds, flags = kinds[1:], [question(f"summary.json: its best step is none that {there} evaluates{KILLED}")]
    expected = {
        f"{kind}_{name}": (row[name], PRINTED["eval", name] if there == "the log" else (1e-9, 1e-9))
        for kind, row in kinds
        for name in ("val_loss", "perplexity", "bits_per_byte", "accuracy")
    }
    if run.rows:
        expected |= {name: (run.rows[-1].get(name), (0, 0)) for name in ("step", "tokens")}
        expected["seconds"] = run.rows[-1].get("seconds"), (SECONDS, 0)
    for name, (value, tolerance) in expected.items():
        claimed, words = number(run.summary.get(name)), name.replace("_", " ").replace("val loss", "validation loss")
        if value is not None and (claimed is None or not close(claimed, value, tolerance)):
            said = "nothing" if claimed is None else f"{claimed:.7g}"
            flags.append(problem(f"summary.json and {there} disagree on the {words}: {said} and {value:.7g}"))
    if run.rows and run.summary.get("run_id") != first_row(run).get("run_id"):
        flags.append(problem("summary.json is of another run than metrics.jsonl"))
    return flags


def models_and_metrics(run):
    """The step and the loss that a model file records must be those of an evaluation."""
    evaluations, flags = by_step(run.rows, "eval", "val_loss"), []
    for name, model in run.models.items():
        if not evaluations:
            break
        of, claimed, held = first_row(run), model.val_loss, evaluations.get(model.step)
        differs = held is not None and (claimed is None or not close(claimed, held, (1e-6, 1e-6)))
        if None not in (model.run_id, of.get("run_id")) and model.run_id != of["run_id"]:
            flags.append(problem(f"{name} is of another run than metrics.jsonl"))
        elif name == "best_model.pth" and (resumed(run) or not is_finished(run)) and (held is None or differs):
            text = f"{name} is of an evaluation of step {model.step:,} that metrics.jsonl does not have"
            flags.append(question(text + KILLED))
        elif held is None or differs:
            there = "no evaluation of that step" if held is None else f"{held:.7g}"
            said = "no validation loss" if claimed is None else f"the validation loss {claimed:.7g}"
            flags.append(problem(f"{name} records {said} at step {model.step:,}, metrics.jsonl has {there}"))
        elif name == "best_model.pth" and claimed > min(evaluations.values()) + 1e-6:
            text = f"{name} has the validation loss {claimed:.7g}, and {min(evaluations.values()):.7g} was reached"
            flags.append(problem(text))
        tokenizer = of.get("fingerprints", {}).get("tokenizer")
        if None not in (model.tokenizer_fingerprint, tokenizer) and model.tokenizer_fingerprint != tokenizer:
            flags.append(problem(f"{name} was trained with another tokenizer than metrics.jsonl says"))
        other = [key for key, value in model.config.items() if key in (run.args or {}) and run.args[key] != value]
        shape = [key for key in other if isinstance(model.config[key], (int, float)) and run.args[key] is not None]
        if shape:
            said = ", ".join(f"--{key} is {run.args[key]} there and {model.config[key]} here" for key in shape)
            flags.append(problem(f"args.json and {name} disagree: {said}"))
    return flags


def backwards(run):
    """Steps, tokens and times that go back although the run did not go on from a checkpoint there."""
    flags = []
    logged = run.log.rows if run.log else []
    for here, rows, names in (
        ("metrics.jsonl", run.rows, ("step", "tokens", "seconds")), ("the log", logged, ("step", "time")),
    ):  # fmt: skip
        for name in names:
            before = None
            for row in rows:
                value = row.get(name)
                if before is not None and value is not None and value < before:
                    text = f"{here}: the {name} field goes back from {before} to {value} without a resume"
                    if name == "time":
                        flags.append(question(f"{text}: was the clock set, or summer over?"))
                    elif here == "the log" and "train.log" not in run.files:
                        flags.append(question(f"{text}: was the run gone on with, and only its stdout kept?"))
                    else:
                        flags.append(problem(text))
                    break
                if row["event"] == "resume":
                    before = None
                elif value is not None:
                    before = value
    return flags


def clocks(run):
    """The time that the log's clock shows, the seconds of metrics.jsonl, and those that tokens and speed amount to."""
    moments = {(row["event"], row["step"]): row["time"] for row in (run.log.rows if run.log else []) if row.get("time")}
    before, computing, skipping = None, 0.0, False
    counted = run.rows[0].get("tokens", 0) if run.rows else 0  # of a run that went on in this folder
    for row in run.rows:
        if row["event"] == "resume":
            before = None
        skipping = skipping or row["event"] == "skip"  # the tokens of such steps count, and their time does not
        if row["event"] == "train" and row["tokens_per_second"]:
            computing += 0 if skipping else max(0, row["tokens"] - counted) / row["tokens_per_second"]
            counted, skipping = row["tokens"], False
        moment = moments.get((row["event"], row["step"]))
        if moment is None or row["event"] != "train":  # an evaluation's seconds are those of the step before it
            continue
        if before:
            clock, seconds = (moment - before[0]).total_seconds(), row["seconds"] - before[1]
            if clock >= 0 and seconds > clock * 1.02 + SECONDS:
                text = f"between step {before[2]:,} and step {row['step']:,} pass {clock:,.0f} s by the log's clock"
                return [problem(f"{text}, and {seconds:,.0f} s in metrics.jsonl")]
        before = moment, row["seconds"], row["step"]
    total = run.rows[-1].get("seconds", 0) - run.rows[0].get("seconds", 0) if run.rows else 0
    if computing > 1.05 * total + SECONDS:
        text = f"metrics.jsonl: at the speeds that it gives, its tokens take {computing:,.0f} s"
        return [problem(f"{text}, and the run took {total:,.0f} s")]
    return []


def too_fast(run):
    """A speed above what the named GPU could do at best, counting only the multiplications inside the layers."""
    of = first_row(run)
    device = of.get("hardware", {}).get("device") or (run.log and run.log.device) or ""
    card = known_card(device)
    weights = of.get("parameters_in_layers") or (run.log and run.log.parameters_in_layers)
    speeds = by_step(run.rows or (run.log.rows if run.log else []), "train", "tokens_per_second")
    if not card or not weights or not speeds:
        return []
    processes = number(of.get("hardware", {}).get("processes")) or 1
    most = processes * PEAK_TFLOPS[card] * 1e12 / (6 * weights)  # 2 operations a weight forward, 4 backward
    step = max(speeds, key=speeds.get)
    if speeds[step] <= most:
        return []
    text = f"{speeds[step]:,.0f} tokens/s at step {step:,}: a {card} computes at most {most:,.0f} with this model"
    return [problem(text)]


# What the table says --------------------------------------------------------------------------------------------------


def flags_typed(run, programs):
    """The flags of the command that the log begins with; None where it does not say them, or leaves some to a file."""
    try:
        words = shlex.split((run.log and run.log.command) or "")
        place = next((i for i, word in enumerate(words) if word.endswith(".py")), None)
        if place is None or any(word.partition("=")[0] == "--config" for word in words):
            return None
        return programs[program_of(words[place])](words[place + 1 :])
    except (UserError, ValueError, LookupError, SystemExit):
        return None


def program_of(path):
    return path.replace("\\", "/").rsplit("/", 1)[-1]


def program(run):
    """Which trainer made the run, as far as the records say."""
    command = (run.log and run.log.command) or ""
    said = (run.args or {}).get("program") or first_row(run).get("program") or command
    return "chat" if "train_tinystories_chat_model" in str(said) else "story" if said else None


# Flags that are each student's own affair.
FREE = {
    "output_dir", "cache_dir", "tokenizer_path", "overwrite", "resume_from_checkpoint", "device", "program",
    "pretrained_model_path", "vocab_size", "wandb", "logging_steps", "save_steps", "keep_checkpoints", "pilot_run",
    "config", "preset",
}  # fmt: skip


def differences(run, programs):
    """The flags that are not the handout's, in words.

    programs: {a trainer's file name: its parse_args}; those of a pilot or a preset are compared with its own.
    """
    typed = flags_typed(run, programs)
    flags = run.args or (vars(typed) if typed else None)
    name = {"chat": "train_tinystories_chat_model.py", "story": "train_tinystories_model.py"}.get(program(run))
    if flags is None or name is None:
        return None
    begins = ["--pilot_run"] if flags.get("pilot_run") else []
    preset = next((name for name in PRESETS if name == flags.get("preset")), "course")
    begins += ["--preset", preset] if preset != "course" and program(run) == "story" else []
    needed = ["--pretrained_model_path", "any"] if program(run) == "chat" else []
    usual = vars(programs[name]([*needed, *begins]))
    changed = [
        f"--{key} {in_words(flags[key])}"
        for key in usual
        if key in flags and key not in FREE and flags[key] != usual[key]
        and not (key in LENGTH and flags[key] is None)  # the other one says how long
    ]  # fmt: skip
    return " ".join([*begins, *changed]) or "nothing"


def in_words(value):
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def facts_of(run, programs):
    """{column: value} of the table, the same columns for every run; None where the records do not say."""
    rows = run.rows or (run.log.rows if run.log else [])
    evaluations = [row for row in rows if row["event"] == "eval" and number(row.get("val_loss")) is not None]
    best = min(evaluations, key=lambda row: row["val_loss"], default={})
    seconds = max((row["seconds"] for row in rows if number(row.get("seconds")) is not None), default=None)
    device = first_row(run).get("hardware", {}).get("device") or (run.log and run.log.device)
    total, last = total_steps(run), last_step(run) if rows else None
    stopped = f"stopped at {last:,}" + (f" of {total:,}" if total else "") if rows else None
    state = "finished" if is_finished(run) else stopped
    tokens = max((row["tokens"] for row in rows if number(row.get("tokens")) is not None), default=None)
    return {
        "model": program(run),
        "state": state,
        "steps": last,
        "tokens": tokens if tokens is not None else run.log and run.log.tokens,
        "validation loss": rounded(best.get("val_loss"), 4),
        "perplexity": rounded(best.get("perplexity"), 2),
        "bits per byte": rounded(best.get("bits_per_byte"), 4),
        "hours": rounded(seconds / 3600, 2) if seconds is not None else None,
        "device": device,
        "differs from the handout": differences(run, programs),
        "sample": next((text for _, text in reversed(samples(run))), None),
    }


def rounded(value, digits):
    return None if value is None else round(value, digits)


def samples(run):
    """[(step, text)] of the texts that the model wrote on its way."""
    texts = [(row["step"], row["text"]) for row in run.rows if row["event"] == "sample"]
    return texts or ([(last_step(run), run.log.sample)] if run.log and run.log.sample else [])


def curves(run):
    """{name: [(step, value)]} for the report."""
    rows = run.rows or (run.log.rows if run.log else [])
    return {name: sorted(by_step(rows, event, name).items()) for name, event in CURVES.items()}


# Two runs side by side ------------------------------------------------------------------------------------------------

MOMENTS = 100  # of a run's that are compared, of each kind the first
SHARED = 3  # moments that two runs must have in common before they are no chance
CURVE = 2  # evaluations that a curve must have to be compared
MOST_NAMED = 5  # others that a sentence names


@dataclass
class Traces:
    """What tells a copy: the run's id, the moments of its events, its curve, its weights."""

    person: str = ""
    run_id: str | None = None
    moments: set = field(default_factory=set)
    curve: tuple = ()
    weights: set = field(default_factory=set)


TELLING = {"run id": lambda traces: {traces.run_id} - {None}, "timestamps": lambda traces: traces.moments}
ALIKE = {"validation curve": lambda traces: {traces.curve} - {()}, "weights": lambda traces: traces.weights}


def traces_of(run):
    tags = "Loss/train", "Loss/val"
    moments = {("TensorBoard's", wall) for tag in tags for _, wall, _ in run.board.get(tag, [])[:MOMENTS]}
    logged = [row for row in (run.log.rows if run.log else []) if row.get("time")]
    loss = lambda row: row.get("val_loss", row.get("train_loss"))  # two runs may write a line in the same second
    moments |= {("the log's", row["step"], row["time"], loss(row)) for row in logged[:MOMENTS] if loss(row)}
    evaluations = by_step(run.rows or (run.log.rows if run.log else []), "eval", "val_loss")
    curve = tuple((step, round(value, 4)) for step, value in sorted(evaluations.items()))
    run_id = first_row(run).get("run_id") or (run.summary or {}).get("run_id") or (run.log and run.log.run_id)
    return Traces(
        run.person,
        run_id if isinstance(run_id, str) else None,
        moments,
        curve if len(curve) >= CURVE else (),
        {model.weights for model in run.models.values()},
    )


def pairs(named):
    """{name: Flags} for runs that have more in common than two runs do.  named: {name: Traces}."""
    copies, alike = defaultdict(dict), defaultdict(dict)  # {name: {other: reasons}}
    for reason, values in TELLING.items():
        for (one, other), count in shared(named, values).items():
            few = min(len(named[name].moments) for name in (one, other))
            if reason != "timestamps" or (count >= SHARED and count >= few / 2):
                for name, its_other in ((one, other), (other, one)):
                    copies[name].setdefault(its_other, []).append(reason)
    for reason, values in ALIKE.items():
        for one, other in shared(named, values):
            for name, its_other in ((one, other), (other, one)):
                if its_other not in copies[name]:
                    alike[name].setdefault(its_other, []).append(reason)
    flags = defaultdict(list)
    for name, others in copies.items():
        for reasons, names in grouped(others):
            flags[name].append(problem(f"the same {reasons} as {names}: copies of one run"))
    for name, others in alike.items():
        for reasons, names in grouped(others):
            text = f"the same {reasons} as {names}: the same seed on the same kind of machine does that; is it so here?"
            flags[name].append(question(text))
    return flags


def grouped(others):
    """Yield (reasons, names), in words, of others, {name: reasons}: one pair for all names with the same reasons."""
    groups = defaultdict(list)
    for name, reasons in others.items():
        groups[" and the same ".join(reasons)].append(name)
    for reasons, names in groups.items():
        more = f", and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
        yield reasons, ", ".join(names[:MOST_NAMED]) + more


def shared(named, values):
    """{(one, other): count} of the values that two have in common."""
    holders, counts = defaultdict(list), defaultdict(int)
    for name, traces in named.items():
        for value in values(traces):
            holders[value].append(name)
    for names in holders.values():
        for i, one in enumerate(names):
            for other in names[i + 1 :]:
                if named[one].person != named[other].person:  # who goes on in another folder may hand in both
                    counts[one, other] += 1
    return counts
