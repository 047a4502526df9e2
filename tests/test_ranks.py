"""Two processes on a CPU train the same as one; `torchrun` starts them, as it does on several GPUs."""

import os
import subprocess
import sys

import pytest
import torch
from programs import ROOT, dialogue, free_port, main, story, write_rows
from tiny_runs import metrics, weights

import train_bpe_tokenizer_hf as step1
import train_tinystories_chat_model as step4
import train_tinystories_model as step2

pytestmark = pytest.mark.skipif(os.name == "nt", reason="torchrun on Windows needs USE_LIBUV=0, and was not tested")

SHAPE = ["--num_layers", "1", "--hidden_size", "32", "--num_heads", "2", "--intermediate_size", "64"]
SHAPE += ["--max_seq_len", "48", "--dropout", "0"]
FLAGS = ["--cache_dir", "cache", "--batch_size", "8", "--gradient_accumulation_steps", "2", "--logging_steps", "3"]


def torchrun(folder, program, *flags, status=0):
    """Run a program in two processes, and return the finished process of `torchrun` with its output."""
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port()}"]
    command = [sys.executable, *launcher, str(ROOT / f"{program}.py"), *map(str, flags)]
    done = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", timeout=180)
    assert (done.returncode == 0) == (status == 0), done.stderr
    return done


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a folder with runs of one process and of two, on stories and on dialogues; and the story flags."""
    folder = tmp_path_factory.mktemp("ranks")
    write_rows(folder / "stories/train.jsonl", [{"text": story(n)} for n in range(50)])
    write_rows(folder / "stories/validation.jsonl", [{"text": story(n)} for n in range(50, 60)])
    write_rows(folder / "talks/train.jsonl", [dialogue(n) for n in range(30)])
    write_rows(folder / "talks/valid.jsonl", [dialogue(n) for n in range(30, 36)])
    main(step1, "--dataset", "stories", "--vocab_size", 350, folder=folder)
    stories = ["--dataset", "stories", *FLAGS, *SHAPE, "--epochs", "2"]
    main(step2, *stories, "--output_dir", "one", folder=folder)
    torchrun(folder, "train_tinystories_model", *stories, "--output_dir", "two")
    talks = ["--dataset", "talks", *FLAGS, "--dropout", "0", "--epochs", "1"]
    talks += ["--pretrained_model_path", "one/best_model.pth"]
    main(step4, *talks, "--output_dir", "chat_one", folder=folder)
    torchrun(folder, "train_tinystories_chat_model", *talks, "--output_dir", "chat_two")
    more = ["--dataset", "talks=2", "--dataset", "more=1", "--batching", "packed", "--lora_rank", "4"]
    write_rows(folder / "more/train.jsonl", [dialogue(n) for n in range(36, 90)])
    main(step4, *talks[2:], *more, "--output_dir", "mixed_one", folder=folder)
    torchrun(folder, "train_tinystories_chat_model", *talks[2:], *more, "--output_dir", "mixed_two")
    return folder, stories


@pytest.mark.parametrize(("one", "two"), [("one", "two"), ("chat_one", "chat_two"), ("mixed_one", "mixed_two")])
def test_two_ranks_end_with_the_weights_of_one_process(trained, one, two):
    folder, _ = trained
    first = weights(folder / one / "final_model.pth")
    second = weights(folder / two / "final_model.pth")
    assert all(torch.allclose(first[name], second[name], atol=1e-4) for name in first)


@pytest.mark.parametrize(("one", "two"), [("one", "two"), ("chat_one", "chat_two"), ("mixed_one", "mixed_two")])
def test_two_ranks_write_the_same_records_as_one_process_and_only_once(trained, one, two):
    folder, _ = trained
    rows_of_one = metrics(folder / one)
    rows_of_two = metrics(folder / two)
    assert [(row["event"], row["step"]) for row in rows_of_one] == [(row["event"], row["step"]) for row in rows_of_two]
    for first, second in zip(rows_of_one, rows_of_two, strict=True):
        for name in ("train_loss", "val_loss", "accuracy", "grad_norm", "tokens"):
            assert first.get(name, 0) == pytest.approx(second.get(name, 0), rel=2e-3)


def test_rows_that_cannot_be_shared_equally_are_refused(trained):
    folder, stories = trained
    done = torchrun(folder, "train_tinystories_model", *stories, "--batch_size", 7, "--output_dir", "odd", status=2)
    assert "--batch_size 7" in done.stderr and not (folder / "odd").exists()
