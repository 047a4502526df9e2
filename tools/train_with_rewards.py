"""Step 6, optional: train a chat model with rewards for its own replies.

    python tools/train_with_rewards.py --pretrained_model_path tinystories_chat_model/best_model.pth \\
        --prompts_file prompts.jsonl
    python tools/train_with_rewards.py --pretrained_model_path tinystories_chat_model/best_model.pth \\
        --prompts_file prompts.jsonl --method dpo --pairs_file pairs.jsonl

Step 4 shows the model good replies.  Here it replies itself, a few lines of Python say how good each reply is, and good
replies become more probable.  docs/rewards.md explains both methods:

    grpo    reply several times to each prompt, and learn from the differences (Shao et al. 2024)
    dpo     learn from pairs of a better and a worse reply (Rafailov et al. 2023), from --pairs_file; if there is no
            such file, the model's own replies become pairs first

A tenth of the prompts is set aside.  The model with the highest reward for these becomes best_model.pth.
"""

import argparse
import copy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rewards.dpo import Dpo, DpoSettings, Pair, make_pairs, read_pairs
from rewards.grpo import Grpo, GrpoSettings
from rewards.replies import Asker, Exam, TaskRows, prompt_ids
from rewards.weighted import OURS, Reward, parse_rewards

from common.console import log
from common.errors import UserError
from common.files import check_outputs, naming_flag
from common.flags import FlagParser, add_fields, parse_flags, settings_from
from common.program import run_program
from common.text import without_controls
from common.weights_files import load_model
from corpus.notes import ReadingFlags, add_reading_flags
from corpus.sources import open_dataset
from corpus.splits import DIALOGUES_SET_ASIDE, validation_texts
from corpus.token_cache import TokenCache, cache_dialogues, default_cache_dir
from data import Rows, Tokenizer, load_tokenizer
from generation.prompt_files import BATCH_SIZE, Prompt, file_fingerprint, read_prompts
from generation.sampling import MAX_NEW_TOKENS, Sampling
from generation.writer import Writer
from training.job import Job
from training.loop import train
from training.lora import add_adapters
from training.settings import add_training_flags, seed_everything, start_run

DATASET = "bochen0909/tinystories-conversations"
METHODS = {"grpo": GrpoSettings, "dpo": DpoSettings}
OF_METHOD = {  # defaults that differ between the methods
    "grpo": {"lr": 3e-4, "max_steps": 200, "batch_size": 64},
    "dpo": {"lr": 1e-4, "epochs": 3, "batch_size": 16},
}  # fmt: skip
LORA_LEARNING_RATE = 1e-3  # measured with grpo
PILOT = {"max_steps": 100, "eval_steps": 20, "max_eval_samples": 200}
NOT_HERE = ("minutes", "compile")  # flags of the other trainers
USUAL_REWARDS = ("words=1", "ends=0.5")
REWARDS_WITHOUT_WORDS = ("ends=0.5", "no_repeat=0.5")  # if no prompt names words
SET_ASIDE = 0.1  # share of the prompts
MOST_SET_ASIDE = 64

# Flags ----------------------------------------------------------------------------------------------------------------


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = FlagParser(__doc__)
    parser.usage = "python tools/train_with_rewards.py [flags]"
    parser.add_argument(
        "--pretrained_model_path",
        help="the model to start from: step 4's best_model.pth (required, here or in --config)",
    )
    parser.add_argument(
        "--prompts_file", help='a .txt, .json, .jsonl or .csv file of messages, with "words" for the reward `words`'
    )
    parser.add_argument("--method", default="grpo", choices=METHODS, help="how to learn (default: %(default)s)")
    parser.add_argument(
        "--reward", action="append", default=[], metavar="NAME=WEIGHT",
        help=f"what is good about a reply: {', '.join(OURS)}; can be repeated (default: {' '.join(USUAL_REWARDS)}, or "
        f"{' '.join(REWARDS_WITHOUT_WORDS)} if no prompt has words; none with --reward_file)",
    )  # fmt: skip
    parser.add_argument(
        "--reward_file", action="append", default=[], metavar="FILE.py:FUNCTION=WEIGHT",
        help="a reward of your own; can be repeated. The code in the file is run: pass only files that you trust",
    )  # fmt: skip
    parser.add_argument(
        "--dataset", default=DATASET,
        help="hub name, folder or file of dialogues; only the loss on its validation split is measured "
        "(default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--tokenizer_path",
        default="bpe_tokenizer_tinystories.pkl",
        help="tokenizer file from step 1 (default: %(default)s)",
    )
    parser.add_argument(
        "--lora_rank", type=int, default=0,
        help=f"train only adapters of this rank, with --lr {LORA_LEARNING_RATE}; 0: the whole model "
        "(default: %(default)s)",
    )  # fmt: skip
    add_fields(parser.add_argument_group("--method grpo"), GrpoSettings, {})
    of_dpo = " ".join(f"--{name} {value:g}" for name, value in OF_METHOD["dpo"].items())
    group = parser.add_argument_group(f"--method dpo, which sets {of_dpo}")
    group.add_argument(
        "--pairs_file", help='a file of rows with "prompt", "chosen" and "rejected"; made if it does not exist'
    )
    add_fields(group, DpoSettings, {})
    group = parser.add_argument_group("replies")
    group.add_argument(
        "--max_new_tokens", type=int,
        help=f"tokens of a reply at most (default: {MAX_NEW_TOKENS}, or fewer if the context is short)",
    )  # fmt: skip
    group.add_argument(
        "--temperature", type=float, default=1.0, help="of the replies to learn from (default: %(default)s)"
    )
    group = parser.add_argument_group("the data")
    group.add_argument(
        "--cache_dir", default=str(default_cache_dir()), help="folder for tokenized text (default: %(default)s)"
    )
    group.add_argument("--max_eval_samples", type=int, help="at most this many validation texts (default: all)")
    add_reading_flags(group, dialogues=True)
    defaults = {"epochs": None, "weight_decay": 0.0, "logging_steps": 10}
    add_training_flags(parser, "tinystories_reward_model", NOT_HERE, **defaults | OF_METHOD["grpo"])
    args = parse_flags(parser, flags_below, argv)
    check(args)
    return args


def flags_below(given: dict) -> dict:
    """Return the flags that --method, --lora_rank and --pilot_run set, if they are given."""
    flags = dict(OF_METHOD[given.get("method", "grpo")])
    if given.get("lora_rank"):
        flags["lr"] = LORA_LEARNING_RATE
    if given.get("pilot_run"):
        flags |= PILOT
    return flags


def check(args: argparse.Namespace) -> None:
    """Raise UserError for a flag that is missing or makes no sense with another."""
    if args.pretrained_model_path is None:
        raise UserError("--pretrained_model_path is missing; pass step 4's best_model.pth")
    if args.method == "grpo" and args.prompts_file is None:
        raise UserError("--prompts_file is missing; pass a file with a message per line, or with rows")
    if args.method == "dpo" and args.pairs_file is None:
        raise UserError("--method dpo needs --pairs_file; if there is no such file, it is made from --prompts_file")
    if args.method == "grpo" and args.pairs_file is not None:
        raise UserError("--pairs_file is for --method dpo, not for --method grpo")
    if args.lora_rank < 0:
        raise UserError(f"--lora_rank must be 0 or more, not {args.lora_rank}")
    if args.lora_rank and args.optimizer == "muon":
        raise UserError("--optimizer muon updates whole matrices, --lora_rank parts of them; pass only one of them")
    if not args.temperature > 0:
        raise UserError(f"--temperature must be above 0, not {args.temperature}: replies to one prompt must differ")
    for method, settings_class in METHODS.items():
        given = settings_from(args, settings_class)  # raises UserError for values that make no sense
        for name, usual in vars(settings_class()).items():
            is_for_both = name == "group_size"
            if method != args.method and not is_for_both and getattr(given, name) != usual:
                raise UserError(f"--{name} is for --method {method}, not for --method {args.method}")
    rows = args.batch_size * args.gradient_accumulation_steps
    if args.method == "grpo" and rows % args.group_size:
        raise UserError(
            f"a step of {rows} replies (--batch_size times --gradient_accumulation_steps) cannot be split into groups "
            f"of --group_size {args.group_size}; pass a multiple of it"
        )


# Prompts and rewards --------------------------------------------------------------------------------------------------


def choose_rewards(args: argparse.Namespace, prompts: list[Prompt]) -> list[Reward]:
    """Return the rewards of the flags, and log them; without such flags, those that suit the prompts."""
    with_words = sum(bool(words_of(prompt)) for prompt in prompts)
    ours = args.reward
    if not ours and not args.reward_file:
        ours = USUAL_REWARDS if with_words else REWARDS_WITHOUT_WORDS
    rewards = parse_rewards(ours, args.reward_file)
    if any(reward.function is OURS["words"] for reward in rewards):
        if not with_words:
            raise UserError('--reward words: no prompt has "words", like {"prompt": "...", "words": ["cat"]}')
        if with_words < len(prompts):
            log.info(f"{len(prompts) - with_words:,} of {len(prompts):,} prompts have no words: their reward is 1")
    log.info("rewards: " + ", ".join(f"{reward.name} x {reward.weight:g}" for reward in rewards))
    return rewards


def words_of(prompt: Prompt) -> list[str]:
    """Return the words that a prompt's row asks for.  Raises UserError if they are no list of texts."""
    words = prompt.extra.get("words") or []
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise UserError(f'{prompt.place}: "words" must be a list of texts, like ["cat", "ladder"]')
    return words


def count_for_training(prompts: list[Prompt], path: str) -> int:
    """Return how many prompts are for training; the last ones are set aside.  Raises UserError if there are too few."""
    if len(prompts) < 2:
        raise UserError(f"{path} has only one prompt; one is needed for training, and one to be set aside")
    held = max(1, min(round(len(prompts) * SET_ASIDE), MOST_SET_ASIDE))
    count = len(prompts) - held
    log.info(f"{path}: prompts for training: {count:,}; set aside: the last {held:,}")
    return count


def check_pairs_file(args: argparse.Namespace) -> None:
    """Raise UserError if --pairs_file can be neither read nor made."""
    path = Path(args.pairs_file)
    if path.is_file():
        return
    if args.prompts_file is None:
        raise UserError(f"no file {path}; to make it, pass --prompts_file too")
    if path.suffix != ".jsonl":
        raise UserError(f"--pairs_file {path} must end in .jsonl: it gets one JSON object per line")
    check_outputs([args.pairs_file], [args.prompts_file])


# The program ----------------------------------------------------------------------------------------------------------


def main() -> None:
    args = parse_args()
    ranks, run, settings, precision = start_run(args, PILOT)
    if ranks.count > 1:
        raise UserError("this program runs in one process; start it without torchrun")
    if args.pairs_file:
        check_pairs_file(args)
    how = settings_from(args, METHODS[args.method])
    tokenizer = load_tokenizer(args.tokenizer_path)
    model, _ = load_model(args.pretrained_model_path, tokenizer, precision.device, dropout=0.0)
    context = model.config.max_seq_len
    sampling = settings_from(args, Sampling, top_k=0)

    path = args.prompts_file or args.pairs_file
    prompts = read_prompts(path)
    rewards = choose_rewards(args, prompts)
    count = count_for_training(prompts, path)
    writer = Writer(copy.deepcopy(model), tokenizer, sampling)
    asker = Asker(writer, prompts, min(settings.batch_size, BATCH_SIZE), may_shorten=args.max_new_tokens is None)
    exam = Exam(asker, rewards, count, settings.seed)
    validation_cache = held_out_dialogues(args, tokenizer, context)
    validation = Rows(validation_cache, context, tokenizer.special, packed=False, replies_only=True)

    reference = copy.deepcopy(model)
    if args.method == "grpo":
        rows = TaskRows(count, count * how.group_size * how.updates, context)
        task = Grpo(model, reference, exam, how, settings, precision)
    else:
        pairs = pairs_of(args, exam)
        rows = TaskRows(len(pairs), len(pairs), context)
        task = Dpo(reference, exam, pairs, how.beta, settings, precision)

    seed_everything(settings.seed)
    if args.lora_rank:
        trained, weights = add_adapters(model, args.lora_rank)
        log.info(f"LoRA of rank {args.lora_rank}: trains {trained:,} weights, in addition to the model's {weights:,}")

    def write_sample(model):
        writer = Writer(model, tokenizer, Sampling())
        (reply,) = writer.write([prompt_ids(writer, prompts[count])], row_seeds=[0])
        return f"user: {last_message(prompts[count])}\nassistant: {without_controls(reply.text)}"

    fingerprints = fingerprints_of(args, tokenizer, validation_cache) | vars(how)
    fingerprints |= {"method": args.method, "lora_rank": args.lora_rank or None}
    fingerprints |= {name: getattr(writer.sampling, name) for name in ("max_new_tokens", "temperature")}
    fingerprints["reward"] = ", ".join(f"{reward.name}={reward.weight:g}" for reward in rewards)
    train(Job(model, rows, validation, settings, run, precision, fingerprints, write_sample, task=task))
    run.draw_curves()
    run.close()


def last_message(prompt: Prompt) -> str:
    """Return what the user says last in a prompt."""
    return prompt.turns[-1][1] if prompt.turns else prompt.prompt


def fingerprints_of(args: argparse.Namespace, tokenizer: Tokenizer, validation_cache: TokenCache) -> dict:
    """Return fingerprints of all files that the run learns from; a resumed run must have the same."""
    files = [args.prompts_file, args.pairs_file, *(text.rpartition(":")[0] for text in args.reward_file)]
    return {
        "tokenizer": tokenizer.fingerprint,
        "data": [[file_fingerprint(file) for file in files if file], validation_cache.fingerprint()],
        "first model": file_fingerprint(args.pretrained_model_path),
    }


def held_out_dialogues(args: argparse.Namespace, tokenizer: Tokenizer, context: int) -> TokenCache:
    """Return the validation dialogues of --dataset."""

    def read(split, limit):
        return cache_dialogues(split, tokenizer, args.cache_dir, context, settings_from(args, ReadingFlags), limit)

    with naming_flag("--cache_dir", args.cache_dir):
        splits = open_dataset(args.dataset, example="sample_data/conversations")
        return validation_texts(splits, read, args.max_eval_samples, DIALOGUES_SET_ASIDE)


def pairs_of(args: argparse.Namespace, exam: Exam) -> list[Pair]:
    """Return the pairs of --pairs_file, which is made first if it does not exist.

    Without --prompts_file, the prompts of the exam are those of the pairs.
    """
    path = args.pairs_file
    if not Path(path).is_file():
        make_pairs(exam, args.group_size, path)
    elif args.prompts_file:
        log.info(f"{path} exists: its pairs are used; to make new ones, delete it or name another file")
    rows = read_prompts(path) if args.prompts_file else exam.asker.prompts
    in_exam = {repr(exam.asker.prompts[number].prompt) for number in exam.numbers}
    for_training = [row for row in rows if repr(row.prompt) not in in_exam]
    if args.prompts_file and len(for_training) < len(rows):
        log.info(f"{path}: pairs left out, because their prompts are set aside: {len(rows) - len(for_training):,}")
    if not for_training:
        raise UserError(f"{path}: all its prompts are set aside; add pairs of other prompts")
    pairs = read_pairs(for_training, exam.asker.writer)
    if not pairs:
        raise UserError(f"{path}: no pair fits into the model's context; pass shorter ones")
    return pairs


if __name__ == "__main__":
    run_program(main)
