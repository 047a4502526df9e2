"""The results of the comparison: the measures, the table, the JSON file and the CSV file.

In reading order: `MEASURES`; `Scored`, one column of the table; `table`; `write_output`; `write_csv`.
"""

import argparse
import csv
import dataclasses
import io
from collections.abc import Iterator
from dataclasses import dataclass, field

from common.console import log
from common.errors import one_line
from common.files import write_json, written_atomically
from common.text import without_controls
from generation.sampling import Sampling
from scoring.judge import AGE_GROUPS
from scoring.skill_items import SKILLS
from scoring.skills import ALL

LABEL_WIDTH = 36
COLUMN_WIDTH = 12
PASSAGE_SHOWN = 200  # characters

# name: (label, format, definition), in the order of the table
MEASURES = {
    "megabytes": ("size of the weights, MB", "{:.3g}", "with --weights: 4 bytes each, or rounded, with the scales"),
    "loss": ("loss", "{:.4f}", "mean cross-entropy on held-out text in nats per token; the trainers' val_loss"),
    "perplexity": ("perplexity", "{:.5g}", "e^loss"),
    "bits_per_byte": ("bits per byte", "{:.4f}", "the same loss per byte of text; comparable across tokenizers"),
    "texts": ("texts written", "{:,}", "number of samples behind the rows below"),
    "words": ("words", "{:.1f}", "mean length; a word is a run of letters and digits, in lower case"),
    "tokens": ("tokens", "{:.1f}", "mean length, with <eos> if the samples count it"),
    "ended": ("end by themselves", "{:.1%}", "share of the texts that end with <eos>"),
    "distinct_1": ("distinct-1", "{:.3f}", "number of different words in all texts / number of words (Li et al. 2016)"),
    "distinct_2": ("distinct-2", "{:.3f}", "the same for 2 words in a row"),
    "distinct_3": ("distinct-3", "{:.3f}", "the same for 3; more text lowers it, so compare on the same prompts"),
    "repeated_4": (
        "repeated 4-grams", "{:.1%}",
        "share of a text's 4-grams that repeat an earlier one, mean over texts (seq-rep-4, Welleck et al. 2020)",
    ),
    "copied_longest": ("longest copied passage, words", "{:,}", "most words in a row that are also in a training text"),
    "copied_mean": ("mean copied passage, words", "{:.1f}", "longest copied passage of each text, mean over texts"),
    "copied_over_12": ("over 12 words copied", "{:.1%}", "share of texts with a copied passage of more than 12 words"),
    "copied_5": ("5-grams found in training", "{:.1%}", "share of all 5-grams that are also in a training text"),
    "wanted_words": (
        "texts with all wanted words", "{:.1%}",
        "of the prompts with a list `words` (in a .csv: separated by commas): share of texts that contain all words; "
        "a plural s is allowed",
    ),
    "prompt_words": (
        "prompt's words in the text", "{:.1%}",
        "of the other prompts: share of the content words of the prompt (in a dialogue, of its last turn) that are in "
        "the text, mean over texts; a plural s is allowed",
    ),
    "hero_prompts": ("prompts with a named hero", "{:,}", "with `named NAME`, as in sample_data/heroes.jsonl"),
    "name_consistency": (
        "hero's name stays", "{:.1%}",
        "of these: share of texts in which that name comes back, and no other name comes more often",
    ),
    "graded": ("texts graded", "{:,}", "texts that the judge graded"),
    "grammar": ("grammar, of 10", "{:.2f}", "the judge's mean grade (Eldan & Li 2023, section 4.1)"),
    "creativity": ("creativity, of 10", "{:.2f}", "the same"),
    "consistency": ("consistency, of 10", "{:.2f}", "the same; is the text consistent with its beginning?"),
    "age_group": (
        "age group", "{}",
        "its median guess; of two, the younger: " + ", ".join(f"{name} {ages}" for name, ages in AGE_GROUPS.items()),
    ),
}  # fmt: skip
SKILL_LABELS = {name: skill.label for name, skill in SKILLS.items()} | {ALL: "all skills"}
SECTIONS = {"loss": "held-out text", "texts": "generated texts", "graded": "grades of the judge"}


@dataclass
class Scored:
    """A model or a file of samples.

    path: of the file; rounded: the format that the model's weights are rounded to (None: they stay as they are).
    samples: as from `read_samples`; scores: {name in MEASURES: value}; answers: to the items of the test of skills, as
    from `answers`; skills: as from `skill_scores`.
    """

    path: str
    rounded: str | None = None
    samples: list[dict] = field(default_factory=list)
    scores: dict = field(default_factory=dict)
    passage: str = ""  # the longest copied passage
    answers: list[dict] = field(default_factory=list)
    skills: dict[str, dict] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.path} {self.rounded}" if self.rounded else self.path


def rows_of(scored: list[Scored]) -> Iterator[tuple[str, list]]:
    """Yield (measure, [its value for each model]) for the measures that at least one model has."""
    for measure in MEASURES:
        values = [one.scores.get(measure) for one in scored]
        if any(value is not None for value in values):
            yield measure, values


def skill_rows(scored: list[Scored]) -> Iterator[tuple[str, list[dict | None]]]:
    """Yield (skill, [its scores for each model]) for the skills that at least one model was tested on."""
    for skill in SKILL_LABELS:
        values = [one.skills.get(skill) for one in scored]
        if any(value is not None for value in values):
            yield skill, values


def share_and_interval(value: dict) -> str:
    """Return scores from `skill_scores` as text, like "83% 74-89": no longer than a column."""
    return f"{value['share']:.0%} {100 * value['low']:.0f}-{100 * value['high']:.0f}"


def line(label: str, cells: list[str]) -> str:
    return f"  {label:{LABEL_WIDTH - 2}}" + "".join(f"{cell:>{COLUMN_WIDTH}}" for cell in cells)


def table(scored: list[Scored], dialogues: bool) -> Iterator[str]:
    """Yield the lines of the table: a row per measure, a column per model.  dialogues: in the held-out text."""
    letters = [chr(ord("A") + number) for number in range(len(scored))]
    for letter, one in zip(letters, scored, strict=True):
        yield f"{letter}: {one.name}"
    yield ""
    yield " " * LABEL_WIDTH + "".join(f"{letter:>{COLUMN_WIDTH}}" for letter in letters)
    for measure, values in rows_of(scored):
        label, form, _ = MEASURES[measure]
        if measure == "loss" and dialogues:
            yield f"{SECTIONS[measure]} (only what the assistant says)"
        elif measure in SECTIONS:
            yield SECTIONS[measure]
        cells = ["-" if value is None else form.format(value) for value in values]
        yield line(label, cells)
    if any(one.skills for one in scored):
        yield "skills: share of right answers, and its 95% interval; chance is 50%"
    for skill, values in skill_rows(scored):
        cells = ["-" if value is None else share_and_interval(value) for value in values]
        yield line(SKILL_LABELS[skill], cells)
    if any(one.passage for one in scored):
        yield "longest copied passage of each"
        for letter, one in zip(letters, scored, strict=True):
            yield f"  {letter}: {one_line(without_controls(one.passage), PASSAGE_SHOWN)}"


def columns_of(one: Scored) -> dict:
    """Return what the JSON file has about one model; the test of skills only if it was taken."""
    content = {"model": one.name, "scores": one.scores, "samples": one.samples}
    if one.skills:
        content |= {"skills": one.skills, "answers": one.answers}
    return content


def write_output(scored: list[Scored], args: argparse.Namespace, chat: bool | None) -> None:
    names = ["dataset", "training_set", "prompts_file", "skills", "weights"]
    names += ["max_eval_samples", "max_train_samples", "judge_model"]
    names += [item.name for item in dataclasses.fields(Sampling)]
    content = {
        "about": {name: getattr(args, name) for name in names} | {"chat": chat},
        "measures": {name: definition for name, (_, _, definition) in MEASURES.items()},
        "skills": {name: skill.meaning for name, skill in SKILLS.items()},
        "models": [columns_of(one) for one in scored],
    }
    write_json(args.output, content)
    log.info(f"wrote {args.output}")


def write_csv(scored: list[Scored], path: str) -> None:
    """Write the table as CSV; a missing value is an empty cell."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["measure", *(one.name for one in scored)])
    writer.writerows([measure, *values] for measure, values in rows_of(scored))
    for skill, values in skill_rows(scored):
        for suffix, key in (("", "share"), ("_low", "low"), ("_high", "high")):
            cells = [None if value is None else value[key] for value in values]
            writer.writerow([f"skill_{skill}{suffix}", *cells])
    with written_atomically(path) as file:
        file.write(text.getvalue().encode(errors="replace"))
    log.info(f"wrote {path}")
