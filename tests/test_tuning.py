"""Fine-tuning a chat model on one's own dialogues."""

import io
import re
import shutil

import pytest
import torch
from programs import main, write_rows
from refusals import one_line

import chat_with_tinystories_model as step5
import train_tinystories_chat_model as step4
from common.errors import UserError


def tune(folder, *flags):
    model = "tinystories_chat_model/best_model.pth"
    common = ["--cache_dir", "cache", "--epochs", 2, "--batch_size", 8, "--pretrained_model_path", model]
    main(step4, *common, *flags, folder=folder)


def test_a_chat_model_can_be_tuned_on_a_mixture_with_adapters(course, tmp_path, monkeypatch, capsys):
    folder = shutil.copytree(course, tmp_path / "course")
    write_rows(folder / "mine.jsonl", [{"question": f"Who is {n}?", "answer": f"I am {n}."} for n in range(40)])
    mixed = ["--dataset", "mine.jsonl=0.7", "--dataset", "talks=0.3", "--lora_rank", 4]
    tune(folder, *mixed, "--output_dir", "mine")
    printed = capsys.readouterr().err
    for part in (
        'mine.jsonl: dialogues in the form "question" (user), "answer" (assistant)',
        "mine.jsonl: no validation split: the last 2 of 40 texts are set aside",
        "an epoch: 38 of 38 from mine.jsonl, 16 of 40 from talks", "LoRA of rank 4: ",
    ):  # fmt: skip
        assert part in printed
    monkeypatch.setattr("sys.stdin", io.StringIO("Hello!\n"))
    main(step5, "--model_path", "mine/best_model.pth", "--max_new_tokens", 5, folder=folder)
    assert len(capsys.readouterr().out.splitlines()) == 1
    again = [*mixed, "--output_dir", "mine", "--resume_from_checkpoint", "latest"]
    tune(folder, *again)
    assert "resuming from" in capsys.readouterr().err
    others = {
        "--dataset and its weights": [*again[:3], "talks=0.4", *again[4:]],
        "--lora_rank: None": [*again[:4], *again[6:], "--lr", 0.005],
        "--freeze_embeddings: True": [*again, "--freeze_embeddings"],
        "--lora_rank: 3": [*again, "--lora_rank", 3],
    }
    for reason, flags in others.items():
        with pytest.raises(UserError, match=re.escape(reason)):
            tune(folder, *flags)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_frozen_embeddings_do_not_change_and_the_rest_learns(course, tmp_path, optimizer):
    folder = shutil.copytree(course, tmp_path / "course")
    before = torch.load(folder / "tinystories_chat_model/best_model.pth")["model"]
    for flag in ("--freeze_embeddings", "--no-freeze_embeddings"):
        tune(folder, "--dataset", "talks", "--output_dir", flag[2:], "--optimizer", optimizer, flag)
        after = torch.load(folder / flag[2:] / "final_model.pth")["model"]
        same = {name for name in before if torch.equal(before[name], after[name])}
        assert same == ({"tokens.weight"} if flag == "--freeze_embeddings" else set())


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--dataset", "talks", "--lora_rank", -1], ["--lora_rank", "-1"]),
        (["--dataset", "talks", "--lora_rank", 17], ["--lora_rank 17", "16"]),
        (["--dataset", "talks", "--lora_rank", 2, "--optimizer", "muon"], ["--optimizer muon", "--lora_rank"]),
        (["--dataset", "talks=0.5", "--dataset", "stories"], ["stories has no weight"]),
        (["--dataset", "stories"], ["plain texts", "conversation"]),
        (["--dataset", "talks=many"], ["--dataset talks=many"]),
    ],
)
def test_tuning_that_makes_no_sense_is_refused_in_one_line(course, tmp_path, flags, parts):
    with pytest.raises(UserError) as refusal:
        tune(course, *flags, "--cache_dir", tmp_path / "cache", "--output_dir", tmp_path / "refused")
    assert refusal.value.status == 2 and all(part in one_line(refusal) for part in parts)
    assert not (tmp_path / "refused").exists()
