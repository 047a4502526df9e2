"""Files of an earlier version still load, resume to the same weights, and get the same findings in grading."""

import contextlib
import json
import shutil

import pytest
import torch
from graded import grade
from programs import ROOT, main

import chat_with_tinystories_model
import generate_tinystories_text
import train_tinystories_chat_model
import train_tinystories_model
from common import devices
from common.weights_files import load_model
from data import load_tokenizer
from generation import writer as writing

GOLDEN = ROOT / "tests/golden"
TOKENIZER = ["--tokenizer_path", str(GOLDEN / "bpe_tokenizer_tinystories.pkl")]


def expected(name):
    return json.loads((GOLDEN / name).read_text(encoding="utf-8"))


def weights(path):
    return torch.load(path, weights_only=True)["model"]


def assert_same_weights(one, other):
    """Compare two model files, allowing for rounding, which differs between processors."""
    for name, tensor in weights(other).items():
        torch.testing.assert_close(weights(one)[name], tensor, rtol=1e-4, atol=1e-5, msg=f"{one}: {name}")


@pytest.fixture
def float32(monkeypatch):
    """Compute as on a CPU without bfloat16 units, so that texts are the same on every machine."""
    monkeypatch.setattr(devices, "has_bfloat16", lambda device: False)
    monkeypatch.setattr("training.optimizer.has_bfloat16", lambda device: False)


@pytest.mark.parametrize("name", ["story/best_model.pth", "story/final_model.pth", "chat/best_model.pth"])
def test_a_model_file_loads_with_its_tokenizer(name):
    tokenizer = load_tokenizer(GOLDEN / "bpe_tokenizer_tinystories.pkl")
    model, content = load_model(GOLDEN / name, tokenizer)
    assert tokenizer.vocab_size == model.config.vocab_size == 300
    assert content["step"] and content["val_loss"]


def resume(folder, kind, program, end, *flags):
    """Resume a run with the flags of its args.json, and compare its final weights with the stored ones."""
    config = ["--config", GOLDEN / kind / "args.json"]
    places = ["--cache_dir", folder / "cache", "--device", "cpu", *TOKENIZER]
    with contextlib.chdir(GOLDEN):
        main(program, *config, *places, *flags)
    assert_same_weights(folder / "run/final_model.pth", GOLDEN / end)


@pytest.mark.parametrize(
    ("kind", "program", "end"),
    [
        ("whole", train_tinystories_model, "story/final_model.pth"),
        ("muon", train_tinystories_model, "muon/final_model.pth"),
        ("lora", train_tinystories_chat_model, "lora/final_model.pth"),
    ],
)
def test_a_checkpoint_resumes_to_the_weights_of_the_uninterrupted_run(tmp_path, kind, program, end):
    checkpoint = GOLDEN / kind / "checkpoint-8.pth"
    resume(tmp_path, kind, program, end, "--output_dir", tmp_path / "run", "--resume_from_checkpoint", checkpoint)
    assert json.loads((tmp_path / "run/summary.json").read_text())["ended"] == "finished"


@pytest.mark.parametrize(("kind", "ended"), [("early", "stopped early"), ("story", "finished")])
def test_a_finished_run_resumes_to_the_same_end(tmp_path, kind, ended):
    shutil.copytree(GOLDEN / kind, tmp_path / "run")
    flags = ["--output_dir", tmp_path / "run", "--resume_from_checkpoint", "latest"]
    resume(tmp_path, kind, train_tinystories_model, f"{kind}/final_model.pth", *flags)
    assert_same_weights(tmp_path / "run/best_model.pth", GOLDEN / kind / "best_model.pth")
    before, after = (json.loads((path / "summary.json").read_text()) for path in (GOLDEN / kind, tmp_path / "run"))
    assert after["ended"] == ended and after["run_id"] == before["run_id"]
    assert {**before, "resumes": 1, "time": 0, "seconds": 0, "tokens_per_second": 0} == {
        **after, "time": 0, "seconds": 0, "tokens_per_second": 0,
    }  # fmt: skip


def findings(folder):
    """Grade the finished runs and the logs, and return {name: [facts, problems, questions]}."""
    for kind in ("story", "early"):
        shutil.copytree(GOLDEN / kind, folder / kind)
    for log in (GOLDEN / "logs").iterdir():
        shutil.copy(log, folder)
    return json.loads(json.dumps(grade(folder)))


def test_old_runs_and_logs_get_the_same_findings(tmp_path):
    found = findings(tmp_path)
    assert found.keys() == expected("findings.json").keys()
    for name, said in expected("findings.json").items():
        assert found[name] == said, name


WRITING = {
    "greedy": ["--prompt", "Once upon a time,", "--temperature", "0", "--max_new_tokens", "30"],
    "sampled": ["--prompt", "Tom had a", "--seed", "3", "--max_new_tokens", "30"],
    "nucleus": ["--prompt", "Tom", "--top_k", "0", "--top_p", "0.7", "--min_p", "0.01", "--max_new_tokens", "30"],
    "penalized": ["--prompt", "The cat", "--repetition_penalty", "1.5", "--max_new_tokens", "60"],
    "beams": ["--prompt", "Mia had", "--num_beams", "3", "--max_new_tokens", "20"],
    "several": ["--prompt", "Ben", "--num_samples", "3", "--max_new_tokens", "15", "--min_new_tokens", "15"],
    "stopped": ["--prompt", "Lily", "--stop", "a", "--stop", "zzz"],
}


def texts(capsys):
    """Return what steps 3 and 5 print, as {name: text}."""
    found = {}
    for name, flags in WRITING.items():
        main(generate_tinystories_text, *flags, "--model_path", GOLDEN / "story/best_model.pth", *TOKENIZER)
        found[name] = capsys.readouterr().out
    flags = ["--once", "Tell me about a cat.", "--max_new_tokens", "30"]
    main(chat_with_tinystories_model, *flags, "--model_path", GOLDEN / "chat/best_model.pth", *TOKENIZER)
    return found | {"chat": capsys.readouterr().out}


def test_an_old_model_writes_the_same_texts(float32, monkeypatch, capsys):
    monkeypatch.setattr(writing, "ready_to_write", devices.ready_to_write)
    assert texts(capsys) == expected("texts.json")
