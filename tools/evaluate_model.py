"""Compare models: score them on held-out text, on a test of skills, and on the texts that they write.

    python tools/evaluate_model.py tinystories_model/best_model.pth --dataset sample_data/stories \\
        --prompts_file prompts.jsonl --training_set sample_data/stories --output scores.json --csv scores.csv
    python tools/evaluate_model.py before.jsonl after.jsonl --training_set sample_data/conversations
    python tools/evaluate_model.py tinystories_model/best_model.pth --skills

A MODEL is a model file (.pth), which gets the prompts here, or a file of samples (.jsonl) that
generate_tinystories_text.py or chat_with_tinystories_model.py wrote with --output_file.  All models get the prompts in
the same way: as chat models if --dataset or the prompts contain dialogues, else as story models.  --chat and --no-chat
override this.  Only the text that a model wrote is scored, not the prompt.

--skills asks a model file which of two texts is more probable: "The dog was happy." or "The dog were happy."  It takes
seconds, and needs no prompts, no judge and no network; docs/skills.md describes it.

--weights int8 int4 scores each model file again with its weights rounded to 8 and to 4 bits, in columns next to it.

The table goes to stdout, everything else to stderr.
"""

import argparse
import sys
import textwrap
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from formats.quantized import FORMATS, round_weights
from scoring.held_out import held_out_scores, holds_dialogues
from scoring.judge import Judge, endpoint, key_from
from scoring.results import LABEL_WIDTH, MEASURES, Scored, table, write_csv, write_output
from scoring.samples import (
    ask,
    grade_samples,
    judged_scores,
    open_training_set,
    read_samples,
    score_copying,
    written_scores,
)
from scoring.skill_items import SEEDS, SKILLS, items_of
from scoring.skills import answers, log_probabilities, skill_scores

from common.console import log
from common.devices import Precision, choose_device, ready_to_write
from common.errors import UserError
from common.files import check_outputs
from common.flags import FlagParser, add_fields, settings_from
from common.program import run_program
from common.weights_files import check_tokenizer, load_model
from corpus.notes import add_reading_flags
from corpus.sources import open_dataset
from corpus.token_cache import default_cache_dir
from data import Tokenizer, load_tokenizer
from generation.prompt_files import BATCH_SIZE, read_prompts
from generation.sampling import Sampling
from generation.writer import Writer
from model import Transformer

RUBRIC = Path(__file__).resolve().parent / "scoring/judge_rubric.txt"

# Flags ----------------------------------------------------------------------------------------------------------------


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = FlagParser(__doc__)
    parser.usage = "python tools/evaluate_model.py MODEL [MODEL ...] [flags]"
    measures = [(label, definition) for label, _, definition in MEASURES.values()]
    skills = [(skill.label, skill.meaning) for skill in SKILLS.values()]
    parser.epilog = "\n".join(["the measures:", *explained(measures), "the skills:", *explained(skills)])
    parser.add_argument("models", nargs="+", metavar="MODEL", help="a model file (.pth) or a file of samples (.jsonl)")
    parser.add_argument(
        "--tokenizer_path", nargs="+", default=["bpe_tokenizer_tinystories.pkl"], metavar="FILE",
        help="one for all models, or several: each model uses its own (default: the file of step 1)",
    )  # fmt: skip
    parser.add_argument(
        "--chat", action=argparse.BooleanOptionalAction,
        help="prompts are user messages, not beginnings of stories (default: if --dataset or they have dialogues)",
    )  # fmt: skip
    parser.add_argument(
        "--weights", nargs="+", default=[], choices=FORMATS,
        help="score each model file again with its weights rounded to 8 or 4 bits; write MODEL before this flag",
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
    group = parser.add_argument_group("skills")
    group.add_argument(
        "--skills", nargs="?", const="public", choices=SEEDS,
        help="test the skills of model files, with the public set of items or with the second one (default: public)",
    )  # fmt: skip
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
    read = [*args.models, args.prompts_file, args.dataset, *args.training_set, args.judge_rubric, *args.tokenizer_path]
    check_outputs([args.output, args.csv], read)
    return args


def explained(rows: list[tuple[str, str]]) -> list[str]:
    """Return (label, definition) as lines for --help."""
    lines = [f"  {label:{LABEL_WIDTH - 2}}{definition}" for label, definition in rows]
    return [textwrap.fill(line, width=118, subsequent_indent=" " * LABEL_WIDTH) for line in lines]


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
        "nothing to score model files on; pass --dataset, --prompts_file or --skills":
            asked and not args.dataset and not args.prompts_file and not args.skills,
        "--dataset is for model files, but only samples were given": args.dataset and not asked,
        "--skills is for model files, but only samples were given": args.skills and not asked,
        "--prompts_file is for model files, but only samples were given": args.prompts_file and not asked,
        "--weights is for model files, but only samples were given": args.weights and not asked,
        "--weights names a format twice; name each one once": len(set(args.weights)) < len(args.weights),
        "--training_set scores the texts that models write; pass --prompts_file too": args.training_set and not texts,
        "--judge scores the texts that models write; pass --prompts_file too": args.judge and not texts,
        "--judge_model belongs to a judge; pass --judge with its URL too": args.judge_model and not args.judge,
        "--seed, --temperature and so on are for writing; pass --prompts_file too":
            settings_from(args, Sampling) != Sampling() and not args.prompts_file,
        "--judge needs --judge_model, the name of the model that grades": args.judge and not args.judge_model,
        f"--judge_rubric {args.judge_rubric} is not a file; pass a text file": not Path(args.judge_rubric).is_file(),
    }  # fmt: skip
    for message, is_wrong in wrong.items():
        if is_wrong:
            raise UserError(message)


def is_samples(path: str) -> bool:
    return Path(path).suffix == ".jsonl"


# The judge ------------------------------------------------------------------------------------------------------------


def make_judge(args: argparse.Namespace) -> Judge:
    rubric = Path(args.judge_rubric).read_text(encoding="utf-8", errors="replace").strip()
    return Judge(
        endpoint(args.judge), args.judge_model, rubric, Path(args.cache_dir) / "judge", args.judge_limit,
        key_from(args.judge_key_variable), args.judge_key_variable,
    )  # fmt: skip


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
    """Return (the scores, whether they are chat models, whether the held-out text is dialogues).

    The scores are a Scored for each path, and after that of a model file one for each format in args.weights.
    """
    scored = []
    for path in paths:
        if is_samples(path):
            scored.append(Scored(path, samples=read_samples(path)))
        else:
            scored.append(Scored(path))
            scored += [Scored(path, rounded=name) for name in args.weights]
    asked = [one for one in scored if not is_samples(one.path)]
    if not asked:
        return scored, args.chat, False
    sampling = settings_from(args, Sampling)
    tokenizers = [load_tokenizer(path) for path in args.tokenizer_path]
    prompts = read_prompts(args.prompts_file) if args.prompts_file else []
    splits = open_dataset(args.dataset) if args.dataset else {}
    items = items_of(args.skills) if args.skills else []
    dialogues = bool(splits) and holds_dialogues(splits["train"], args.text_column)
    chat = args.chat
    if chat is None:
        chat = dialogues or any(isinstance(prompt.prompt, list) for prompt in prompts)
    if prompts:
        log.info(f"asked as {'chat' if chat else 'story'} models; if that is wrong, pass --{'no-' if chat else ''}chat")
    device = choose_device(args.device)
    for one in asked:
        model, tokenizer = load_with_its_tokenizer(one.path, tokenizers, device)
        size = 4 * model.num_parameters()[1]  # bytes
        if one.rounded:
            size = round_weights(model, one.rounded)
        if args.weights:
            one.scores["megabytes"] = size / 1e6
        if splits:
            precision = Precision(device, amp=None)  # as in the trainers without flags
            one.scores |= held_out_scores(model, tokenizer, splits, args, dialogues, precision)
        if items:
            log.info(f"{one.name}: comparing {len(items):,} pairs of texts")
            one.answers = answers(items, partial(log_probabilities, model, tokenizer))
            one.skills = skill_scores(one.answers)
        if prompts:
            one.samples = ask(Writer(ready_to_write(model, BATCH_SIZE), tokenizer, sampling, one.path), prompts, chat)
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
