"""Compare models: score them on held-out text and on the texts that they write.

    python tools/evaluate_model.py tinystories_model/best_model.pth --dataset sample_data/stories \\
        --prompts_file prompts.jsonl --training_set sample_data/stories --output scores.json --csv scores.csv
    python tools/evaluate_model.py before.jsonl after.jsonl --training_set sample_data/conversations

A MODEL is a model file (.pth), which gets the prompts here, or a file of samples (.jsonl) that
generate_tinystories_text.py or chat_with_tinystories_model.py wrote with --output_file.  All models get the prompts in
the same way: as chat models if --dataset or the prompts contain dialogues, else as story models.  --chat and --no-chat
override this.  Only the text that a model wrote is scored, not the prompt.

The table goes to stdout, everything else to stderr.
"""

import argparse
import csv
import dataclasses
import io
import statistics
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scoring import measures
from scoring.judge import AGE_GROUPS, GRADES, Judge, endpoint, key_from

from common.console import log
from common.devices import Precision, choose_device, ready_to_write
from common.errors import UserError, one_line
from common.files import write_json, written_atomically
from common.flags import FlagParser, add_fields, settings_from
from common.numbers import finite_number
from common.program import run_program
from common.text import without_controls
from common.weights_files import check_tokenizer, load_model
from corpus.dialogue_rows import holds_dialogue, read_dialogues
from corpus.json_files import json_lines
from corpus.notes import Notes, ReadingFlags, Wanted, add_reading_flags, name_in
from corpus.sources import Split, open_dataset
from corpus.speakers import read_turns
from corpus.splits import DIALOGUES_SET_ASIDE, STORIES_SET_ASIDE, training_and_validation
from corpus.stories import holds_story, read_stories
from corpus.token_cache import cache_dialogues, cache_stories, default_cache_dir
from data import Rows, Tokenizer, load_tokenizer
from generation.prompt_files import BATCH_SIZE, Prompt, Samples, read_prompts
from generation.sampling import Sampling
from generation.writer import Writer
from model import Transformer
from training.step import evaluate

RUBRIC = Path(__file__).resolve().parent / "scoring/judge_rubric.txt"
LONG_PASSAGE = 12  # words in a row; a longer copy is hardly a coincidence
LABEL_WIDTH = 36
COLUMN_WIDTH = 12
PASSAGE_SHOWN = 200  # characters

# name: (label, format, definition), in the order of the table
MEASURES = {
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
    "graded": ("texts graded", "{:,}", "texts that the judge graded"),
    "grammar": ("grammar, of 10", "{:.2f}", "the judge's mean grade (Eldan & Li 2023, section 4.1)"),
    "creativity": ("creativity, of 10", "{:.2f}", "the same"),
    "consistency": ("consistency, of 10", "{:.2f}", "the same; is the text consistent with its beginning?"),
    "age_group": (
        "age group", "{}",
        "its median guess; of two, the younger: " + ", ".join(f"{name} {ages}" for name, ages in AGE_GROUPS.items()),
    ),
}  # fmt: skip
SECTIONS = {"loss": "held-out text", "texts": "generated texts", "graded": "grades of the judge"}


@dataclass
class Scored:
    """A model or a file of samples.  samples: as from `read_samples`; scores: {name in MEASURES: value}."""

    name: str
    samples: list[dict] = field(default_factory=list)
    scores: dict = field(default_factory=dict)
    passage: str = ""  # the longest copied passage


# Flags ----------------------------------------------------------------------------------------------------------------


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = FlagParser(__doc__)
    parser.usage = "python tools/evaluate_model.py MODEL [MODEL ...] [flags]"
    lines = [f"  {label:{LABEL_WIDTH - 2}}{definition}" for label, _, definition in MEASURES.values()]
    wrapped = [textwrap.fill(line, width=118, subsequent_indent=" " * LABEL_WIDTH) for line in lines]
    parser.epilog = "\n".join(["the measures:", *wrapped])
    parser.add_argument("models", nargs="+", metavar="MODEL", help="a model file (.pth) or a file of samples (.jsonl)")
    parser.add_argument(
        "--tokenizer_path", nargs="+", default=["bpe_tokenizer_tinystories.pkl"], metavar="FILE",
        help="one for all models, or several: each model uses its own (default: the file of step 1)",
    )  # fmt: skip
    parser.add_argument(
        "--chat", action=argparse.BooleanOptionalAction,
        help="prompts are user messages, not beginnings of stories (default: if --dataset or they have dialogues)",
    )  # fmt: skip
    parser.add_argument("--device", default="auto", help="auto uses cuda, else mps, else cpu (default: %(default)s)")
    group = parser.add_argument_group("text")
    group.add_argument(
        "--dataset", help="held-out text: its validation split, else its last training texts; as in training"
    )
    group.add_argument("--max_eval_samples", type=int, help="use at most this many held-out texts (default: all)")
    group.add_argument(
        "--training_set", nargs="+", default=[], metavar="DATASET",
        help="training texts, searched for copied passages: stories, or the replies in dialogues",
    )  # fmt: skip
    group.add_argument("--max_train_samples", type=int, help="use at most this many texts of each set (default: all)")
    group.add_argument(
        "--cache_dir", default=str(default_cache_dir()),
        help="for tokenized texts and the judge's grades (default: %(default)s)",
    )  # fmt: skip
    add_reading_flags(group, stories=True, dialogues=True)
    group = parser.add_argument_group("writing")
    group.add_argument("--prompts_file", help="a .txt, .json, .jsonl or .csv file, as in steps 3 and 5")
    add_fields(group, Sampling, {})
    group = parser.add_argument_group("results")
    group.add_argument("--output", metavar="FILE", help="write scores and samples as JSON")
    group.add_argument("--csv", metavar="FILE", help="write the table as CSV")
    group = parser.add_argument_group("the judge")
    group.add_argument(
        "--judge", metavar="URL",
        help="an OpenAI-compatible endpoint that grades the texts, like http://localhost:8000/v1",
    )  # fmt: skip
    group.add_argument("--judge_model", help="the name of the model at that endpoint")
    group.add_argument(
        "--judge_rubric", default=RUBRIC, metavar="FILE", help="how to grade (default: tools/scoring/judge_rubric.txt)"
    )
    group.add_argument(
        "--judge_limit", type=int, default=1000, help="requests at most, with repeated ones (default: %(default)s)"
    )
    group.add_argument(
        "--judge_key_variable", default="OPENAI_API_KEY", metavar="NAME",
        help="the environment variable with the key, if one is needed (default: %(default)s)",
    )  # fmt: skip
    args = parser.parse_args(argv)
    check(args)
    check_outputs(args)
    return args


def check(args: argparse.Namespace) -> None:
    """Raise UserError for a bad flag or combination of flags, before any work is done."""
    for name in ("max_eval_samples", "max_train_samples", "judge_limit"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} must be at least 1, not {value}")
    for path in args.models:
        if not Path(path).is_file():
            raise UserError(f"no file {path}; pass a model file (.pth) or a file of samples (.jsonl)")
    asked = [path for path in args.models if not is_samples(path)]
    texts = args.prompts_file or len(asked) < len(args.models)
    wrong = {
        "a MODEL is named twice; name each one once": len(set(args.models)) < len(args.models),
        "nothing to score model files on; pass --dataset, --prompts_file or both":
            asked and not args.dataset and not args.prompts_file,
        "--dataset is for model files, but only samples were given": args.dataset and not asked,
        "--prompts_file is for model files, but only samples were given": args.prompts_file and not asked,
        "--training_set scores the texts that models write; pass --prompts_file too": args.training_set and not texts,
        "--judge scores the texts that models write; pass --prompts_file too": args.judge and not texts,
        "--judge needs --judge_model, the name of the model that grades": args.judge and not args.judge_model,
        f"--judge_rubric {args.judge_rubric} is not a file; pass a text file": not Path(args.judge_rubric).is_file(),
    }  # fmt: skip
    for message, is_wrong in wrong.items():
        if is_wrong:
            raise UserError(message)


def check_outputs(args: argparse.Namespace) -> None:
    """Raise UserError if a results file cannot be written or would overwrite another file."""
    read = [*args.models, args.prompts_file, args.dataset, *args.training_set, args.judge_rubric]
    written = [path for path in (args.output, args.csv) if path]
    used = [Path(path).resolve() for path in (*read, *written) if path]
    for path in written:
        if used.count(Path(path).resolve()) > 1:
            raise UserError(f"{path} would be overwritten, but has another use in this command; choose another file")
        if not Path(path).parent.is_dir() or Path(path).is_dir():
            raise UserError(f"cannot write {path}: it is a folder, or its folder does not exist")


def is_samples(path: str) -> bool:
    return Path(path).suffix == ".jsonl"


# Held-out text --------------------------------------------------------------------------------------------------------


def holds_dialogues(split: Split, column: str) -> bool:
    """Return whether a split contains dialogues: whether its first readable row is not a story."""
    wanted = Wanted(lambda value: holds_story(value, column) or holds_dialogue(value))
    first = next((row for row, _ in split.rows(wanted, Notes()) if not isinstance(row, UserError)), None)
    return not isinstance(first, str) and (not isinstance(first, dict) or name_in(first, column) is None)


def held_out_scores(
    model: Transformer, tokenizer: Tokenizer, splits: dict[str, Split], args: argparse.Namespace, dialogues: bool,
    precision: Precision,
) -> dict:  # fmt: skip
    """Return {"loss", "perplexity", "bits_per_byte"} on the validation texts, computed as the trainers do."""
    length = model.config.max_seq_len
    how = settings_from(args, ReadingFlags)

    def read(split, limit):
        if dialogues:
            return cache_dialogues(split, tokenizer, args.cache_dir, length, how, limit)
        return cache_stories(split, tokenizer, args.cache_dir, how, limit)

    if "validation" in splits:
        cache = read(splits["validation"], args.max_eval_samples)
    else:
        set_aside = DIALOGUES_SET_ASIDE if dialogues else STORIES_SET_ASIDE
        _, cache = training_and_validation(splits, read, max_eval=args.max_eval_samples, set_aside=set_aside)
    rows = Rows(cache, length, tokenizer.special, packed=not dialogues, replies_only=dialogues)
    result = evaluate(model, rows, precision)
    return {"loss": result["val_loss"], "perplexity": result["perplexity"], "bits_per_byte": result["bits_per_byte"]}


# Texts that the models write ------------------------------------------------------------------------------------------


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


def make_judge(args: argparse.Namespace) -> Judge:
    rubric = Path(args.judge_rubric).read_text(encoding="utf-8", errors="replace").strip()
    return Judge(
        endpoint(args.judge), args.judge_model, rubric, Path(args.cache_dir) / "judge", args.judge_limit,
        key_from(args.judge_key_variable), args.judge_key_variable,
    )  # fmt: skip


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


# The results ----------------------------------------------------------------------------------------------------------


def rows_of(scored: list[Scored]) -> Iterator[tuple[str, list]]:
    """Yield (measure, [its value for each model]) for the measures that at least one model has."""
    for measure in MEASURES:
        values = [one.scores.get(measure) for one in scored]
        if any(value is not None for value in values):
            yield measure, values


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
        yield f"  {label:{LABEL_WIDTH - 2}}" + "".join(f"{cell:>{COLUMN_WIDTH}}" for cell in cells)
    if any(one.passage for one in scored):
        yield "longest copied passage of each"
        for letter, one in zip(letters, scored, strict=True):
            yield f"  {letter}: {one_line(without_controls(one.passage), PASSAGE_SHOWN)}"


def write_output(scored: list[Scored], args: argparse.Namespace, chat: bool | None) -> None:
    names = ["dataset", "training_set", "prompts_file", "max_eval_samples", "max_train_samples", "judge_model"]
    names += [item.name for item in dataclasses.fields(Sampling)]
    content = {
        "about": {name: getattr(args, name) for name in names} | {"chat": chat},
        "measures": {name: definition for name, (_, _, definition) in MEASURES.items()},
        "models": [{"model": one.name, "scores": one.scores, "samples": one.samples} for one in scored],
    }
    write_json(args.output, content)
    log.info(f"wrote {args.output}")


def write_csv(scored: list[Scored], path: str) -> None:
    """Write the table as CSV; a missing value is an empty cell."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["measure", *(one.name for one in scored)])
    writer.writerows([measure, *values] for measure, values in rows_of(scored))
    with written_atomically(path) as file:
        file.write(text.getvalue().encode(errors="replace"))
    log.info(f"wrote {path}")


# The program ----------------------------------------------------------------------------------------------------------


def load_with_its_tokenizer(path: str, tokenizers: list[Tokenizer], device) -> tuple[Transformer, Tokenizer]:
    """Load a model; return it with its tokenizer.  Raises UserError if none of the tokenizers is the right one."""
    model, content = load_model(path, device=device)
    trained_with = content.get("tokenizer_fingerprint")
    matching = [tokenizer for tokenizer in tokenizers if tokenizer.fingerprint == trained_with]
    tokenizer = matching[0] if matching else tokenizers[0]
    check_tokenizer(path, content, model.config, tokenizer)
    return model, tokenizer


def score_models(paths: list[str], args: argparse.Namespace) -> tuple[list[Scored], bool | None, bool]:
    """Return (a Scored for each path, whether they are chat models, whether the held-out text is dialogues)."""
    scored = [Scored(path, read_samples(path) if is_samples(path) else []) for path in paths]
    asked = [one for one in scored if not is_samples(one.name)]
    if not asked:
        return scored, args.chat, False
    sampling = settings_from(args, Sampling)
    tokenizers = [load_tokenizer(path) for path in args.tokenizer_path]
    prompts = read_prompts(args.prompts_file) if args.prompts_file else []
    splits = open_dataset(args.dataset) if args.dataset else {}
    dialogues = bool(splits) and holds_dialogues(splits["train"], args.text_column)
    chat = args.chat
    if chat is None:
        chat = dialogues or any(isinstance(prompt.prompt, list) for prompt in prompts)
    if prompts:
        log.info(f"asked as {'chat' if chat else 'story'} models; if that is wrong, pass --{'no-' if chat else ''}chat")
    device = choose_device(args.device)
    for one in asked:
        model, tokenizer = load_with_its_tokenizer(one.name, tokenizers, device)
        if splits:
            precision = Precision(device, amp=None)  # as in the trainers without flags
            one.scores |= held_out_scores(model, tokenizer, splits, args, dialogues, precision)
        if prompts:
            one.samples = ask(Writer(ready_to_write(model, BATCH_SIZE), tokenizer, sampling, one.name), prompts, chat)
    return scored, chat, dialogues


def main() -> None:
    args = parse_args()
    judge = make_judge(args) if args.judge else None
    training_splits = [open_training_set(name) for name in args.training_set]
    scored, chat, dialogues = score_models(args.models, args)
    writers = [one for one in scored if one.samples]
    for one in writers:
        one.scores |= written_scores(one.samples)
    if training_splits:
        score_copying(writers, training_splits, args)
    try:
        if judge:
            grade_samples(writers, judge)
    finally:  # an error of the judge must not lose the other scores
        if judge:
            log.info(judge.summary())
            for one in writers:
                one.scores |= judged_scores(one.samples)
        print(*table(scored, dialogues), sep="\n")
        if args.output:
            write_output(scored, args, chat)
        if args.csv:
            write_csv(scored, args.csv)


if __name__ == "__main__":
    run_program(main)
