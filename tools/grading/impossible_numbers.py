"""Check one run: are its numbers possible?  Each check takes a run and yields findings."""

import itertools
from collections.abc import Iterator

from common.devices import PEAK_TFLOPS, known_card
from common.numbers import finite_number, perplexity
from grading.facts import by_step, devices_of, was_resumed
from grading.findings import PRINTED, SECONDS, Flag, close, problem, question
from grading.submissions import Submission


def within_rows(run: Submission) -> Iterator[Flag]:
    """Check that perplexity is e^loss, and that all evaluations have the same number of bytes per token.

    In a log, the numbers are rounded.
    """
    there = "metrics.jsonl" if run.rows else run.log_name
    for row in run.history:
        loss = row.get("val_loss", row.get("train_loss"))
        found = row.get("perplexity")
        if None in (loss, found):
            continue
        tolerance = (1e-6, 1e-4)
        if not run.rows:  # the errors of both numbers, which are rounded in a log
            tolerance = (PRINTED["eval", "perplexity"][0] + PRINTED["eval", "val_loss"][0] * found, 0)
        if not close(found, perplexity(loss), tolerance):
            where = f"{there}, step {row['step']:,}"
            yield problem(f"{where}: the perplexity {found:.7g} is not e^loss (the loss is {loss:.7g})")
            return
    losses = by_step(run.history, "eval", "val_loss")
    bits = by_step(run.history, "eval", "bits_per_byte")
    steps = [step for step in bits.keys() & losses.keys() if losses[step]]
    if not steps:
        return
    rate = sum(bits[step] for step in steps) / sum(losses[step] for step in steps)
    rounding = 0 if run.rows else (1 + rate) * PRINTED["eval", "val_loss"][0]
    if not all(close(bits[step], rate * losses[step], (rounding, 5e-5)) for step in steps):
        yield problem(f"{there}: the ratio of bits per byte to validation loss must be constant, but is not")


def neighbours(rows: list[dict]) -> Iterator[tuple[dict, dict]]:
    """Yield the pairs of consecutive rows, except where the run was resumed between them."""
    for before, row in itertools.pairwise(rows):
        if "resume" not in (before["event"], row["event"]):
            yield before, row


def backwards(run: Submission) -> Iterator[Flag]:
    for name in ("step", "tokens", "seconds"):
        drop = first_drop(run.rows, name)
        if drop:
            yield problem(f"metrics.jsonl: {drop}")
    drop = first_drop(run.log.rows, "step")
    if drop and run.log_name == "train.log":
        yield problem(f"the log: {drop}")
    elif drop:
        yield question(f"the log: {drop}: was the run resumed, and only its stdout saved?")
    drop = first_drop(run.log.rows, "time")
    if drop:
        yield question(f"the log: {drop}: was the computer's clock changed, for example at the end of summer time?")


def first_drop(rows: list[dict], name: str) -> str | None:
    """Describe the first decrease of a field from one row to the next; return None if there is none."""
    known = [row for row in rows if row["event"] == "resume" or row.get(name) is not None]
    for before, row in neighbours(known):
        if row[name] < before[name]:
            return f"the {name} field goes back from {before[name]} to {row[name]}, with no resume in between"
    return None


def clocks(run: Submission) -> Iterator[Flag]:
    """Check that no more time passes between two steps in metrics.jsonl than between their lines in the log."""
    times = {row["step"]: row["time"] for row in run.log.rows if row["event"] == "train"}
    # the seconds of an evaluation are those of the training step before it
    rows = [row for row in run.rows if row["event"] == "resume" or (row["event"] == "train" and row["step"] in times)]
    for before, row in neighbours(rows):
        clock = (times[row["step"]] - times[before["step"]]).total_seconds()
        seconds = row["seconds"] - before["seconds"]
        if clock >= 0 and seconds > clock * 1.02 + SECONDS:
            where = f"between step {before['step']:,} and step {row['step']:,}"
            yield problem(f"{where}, {clock:,.0f} s pass in the log, but {seconds:,.0f} s in metrics.jsonl")
            return


def speeds(run: Submission) -> Iterator[Flag]:
    """Check that the run is not shorter than its tokens take at its recorded speeds."""
    computing = 0.0  # seconds
    rows = [row for row in run.rows if row["event"] in ("train", "skip")]
    for before, row in itertools.pairwise(rows):
        if "skip" not in (before["event"], row["event"]):  # skipped steps count their tokens, but not their time
            computing += (row["tokens"] - before["tokens"]) / row["tokens_per_second"]
    total = rows[-1]["seconds"] - rows[0]["seconds"] if rows else 0
    if computing > 1.05 * total + SECONDS:
        text = f"metrics.jsonl: at the recorded speeds, the recorded tokens take {computing:,.0f} s"
        yield problem(f"{text}, but the run took only {total:,.0f} s")


def too_fast(run: Submission) -> Iterator[Flag]:
    """Check that the speed is possible on the recorded GPU, if it computes only the multiplications in the layers.

    A resumed run may have had several GPUs: the fastest counts.
    """
    cards = [known_card(device) for device in devices_of(run) if not device.startswith("cpu")]
    card = None if None in cards else max(cards, key=PEAK_TFLOPS.get, default=None)
    weights = run.first_row.get("parameters_in_layers") or run.log.parameters_in_layers
    found = by_step(run.history, "train", "tokens_per_second")
    if not card or not weights or not found:
        return
    processes = finite_number(run.first_row.get("hardware", {}).get("processes")) or 1
    most = processes * PEAK_TFLOPS[card] * 1e12 / (6 * weights)  # 2 operations per weight forward, 4 backward
    step = max(found, key=found.get)
    if found[step] > most:
        text = f"{found[step]:,.0f} tokens/s at step {step:,} is too fast"
        text = f"{text}: with this model, {processes:g} x {card} can reach at most {most:,.0f}"
        if was_resumed(run):
            yield question(f"{text}; was the run resumed on other GPUs, or on more?")
        else:
            yield problem(text)
