"""The texts that models write: ask a model for them or read them from a file, and measure them.

In reading order: `ask` and `read_samples`, which return the same kind of rows; `written_scores`, the measures that need
only the texts and their prompts; `score_copying`, those that compare them with training texts;
`grade_samples` and `judged_scores`, those of the judge.
"""

import argparse
import statistics
from collections.abc import Iterator
from itertools import chain, zip_longest
from pathlib import Path

from tqdm import tqdm

from common.console import log
from common.errors import UserError
from common.flags import settings_from
from common.numbers import finite_number
from corpus.dialogue_rows import read_dialogues
from corpus.json_files import json_lines
from corpus.notes import Notes, ReadingFlags
from corpus.sources import Split, open_dataset
from corpus.speakers import read_turns
from corpus.stories import read_stories
from generation.prompt_files import Prompt, Samples
from generation.writer import Writer
from scoring import measures
from scoring.held_out import holds_dialogues
from scoring.judge import GRADES, Judge
from scoring.results import Scored

LONG_PASSAGE = 12  # words in a row; a longer copy is hardly a coincidence


def ask(writer: Writer, prompts: list[Prompt], chat: bool) -> list[dict]:
    """Let a model write for each prompt; return rows like those of `read_samples`."""
    samples = Samples(writer, prompts, chat=chat)
    written = []
    with tqdm(total=len(samples), unit=" texts", leave=False, disable=None) as bar:
        for rows in samples.rows():
            written += rows
            bar.update(len(rows))
    return written


def read_samples(path: str) -> list[dict]:
    """Read a file from --output_file: dicts with `text` and perhaps `prompt`, `tokens`, `ended`, `words`."""
    rows = []
    for row, place in json_lines(Path(path)):
        if isinstance(row, UserError):
            raise row
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise UserError(f'{place}: no "text"; pass a file that --output_file wrote')
        try:
            last_turn(row)
        except ValueError as error:
            raise UserError(f"{place}: {error}; fix it") from None
        rows.append(row)
    if not rows:
        raise UserError(f"no samples in {path}; pass a file that --output_file wrote")
    return rows


def last_turn(sample: dict) -> str:
    """Return the prompt of a sample, or the last turn if it is a dialogue; "" if there is none."""
    prompt = sample.get("prompt") or ""
    if not isinstance(prompt, str):
        _, prompt = read_turns(prompt)[-1]
    return prompt


def written_scores(samples: list[dict]) -> dict:
    """Compute the measures that need only the texts and their prompts."""
    texts = [measures.words(sample["text"]) for sample in samples]
    wanted_words = []
    prompt_words = []
    for sample, text in zip(samples, texts, strict=True):
        wanted = sample.get("words") or []
        if not isinstance(wanted, list):
            wanted = str(wanted).split(",")  # as in a .csv
        if wanted:
            wanted_words.append(measures.words_come_back([str(phrase) for phrase in wanted], text))
        else:
            prompt_words.append(measures.content_words_come_back(last_turn(sample), text))
    heroes = [measures.hero_of(last_turn(sample)) for sample in samples]
    names = measures.names_in(sample["text"] for sample in samples)
    hero_stays = []
    for hero, sample in zip(heroes, samples, strict=True):
        if hero is not None:
            hero_stays.append(measures.hero_stays(hero, names, sample["text"]))
    return {
        "texts": len(samples),
        "words": measures.mean(len(text) for text in texts),
        "tokens": measures.mean(finite_number(sample.get("tokens")) for sample in samples),
        "ended": measures.mean(sample["ended"] == "eos" for sample in samples if sample.get("ended")),
        "distinct_1": measures.distinct(texts, 1),
        "distinct_2": measures.distinct(texts, 2),
        "distinct_3": measures.distinct(texts, 3),
        "repeated_4": measures.mean(measures.repeated(text, 4) for text in texts),
        "wanted_words": measures.mean(wanted_words),
        "prompt_words": measures.mean(prompt_words),
        "hero_prompts": len(hero_stays) or None,
        "name_consistency": measures.mean(hero_stays),
    }


# Copied passages ------------------------------------------------------------------------------------------------------


def open_training_set(name: str) -> Split:
    """Open the training split of a dataset."""
    try:
        return open_dataset(name)["train"]
    except UserError as error:
        raise UserError(str(error).replace("--dataset", "--training_set")) from None


def training_texts(split: Split, args: argparse.Namespace) -> Iterator[str]:
    """Yield the texts of a split that a model learned to write: stories, or the assistant's turns in dialogues."""
    how = settings_from(args, ReadingFlags)
    notes = Notes()
    if holds_dialogues(split, args.text_column):
        for dialogue in read_dialogues(split, how, args.max_train_samples, notes):
            yield from (text for role, text in dialogue if role == "assistant")
    else:
        yield from read_stories(split, how, args.max_train_samples, notes)
    for line in notes.lines():
        log.info(f"{split.name}: {line}")


def score_copying(scored: list[Scored], splits: list[Split], args: argparse.Namespace) -> None:
    """Add the measures of copying to the scores, with one pass through the training sets for all models."""
    passages = measures.CopiedPassages([measures.words(sample["text"]) for one in scored for sample in one.samples])
    for split in splits:
        count = 0
        log.info(f"{split.name}: searching for copied passages")
        for text in tqdm(training_texts(split, args), unit=" texts", leave=False, disable=None):
            passages.compare(measures.words(text))
            count += 1
        log.info(f"{split.name}: compared with {count:,} texts")
    passages.finish()
    for one in scored:
        counts = []  # for each text: (5-grams that are also in a training text, all 5-grams)
        for sample in one.samples:
            text = measures.words(sample["text"])
            matches = passages.matches(text)
            sample["copied"] = " ".join(measures.longest_passage(text, matches))
            counts.append(measures.copied_ngrams(matches))
        lengths = [len(sample["copied"].split()) for sample in one.samples]
        one.passage = one.samples[lengths.index(max(lengths))]["copied"]
        found = sum(found for found, _ in counts)
        total = sum(total for _, total in counts)
        one.scores |= {
            "copied_longest": max(lengths),
            "copied_mean": measures.mean(lengths),
            "copied_over_12": measures.mean(length > LONG_PASSAGE for length in lengths),
            "copied_5": found / total if total else None,
        }


# The judge ------------------------------------------------------------------------------------------------------------


def grade_samples(scored: list[Scored], judge: Judge) -> None:
    """Add the judge's grades to the samples.

    The models take turns, so each model gets the same number of grades when the limit on requests is reached.
    """
    in_turn = chain.from_iterable(zip_longest(*(one.samples for one in scored)))
    samples = [sample for sample in in_turn if sample is not None]
    for sample in samples:
        sample.pop("grades", None)  # grades that were in a file of samples are not from this judge
    for sample in tqdm(samples, unit=" grades", leave=False, disable=None):
        beginning = sample.get("prompt") or ""
        if not isinstance(beginning, str):
            beginning = "\n".join(f"{role}: {text}" for role, text in read_turns(beginning))
        grades = judge.grade(beginning, sample["text"])
        if grades:
            sample["grades"] = grades


def judged_scores(samples: list[dict]) -> dict:
    graded = [sample["grades"] for sample in samples if "grades" in sample]
    if not graded:
        return {}
    means = {name: measures.mean(grades[name] for grades in graded) for name in GRADES}
    age_group = statistics.median_low(grades["age_group"] for grades in graded)
    return {"graded": len(graded)} | means | {"age_group": age_group}
