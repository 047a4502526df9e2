"""What the network is computed on: the device, its half precision, its peak, and the compiler.

In reading order: `choose_device`; `Precision`, how training computes; `ready_to_write`, how writing does; `peak_flops`,
what the device could do at best; `compiled`, the network translated into fewer and larger kernels.
"""

import contextlib
import os
import re
import shutil
import sysconfig
import time
from collections.abc import Iterable
from pathlib import Path

import torch

from common.console import log
from common.errors import UserError, reason_of

# Dense 16-bit products summed in float32, from the data sheets; a card's name has all words of its entry.
PEAK_TFLOPS = {
    "T4": 65, "L4": 121, "A10": 125, "A10G": 70, "A100": 312, "L40S": 362, "H100": 989, "H100 PCIe": 756,
    "H100 NVL": 835, "H200": 989, "H200 NVL": 835, "B200": 2250,
    "RTX 3060": 25.5, "RTX 3060 Ti": 32.4, "RTX 3070": 40.6, "RTX 3070 Ti": 43.5, "RTX 3080": 59.5,
    "RTX 3080 Ti": 68.2, "RTX 3090": 71.2, "RTX 3090 Ti": 80,
    "RTX 4060": 30.2, "RTX 4060 Ti": 44.1, "RTX 4070": 58.3, "RTX 4070 SUPER": 71, "RTX 4070 Ti": 80.2,
    "RTX 4070 Ti SUPER": 88.2, "RTX 4080": 97.5, "RTX 4080 SUPER": 104.4, "RTX 4090": 165.2,
    "RTX 5060": 38.4, "RTX 5060 Ti": 47.4, "RTX 5070": 61.7, "RTX 5070 Ti": 87.9, "RTX 5080": 112.6, "RTX 5090": 209.5,
}  # fmt: skip
OTHER_CARDS = {"Laptop", "Max", "MIG", "D"}  # words of slower cards, or parts of a card, of the same name
TURING = (7, 5)  # compute capability
WORTH_COMPILING = {"cpu": 100, "cuda": 600}  # seconds that a run must take without the compiler
USUAL_MFU = 0.2  # of a run without the compiler, to guess how long it takes
CPU_MFU = 0.25  # the same of a CPU, whose peak is measured
USUAL_PEAK = 50e12  # operations a second, where the device is not known
MOST_FLOPS = 50e12  # operations a second that so small a network reaches on any device
READ_DEVICE = re.compile(r"\bdevice: (.*)")  # with which grading reads the line that `choose_device` logs


def choose_device(name: str = "auto", local_rank: int | None = None) -> torch.device:
    """The torch.device of that name; auto takes CUDA, then Apple's MPS, then the CPU.  Reports which.

    local_rank: which of several GPUs.  Raises UserError for a device that is not there.
    """
    if name == "auto":
        name = best_device_name()
    if name == "cuda" and local_rank is not None:
        name = f"cuda:{local_rank}"
        torch.cuda.set_device(local_rank)
    try:
        device = torch.device(name)
        if device.type == "cuda":
            refuse_old_card(device)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UserError(f"--device {name} cannot be used here: {reason_of(error)}") from None
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32 from Ampere on
        torch.backends.cuda.enable_cudnn_sdp(False)  # gradients of NaN on H100 (huggingface/trl issue 7181)
    log.info(f"device: {describe_device(device)}")
    return device


def refuse_old_card(device: torch.device) -> None:
    """Raise UserError for a card older than Turing, where torch is built for CUDA 13 or newer."""
    cuda = int((torch.version.cuda or "0").split(".")[0])
    if torch.cuda.get_device_capability(device) < TURING and cuda >= 13:
        raise UserError(
            f"--device {device}: {torch.cuda.get_device_name(device)} is older than Turing, and this torch, built for "
            f"CUDA {torch.version.cuda}, has no kernels for it; install torch for CUDA 12.6, or pass --device cpu"
        )


def best_device_name() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def describe_device(device: torch.device) -> str:
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{device} ({properties.name}, {properties.total_memory / 2**30:.0f} GiB)"
    return f"cpu ({torch.get_num_threads()} threads)" if device.type == "cpu" else str(device)


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device has units for bfloat16 (emulating it, which every device can, is slow)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):  # from torch 2.12 on
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))


class Precision:
    """How training computes on a device: in float32, or in half precision where the device can do it.

    float16 has few exponents: its gradients would vanish, so the loss is scaled up before the backward pass and the
    gradients down after it (Micikevicius et al. 2018).  bfloat16 needs no scaling, but a device that has units for it.
    On CUDA the scaler is there for every precision, at a scale of 1, since it also leaves out what is not finite.
    """

    def __init__(self, device: torch.device, amp: bool | None = False, amp_dtype: str | None = None):
        """amp: half precision or not; None: on a CPU with bfloat16 units.  amp_dtype None: what suits the device."""
        on_cpu = device.type == "cpu"
        if amp_dtype is None:
            amp_dtype = "bfloat16" if on_cpu else "float16"
        able = has_bfloat16(device) if amp_dtype == "bfloat16" else device.type == "cuda"
        wanted = on_cpu if amp is None else amp
        if amp and not able:
            log.info(f"--amp: this {device.type} device has no units for {amp_dtype}; the run goes on in float32")
        self.device = device
        self.dtype = getattr(torch, amp_dtype) if wanted and able else torch.float32
        self.scale = None if self.dtype == torch.float16 else 1.0  # None: as large as the gradients bear
        self.scaler = torch.amp.GradScaler(device.type, init_scale=self.scale or 2.0**16, enabled=device.type == "cuda")

    def loss_scale(self) -> torch.Tensor:
        """What losses are multiplied with now, on the device, so that the host need not wait for it."""
        return self.scaler.scale(torch.ones((), device=self.device))

    def update_scaler(self) -> None:
        """Let the scale follow the gradients, where it is not fixed."""
        self.scaler.update(self.scale)

    def autocast(self) -> contextlib.AbstractContextManager:
        """The context in which the network computes in this precision."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def name(self) -> str:
        """Such as "bfloat16"."""
        return str(self.dtype).removeprefix("torch.")


def ready_to_write(model: torch.nn.Module, rows: int = 1) -> torch.nn.Module:
    """The model for `generate`, which continues so many rows side by side.

    On a CPU with bfloat16 units the weights in bfloat16, half as much to read; but not for one or two rows where these
    units are for whole tiles (Intel's AMX): there a product of few rows is faster in float32.
    """
    device = model.tokens.weight.device
    if device.type != "cpu" or not has_bfloat16(device):
        return model
    has_tiles = torch.cpu.get_capabilities().get("amx_bf16", False)
    return model if has_tiles and rows <= 2 else model.bfloat16()


# How fast the device could be ---------------------------------------------------------------------------------------


def known_card(name: str) -> str | None:
    """Which of `PEAK_TFLOPS` a device's name names, None where it is none of them."""
    words = set(re.split(r"\W+", name))
    if words & OTHER_CARDS:
        return None
    named = [card for card in PEAK_TFLOPS if words.issuperset(card.split())]
    return max(named, key=len, default=None)


def peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """The device's operations a second, or None: a GPU's in 16 bits, from `PEAK_TFLOPS`; a CPU's measured here."""
    if device.type == "cuda":
        card = known_card(torch.cuda.get_device_name(device))
        return PEAK_TFLOPS[card] * 1e12 if card else None
    if device.type != "cpu":
        return None
    a = torch.ones(2048, 1024, dtype=dtype)
    b = torch.ones(1024, 1024, dtype=dtype)
    seconds = []
    for _ in range(8):
        began = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - began)
    return 2 * 2048 * 1024 * 1024 / min(seconds)


# The compiler -------------------------------------------------------------------------------------------------------


def compiling_pays(device: torch.device, peak: float | None, dtype: torch.dtype, flops: float) -> bool:
    """Whether a run of that many operations, guessed at without the compiler, is long enough for it.

    On a CPU only with bfloat16 units: in float32 it gains almost nothing.
    """
    if device.type == "cpu":
        return dtype == torch.bfloat16 and peak is not None and flops / (CPU_MFU * peak) > WORTH_COMPILING["cpu"]
    if device.type != "cuda":
        return False
    flops_per_second = min(USUAL_MFU * (peak or USUAL_PEAK), MOST_FLOPS)
    if dtype == torch.float32:
        flops_per_second /= 4
    return flops / flops_per_second > WORTH_COMPILING["cuda"]


class CompiledAfterEmbedding(torch.nn.Module):
    """A network whose work after the embedding is compiled: for a CPU.

    There several threads would add up the compiled embedding's gradient in any order, and a resumed run would not end
    as one that was never interrupted.
    """

    def __init__(self, network: torch.nn.Module):
        super().__init__()
        self.network = network
        self.loss_of = torch.compile(network.loss_of, dynamic=False)

    def forward(self, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The network's loss."""
        return self.loss_of(self.network.embed(ids), targets)


def compiled(network: torch.nn.Module, precision: Precision, batches: Iterable) -> torch.nn.Module:
    """The network compiled for training on batches of these shapes, or, where that fails, the network itself."""
    log.info("compiling the network, which takes a minute or so; --compile off does without")
    began = time.perf_counter()
    device = precision.device
    one_of_each_shape = {inputs.shape: (inputs, targets) for inputs, targets in batches}
    try:
        if device.type == "cpu":
            faster = CompiledAfterEmbedding(network)
        else:
            faster = torch.compile(network, dynamic=False)
        for inputs, targets in one_of_each_shape.values():
            with torch.random.fork_rng([device] if device.type == "cuda" else []), precision.autocast():
                loss = faster(inputs.to(device), targets.to(device))
            loss.backward()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # no C compiler, no Triton (Windows), too old a card: each raises something else
        reason = missing_for_compiling(device) or reason_of(error, 200)
        log.info(f"compiling failed, the run goes on without: {reason}")
        return network
    finally:
        network.zero_grad(set_to_none=True)
    log.info(f"compiled in {time.perf_counter() - began:.0f} s")
    return faster


def missing_for_compiling(device: torch.device) -> str | None:
    """What torch.compile needs beside torch and does not find here, and where it comes from."""
    if device.type == "cpu":
        compilers = (os.environ.get("CXX"), "g++", "clang++", "cl")
        kind = "C++"
    else:
        compilers = (os.environ.get("CC"), "gcc", "clang", "cl")
        kind = "C"
    if not any(shutil.which(name) for name in compilers if name):
        return f"no {kind} compiler (on Debian and Ubuntu: sudo apt-get install build-essential)"
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "no Python.h (on Debian and Ubuntu: sudo apt-get install python3-dev)"
    return None
