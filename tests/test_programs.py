"""The five programs as students run them: the whole chain with a tiny model, signals, a terminal, pipes."""

import errno
import importlib.util
import io
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from programs import TINY, command, main, run, write_data, write_rows
from refusals import one_line

import chat_with_tinystories_model as step5
import generate_tinystories_text as step3
import train_tinystories_model as step2
from common.errors import UserError, file_error
from common.files import use_hub_cache
from common.program import report_uncaught, run_program
from corpus.hub import hub_errors
from corpus.token_cache import default_cache_dir
from data import SPECIAL_TOKENS, load_tokenizer


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Return (a folder in which the five steps were run, [the finished process of each step])."""
    folder = tmp_path_factory.mktemp("chain")
    write_data(folder)
    talks = ["--dataset", "talks", "--cache_dir", "cache"]
    talks += ["--pretrained_model_path", "tinystories_model/best_model.pth"]
    printed = [
        run(folder, "train_bpe_tokenizer_hf", "--dataset", "stories", "--vocab_size", 400),
        run(folder, "train_tinystories_model", "--dataset", "stories", "--cache_dir", "cache", *TINY),
        run(folder, "generate_tinystories_text", "--prompt", "Once upon a time", "--max_new_tokens", 30),
        run(folder, "train_tinystories_chat_model", *talks, "--epochs", 1, "--batch_size", 8, "--logging_steps", 2),
        run(folder, "chat_with_tinystories_model", "--max_new_tokens", 20, stdin="Hello!\n\nTell me\nexit\nno more\n"),
    ]
    return folder, printed


def test_the_whole_chain_from_stories_to_a_chat(chain):
    folder, (tokenizer, training, writing, tuning, chat) = chain
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
    assert [bool(line) for line in chat.stdout.splitlines()] == [True, False, True]
    for done in (training, writing, tuning, chat):
        assert not any(token in done.stdout for token in SPECIAL_TOKENS)
        assert "\r" not in done.stderr and "\x1b" not in done.stderr + done.stdout


def test_the_validation_loss_falls(chain):
    folder, _ = chain
    rows = [json.loads(line) for line in (folder / "tinystories_model/metrics.jsonl").read_text().splitlines()]
    losses = [row["val_loss"] for row in rows if row["event"] == "eval"]
    assert losses[-1] < losses[0]


def test_a_pilot_run_writes_a_best_model_and_may_be_replaced(chain, tmp_path, capsys):
    folder, _ = chain
    flags = ["--dataset", "stories", "--cache_dir", "cache", "--pilot_run", *TINY[:-8], "--epochs", 1]
    flags += ["--output_dir", tmp_path / "pilot", "--eval_steps", 1000]
    main(step2, *flags, folder=folder)
    assert "pilot run: " in capsys.readouterr().err
    assert (tmp_path / "pilot/best_model.pth").exists()
    main(step2, *flags, folder=folder)


# Signals and terminals ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="on Windows, SIGTERM ends another process at once")
def test_sigterm_saves_a_checkpoint_from_which_auto_resumes(chain, tmp_path):
    folder, _ = chain
    flags = ["--dataset", "stories", "--cache_dir", "cache", *TINY, "--epochs", 300, "--eval_steps", 100_000]
    flags += ["--output_dir", tmp_path, "--resume_from_checkpoint", "auto"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command("train_tinystories_model", *flags), cwd=folder, **pipes) as process:
        while " step 5/" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "to resume: python" in errors and list(tmp_path.glob("checkpoint-*.pth"))
    stopped = max(int(path.stem.split("-")[1]) for path in tmp_path.glob("checkpoint-*.pth"))
    refused = run(folder, "train_tinystories_model", *flags, "--lr", 0.5, status=2)
    assert "error: --lr: 0.5, but " in refused.stderr
    with subprocess.Popen(command("train_tinystories_model", *flags), cwd=folder, **pipes) as process:
        first = process.stdout.readline()
        process.kill()
        process.communicate()
    assert stopped <= int(first.split(" step ")[1].split("/")[0]) <= stopped + 5  # equal if its evaluation was stopped


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pty")
def test_a_dropped_connection_saves_a_checkpoint(chain, tmp_path):
    import fcntl
    import pty
    import termios

    folder, _ = chain
    flags = ["--dataset", "stories", "--cache_dir", "cache", *TINY, "--epochs", 300, "--eval_steps", 100_000]
    master, slave = pty.openpty()

    def as_in_a_terminal():
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # in case the tests run under nohup

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
    assert "to resume: python" in (tmp_path / "run/train.log").read_text(encoding="utf-8")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pty")
def test_a_chat_at_a_terminal_streams_resets_and_survives_a_full_context(chain):
    import pty

    folder, _ = chain
    master, slave = pty.openpty()
    chat = subprocess.Popen(
        command("chat_with_tinystories_model", "--min_new_tokens", 30, "--max_new_tokens", 30),
        cwd=folder, stdin=slave, stdout=slave, stderr=slave,
    )  # fmt: skip
    os.close(slave)
    screen = ""

    def type_line(text, answer):
        """Type a line, and wait until the answer is on the screen and the program asks for the next line."""
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
def test_ctrl_c_stops_a_reply_and_not_the_chat(chain):
    import pty

    folder, _ = chain
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
        time.sleep(0.5)  # readline is set up only after the prompt is shown
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


# Where a program runs -------------------------------------------------------------------------------------------------


class NotebookStream:
    """Like stdout in a notebook: it can be written to, but is not a file."""

    encoding = "UTF-8"

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass

    def isatty(self):
        return False


@pytest.mark.parametrize("program", [step3, step5])
def test_a_program_runs_in_a_notebook(course, monkeypatch, program):
    stdout, stderr = NotebookStream(), NotebookStream()
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setattr(sys, "stderr", stderr)
    typed = iter(["Tell me", "exit"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(typed))  # in a notebook, input is a Python function
    before = signal.getsignal(signal.SIGTERM)
    run_program(lambda: main(program, "--max_new_tokens", 3, "--min_new_tokens", 3, folder=course))
    assert stdout.text.startswith("Once upon a time" if program is step3 else "model: ")
    assert "stopped at --max_new_tokens 3" in stderr.text
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_program_runs_in_a_thread(course, capsys):
    ended = []

    def run_in_thread():
        run_program(lambda: main(step3, "--max_new_tokens", 3, folder=course))
        ended.append("finished")

    thread = threading.Thread(target=run_in_thread)
    thread.start()
    thread.join()
    assert ended == ["finished"] and capsys.readouterr().out.startswith("Once upon a time")


@pytest.mark.parametrize("closed", ["stdin", "stdout", "stderr"])
@pytest.mark.parametrize("program", [step3, step5])
def test_a_closed_stream_counts_as_empty(course, monkeypatch, capsys, program, closed):
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hi\n"))
    monkeypatch.setattr(sys, closed, None)
    run_program(lambda: main(program, "--max_new_tokens", 3, folder=course))
    opened = getattr(sys, closed)
    assert opened.name == os.devnull
    opened.close()
    if closed == "stderr":
        assert capsys.readouterr().out


def test_ctrl_c_during_the_imports_prints_one_line(capsys):
    assert sys.excepthook is not None
    report_uncaught(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert capsys.readouterr().err == "interrupted\n"
    report_uncaught(ValueError, ValueError("a reason"), None)
    assert "ValueError: a reason" in capsys.readouterr().err


@pytest.mark.parametrize("home", ["read-only", "unknown", "writable"])
def test_caches_are_in_a_writable_folder(tmp_path, monkeypatch, home):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HF_HOME", "")
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "mia")
    if home == "read-only":
        monkeypatch.setattr(os, "access", lambda place, mode: place != tmp_path)
    elif home == "unknown":
        monkeypatch.setattr(Path, "home", pathlib_without_home)
    use_hub_cache()
    if home == "writable":
        assert default_cache_dir() == tmp_path / "mia/.cache/tinystories_course" and "HF_HOME" not in os.environ
    else:
        assert default_cache_dir().is_relative_to(tmp_path / "temporary")
        assert os.environ["HF_HOME"].startswith(str(tmp_path / "temporary"))
    shown = step2.parse_args([]).cache_dir
    assert shown == str(default_cache_dir())


def pathlib_without_home():
    raise RuntimeError("Could not determine home directory.")


def test_if_no_cache_can_be_written_the_flag_is_named(course, tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "mkdir", refuse_to_write)
    with pytest.raises(PermissionError) as refusal:
        main(step2, "--dataset", "stories", "--cache_dir", tmp_path / "c", "--output_dir", tmp_path, folder=course)
    assert file_error(refusal.value) == f"--cache_dir {tmp_path / 'c'}: Permission denied; {FOLDER_ADVICE}"


def test_if_the_hub_libraries_cannot_write_their_variable_is_named(tmp_path):
    pytest.importorskip("huggingface_hub")
    with pytest.raises(UserError, match="HF_HOME") as refusal, hub_errors("data set", "a/b", "advice"):
        refuse_to_write(tmp_path)
    assert str(tmp_path) in one_line(refusal)


FOLDER_ADVICE = "choose a file or folder that you have access to"


def refuse_to_write(path, *args, **options):
    raise PermissionError(errno.EACCES, "Permission denied", str(path))


# Stories and replies --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", [step3, step5])
def test_a_file_of_prompts_is_answered_and_a_killed_program_can_continue(chain, tmp_path, capsys, program):
    folder, _ = chain
    rows = [{"id": f"q{n}", "prompt": f"Tell me about {n} cats.", "words": ["cat"]} for n in range(40)]
    write_rows(tmp_path / "questions.jsonl", rows)
    flags = ["--prompts_file", tmp_path / "questions.jsonl", "--max_new_tokens", 60, "--batch_size", 2]
    main(program, *flags, "--output_file", tmp_path / "whole.jsonl", folder=folder)
    printed = capsys.readouterr()
    assert printed.out == "" and "40 samples, " in printed.err and "\r" not in printed.err
    samples = [json.loads(line) for line in (tmp_path / "whole.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [{name: sample[name] for name in rows[0]} for sample in samples] == rows
    killed = tmp_path / "killed.jsonl"
    with subprocess.Popen(
        command(program.__name__, *flags, "--output_file", killed), cwd=folder, stderr=subprocess.DEVNULL
    ) as process:
        while not killed.exists() or len(killed.read_bytes().splitlines()) < 6:
            assert process.poll() is None
        process.kill()
    begun = len(killed.read_bytes().splitlines())
    assert begun < 40
    main(program, *flags, "--output_file", killed, folder=folder)
    assert "killed.jsonl already contains " in capsys.readouterr().err
    assert killed.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    main(program, *flags, folder=folder)
    assert capsys.readouterr().out.encode() == killed.read_bytes()


def test_one_question_gets_one_reply(chain):
    folder, _ = chain
    done = run(folder, "chat_with_tinystories_model", "--once", "Hello!", "--max_new_tokens", 10, stdin="no more\n")
    assert done.stdout.strip() and "you: " not in done.stdout


def test_commands_work_in_a_pipe(chain, tmp_path):
    folder, _ = chain
    lines = ["Hello!", "/retry", "/no command", "/temperature 0", "/system Be kind."]
    lines += [f"/save {tmp_path / 't.jsonl'}", "Hi", "/exit"]
    done = run(folder, "chat_with_tinystories_model", "--max_new_tokens", 10, stdin="\n".join(lines))
    assert len(done.stdout.splitlines()) == 4  # an unknown command also gets an (empty) line
    assert "(no command /no; commands: /retry, " in done.stderr
    saved = json.loads((tmp_path / "t.jsonl").read_text(encoding="utf-8"))
    assert [turn["role"] for turn in saved["messages"]] == ["system", "user", "assistant"]


@pytest.mark.parametrize(
    ("flags", "note"),
    [
        (["--max_new_tokens", 3], "stopped at --max_new_tokens 3; the story may be unfinished"),
        (["--max_length", 40], "stopped at --max_length 40; the story may be unfinished"),
        (
            ["--max_new_tokens", 3, "--num_samples", 2],
            "2 of 2 stories stopped at --max_new_tokens 3; they may be unfinished",
        ),
        (["--max_new_tokens", 3, "--num_beams", 2], "stopped at --max_new_tokens 3"),
        (["--max_new_tokens", 300, "--stop", "e"], None),
    ],
)
def test_a_story_stopped_by_its_length_limit_is_reported_on_stderr(chain, capsys, flags, note):
    folder, _ = chain
    main(step3, "--prompt", "Tom", "--min_new_tokens", 3, *flags, folder=folder)
    printed = capsys.readouterr()
    assert "stopped" not in printed.out
    assert (note in printed.err) if note else "stopped" not in printed.err


def test_the_same_seed_writes_the_same_story(chain, capsys):
    folder, _ = chain
    stories = []
    for seed in (1, 1, 2):
        main(step3, "--max_new_tokens", 20, "--num_samples", 2, "--seed", seed, folder=folder)
        stories.append(capsys.readouterr().out)
    assert stories[0] == stories[1] != stories[2]


def test_a_long_story_may_exceed_the_context(chain, capsys):
    folder, _ = chain
    main(step3, "--max_new_tokens", 150, "--min_new_tokens", 150, folder=folder)
    tokenizer = load_tokenizer(folder / "bpe_tokenizer_tinystories.pkl")
    assert len(tokenizer.encode(capsys.readouterr().out)) > 100
