"""Flags: which one wins, which are refused, and that each reaches the code that uses it."""

import contextlib
import dataclasses
import math

import pytest
from programs import main, story, write_rows
from refusals import one_line
from tiny_runs import make_settings

import chat_with_tinystories_model as step5
import generate_tinystories_text as step3
import train_bpe_tokenizer_hf as step1
import train_tinystories_chat_model as step4
import train_tinystories_model as step2
from common.errors import UserError
from common.flags import FlagParser, parse_flags
from data import load_tokenizer
from generation import writer as writing
from training.settings import TrainingSettings, add_training_flags

# Parsing --------------------------------------------------------------------------------------------------------------


def parse(*argv):
    parser = FlagParser("A trainer.")
    add_training_flags(parser, "some_model", epochs=9)
    pilot = {"epochs": 7, "amp_dtype": "bfloat16"}
    return parse_flags(parser, lambda given: pilot if given.get("pilot_run") else {}, argv)


def test_a_flag_at_the_shell_wins_over_the_pilot_and_the_pilot_over_the_default():
    assert (parse().epochs, parse().amp_dtype, parse().lr) == (9, None, TrainingSettings().lr)
    pilot = parse("--pilot_run")
    assert (pilot.epochs, pilot.amp_dtype, pilot.lr) == (7, "bfloat16", TrainingSettings().lr)
    for argv in (("--pilot_run", "--epochs", "2"), ("--epochs", "2", "--pilot_run")):
        assert (parse(*argv).epochs, parse(*argv).amp_dtype) == (2, "bfloat16")
    assert parse("--pilot_run", "--epochs", "9").epochs == 9  # given at the shell, though it equals the default


def test_amp_may_be_on_off_or_left_to_the_device():
    assert parse("--amp").amp is True and parse("--no-amp").amp is False and parse().amp is None


@pytest.mark.parametrize("argv", [("--epoch", "2"), ("--epochs", "two"), ("--scheduler", "steps"), ("--nonsense",)])
def test_a_wrong_flag_is_refused_in_one_line(argv):
    with pytest.raises(UserError, match=argv[0]) as refusal:
        parse(*argv)
    assert one_line(refusal)


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 0}, {"epochs": 0}, {"minutes": 0}, {"gradient_accumulation_steps": 0}, {"logging_steps": 0},
        {"keep_checkpoints": 0}, {"eval_steps": 0}, {"save_steps": -1}, {"warmup_steps": -1}, {"min_lr": -1.0},
        {"weight_decay": -0.1}, {"weight_decay": math.nan}, {"max_grad_norm": -1.0}, {"early_stopping_patience": -1},
        {"batch_size": 100_000}, {"gradient_accumulation_steps": 10**9},
        {"adam_beta1": 1.0}, {"adam_beta2": -0.5}, {"lr": 0.0}, {"lr": math.inf}, {"lr": math.nan}, {"min_lr": 0.5},
    ],
)  # fmt: skip
def test_a_setting_that_makes_no_sense_is_refused_by_its_flag(change):
    with pytest.raises(UserError, match=f"--{next(iter(change))}\\b") as refusal:
        make_settings(**change)
    assert one_line(refusal)


PATHS = [
    (step1, "--dataset --output --from_pretrained"),
    (step2, "--dataset --tokenizer_path --cache_dir --output_dir --resume_from_checkpoint"),
    (step3, "--model_path --tokenizer_path --prompts_file"),
    (step4, "--pretrained_model_path --dataset --tokenizer_path --cache_dir --output_dir"),
    (step5, "--model_path --tokenizer_path --prompts_file"),
]


@pytest.mark.parametrize(("program", "flags"), PATHS, ids=lambda value: getattr(value, "__name__", None))
def test_a_tilde_after_an_equals_sign_is_the_home_folder_in_a_path(program, flags, monkeypatch):
    monkeypatch.setenv("HOME", "/home/mia")
    monkeypatch.setenv("USERPROFILE", "/home/mia")
    needed = ["--pretrained_model_path=a"] if program is step4 else []
    for flag in flags.split():
        value = vars(program.parse_args([*needed, f"{flag}=~/x=0.5"]))[flag.removeprefix("--")]
        assert value in ("/home/mia/x=0.5", ["/home/mia/x=0.5"])


def test_a_tilde_in_a_text_stays_a_tilde():
    assert step1.parse_args(["--inspect=~/x"]).inspect == "~/x"
    assert step3.parse_args(["--prompt=~/x", "--stop=~"]).prompt == "~/x"
    assert step5.parse_args(["--once=~/x"]).once == "~/x"
    assert step2.parse_args(["--output_dir=runs/~/x"]).output_dir == "runs/~/x"


# From the flags to the work -------------------------------------------------------------------------------------------


TRAINING_FLAGS = {
    "batch_size": 6, "epochs": 4, "max_steps": 9, "lr": 0.003, "min_lr": 0.001, "warmup_steps": 7,
    "scheduler": "linear", "weight_decay": 0.2, "adam_beta1": 0.8, "adam_beta2": 0.9, "max_grad_norm": 2.0,
    "gradient_accumulation_steps": 3,
    "seed": 5, "optimizer": "muon", "eval_steps": 11, "save_steps": 12, "keep_checkpoints": 3, "logging_steps": 13,
    "keep_models": 14,
    "early_stopping_patience": 9, "max_bad_steps": 8, "amp": True, "amp_dtype": "bfloat16", "compile": "off",
}  # fmt: skip
NO_MINUTES = {"minutes": None}  # refused together with the others; see test_time_limit.py
MODEL_FLAGS = {
    "num_layers": 2, "hidden_size": 24, "num_heads": 4, "intermediate_size": 40, "max_seq_len": 20, "window_size": 6,
    "dropout": 0.3, "arch": "gpt2", "positions": "rotary", "norm": "rms", "mlp": "swiglu", "bias": False,
    "tie_embeddings": False,
}  # fmt: skip
SAMPLING_FLAGS = {
    "min_new_tokens": 3, "temperature": 0.5, "top_k": 7, "top_p": 0.9, "min_p": 0.02, "repetition_penalty": 1.1,
    "seed": 8,
}  # fmt: skip


def as_flags(values):
    flags = []
    for name, value in values.items():
        switch = f"--{name}" if value is not False else f"--no-{name}"
        flags += [switch] if isinstance(value, bool) else [switch, str(value)]
    return flags


def captured(monkeypatch, program, name):
    """Replace a function of the program by one that records its arguments, and return the list of calls."""
    calls = []
    monkeypatch.setattr(program, name, lambda *args, **kwargs: calls.append((args, kwargs)) or iter(()))
    return calls


def test_every_training_flag_is_tested_here():
    assert TRAINING_FLAGS.keys() | NO_MINUTES.keys() == {item.name for item in dataclasses.fields(TrainingSettings)}


def test_every_sampling_flag_is_tested_here():
    others = {"max_new_tokens", "num_beams", "stop"}
    assert SAMPLING_FLAGS.keys() | others == {item.name for item in dataclasses.fields(writing.Sampling)}


def test_flags_of_step_1_reach_the_tokenizer(course, monkeypatch, tmp_path):
    write_rows(tmp_path / "named.jsonl", [{"story": story(n)} for n in range(40)])
    output = tmp_path / "small.pkl"
    flags = ["--dataset", tmp_path / "named.jsonl", "--text_column", "story", "--sample", 20, "--vocab_size", 300]
    train_tokenizer = step1.train_tokenizer
    seen = []

    def counted(texts, size):
        seen.extend(texts)
        return train_tokenizer(seen, size)

    monkeypatch.setattr(step1, "train_tokenizer", counted)
    main(step1, *flags, "--output", output, folder=course)
    assert len(seen) == 20 and load_tokenizer(output).vocab_size <= 300


def test_flags_of_step_2_reach_the_model_the_settings_and_the_rows(course, monkeypatch, tmp_path):
    calls = captured(monkeypatch, step2, "train")
    data = {"dataset": "stories", "max_train_samples": 30, "max_eval_samples": 4, "batching": "padded"}
    places = {"cache_dir": tmp_path / "cache", "output_dir": tmp_path / "run"}
    main(step2, *as_flags(MODEL_FLAGS | TRAINING_FLAGS | data | places), folder=course)
    ((job,), _) = calls[0]
    assert dataclasses.asdict(job.settings) == TRAINING_FLAGS | NO_MINUTES
    assert {name: getattr(job.model.config, name) for name in MODEL_FLAGS} == MODEL_FLAGS
    assert len(job.rows.cache) == 30 and len(job.validation.cache) == 4
    assert (job.rows.packed, job.rows.length, job.rows.seed, job.validation.packed) == (False, 20, 5, True)
    assert job.run.folder == tmp_path / "run" and list((tmp_path / "cache").iterdir())


def test_flags_of_step_4_reach_the_settings_and_the_rows(course, monkeypatch, tmp_path):
    calls = captured(monkeypatch, step4, "train")
    flags = [*as_flags(TRAINING_FLAGS), "--dataset", "talks", "--cache_dir", tmp_path, "--batching", "packed"]
    flags += ["--pretrained_model_path", "tinystories_model/best_model.pth", "--dropout", 0.25]
    main(step4, *flags, "--output_dir", tmp_path / "run", folder=course)
    ((job,), _) = calls[0]
    assert dataclasses.asdict(job.settings) == TRAINING_FLAGS | NO_MINUTES
    assert job.model.config.dropout == 0.25 and job.model.config.max_seq_len == job.rows.length == 32
    assert job.rows.packed and job.rows.replies_only
    assert job.validation.replies_only and len(job.validation.cache) == 6


@pytest.mark.parametrize(("program", "beams"), [(step3, 1), (step3, 4), (step5, 1)])
def test_sampling_flags_reach_the_generation(course, monkeypatch, program, beams):
    calls = captured(monkeypatch, writing, "generate" if beams == 1 else "beam_search")
    given = SAMPLING_FLAGS if beams == 1 else {"min_new_tokens": 3, "repetition_penalty": 1.1}
    flags = [*as_flags(given), "--max_new_tokens", 9, "--num_beams", beams, "--stop", "The", "--stop", "End"]
    if program is step5:
        flags += ["--model_path", "tinystories_chat_model/best_model.pth", "--once", "Hi"]
    monkeypatch.setattr(writing.Writer, "finished", lambda *_: writing.Written("", 0, ""))
    with contextlib.suppress(IndexError):  # nothing is written
        main(program, *flags, folder=course)
    (_, prompts, sampling, rules, *_), _ = calls[0]
    assert {name: getattr(sampling, name) for name in given} == given and len(prompts) == 1
    assert sampling.max_new_tokens == 9 and sampling.num_beams == beams
    tokenizer = load_tokenizer(course / "bpe_tokenizer_tinystories.pkl")
    assert rules.end == tokenizer.special["<eos>"] and len(rules.banned) == 6
    assert rules.has_ended(tokenizer.encode("The")) and rules.has_ended(tokenizer.encode("xEnd"))


def test_max_length_counts_the_prompt(course, monkeypatch):
    calls = captured(monkeypatch, writing, "generate")
    main(step3, "--prompt", "Tom had a cat.", "--max_length", 20, folder=course)
    (_, prompts, sampling, *_), _ = calls[0]
    assert len(prompts[0]) - 1 + sampling.max_new_tokens == 20
