"""Score models side by side: on held-out text, and on what they write.

    python tools/evaluate_model.py tinystories_model/best_model.pth --dataset sample_data/stories \\
        --prompts_file prompts.jsonl --training_set sample_data/stories --output scores.json --csv scores.csv
    python tools/evaluate_model.py before.jsonl after.jsonl --training_set sample_data/conversations

A MODEL is a model file (.pth), which is asked the prompts here, or a file of samples (.jsonl) that
generate_tinystories_text.py or chat_with_tinystories_model.py wrote with --output_file, which is scored as it stands.
All models are asked alike: as chat models if --dataset or the prompts hold dialogues, unless --chat or --no-chat says
otherwise.  What is scored of a text is what the model wrote, without the prompt.

The table goes to stdout, everything else to stderr.
"""

import argparse
import csv
import dataclasses
import io
import json
import sys
import textwrap
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
from common.program import run_program
from common.text import without_controls
from common.weights_files import load_model
from corpus.dialogues import read_dialogues, read_turns
from corpus.sources import BadRows, json_lines, open_dataset, read_stories
from corpus.splits import DIALOGUES_SET_ASIDE, STORIES_SET_ASIDE, training_and_validation
from corpus.token_cache import cache_dialogues, cache_stories, default_cache_dir
from data import Rows, load_tokenizer
from generation.prompt_files import Samples, read_prompts
from generation.sampling import Sampling
from generation.writer import Writer
from training.settings import add_skip_flag
from training.step import evaluate

LONG_PASSAGE = 12  # words in a row; more of them are hardly a coincidence
LABEL_WIDTH, COLUMN_WIDTH = 36, 12
PASSAGE_SHOWN = 200  # characters

# name: (label, format, definition), in the order of the table
MEASURES = {
    "loss": ("loss", "{:.4f}", "mean cross-entropy in nats a token of held-out text, as the trainers' val_loss"),
    "perplexity": ("perplexity", "{:.5g}", "e^loss"),
    "bits_per_byte": ("bits per byte", "{:.4f}", "that loss for a byte of text; compares across tokenizers"),
    "texts": ("texts written", "{:,}", "how many samples the rows below are made of"),
    "words": ("words", "{:.1f}", "mean length; a word is a run of letters and digits, in lower case"),
    "tokens": ("tokens", "{:.1f}", "mean length, <eos> included where the samples count it"),
    "ended": ("end by themselves", "{:.1%}", "share of the texts that <eos> ended"),
    "distinct_1": ("distinct-1", "{:.3f}", "different words of all texts over all words (Li et al. 2016)"),
    "distinct_2": ("distinct-2", "{:.3f}", "the same for 2 words in a row"),
    "distinct_3": ("distinct-3", "{:.3f}", "the same for 3; falls with more text, so compare on the same prompts"),
    "repeated_4": (
        "repeated 4-grams", "{:.1%}",
        "share of a text's 4-grams that occurred before in it, mean over texts (seq-rep-4, Welleck et al. 2020)",
    ),
    "copied_longest": ("longest copied passage, words", "{:,}", "most words in a row that a training text has, too"),
    "copied_mean": ("copied passage, words, mean", "{:.1f}", "each text's longest one, mean over texts"),
    "copied_over_12": ("over 12 words copied", "{:.1%}", "share of the texts whose longest one has more than 12 words"),
    "copied_5": ("5-grams found in training", "{:.1%}", "share of all texts' 5-grams that a training text has, too"),
    "wanted_words": (
        "all wanted words come back", "{:.1%}",
        "of the prompts with a list `words` (in a .csv: separated by commas): share whose words all occur in the text, "
        "a plural s allowed",
    ),
    "prompt_words": (
        "prompt's words that come back", "{:.1%}",
        "of the other prompts: share of the prompt's content words (of the last turn's, in a dialogue) that occur in "
        "the text, a plural s allowed, mean over texts",
    ),
    "graded": ("texts graded", "{:,}", "texts that the judge gave grades"),
    "grammar": ("grammar, of 10", "{:.2f}", "the judge's mean grade (Eldan & Li 2023, section 4.1)"),
    "creativity": ("creativity, of 10", "{:.2f}", "the same"),
    "consistency": ("consistency, of 10", "{:.2f}", "the same, with the beginning"),
    "age_group": (
        "age group", "{}",
        "the median guess, the younger of two: " + ", ".join(f"{name} {ages}" for name, ages in AGE_GROUPS.items()),
    ),
}  # fmt: skip
SECTIONS = {"loss": "on held-out text", "texts": "on what they write", "graded": "as the judge says"}


@dataclass
class Scored:
    """A model or a file of samples.  samples: what it wrote, see `read_samples`; scores: {name in MEASURES: value}."""

    name: str
    samples: list = field(default_factory=list)
    scores: dict = field(default_factory=dict)
    passage: str = ""  # the longest that was copied


# Flags ----------------------------------------------------------------------------------------------------------------


def parse_args(argv=None):
    parser = FlagParser(__doc__)
    parser.usage = "python tools/evaluate_model.py MODEL [MODEL ...] [flags]"
    beside = {"width": 118, "subsequent_indent": " " * LABEL_WIDTH}
    lines = [textwrap.fill(f"  {label:{LABEL_WIDTH - 2}}{text}", **beside) for label, _, text in MEASURES.values()]
    parser.epilog = "\n".join(["the measures:", *lines])
    parser.add_argument("models", nargs="+", metavar="MODEL", help="a model file (.pth) or a file of samples (.jsonl)")
    parser.add_argument(
        "--tokenizer_path", nargs="+", default=["bpe_tokenizer_tinystories.pkl"], metavar="FILE",
        help="one for all models, or several: each model takes the one it was trained with (default: step 1's)",
    )  # fmt: skip
    parser.add_argument(
        "--chat", action=argparse.BooleanOptionalAction,
        help="the prompts are what a user says, not a story's beginning (default: if --dataset or they hold dialogues)",
    )  # fmt: skip
    parser.add_argument("--device", default="auto", help="auto takes cuda, then mps, then cpu (default: %(default)s)")
    group = parser.add_argument_group("text")
    group.add_argument(
        "--dataset", help="held-out text: its validation split, else the last of its training texts; as for a trainer"
    )
    group.add_argument("--text_column", default="text", help="the column that holds a story (default: %(default)s)")
    group.add_argument("--max_eval_samples", type=int, help="use only so many held-out texts (default: all)")
    group.add_argument(
        "--training_set", nargs="+", default=[], metavar="DATASET",
        help="what the models learned from, stories and dialogues (only the replies): what did they copy?",
    )  # fmt: skip
    group.add_argument("--max_train_samples", type=int, help="look only at so many texts of each (default: all)")
    group.add_argument(
        "--cache_dir", default=str(default_cache_dir()),
        help="for tokenized text and the judge's grades (default: %(default)s)",
    )  # fmt: skip
    add_skip_flag(group)
    group = parser.add_argument_group("writing")
    group.add_argument("--prompts_file", help="what to ask: .txt, .json, .jsonl or .csv, as for the writing programs")
    add_fields(group, Sampling, {})
    group = parser.add_argument_group("results")
    group.add_argument("--output", metavar="FILE", help="write scores and samples as JSON")
    group.add_argument("--csv", metavar="FILE", help="write the table as CSV")
    group = parser.add_argument_group("the judge")
    group.add_argument(
        "--judge",
        metavar="URL",
        help="an OpenAI-compatible endpoint that grades the texts, as http://localhost:8000/v1",
    )
    group.add_argument("--judge_model", help="the name that it has there")
    rubric = Path(__file__).resolve().parent / "scoring/judge_rubric.txt"
    group.add_argument(
        "--judge_rubric", default=rubric, metavar="FILE", help="how to grade (default: tools/scoring/judge_rubric.txt)"
    )
    group.add_argument(
        "--judge_limit", type=int, default=1000, help="requests at most, repeated ones too (default: %(default)s)"
    )
    group.add_argument(
        "--judge_key_variable", default="OPENAI_API_KEY", metavar="NAME",
        help="the environment variable that holds the key, if it needs one (default: %(default)s)",
    )  # fmt: skip
    return checked(parser.parse_args(argv))


def checked(args):
    """Raise UserError for what can be said before any work is done."""
    for name in ("max_eval_samples", "max_train_samples", "judge_limit"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UserError(f"--{name} must be at least 1, not {getattr(args, name)}")
    for path in args.models:
        if not Path(path).is_file():
            raise UserError(f"no file {path}; pass a model file (.pth) or a file of samples (.jsonl)")
    if len(set(args.models)) < len(args.models):
        raise UserError("one MODEL is named twice")
    asked = [path for path in args.models if not is_samples(path)]
    if asked and not args.dataset and not args.prompts_file:
        raise UserError(f"nothing to score {asked[0]} on; pass --dataset, --prompts_file or both")
    for name in ("dataset", "prompts_file"):
        if getattr(args, name) and not asked:
            raise UserError(f"--{name} is for model files, and there are only samples to score")
    if args.prompts_file and not Path(args.prompts_file).is_file():
        raise UserError(f"no file {args.prompts_file}; pass --prompts_file one that is there")
    read = [*args.models, args.prompts_file, args.dataset, *args.training_set, args.judge_rubric]
    others = {Path(path).resolve() for path in read if path}
    for path in filter(None, (args.output, args.csv)):
        if Path(path).resolve() in others:
            raise UserError(f"{path} would be overwritten, and is used for something else; write to another file")
        others.add(Path(path).resolve())
        if not Path(path).parent.is_dir() or Path(path).is_dir():
            raise UserError(f"cannot write {path}: it is a folder, or its folder is not there")
    writes = args.prompts_file or len(asked) < len(args.models)
    for name in ("training_set", "judge"):
        if getattr(args, name) and not writes:
            raise UserError(f"--{name} scores what the models write; pass --prompts_file, too")
    if args.judge and not args.judge_model:
        raise UserError("--judge needs --judge_model, the name of the model that grades")
    return args


def is_samples(path):
    return Path(path).suffix == ".jsonl"


# Held-out text --------------------------------------------------------------------------------------------------------


def holds_dialogues(split, column):
    """Whether a split's rows are dialogues: the first one that can be read has no column of stories."""
    first = next((row for row, _ in split.rows() if isinstance(row, dict)), {})
    return column not in first


def held_out_scores(model, tokenizer, splits, args, dialogues, precision):
    """{"loss", "perplexity", "bits_per_byte"} on the texts that the trainers evaluate on, in the way they do it."""
    length, special = model.config.max_seq_len, tokenizer.special

    def read(split, limit):
        if dialogues:
            return cache_dialogues(split, tokenizer, args.cache_dir, length, limit, args.skip_bad_rows)
        return cache_stories(split, tokenizer, args.cache_dir, args.text_column, limit, args.skip_bad_rows)

    if "validation" in splits:
        cache = read(splits["validation"], args.max_eval_samples)
    else:
        set_aside = DIALOGUES_SET_ASIDE if dialogues else STORIES_SET_ASIDE
        _, cache = training_and_validation(splits, read, max_eval=args.max_eval_samples, set_aside=set_aside)
    rows = Rows(cache, length, special, packed=not dialogues, replies_only=dialogues)
    result = evaluate(model, rows, precision)
    return {"loss": result["val_loss"], "perplexity": result["perplexity"], "bits_per_byte": result["bits_per_byte"]}


# What the models write ------------------------------------------------------------------------------------------------


def ask(writer, prompts, chat):
    """What a model writes to prompts: rows like those of `read_samples`."""
    samples = Samples(writer, prompts, chat=chat)
    bar = tqdm(unit=" texts", total=len(samples), leave=False, disable=not sys.stderr.isatty())
    with bar:
        return [row for rows in samples.rows() for row in rows if not bar.update()]


def read_samples(path):
    """The rows of a file that --output_file wrote: dicts with `text`, perhaps `prompt`, `tokens`, `ended`, `words`."""
    kinds, rows = {"prompt": (str, list), "tokens": int, "ended": str, "words": (list, str)}, []
    for row, place in json_lines(path):
        if isinstance(row, UserError):
            raise UserError(str(row).replace(", or pass --skip_bad_rows", ""))
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise UserError(f'{place}: no "text"; pass a file that was written with --output_file')
        for name, kind in kinds.items():
            if row.get(name) is not None and not isinstance(row[name], kind):
                raise UserError(f'{place}: "{name}" holds {one_line(json.dumps(row[name]))}; mend it')
        if isinstance(row.get("prompt"), list):
            try:
                read_turns(row["prompt"])
            except ValueError as error:
                raise UserError(f"{place}: {error}; mend it") from None
        rows.append(row)
    if not rows:
        raise UserError(f"no samples in {path}; pass a file that was written with --output_file")
    return rows


def last_turn(prompt):
    """The text of a prompt, of a dialogue its last turn's."""
    if isinstance(prompt, str):
        return prompt
    return read_turns(prompt)[-1][1] if prompt else ""


def written_scores(samples):
    """The measures of texts that need nothing beside them and their prompts."""
    texts = [measures.words(sample["text"]) for sample in samples]
    ended = [None if sample.get("ended") is None else sample["ended"] == "eos" for sample in samples]
    wanted, others = [], []
    for sample, text in zip(samples, texts, strict=True):
        if words := sample.get("words"):
            words = words.split(",") if isinstance(words, str) else map(str, words)  # a string from a .csv
            wanted.append(measures.words_come_back(words, text))
        else:
            others.append(measures.content_words_come_back(last_turn(sample.get("prompt") or ""), text))
    return {
        "texts": len(samples),
        "words": measures.mean(map(len, texts)),
        "tokens": measures.mean(sample.get("tokens") for sample in samples),
        "ended": measures.mean(ended),
        **{f"distinct_{n}": measures.distinct(texts, n) for n in (1, 2, 3)},
        "repeated_4": measures.mean(measures.repeated(text, 4) for text in texts),
        "wanted_words": measures.mean(wanted),
        "prompt_words": measures.mean(others),
    }


# What they copied -----------------------------------------------------------------------------------------------------


def open_training_set(name):
    """The split that a model learned from."""
    try:
        return open_dataset(name)["train"]
    except UserError as error:
        raise UserError(str(error).replace("--dataset", "--training_set")) from None


def training_texts(split, args):
    """Yield the texts that a model learned to write from a split: stories, or what the assistant says in dialogues."""
    bad = BadRows(args.skip_bad_rows)
    if holds_dialogues(split, args.text_column):
        for dialogue in read_dialogues(split, args.max_train_samples, bad):
            yield from (text for role, text in dialogue if role == "assistant")
    else:
        yield from read_stories(split, args.text_column, args.max_train_samples, bad)
    if bad.count:
        log.info(f"{split.name}: {bad.summary()}")


def score_copying(scored, splits, args):
    """Add the measures of copying to the scores: one pass through the training sets for all models together."""
    texts = [[measures.words(sample["text"]) for sample in one.samples] for one in scored]
    passages = measures.CopiedPassages(list(chain.from_iterable(texts)))
    for split in splits:
        count = 0
        log.info(f"{split.name}: looking for passages that were copied")
        for text in tqdm(training_texts(split, args), unit=" texts", leave=False, disable=not sys.stderr.isatty()):
            passages.compare(measures.words(text))
            count += 1
        log.info(f"{split.name}: compared with {count:,} texts")
    matches = iter(passages.matches())
    for one, own_texts in zip(scored, texts, strict=True):
        own = [next(matches) for _ in own_texts]
        longest = [max(lengths, default=0) for lengths in own]
        found, grams = (sum(counts) for counts in zip(*map(measures.copied_ngrams, own), strict=True))
        for sample, text, lengths in zip(one.samples, own_texts, own, strict=True):
            sample["copied"] = " ".join(measures.longest_passage(text, lengths))
        one.passage = one.samples[longest.index(max(longest))]["copied"]
        one.scores |= {
            "copied_longest": max(longest),
            "copied_mean": measures.mean(longest),
            "copied_over_12": measures.mean(length > LONG_PASSAGE for length in longest),
            "copied_5": found / grams if grams else None,
        }


# The judge ------------------------------------------------------------------------------------------------------------


def make_judge(args):
    try:
        rubric = Path(args.judge_rubric).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise UserError(f"--judge_rubric {args.judge_rubric} cannot be read; pass a file of UTF-8 text") from None
    return Judge(
        endpoint(args.judge), args.judge_model, rubric, Path(args.cache_dir) / "judge", args.judge_limit,
        key_from(args.judge_key_variable), args.judge_key_variable,
    )  # fmt: skip


def beginning_of(prompt):
    """A prompt as the judge reads it."""
    return prompt if isinstance(prompt, str) else "\n".join(f"{role}: {text}" for role, text in read_turns(prompt))


def score_judged(scored, judge):
    """Add the judge's grades to the samples, and their means to the scores, also where the judge ends with an error.

    The models' texts come in turn, so that a limit on the requests leaves each model as many grades.
    """
    in_turn = chain.from_iterable(zip_longest(*(one.samples for one in scored)))
    samples = [sample for sample in in_turn if sample is not None]
    try:
        for sample in tqdm(samples, unit=" grades", leave=False, disable=not sys.stderr.isatty()):
            if grades := judge.grade(beginning_of(sample.get("prompt") or ""), sample["text"]):
                sample["grades"] = grades
    finally:
        log.info(judge.summary())
        for one in scored:
            graded = [sample["grades"] for sample in one.samples if "grades" in sample]
            ages = sorted(grades["age_group"] for grades in graded)
            one.scores |= {name: measures.mean(grades[name] for grades in graded) for name in GRADES}
            one.scores |= {"graded": len(graded), "age_group": ages[(len(ages) - 1) // 2] if ages else None}


# The results ----------------------------------------------------------------------------------------------------------


def table(scored, dialogues):
    """The lines of the table: a row a measure that any model has, a column a model."""
    names = [chr(ord("A") + number) if number < 26 else f"M{number + 1}" for number in range(len(scored))]
    yield from (f"{name}: {one.name}" for name, one in zip(names, scored, strict=True))
    yield ""
    yield " " * LABEL_WIDTH + "".join(f"{name:>{COLUMN_WIDTH}}" for name in names)
    for measure, (label, form, _) in MEASURES.items():
        values = [one.scores.get(measure) for one in scored]
        if measure in SECTIONS and any(value is not None for value in values):
            yield SECTIONS[measure] + (" (what the assistant says)" if measure == "loss" and dialogues else "")
        if any(value is not None for value in values):
            cells = ["-" if value is None else form.format(value) for value in values]
            yield f"  {label:{LABEL_WIDTH - 2}}" + "".join(f"{cell:>{COLUMN_WIDTH}}" for cell in cells)
    if any(one.passage for one in scored):
        yield "the longest passage that each copied"
        for name, one in zip(names, scored, strict=True):
            yield f"  {name}: {one_line(without_controls(one.passage), PASSAGE_SHOWN)}"


def write_results(scored, args, chat):
    """Write --output and --csv."""
    if args.output:
        names = ("dataset", "training_set", "prompts_file", "max_eval_samples", "max_train_samples", "judge_model")
        names += tuple(item.name for item in dataclasses.fields(Sampling))
        about = {name: getattr(args, name) for name in names} | {"chat": chat}
        definitions = {name: definition for name, (_, _, definition) in MEASURES.items()}
        models = [{"model": one.name, "scores": one.scores, "samples": one.samples} for one in scored]
        write_json(args.output, {"about": about, "measures": definitions, "models": models})
        log.info(f"wrote {args.output}")
    if args.csv:
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["measure", *(one.name for one in scored)])
        for measure in MEASURES:
            values = [one.scores.get(measure) for one in scored]
            if any(value is not None for value in values):
                writer.writerow([measure, *("" if value is None else value for value in values)])
        with written_atomically(args.csv) as file:
            file.write(text.getvalue().encode(errors="replace"))
        log.info(f"wrote {args.csv}")


# The program ----------------------------------------------------------------------------------------------------------


def load_with_its_tokenizer(path, tokenizers, device):
    """(model, the one of the tokenizers that it was trained with)."""
    if len(tokenizers) == 1:
        return load_model(path, tokenizers[0], device)[0], tokenizers[0]
    model, content = load_model(path, device=device)
    for tokenizer in tokenizers:
        if (tokenizer.fingerprint, tokenizer.vocab_size) == (content["tokenizer_fingerprint"], model.config.vocab_size):
            return model, tokenizer
    raise UserError(f"{path} was trained with none of these tokenizers; add the one it was to --tokenizer_path")


def score_models(paths, args):
    """([Scored for each path], whether they are asked as chat models, whether the held-out text is dialogues)."""
    files = {path: read_samples(path) for path in paths if is_samples(path)}
    if len(files) == len(paths):
        return [Scored(path, rows) for path, rows in files.items()], args.chat, False
    sampling = settings_from(args, Sampling)
    tokenizers, prompts = [load_tokenizer(path) for path in args.tokenizer_path], []
    splits = open_dataset(args.dataset) if args.dataset else None
    if args.prompts_file:
        prompts = read_prompts(args.prompts_file)
    dialogues = splits is not None and holds_dialogues(splits["train"], args.text_column)
    chat = args.chat
    if chat is None:
        chat = dialogues or any(not isinstance(prompt.prompt, str) for prompt in prompts)
    if prompts:
        log.info(f"asked as {'chat' if chat else 'story'} models; if that is wrong: --{'no-' if chat else ''}chat")
    device, scored = choose_device(args.device), []
    for path in paths:
        one = Scored(path, files.get(path, []))
        if path not in files:
            model, tokenizer = load_with_its_tokenizer(path, tokenizers, device)
            if splits:
                precision = Precision(device, amp=None)  # as the trainers without flags
                one.scores |= held_out_scores(model, tokenizer, splits, args, dialogues, precision)
            if prompts:
                one.samples = ask(Writer(ready_to_write(model), tokenizer, sampling, path), prompts, chat)
        scored.append(one)
    return scored, chat, dialogues


def main():
    args = parse_args()
    judge = make_judge(args) if args.judge else None
    training_splits = [open_training_set(name) for name in args.training_set]
    scored, chat, dialogues = score_models(args.models, args)
    writers = [one for one in scored if one.samples]
    for one in writers:
        one.scores |= written_scores(one.samples)
    if training_splits:
        score_copying(writers, training_splits, args)
    failed = None
    if judge:
        try:
            score_judged(writers, judge)
        except UserError as error:  # the other scores are not lost for it
            failed = error
    for line in table(scored, dialogues):
        print(line)
    write_results(scored, args, chat)
    if failed:
        raise failed


if __name__ == "__main__":
    run_program(main)
