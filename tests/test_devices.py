"""Device, precision and compiling: what is chosen and printed, and that a run learns the same."""

import contextlib

import pytest
import torch
from refusals import one_line
from tiny_runs import CPU, LATEST, assert_equal_weights, interrupt, make_model, make_settings, metrics, train_in

from common import devices
from common.devices import Precision, has_bfloat16
from common.errors import UserError
from model import ModelConfig, Transformer
from training import loop
from training.optimizer import make_optimizers
from training.step import training_step


def test_a_device_is_chosen_and_printed_and_an_impossible_one_refused(said):
    assert devices.choose_device("cpu") == CPU
    assert len(said) == 1 and "cpu" in said[0]
    for name in ("toaster", "cuda:999"):
        with pytest.raises(UserError, match=f"--device {name}") as refusal:
            devices.choose_device(name)
        assert one_line(refusal)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_on_a_cpu_without_bfloat16_units_becomes_float32_with_a_warning(dtype, monkeypatch, said):
    monkeypatch.setattr(devices, "has_bfloat16", lambda device: False)
    precision = Precision(CPU, amp=True, amp_dtype=dtype)
    assert len(said) == 1 and "--amp" in said[0] and "float32" in said[0]
    assert precision.name() == "float32"
    with precision.autocast():
        assert make_model()(torch.zeros(1, 3, dtype=torch.int64)).dtype == torch.float32


def test_a_process_without_a_gpu_is_refused(monkeypatch):
    for gpus, advice in ((2, "--nproc_per_node 2"), (0, "--device cpu")):
        monkeypatch.setattr(torch.cuda, "device_count", lambda gpus=gpus: gpus)
        with pytest.raises(UserError, match=f"this machine has {gpus}; pass {advice}") as refusal:
            devices.choose_device("cuda", local_rank=2)
        assert one_line(refusal)


def test_the_type_of_half_precision_alone_asks_for_half_precision(monkeypatch, said):
    monkeypatch.setattr(devices, "has_bfloat16", lambda device: True)
    assert Precision(CPU, None, "bfloat16").name() == "bfloat16" and not said
    assert Precision(CPU, None, "float16").name() == "float32" and "no float16 units" in said.pop()
    assert Precision(CPU, False, "bfloat16").name() == "float32" and "without --amp_dtype bfloat16" in said.pop()


def test_on_a_mac_half_precision_becomes_float32_without_a_word_about_units(said):
    assert Precision(torch.device("mps"), True).name() == "float32"
    assert "not used on mps" in said[0] and "units" not in said[0]


def test_half_precision_is_the_default_only_on_a_cpu_with_bfloat16_units(monkeypatch, said):
    for able, name in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(devices, "has_bfloat16", lambda device, able=able: able)
        precision = Precision(CPU, amp=None)
        assert precision.name() == name and not said and not precision.scaler.is_enabled()
        with precision.autocast():
            assert make_model()(torch.zeros(1, 3, dtype=torch.int64)).dtype == precision.dtype
        assert Precision(CPU, amp=False).name() == "float32"
        assert devices.ready_to_write(make_model(), 64).tokens.weight.dtype == precision.dtype


def test_with_units_for_tiles_one_or_two_rows_are_generated_in_float32(monkeypatch):
    monkeypatch.setattr(devices, "has_bfloat16", lambda device: True)
    for has_tiles, rows, half in ((True, 1, False), (True, 2, False), (True, 3, True), (False, 1, True)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda tiles=has_tiles: {"amx_bf16": tiles})
        dtype = devices.ready_to_write(make_model(), rows).tokens.weight.dtype
        assert dtype == (torch.bfloat16 if half else torch.float32)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("Tesla T4", 65), ("NVIDIA L4", 121), ("NVIDIA A100-SXM4-40GB", 312), ("NVIDIA A10G", 70), ("NVIDIA L40S", 362),
        ("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H100 PCIe", 756), ("NVIDIA H200", 989), ("NVIDIA B200", 2250),
        ("NVIDIA GeForce RTX 3060", 25.5), ("NVIDIA GeForce RTX 4070", 58.3), ("NVIDIA GeForce RTX 4070 SUPER", 71),
        ("NVIDIA GeForce RTX 4070 Ti SUPER", 88.2), ("NVIDIA GeForce RTX 5090", 209.5), ("NVIDIA T400", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None), ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None), ("NVIDIA Quantum 3000", None),
    ],
)  # fmt: skip
def test_the_peak_of_a_card_is_found_by_its_name(name, peak, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert devices.peak_flops(torch.device("cuda"), torch.float16) == (peak and peak * 1e12)


def test_the_peak_of_a_cpu_is_measured():
    assert 1e8 < devices.peak_flops(CPU, torch.float32) < 1e14


def test_a_card_older_than_turing_is_refused_if_torch_has_no_kernels_for_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla V100")
    for version, capability, refused in (("13.0", (7, 0), True), ("12.6", (7, 0), False), ("13.0", (7, 5), False)):
        monkeypatch.setattr(torch.version, "cuda", version)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        with pytest.raises(UserError) if refused else contextlib.nullcontext() as refusal:
            devices.refuse_old_card(torch.device("cuda"))
        if refused:
            assert "Tesla V100 is older than Turing" in one_line(refusal) and "--device cpu" in one_line(refusal)


# Compiling ------------------------------------------------------------------------------------------------------------


def test_only_a_long_run_is_worth_compiling():
    cuda = torch.device("cuda")
    half = torch.float16
    hour = 3600 * 0.2  # in seconds at peak speed; a run reaches a fifth of it
    pays = devices.compiling_pays
    assert pays(cuda, 65e12, half, hour * 65e12) and not pays(cuda, 65e12, half, 1e12)
    assert pays(cuda, 65e12, torch.float32, 5e15) and not pays(cuda, 65e12, half, 5e15)  # slower, so it pays sooner
    assert pays(cuda, None, half, 7e15) and not pays(cuda, None, half, 5e15)  # a card that is not in the table
    assert pays(cuda, 990e12, half, 1e17)  # the five epochs of the course
    assert pays(CPU, 7e11, torch.bfloat16, 1e15) and not pays(CPU, 7e11, torch.bfloat16, 1e13)
    assert not pays(CPU, 2e11, torch.float32, 1e18)  # the gain is tiny
    assert not pays(torch.device("mps"), None, half, 1e18)


def test_a_compiled_run_learns_the_same_and_compiles_once(tmp_path, monkeypatch):
    graphs = []
    compile_ = torch.compile

    def keep(graph, example):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda network, **options: compile_(network, backend=keep, **options))
    plain = train_in(tmp_path / "plain")
    assert not graphs  # a run this short is not worth it
    compiled = train_in(tmp_path / "compiled", compile="on")
    assert len(graphs) == 1  # despite the evaluations in between
    assert compiled["final_val_loss"] == pytest.approx(plain["final_val_loss"], rel=1e-4)
    assert "compiled in" in (tmp_path / "compiled" / "train.log").read_text()


def test_if_compiling_fails_the_run_trains_without_it(tmp_path, monkeypatch):
    def fail(network, **options):
        raise RuntimeError("a kernel too many\nand much more")

    monkeypatch.setattr(torch, "compile", fail)
    monkeypatch.setattr(devices, "missing_for_compiling", lambda device: None)
    plain = train_in(tmp_path / "plain")
    failed = train_in(tmp_path / "failed", compile="on")
    assert failed["final_val_loss"] == plain["final_val_loss"]
    log = (tmp_path / "failed" / "train.log").read_text()
    assert "compiling failed, training without it: a kernel too many\n" in log and "much more" not in log
    assert [row["compiled"] for row in metrics(tmp_path / "failed", "run")] == [False]


def test_missing_tools_for_compiling_are_named(monkeypatch):
    for device, compiler in (("cpu", "no C++ compiler"), ("cuda", "no C compiler")):
        monkeypatch.setattr(devices.shutil, "which", lambda name: None)
        missing = devices.missing_for_compiling(torch.device(device))
        assert compiler in missing and "build-essential" in missing
        monkeypatch.setattr(devices.shutil, "which", lambda name: f"/usr/bin/{name}")
        monkeypatch.setattr(devices.sysconfig, "get_path", lambda kind: "nowhere")
        missing = devices.missing_for_compiling(torch.device(device))
        assert "no Python.h" in missing and "python3-dev" in missing
        monkeypatch.undo()


@pytest.fixture
def compiling(monkeypatch):
    """Replace the compiler by a quick one that changes nothing; return the list of networks that it compiled."""
    networks = []

    def compiled(network, precision, batches):
        networks.append(network)
        return devices.CompiledAfterEmbedding(network)

    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    monkeypatch.setattr(loop, "compiled", compiled)
    return networks


def test_a_resumed_run_is_compiled_as_before_and_any_change_is_reported(tmp_path, compiling, capsys):
    warning = "its final weights may differ in the last bits"
    for name, first, second, warned in (
        ("kept", "on", "auto", False), ("kept off", "off", "auto", False),
        ("lost", "on", "off", True), ("gained", "off", "on", True),
    ):  # fmt: skip
        compiling.clear()
        interrupt(tmp_path / name, 3, compile=first)
        assert len(compiling) == (first == "on")
        train_in(tmp_path / name, flags=LATEST, compile=second)
        rows = metrics(tmp_path / name, "run", "resume")
        is_compiled = first == "on" if second == "auto" else second == "on"
        assert [row["compiled"] for row in rows] == [first == "on", is_compiled]
        assert (warning in capsys.readouterr().err) == warned


def can_compile():
    return has_bfloat16(CPU) and not devices.missing_for_compiling(CPU)


@pytest.mark.skipif(not can_compile(), reason="needs bfloat16 units and a C++ compiler")
def test_compiled_steps_on_two_threads_repeat_to_the_last_bit():
    """The network is large enough to keep both threads busy, and its dropout draws random numbers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        before = weights_after_compiled_steps()
        again = weights_after_compiled_steps()
    finally:
        torch.set_num_threads(threads)
    assert_equal_weights(before, again)


def weights_after_compiled_steps():
    torch._dynamo.reset()
    torch.manual_seed(0)
    shape = {"num_layers": 1, "hidden_size": 128, "num_heads": 4, "intermediate_size": 256, "max_seq_len": 64}
    model = Transformer(ModelConfig(2000, **shape, dropout=0.1)).train()
    precision = Precision(CPU, amp=True)
    settings = make_settings()
    optimizers = make_optimizers(model, settings)
    ids = torch.randint(5, (32, 65), generator=torch.Generator().manual_seed(0))  # each token many times
    batches = [(ids[:, :-1], ids[:, 1:])]
    network = devices.compiled(model, precision, batches)
    assert network is not model
    for _ in range(3):
        training_step(network, optimizers, precision, batches, settings)
    return model.state_dict()
