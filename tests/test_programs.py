"""The five programs as a student runs them: the whole chain on a tiny model, their flags, and bad input."""

import contextlib
import dataclasses
import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from programs import TINY, command, run, story, write_data, write_rows
from tiny import render_dialogue

import chat_with_tinystories_model as step5
import generate_tinystories_text as step3
import train_bpe_tokenizer_hf as step1
import train_tinystories_chat_model as step4
import train_tinystories_model as step2
from common.errors import UserError
from common.program import run_program
from data import SPECIAL_TOKENS, load_tokenizer
from generation import writer as writing
from training.settings import TrainingSettings


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A folder in which the five steps were run, and what each of them printed."""
    folder = tmp_path_factory.mktemp("course")
    write_data(folder)
    data = ["--dataset", "stories", "--cache_dir", "cache"]
    talks = [
        "--dataset",
        "talks",
        "--cache_dir",
        "cache",
        "--pretrained_model_path",
        "tinystories_model/best_model.pth",
    ]
    printed = [
        run(folder, "train_bpe_tokenizer_hf", "--dataset", "stories", "--vocab_size", 400),
        run(folder, "train_tinystories_model", *data, *TINY),
        run(folder, "generate_tinystories_text", "--prompt", "Once upon a time", "--max_new_tokens", 30),
        run(folder, "train_tinystories_chat_model", *talks, "--epochs", 1, "--batch_size", 8, "--logging_steps", 2),
        run(folder, "chat_with_tinystories_model", "--max_new_tokens", 20, stdin="Hello!\n\nTell me\nexit\nno more\n"),
    ]
    return folder, printed


def test_the_whole_chain_from_stories_to_a_chat(course):
    folder, (tokenizer, training, writing, tuning, chat) = course
    assert "vocabulary: " in tokenizer.stdout and "bytes per token: " in tokenizer.stdout
    for name, done in (("tinystories_model", training), ("tinystories_chat_model", tuning)):
        names = {path.name for path in (folder / name).iterdir()}
        assert {"args.json", "train.log", "metrics.jsonl", "summary.json", "best_model.pth", "final_model.pth"} <= names
        assert any(file.startswith("events.out.tfevents") for file in names)
        assert (folder / name / "loss_curve.png").exists() == bool(importlib.util.find_spec("matplotlib"))
        assert "val_loss" in done.stdout and "a sample of best_model.pth" in done.stdout
        log = (folder / name / "train.log").read_text(encoding="utf-8")
        assert set(done.stdout.splitlines()) | set(done.stderr.splitlines()) == set(log.splitlines())
    assert writing.stdout.startswith("Once upon a time")
    assert len(chat.stdout.splitlines()) == 2
    for done in (training, writing, tuning, chat):
        assert not any(token in done.stdout for token in SPECIAL_TOKENS)
        assert "\r" not in done.stderr and "\x1b" not in done.stderr + done.stdout


def test_the_validation_loss_falls(course):
    folder, _ = course
    rows = [json.loads(line) for line in (folder / "tinystories_model/metrics.jsonl").read_text().splitlines()]
    losses = [row["val_loss"] for row in rows if row["event"] == "eval"]
    assert losses[-1] < losses[0]


def test_a_pilot_run_leaves_a_best_model_and_may_be_replaced(course, tmp_path):
    folder, _ = course
    flags = ["--dataset", "stories", "--cache_dir", "cache", "--pilot_run", *TINY[:-8], "--epochs", 1]
    flags += ["--output_dir", tmp_path / "pilot", "--eval_steps", 1000]
    assert "pilot run: " in run(folder, "train_tinystories_model", *flags).stderr
    assert (tmp_path / "pilot/best_model.pth").exists()
    run(folder, "train_tinystories_model", *flags)


def test_sigterm_saves_a_checkpoint_and_auto_goes_on_from_it(course, tmp_path):
    folder, _ = course
    flags = ["--dataset", "stories", "--cache_dir", "cache", *TINY, "--epochs", 300, "--eval_steps", 100_000]
    flags += ["--output_dir", tmp_path, "--resume_from_checkpoint", "auto"]
    with subprocess.Popen(
        command("train_tinystories_model", *flags),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while " step 5/" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == (143 if os.name != "nt" else process.returncode)
    assert "go on with: python" in errors and list(tmp_path.glob("checkpoint-*.pth"))
    stopped = max(int(path.stem.split("-")[1]) for path in tmp_path.glob("checkpoint-*.pth"))
    refused = run(folder, "train_tinystories_model", *flags, "--lr", 0.5, status=2)
    assert "error: --lr: 0.5, and " in refused.stderr
    with subprocess.Popen(
        command("train_tinystories_model", *flags),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        first = process.stdout.readline()
        process.kill()
        process.communicate()
    assert stopped <= int(first.split(" step ")[1].split("/")[0]) <= stopped + 5  # the same: its evaluation was cut off


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pty")
def test_a_dropped_connection_saves_a_checkpoint(course, tmp_path):
    import fcntl
    import pty
    import termios

    folder, _ = course
    flags = ["--dataset", "stories", "--cache_dir", "cache", *TINY, "--epochs", 300, "--eval_steps", 100_000]
    master, slave = pty.openpty()

    def as_in_a_terminal():
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup

    process = subprocess.Popen(
        command("train_tinystories_model", *flags, "--output_dir", tmp_path / "run"),
        cwd=folder, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, preexec_fn=as_in_a_terminal,
    )  # fmt: skip
    os.close(slave)
    screen = ""
    while " step 5/" not in screen:
        screen += os.read(master, 4096).decode("utf-8", "replace")
    os.close(master)
    assert process.wait(timeout=60) == 128 + signal.SIGHUP
    assert list((tmp_path / "run").glob("checkpoint-*.pth"))
    assert "go on with: python" in (tmp_path / "run/train.log").read_text(encoding="utf-8")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pty")
def test_a_chat_at_a_terminal_streams_resets_and_survives_a_full_context(course):
    import pty

    folder, _ = course
    master, slave = pty.openpty()
    chat = subprocess.Popen(
        command("chat_with_tinystories_model", "--min_new_tokens", 30, "--max_new_tokens", 30),
        cwd=folder, stdin=slave, stdout=slave, stderr=slave,
    )  # fmt: skip
    os.close(slave)
    screen = ""

    def type_line(text, answer):
        """Type a line when the program asks for one, and wait until the answer stands on the screen."""
        nonlocal screen
        seen, deadline = len(screen), time.monotonic() + 60
        os.write(master, text.encode() + b"\n")
        while not (answer in screen[seen:] and screen.endswith("you: ")):
            assert time.monotonic() < deadline, screen
            screen += os.read(master, 4096).decode("utf-8", "replace")

    type_line("/help", "/reset")
    for _ in range(3):
        type_line("Tell me a long long story about a <eos> cat.", "model: ")
    assert "forgets the oldest turns" in screen
    type_line("/reset", "forgotten)")
    os.write(master, b"exit\n")
    assert chat.wait(timeout=60) == 0
    os.close(master)
    assert "Traceback" not in screen


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pty")
def test_ctrl_c_stops_a_reply_and_not_the_chat(course):
    import pty

    folder, _ = course
    master, slave = pty.openpty()
    flags = ["--min_new_tokens", 20_000, "--max_new_tokens", 20_000]
    chat = subprocess.Popen(
        command("chat_with_tinystories_model", *flags), cwd=folder, stdin=slave, stdout=slave, stderr=slave
    )
    os.close(slave)
    screen = ""

    def wait_for(text):
        nonlocal screen
        deadline = time.monotonic() + 60
        while text not in screen:
            assert time.monotonic() < deadline, screen
            if select.select([master], [], [], 1)[0]:
                screen += os.read(master, 4096).decode("utf-8", "replace")
        screen = screen[screen.index(text) + len(text) :]

    def press_ctrl_c():
        time.sleep(0.5)  # readline sets itself up after it has shown the prompt
        chat.send_signal(signal.SIGINT)

    wait_for("you: ")
    press_ctrl_c()
    wait_for("ends the program")
    for _ in range(2):
        wait_for("you: ")
        os.write(master, b"Tell me\n")
        wait_for("model: ")
        press_ctrl_c()
        wait_for("(stopped)")
    wait_for("you: ")
    os.write(master, b"\x04")
    assert chat.wait(timeout=60) == 0
    os.close(master)


@pytest.mark.parametrize("program", ["generate_tinystories_text", "chat_with_tinystories_model"])
def test_a_file_of_prompts_is_answered_and_a_killed_run_goes_on(course, tmp_path, program):
    folder, _ = course
    rows = [{"id": f"q{n}", "prompt": f"Tell me about {n} cats.", "words": ["cat"]} for n in range(40)]
    write_rows(tmp_path / "questions.jsonl", rows)
    flags = ["--prompts_file", tmp_path / "questions.jsonl", "--max_new_tokens", 60, "--batch_size", 2]
    whole = run(folder, program, *flags, "--output_file", tmp_path / "whole.jsonl")
    assert whole.stdout == "" and "40 samples, " in whole.stderr and "\r" not in whole.stderr
    samples = [json.loads(line) for line in (tmp_path / "whole.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [{name: sample[name] for name in rows[0]} for sample in samples] == rows
    killed = tmp_path / "killed.jsonl"
    with subprocess.Popen(
        command(program, *flags, "--output_file", killed), cwd=folder, stderr=subprocess.DEVNULL
    ) as process:
        while not killed.exists() or len(killed.read_bytes().splitlines()) < 6:
            assert process.poll() is None
        process.kill()
    begun = len(killed.read_bytes().splitlines())
    assert begun < 40
    assert "samples are there already" in run(folder, program, *flags, "--output_file", killed).stderr
    assert killed.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert run(folder, program, *flags).stdout.encode() == killed.read_bytes()


def test_one_question_gets_one_reply(course):
    folder, _ = course
    done = run(folder, "chat_with_tinystories_model", "--once", "Hello!", "--max_new_tokens", 10, stdin="no more\n")
    assert done.stdout.strip() and "you: " not in done.stdout


def test_commands_work_in_a_pipe(course, tmp_path):
    folder, _ = course
    lines = [
        "Hello!",
        "/retry",
        "/no command",
        "/temperature 0",
        "/system Be kind.",
        f"/save {tmp_path / 't.jsonl'}",
        "Hi",
        "/exit",
    ]
    done = run(folder, "chat_with_tinystories_model", "--max_new_tokens", 10, stdin="\n".join(lines))
    assert len(done.stdout.splitlines()) == 4  # what is no command is a message
    saved = json.loads((tmp_path / "t.jsonl").read_text(encoding="utf-8"))
    assert [turn["role"] for turn in saved["messages"]] == ["system", *["user", "assistant"] * 2]


def test_the_same_seed_writes_the_same_story(course):
    folder, _ = course
    flags = ["--max_new_tokens", 20, "--num_samples", 2]
    first, again, other = (
        run(folder, "generate_tinystories_text", *flags, "--seed", seed).stdout for seed in (1, 1, 2)
    )
    assert first == again != other


def test_a_long_story_goes_on_past_the_context(course):
    folder, _ = course
    done = run(folder, "generate_tinystories_text", "--max_new_tokens", 150, "--min_new_tokens", 150)
    tokenizer = load_tokenizer(folder / "bpe_tokenizer_tinystories.pkl")
    assert len(tokenizer.encode(done.stdout)) > 100


# Flags ----------------------------------------------------------------------------------------------------------------

TRAINING_FLAGS = {
    "batch_size": 6, "epochs": 4, "max_steps": 9, "lr": 0.003, "min_lr": 0.001, "warmup_steps": 7,
    "scheduler": "linear", "weight_decay": 0.2, "adam_beta1": 0.8, "adam_beta2": 0.9, "max_grad_norm": 2.0,
    "gradient_accumulation_steps": 3,
    "seed": 5, "optimizer": "muon", "eval_steps": 11, "save_steps": 12, "keep_checkpoints": 3, "logging_steps": 13,
    "early_stopping_patience": 9, "max_bad_steps": 8, "amp": True, "amp_dtype": "bfloat16", "compile": "off",
}  # fmt: skip
MODEL_FLAGS = {
    "num_layers": 2, "hidden_size": 24, "num_heads": 4, "intermediate_size": 40, "max_seq_len": 20, "window_size": 6,
    "dropout": 0.3, "arch": "gpt2", "positions": "rotary", "norm": "rms", "mlp": "swiglu", "bias": False,
    "tie_embeddings": False,
}  # fmt: skip


def as_flags(values):
    flags = []
    for name, value in values.items():
        switch = f"--{name}" if value is not False else f"--no-{name}"
        flags += [switch] if isinstance(value, bool) else [switch, str(value)]
    return flags


def call(monkeypatch, program, folder, *flags):
    """Run a program's main function in this process."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [program.__name__ + ".py", *map(str, flags)])
    program.main()


def captured(monkeypatch, program, name):
    """Put a function in the place of the program's own that keeps what it is called with."""
    calls = []
    monkeypatch.setattr(program, name, lambda *args, **kwargs: calls.append((args, kwargs)) or iter(()))
    return calls


def test_every_training_flag_is_tried_here():
    assert set(TRAINING_FLAGS) == {item.name for item in dataclasses.fields(TrainingSettings)}


def test_flags_of_step_2_reach_the_model_the_settings_and_the_rows(course, monkeypatch, tmp_path):
    folder, _ = course
    calls = captured(monkeypatch, step2, "train")
    flags = [
        *as_flags(MODEL_FLAGS),
        *as_flags(TRAINING_FLAGS),
        "--dataset",
        "stories",
        "--cache_dir",
        tmp_path / "cache",
    ]
    flags += [
        "--max_train_samples",
        30,
        "--max_eval_samples",
        4,
        "--batching",
        "padded",
        "--output_dir",
        tmp_path / "run",
    ]
    call(monkeypatch, step2, folder, *flags)
    ((job,), _) = calls[0]
    model, rows, validation, settings = job.model, job.rows, job.validation, job.settings
    assert dataclasses.asdict(settings) == TRAINING_FLAGS
    assert {name: getattr(model.config, name) for name in MODEL_FLAGS} == MODEL_FLAGS
    assert len(rows.cache) == 30 and len(validation.cache) == 4
    assert (rows.packed, rows.length, rows.seed, validation.packed) == (False, 20, 5, True)
    assert job.run.folder == tmp_path / "run" and list((tmp_path / "cache").iterdir())


def test_flags_of_step_4_reach_the_settings_and_the_rows(course, monkeypatch, tmp_path):
    folder, _ = course
    calls = captured(monkeypatch, step4, "train")
    flags = [*as_flags(TRAINING_FLAGS), "--dataset", "talks", "--cache_dir", tmp_path, "--batching", "packed"]
    flags += ["--pretrained_model_path", "tinystories_model/best_model.pth", "--dropout", 0.25]
    call(monkeypatch, step4, folder, *flags, "--output_dir", tmp_path / "run")
    ((job,), _) = calls[0]
    model, rows, validation, settings = job.model, job.rows, job.validation, job.settings
    assert dataclasses.asdict(settings) == TRAINING_FLAGS
    assert model.config.dropout == 0.25 and model.config.max_seq_len == rows.length == 48
    assert rows.packed and rows.replies_only and validation.replies_only and len(validation.cache) == 6


SAMPLING_FLAGS = {
    "min_new_tokens": 3, "temperature": 0.5, "top_k": 7, "top_p": 0.9, "min_p": 0.02, "repetition_penalty": 1.1,
    "seed": 8,
}  # fmt: skip


@pytest.mark.parametrize("program", [step3, step5])
@pytest.mark.parametrize("beams", [1, 4])
def test_sampling_flags_reach_the_writing(course, monkeypatch, program, beams):
    folder, _ = course
    calls = captured(monkeypatch, writing, "generate" if beams == 1 else "beam_search")
    given = SAMPLING_FLAGS if beams == 1 else {"min_new_tokens": 3, "repetition_penalty": 1.1}
    flags = [*as_flags(given), "--max_new_tokens", 9, "--num_beams", beams, "--stop", "The", "--stop", "End"]
    if program is step5:
        flags += ["--model_path", "tinystories_chat_model/best_model.pth", "--once", "Hi"]
    monkeypatch.setattr(writing.Writer, "finished", lambda *_: writing.Written("", 0, ""))
    with contextlib.suppress(IndexError):  # nothing is written
        call(monkeypatch, program, folder, *flags)
    (_, prompts, sampling, rules, *_), _ = calls[0]
    assert {name: getattr(sampling, name) for name in given} == given and len(prompts) == 1
    assert sampling.max_new_tokens == 9 and sampling.num_beams == beams
    tokenizer = load_tokenizer(folder / "bpe_tokenizer_tinystories.pkl")
    assert rules.end == tokenizer.special["<eos>"] and len(rules.banned) == 6
    assert rules.has_ended(tokenizer.encode("The")) and rules.has_ended(tokenizer.encode("xEnd"))


def test_every_sampling_flag_is_tried_here():
    others = {"max_new_tokens", "num_beams", "stop"}
    assert SAMPLING_FLAGS.keys() | others == {item.name for item in dataclasses.fields(writing.Sampling)}


def test_max_length_counts_the_prompt(course, monkeypatch):
    folder, _ = course
    calls = captured(monkeypatch, writing, "generate")
    call(monkeypatch, step3, folder, "--prompt", "Tom had a cat.", "--max_length", 20)
    (_, prompts, sampling, *_), _ = calls[0]
    assert len(prompts[0]) - 1 + sampling.max_new_tokens == 20


def test_flags_of_step_1_reach_the_tokenizer(course, monkeypatch, tmp_path):
    folder, _ = course
    write_rows(tmp_path / "named.jsonl", [{"story": story(n)} for n in range(40)])
    output = tmp_path / "small.pkl"
    flags = ["--dataset", tmp_path / "named.jsonl", "--text_column", "story", "--sample", 20, "--vocab_size", 300]
    calls = []
    monkeypatch.setattr(
        step1, "train_tokenizer", lambda texts, size: (calls.append(list(texts)), TRAIN(texts, size))[1]
    )
    call(monkeypatch, step1, folder, *flags, "--output", output)
    assert len(calls[0]) == 20 and load_tokenizer(output).vocab_size <= 300


TRAIN = step1.train_tokenizer


# Bad input ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def damaged(course):
    """The course's folder, with files in it that are not what they should be."""
    folder, _ = course
    noise = np.random.default_rng(0)
    (folder / "empty.jsonl").write_text("")
    (folder / "latin1.jsonl").write_bytes(b'{"text": "fine"}\n{"text": "caf\xe9"}\n')
    write_rows(folder / "other.jsonl", [{"story": "A cat."}])
    (folder / "garbage.pth").write_bytes(noise.bytes(500))
    (folder / "cut.pth").write_bytes((folder / "tinystories_model/best_model.pth").read_bytes()[:-2000])
    torch.save({"weights": torch.zeros(3)}, folder / "foreign.pth")
    (folder / "garbage.pkl").write_bytes(noise.bytes(500))
    (folder / "file").write_text("")
    run(folder, "train_bpe_tokenizer_hf", "--dataset", "stories", "--vocab_size", 300, "--output", "second.pkl")
    return folder


BAD_INPUT = [
    (step1, ["--dataset", "none.jsonl"], "none.jsonl"),
    (step1, ["--dataset", "empty.jsonl"], "empty.jsonl"),
    (step1, ["--dataset", "other.jsonl"], "--text_column"),
    (step1, ["--dataset", "latin1.jsonl"], "line 2"),
    (step1, ["--dataset", "stories", "--output", "bpe_tokenizer_tinystories.pkl"], "--overwrite"),
    (step1, ["--dataset", "stories", "--output", "stories"], "stories"),
    (step1, ["--vocab_size", "100"], "--vocab_size"),
    (step2, ["--dataset", "none.jsonl"], "none.jsonl"),
    (step2, ["--dataset", "empty.jsonl"], "empty.jsonl"),
    (step2, ["--dataset", "other.jsonl"], "--text_column"),
    (step2, ["--dataset", "latin1.jsonl"], "line 2"),
    (step2, ["--dataset", "stories", "--num_heads", "7"], "--num_heads 7"),
    (step2, ["--dataset", "stories", "--tokenizer_path", "garbage.pkl"], "garbage.pkl"),
    (step2, ["--dataset", "stories", "--tokenizer_path", "none.pkl"], "none.pkl"),
    (step2, ["--dataset", "stories", "--output_dir", "tinystories_model"], "--overwrite"),
    (step2, ["--dataset", "stories", "--output_dir", "file"], "file"),
    (step2, ["--dataset", "stories", "--resume_from_checkpoint", "latest"], "no checkpoint"),
    (step2, ["--dataset", "stories", "--resume_from_checkpoint", "garbage.pth"], "garbage.pth"),
    (step2, ["--dataset", "stories", "--resume_from_checkpoint", "tinystories_model/best_model.pth"], "best_model.pth"),
    (step2, ["--dataset", "stories", "--device", "abacus"], "abacus"),
    (step2, ["--batch_size", "0"], "--batch_size"),
    (step2, ["--no_such_flag"], "--no_such_flag"),
    (step3, ["--model_path", "none.pth"], "none.pth"),
    (step3, ["--model_path", "garbage.pth"], "garbage.pth"),
    (step3, ["--model_path", "cut.pth"], "cut.pth"),
    (step3, ["--model_path", "foreign.pth"], "foreign.pth"),
    (step3, ["--prompt", "long " * 60], "context"),
    (step3, ["--temperature", "-1"], "--temperature"),
    (step3, ["--max_length", "30", "--max_new_tokens", "30"], "--max_length"),
    (step3, ["--max_length", "30", "--min_new_tokens", "60"], "--min_new_tokens"),
    (step3, ["--top_p", "0"], "--top_p"),
    (step3, ["--tokenizer_path", "second.pkl"], "tokenizer"),
    (step2, ["--seed", str(2**70)], "--seed"),
    (step4, [], "--pretrained_model_path"),
    (step4, ["--pretrained_model_path", "tinystories_model/best_model.pth", "--dropout", "5"], "--dropout must"),
    (step4, ["--pretrained_model_path", "none.pth"], "none.pth"),
    (step4, ["--pretrained_model_path", "tinystories_model/best_model.pth", "--dataset", "stories"], "conversation"),
    (step3, ["--prompts_file", "none.txt"], "none.txt"),
    (step3, ["--prompts_file", "other.jsonl"], "other.jsonl, line 1"),
    (step3, ["--prompts_file", "latin1.jsonl", "--prompt", "Tom"], "--prompt and --prompts_file"),
    (step3, ["--prompts_file", "latin1.jsonl", "--output_file", "out.txt"], "--output_file"),
    (step3, ["--output_file", "out.jsonl"], "--prompts_file"),
    (step3, ["--prompts_file", "other.jsonl", "--output_file", "./other.jsonl"], "prompts would be lost"),
    (step3, ["--num_samples", "0"], "--num_samples"),
    (step3, ["--num_samples", "2", "--num_beams", "2", "--temperature", "0.8"], "--num_beams"),
    (step5, ["--batch_size", "0"], "--batch_size"),
    (step5, ["--once", " "], "--once"),
    (step5, ["--once", "Hi", "--prompts_file", "latin1.jsonl"], "--once"),
    (step5, ["--num_samples", "2"], "--num_samples"),
    (step5, ["--model_path", "none.pth"], "none.pth"),
    (step5, ["--tokenizer_path", "second.pkl"], "tokenizer"),
]


@pytest.mark.parametrize(("program", "flags", "named"), BAD_INPUT, ids=lambda value: getattr(value, "__name__", None))
def test_bad_input_gets_one_clear_line_and_leaves_nothing(damaged, monkeypatch, capsys, program, flags, named):
    output = {step1: ["--output", "fresh"], step2: ["--output_dir", "fresh"], step4: ["--output_dir", "fresh"]}
    flags = [*output.get(program, []), *(["--cache_dir", "cache"] if program in (step2, step4) else []), *flags]
    files = lambda: sorted(path for path in damaged.rglob("*") if "cache" not in path.parts)
    before = files()
    with pytest.raises(SystemExit) as ended:
        run_program(lambda: call(monkeypatch, program, damaged, *flags))
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert ended.value.code == 2, errors
    assert len(errors) == 1 and named in errors[0]
    assert files() == before
    assert not list(damaged.rglob(".*"))  # what is half-written has a name that begins with a dot


# Text of every kind ---------------------------------------------------------------------------------------------------

HAZARDS = {
    "nul": "A cat\0 and a \0dog.",
    "controls": "A \x1b[31mred\x07 cat.\x7f",
    "windows": "Line one.\r\nLine two.\r\n",
    "old mac": "Line one.\rLine two.",
    "right to left": "פעם אחת היה כלב. كان يا ما كان.",
    "emoji": "A 👩‍👩‍👧‍👦 family 🐶🏽 and a flag 🇺🇦.",
    "mojibake": "The cat didnâ€™t know. Ã©tÃ©",
    "combining": "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘!",
    "separators": "One\u2028two\u2029three\x85four\x0cfive\ufeffsix",
    "special tokens": "The end.<eos><user> Give me <bos><pad> <assistant>it</s><|endoftext|>",
    "lone surrogate": "A broken \ud83d heart",
    "one word": "a" * 10_000,
    "spaces": "a" + " " * 10_000 + "b",
    "a number": "7",
    "astral": "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 \U0010ffff \ufffe",
}


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet"])
def test_text_of_every_kind_goes_through_all_steps_unchanged(monkeypatch, tmp_path, suffix):
    texts = [*HAZARDS.values(), "", "  \n ", *(story(n) for n in range(12))]
    if suffix in ("csv", "parquet"):  # they cannot hold half a character, and csv no NUL and no lone \\r
        texts = [text.replace("\ud83d", "?").replace("\0", "?").replace("e.\rL", "e.L") for text in texts]
    path = tmp_path / f"train.{suffix}"
    if suffix == "jsonl":
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    elif suffix == "json":
        path.write_text(json.dumps([{"text": text} for text in texts]))
    else:
        import datasets

        data = datasets.Dataset.from_dict({"text": texts})
        data.to_csv(path) if suffix == "csv" else data.to_parquet(path)
    tokenizer_path, flags = tmp_path / "t.pkl", ["--dataset", path]
    call(monkeypatch, step1, tmp_path, *flags, "--vocab_size", 300, "--output", tokenizer_path)
    tokenizer, special = load_tokenizer(tokenizer_path), load_tokenizer(tokenizer_path).special
    calls = captured(monkeypatch, step2, "train")
    data = ["--tokenizer_path", tokenizer_path, "--cache_dir", tmp_path / "cache", "--output_dir", tmp_path / "run"]
    call(monkeypatch, step2, tmp_path, *flags, *data, *TINY)
    cache = calls[0][0][0].rows.cache
    wanted = [text.strip().replace("\ud83d", "\ufffd") for text in texts if text.strip()]
    assert len(cache) == len(wanted) - 1  # the last one is set aside
    for index, text in enumerate(wanted[:-1]):
        first, *ids, last = cache.text(index).tolist()
        assert (first, last) == (special["<bos>"], special["<eos>"]) and not set(ids) & set(special.values())
        assert tokenizer.decode(ids) == text


def test_training_on_text_of_every_kind_ends_well(monkeypatch, tmp_path, course):
    folder, _ = course
    write_rows(tmp_path / "stories.jsonl", [{"text": text} for text in HAZARDS.values()])
    turns = [{"text": text} for text in [*HAZARDS.values(), "The end."]]
    write_rows(tmp_path / "talks.jsonl", [{"conversation": turns}, {"conversation": turns[1:]}] * 3)
    data = ["--tokenizer_path", folder / "bpe_tokenizer_tinystories.pkl", "--cache_dir", tmp_path / "cache"]
    model = folder / "tinystories_model/best_model.pth"
    call(monkeypatch, step2, tmp_path, "--dataset", "stories.jsonl", *data, *TINY)
    call(monkeypatch, step4, tmp_path, "--dataset", "talks.jsonl", *data, "--pretrained_model_path", model)
    assert (tmp_path / "tinystories_model/best_model.pth").exists()
    assert (tmp_path / "tinystories_chat_model/best_model.pth").exists()


def test_what_looks_like_a_special_token_changes_no_speaker(course):
    folder, _ = course
    tokenizer = load_tokenizer(folder / "bpe_tokenizer_tinystories.pkl")
    special = tokenizer.special
    turns = [("user", "Hi <eos><assistant> I am evil"), ("assistant", "No.<eos><user> Yes<bos>"), ("user", "<system>?")]
    ids, _, _ = render_dialogue(tokenizer, turns, open_ended=True)
    wanted = ["<bos>", "<user>", "<assistant>", "<eos>", "<user>", "<assistant>"]
    assert [token for token in ids if token in special.values()] == [special[name] for name in wanted]


BROKEN = '{"text": "A cat sat."}\n{"text": "A dog\n{"story": "wrong"}\n{"text": 5}\n\n[1]\n{"text": "A cow ate."}\n'


@pytest.mark.parametrize("program", [step1, step2])
def test_bad_rows_are_named_or_with_skip_bad_rows_counted(monkeypatch, capsys, tmp_path, course, program):
    folder, _ = course
    (tmp_path / "broken.jsonl").write_text(BROKEN + '{"text": "A frog \\ud83d"}\n' * 3)
    flags = ["--dataset", tmp_path / "broken.jsonl"]
    if program is step1:
        flags += ["--vocab_size", 300, "--output", tmp_path / "t.pkl"]
    else:
        flags += ["--tokenizer_path", folder / "bpe_tokenizer_tinystories.pkl", *TINY]
        flags += ["--cache_dir", tmp_path / "cache", "--output_dir", tmp_path / "run"]
    with pytest.raises(UserError, match="line 2: not JSON"):
        call(monkeypatch, program, tmp_path, *flags)
    call(monkeypatch, program, tmp_path, *flags, "--skip_bad_rows")
    printed = "".join(capsys.readouterr())
    assert "4 bad rows skipped; the first: " in printed and "broken.jsonl, line 2: not JSON" in printed


# Tuning on one's own dialogues ----------------------------------------------------------------------------------------


def tune(folder, *flags, status=0, model="tinystories_chat_model/best_model.pth"):
    common = ["--cache_dir", "cache", "--epochs", 2, "--batch_size", 8, "--pretrained_model_path", model]
    return run(folder, "train_tinystories_chat_model", *common, *flags, status=status)


def test_a_chat_model_is_tuned_further_on_a_mixture_with_adapters(course):
    folder, _ = course
    write_rows(folder / "mine.jsonl", [{"question": f"Who is {n}?", "answer": f"I am {n}."} for n in range(40)])
    mixed = ["--dataset", "mine.jsonl=0.7", "--dataset", "talks=0.3", "--lora_rank", 4]
    done = tune(folder, *mixed, "--output_dir", "mine")
    for part in (
        'mine.jsonl: dialogues in the form "question" (user), "answer" (assistant)',
        "mine.jsonl: no validation split: the last 2 of 40 texts are set aside",
        "an epoch: 38 of 38 from mine.jsonl, 16 of 40 from talks", "LoRA of rank 4: ",
    ):  # fmt: skip
        assert part in done.stderr
    chat = [*("--model_path", "mine/best_model.pth"), "--max_new_tokens", 5]
    assert len(run(folder, "chat_with_tinystories_model", *chat, stdin="Hello!\n").stdout.splitlines()) == 1
    again = [*mixed, "--output_dir", "mine", "--resume_from_checkpoint", "latest"]
    assert "going on from" in tune(folder, *again).stderr
    others = {
        "--dataset and its weights": [*again[:3], "talks=0.4", *again[4:]],
        "--lora_rank: None": [*again[:4], *again[6:], "--lr", 0.005],
        "--swap_words: 0.5": [*again, "--swap_words", 0.5],
        "--lora_rank: 3": [*again, "--lora_rank", 3],
    }  # fmt: skip
    for reason, flags in others.items():
        assert reason in tune(folder, *flags, status=2).stderr


@pytest.mark.parametrize(
    "flags, parts",
    [
        (["--dataset", "talks", "--lora_rank", -1], ["--lora_rank", "-1"]),
        (["--dataset", "talks", "--lora_rank", 33], ["--lora_rank 33", "32"]),
        (["--dataset", "talks", "--lora_rank", 2, "--optimizer", "muon"], ["--optimizer muon", "--lora_rank"]),
        (["--dataset", "talks=0.5", "--dataset", "stories"], ["stories has no weight"]),
        (["--dataset", "stories"], ["the columns text", "messages", "prompt + response"]),
        (["--dataset", "talks=many"], ["--dataset talks=many"]),
    ],
)
def test_tuning_that_makes_no_sense_is_refused_in_one_line(course, flags, parts):
    folder, _ = course
    errors = tune(folder, *flags, "--output_dir", "refused", status=2).stderr.splitlines()
    assert sum(line.startswith("error: ") for line in errors) == 1 and all(part in errors[-1] for part in parts)
    assert not (folder / "refused").exists()
