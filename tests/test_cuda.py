"""On a CUDA GPU: both half precisions learn, runs resume, and texts are the same as on the CPU."""

import shutil
import signal

import pytest
import torch
import train_with_rewards
from programs import main, write_rows
from tiny_runs import (
    LATEST,
    VOCAB,
    losses_not_finite_at,
    make_model,
    make_rows,
    make_run,
    make_settings,
    make_validation,
    metrics,
    signal_at,
)

from common.devices import Precision, choose_device, has_bfloat16
from common.errors import UserError
from generation.beam_search import beam_search
from generation.generate import generate
from generation.sampling import Sampling
from model import ModelConfig, Transformer
from training.device_check import check_device
from training.job import Job
from training.loop import train
from training.optimizer import make_optimizers
from training.presets import config_of
from training.settings import seed_everything
from training.step import micro_batches, training_step

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def train_on_gpu(folder, flags=None, device="cuda", **settings):
    run, settings = make_run(folder, **flags or {}), make_settings(**settings)
    device = choose_device(device)
    seed_everything(settings.seed)
    model = make_model().to(device)
    precision = Precision(device, settings.amp, settings.amp_dtype)
    fingerprints = {"tokenizer": "of the tokenizer", "data": [[20, 200]]}
    write_sample = lambda model: "a sample"
    summary = train(Job(model, make_rows(), make_validation(), settings, run, precision, fingerprints, write_sample))
    run.close()
    return summary, precision.name()


def skip_without(dtype):
    if dtype == "bfloat16" and not has_bfloat16(torch.device("cuda")):
        pytest.skip("this card has no bfloat16 units")


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_each_precision_learns_as_well_as_the_cpu(tmp_path, dtype):
    skip_without(dtype)
    flags = {} if dtype == "float32" else {"amp": True, "amp_dtype": dtype}
    plain, _ = train_on_gpu(tmp_path / "plain", device="cpu", epochs=6)
    summary, name = train_on_gpu(tmp_path / "run", epochs=6, **flags)
    assert name == dtype
    assert summary["final_val_loss"] == pytest.approx(plain["final_val_loss"], rel=0.05)


def test_a_float16_run_resumes_from_its_checkpoint(tmp_path):
    whole, _ = train_on_gpu(tmp_path / "whole", amp=True)
    with signal_at(4, signal.SIGTERM):
        train_on_gpu(tmp_path / "parts", amp=True)
    parts, _ = train_on_gpu(tmp_path / "parts", LATEST, amp=True)
    assert parts["final_val_loss"] == pytest.approx(whole["final_val_loss"], rel=1e-3)


@pytest.mark.parametrize("amp", ["--amp", "--no-amp"])
@pytest.mark.parametrize("reward", ["letters", "constant"])
def test_training_with_rewards_begins_at_the_first_model_and_moves_away_from_it(course, tmp_path, reward, amp):
    folder = shutil.copytree(course, tmp_path / "course")
    write_rows(folder / "prompts.jsonl", [{"prompt": f"A cat {n}?"} for n in range(20)])
    functions = "def letters(prompt, reply):\n    return reply.text.count('e')\n"
    (folder / "my.py").write_text(functions + "def constant(prompt, reply):\n    return 1\n")
    flags = [
        "--pretrained_model_path",
        "tinystories_chat_model/best_model.pth",
        "--dataset",
        "talks",
        "--cache_dir",
        "cache",
    ]
    flags += ["--prompts_file", "prompts.jsonl", "--reward_file", f"my.py:{reward}", "--max_new_tokens", 16]
    flags += ["--max_steps", 4, "--logging_steps", 1, "--lr", 1e-2, "--batch_size", 16, "--device", "cuda", amp]
    main(train_with_rewards, *flags, "--output_dir", "out", folder=folder)
    distances = [row["kl"] for row in metrics(folder / "out", "train") if "kl" in row]
    if reward == "constant":
        assert not distances  # a step without replies that differ
    else:
        assert abs(distances[0]) < 1e-4 < distances[-1]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_compiled_run_learns_the_same_and_compiles_once(tmp_path, dtype):
    skip_without(dtype)
    torch._dynamo.reset()
    plain, _ = train_on_gpu(tmp_path / "plain", amp=True, amp_dtype=dtype)
    counters = torch._dynamo.utils.counters
    counters.clear()
    compiled, _ = train_on_gpu(tmp_path / "compiled", amp=True, amp_dtype=dtype, compile="on")
    assert "compiled in" in (tmp_path / "compiled" / "train.log").read_text()
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]
    assert compiled["final_val_loss"] == pytest.approx(plain["final_val_loss"], rel=0.02)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_step_with_adamw_never_makes_the_host_wait(dtype):
    skip_without(dtype)
    device, settings = choose_device("cuda"), make_settings()
    model, rows = make_model().to(device), make_rows()
    precision = Precision(device, dtype != "float32", dtype)
    optimizers = make_optimizers(model, settings)
    training_step(model, optimizers, precision, micro_batches(rows, 0, settings, device), settings)
    batches = micro_batches(rows, 1, settings, device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        training_step(model, optimizers, precision, batches, settings)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_step_of_the_usual_size_never_makes_the_host_wait():
    """Uses 16,384 tokens: with this many, the backward pass of the embedding sorts them; with few, it does not."""
    device, settings = choose_device("cuda"), make_settings()
    model = Transformer(ModelConfig(10_000)).to(device)
    precision = Precision(device, True, "float16")
    optimizers = make_optimizers(model, settings)
    ids = torch.randint(10_000, (64, 257))
    batches = [(ids[:, :-1].pin_memory(), ids[:, 1:].pin_memory())]
    training_step(model, optimizers, precision, batches, settings)
    torch.cuda.set_sync_debug_mode("error")
    try:
        training_step(model, optimizers, precision, batches, settings)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("preset", ["course", "cs336", "gpt2"])
def test_the_gpu_computes_the_same_as_the_cpu(preset, dtype):
    skip_without(dtype)
    check_device(config_of(preset, 10_000), Precision(choose_device("cuda"), dtype != "float32", dtype))


def test_compiled_muon_makes_the_same_updates():
    device = choose_device("cuda")
    models = [make_model().to(device) for _ in range(2)]
    for model, is_compiled in zip(models, (False, True), strict=True):
        muon, _ = make_optimizers(model, make_settings(optimizer="muon"))
        if is_compiled:
            muon.compile()
        torch.manual_seed(0)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        muon.step()
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(one, other, rtol=0.02, atol=2e-3)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_steps_whose_loss_is_not_finite_are_skipped_and_counted(tmp_path, dtype, optimizer):
    skip_without(dtype)
    flags = {"amp": dtype != "float32", "amp_dtype": None if dtype == "float32" else dtype, "optimizer": optimizer}
    with losses_not_finite_at(3, 7):
        summary, _ = train_on_gpu(tmp_path / "run", epochs=6, **flags)
    assert summary["skipped_steps"] == 2
    plain, _ = train_on_gpu(tmp_path / "plain", epochs=6, **flags)
    assert summary["final_val_loss"] == pytest.approx(plain["final_val_loss"], rel=0.1)


def test_too_many_bad_steps_stop_the_run(tmp_path):
    with losses_not_finite_at(*range(5, 40)), pytest.raises(UserError, match="steps in a row"):
        train_on_gpu(tmp_path, epochs=6, max_bad_steps=4)


def test_a_cpu_run_resumes_on_a_gpu(tmp_path):
    with signal_at(4, signal.SIGTERM):
        train_on_gpu(tmp_path, device="cpu")
    summary, _ = train_on_gpu(tmp_path, LATEST)
    assert summary["ended"] == "finished"


@pytest.mark.parametrize("arch", ["gpt2", "llama"])
def test_greedy_and_beam_search_texts_are_the_same_as_on_the_cpu(arch):
    torch.set_float32_matmul_precision("highest")
    torch.manual_seed(0)
    shape = {"num_layers": 2, "hidden_size": 64, "num_heads": 4, "intermediate_size": 96, "max_seq_len": 16}
    model = Transformer(ModelConfig(VOCAB, **shape, arch=arch)).eval()
    prompts = [[3, 4, 5], [7], list(range(8, 20))]
    greedy = lambda: list(generate(model, prompts, Sampling(40, temperature=0, repetition_penalty=1.3)))
    write = lambda: (greedy(), beam_search(model, prompts, Sampling(40, num_beams=3)))
    on_the_cpu = write()
    model.cuda()
    assert write() == on_the_cpu
