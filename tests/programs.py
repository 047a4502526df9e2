"""Run the programs as from a shell, and write data that a tiny model learns in seconds."""

import contextlib
import csv
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from common.program import run_program

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("training", "generation", "corpus", "common", "tools")
SOURCES = [*ROOT.glob("*.py"), *(path for name in FOLDERS for path in sorted((ROOT / name).rglob("*.py")))]
TINY = ["--num_layers", "1", "--hidden_size", "32", "--num_heads", "2", "--intermediate_size", "64"]
TINY += ["--max_seq_len", "48", "--epochs", "2", "--batch_size", "8", "--logging_steps", "5", "--eval_steps", "1000"]


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def as_cell(value):
    return value if isinstance(value, str) else json.dumps(value)


def write_table(path, rows):
    """Write rows in the format of the path's suffix, and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_bytes("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1))
    elif path.suffix == ".csv":
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows({name: as_cell(value) for name, value in row.items()} for row in rows)
    else:
        pytest.importorskip("datasets").Dataset.from_list(rows).to_parquet(str(path))
    return path


def story(number):
    name = ("Tom", "Mia", "Ben", "Lily")[number % 4]
    animal = ("cat", "dog", "frog", "bird", "cow")[number % 5]
    first = f"Once upon a time, {name} had a {animal}. The {animal} ran away!"
    return f"{first} {name} looked for it {number} times.\n\nThe end."


def dialogue(number):
    animal = ("cat", "dog", "frog", "bird", "cow")[number % 5]
    turns = [f"Tell me about a {animal}.", f"The {animal} was happy {number} times.", "Thank you!", "You are welcome."]
    return {"conversation": [{"text": turn} for turn in turns]}


def command(program, *flags):
    return [sys.executable, str(ROOT / f"{program}.py"), *map(str, flags)]


def run(folder, program, *flags, stdin=None, status=0, environment=None):
    """Run a program in a folder, with its output redirected, and check its exit status."""
    done = subprocess.run(
        command(program, *flags), cwd=folder, input=stdin, capture_output=True, encoding="utf-8", timeout=120,
        env=os.environ | (environment or {}),
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    return done


def main(program, *words, folder="."):
    """Run a program's main function in this process, as if these words were typed in a folder."""
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
        patch.setattr(sys, "argv", [f"{program.__name__}.py", *map(str, words)])
        program.main()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def write_data(folder):
    """Write stories and dialogues, each with a validation split, to folder/stories and folder/talks."""
    write_rows(folder / "stories/train.jsonl", [{"text": story(n)} for n in range(60)])
    write_rows(folder / "stories/validation.jsonl", [{"text": story(n)} for n in range(60, 70)])
    write_rows(folder / "talks/train.jsonl", [dialogue(n) for n in range(40)])
    write_rows(folder / "talks/valid.jsonl", [dialogue(n) for n in range(40, 46)])


def outcome(program, words, monkeypatch, capsys):
    """Run a program in this process, as from a shell; return (exit status, stdout, stderr)."""
    monkeypatch.setattr(sys, "argv", [f"{program.__name__}.py", *map(str, words)])
    monkeypatch.setattr(sys.stdout, "reconfigure", lambda **_: None, raising=False)
    status = 0
    try:
        run_program(program.main)
    except SystemExit as ended:
        status = ended.code
    return status, *capsys.readouterr()
