"""The device that the network runs on: its number format, its peak speed, and the compiler.

In reading order: `choose_device`; `Precision`, the number format for training; `ready_to_write`, the one for
generation; `peak_flops`, the highest speed of the device; `compiled`, the network translated into fewer and larger
kernels.
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

# TFLOPS of dense 16-bit products summed in float32, from the data sheets.  A card's name contains all words of its key.
PEAK_TFLOPS = {
    "T4": 65, "L4": 121, "A10": 125, "A10G": 70, "A100": 312, "L40S": 362, "H100": 989, "H100 PCIe": 756,
    "H100 NVL": 835, "H200": 989, "H200 NVL": 835, "B200": 2250,
    "RTX 3060": 25.5, "RTX 3060 Ti": 32.4, "RTX 3070": 40.6, "RTX 3070 Ti": 43.5, "RTX 3080": 59.5,
    "RTX 3080 Ti": 68.2, "RTX 3090": 71.2, "RTX 3090 Ti": 80,
    "RTX 4060": 30.2, "RTX 4060 Ti": 44.1, "RTX 4070": 58.3, "RTX 4070 SUPER": 71, "RTX 4070 Ti": 80.2,
    "RTX 4070 Ti SUPER": 88.2, "RTX 4080": 97.5, "RTX 4080 SUPER": 104.4, "RTX 4090": 165.2,
    "RTX 5060": 38.4, "RTX 5060 Ti": 47.4, "RTX 5070": 61.7, "RTX 5070 Ti": 87.9, "RTX 5080": 112.6, "RTX 5090": 209.5,
}  # fmt: skip
OTHER_CARDS = {"Laptop", "Max", "MIG", "D"}  # words in the names of slower cards, or of parts of a card
TURING = (7, 5)  # compute capability
WORTH_COMPILING = {"cpu": 100, "cuda": 600}  # compile a run that would take more seconds than this without it
USUAL_MFU = 0.2  # of a run without the compiler, to estimate its time
CPU_MFU = 0.25  # the same for a CPU, whose peak is measured
USUAL_PEAK = 50e12  # operations per second, if the device is unknown
MOST_FLOPS = 50e12  # operations per second: the most that such small networks reach on any device
READ_DEVICE = re.compile(r"\bdevice: (.*)")  # grading reads the line that `choose_device` logs with this pattern


def choose_device(name: str = "auto", local_rank: int | None = None) -> torch.device:
    """Return the torch.device with this name, and log it; auto prefers CUDA, then Apple's MPS, then the CPU.

    local_rank: which GPU to use, if there are several.  Raises UserError if the device is not available.
    """
    if name == "auto":
        name = best_device_name()
    if name == "cuda" and local_rank is not None:
        gpus = torch.cuda.device_count()
        if local_rank >= gpus:
            advice = f"pass --nproc_per_node {gpus} to torchrun" if gpus else "pass --device cpu"
            raise UserError(f"--device cuda: each process needs its own GPU, but this machine has {gpus}; {advice}")
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
    """Raise UserError for a card older than Turing if this torch is built for CUDA 13 or newer."""
    cuda = int((torch.version.cuda or "0").split(".")[0])
    if torch.cuda.get_device_capability(device) < TURING and cuda >= 13:
        raise UserError(
            f"--device {device}: {torch.cuda.get_device_name(device)} is older than Turing, and this torch, built for "
            f"CUDA {torch.version.cuda}, has no kernels for it; install torch for CUDA 12.6, or pass --device cpu"
        )


def best_device_name() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if mps_works() else "cpu"


def mps_works() -> bool:
    """Return whether Apple's MPS is here and can compute.

    In a virtual machine it may be available, but without memory (github.com/actions/runner-images/issues/9918).
    """
    if not torch.backends.mps.is_available():
        return False
    try:
        ones = torch.ones(8, 8, device="mps")
        return (ones @ ones).sum().item() == 8 * 8 * 8
    except RuntimeError as error:
        log.info(f"mps cannot be used here: {reason_of(error)}")
        return False


def describe_device(device: torch.device) -> str:
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{device} ({properties.name}, {properties.total_memory / 2**30:.0f} GiB)"
    return f"cpu ({torch.get_num_threads()} threads)" if device.type == "cpu" else str(device)


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device has bfloat16 units (every device can emulate bfloat16, but slowly)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):  # get_capabilities is new in torch 2.12
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))


class Precision:
    """The number format for training: float32, or half precision if the device supports it.

    float16 has a small range: small gradients would become 0.  So the loss is scaled up before the backward pass and
    the gradients down after it (Micikevicius et al. 2018).  bfloat16 needs no scaling, but a device with bfloat16
    units.
    On CUDA every precision uses the scaler, with a scale of 1 if none is needed: it also skips gradients that are not
    finite.
    """

    def __init__(self, device: torch.device, amp: bool | None = False, amp_dtype: str | None = None):
        """amp: use half precision; None: if amp_dtype is given, or on a CPU with bfloat16 units.

        amp_dtype: "float16" or "bfloat16"; None: what suits the device.
        """
        on_cpu = device.type == "cpu"
        if amp is False and amp_dtype is not None:
            log.info(f"--no-amp: training in float32, without --amp_dtype {amp_dtype}")
        if amp is None and amp_dtype is not None:
            amp = True
        if amp_dtype is None:
            amp_dtype = "bfloat16" if on_cpu else "float16"
        able = has_bfloat16(device) if amp_dtype == "bfloat16" else device.type == "cuda"
        wanted = on_cpu if amp is None else amp
        if amp and device.type == "mps":
            log.info("--amp: half precision is not used on mps; training in float32 instead")
        elif amp and not able:
            log.info(f"--amp: this {device.type} device has no {amp_dtype} units; training in float32 instead")
        self.device = device
        self.dtype = getattr(torch, amp_dtype) if wanted and able else torch.float32
        self.scale = None if self.dtype == torch.float16 else 1.0  # None: adjusted to the gradients
        self.scaler = torch.amp.GradScaler(device.type, init_scale=self.scale or 2.0**16, enabled=device.type == "cuda")

    def loss_scale(self) -> torch.Tensor:
        """Return the current factor for the loss, on the device, so that the host does not wait for it."""
        return self.scaler.scale(torch.ones((), device=self.device))

    def update_scaler(self) -> None:
        """Adjust the scale to the gradients, unless it is fixed."""
        self.scaler.update(self.scale)

    def autocast(self) -> contextlib.AbstractContextManager:
        """Return the context in which the network computes in this precision."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def name(self) -> str:
        """Return the name of the number format, for example "bfloat16"."""
        return str(self.dtype).removeprefix("torch.")


def ready_to_write(model: torch.nn.Module, rows: int = 1) -> torch.nn.Module:
    """Return the model for `generate`, which continues this many rows at a time.

    On a CPU with bfloat16 units, convert the weights to bfloat16, which halves the memory to read.  With Intel's AMX,
    do not convert them for one or two rows: AMX computes whole tiles, so products of few rows are faster in float32.
    """
    device = model.tokens.weight.device
    if device.type != "cpu" or not has_bfloat16(device):
        return model
    has_tiles = torch.cpu.get_capabilities().get("amx_bf16", False)
    return model if has_tiles and rows <= 2 else model.bfloat16()


# Peak speed ---------------------------------------------------------------------------------------------------------


def known_card(name: str) -> str | None:
    """Return the key of `PEAK_TFLOPS` that matches a device's name, or None."""
    words = set(re.split(r"\W+", name))
    if words & OTHER_CARDS:
        return None
    named = [card for card in PEAK_TFLOPS if words.issuperset(card.split())]
    return max(named, key=len, default=None)


def peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """Return the peak of the device in operations per second, or None if it is unknown.

    A GPU's peak is for 16 bits and comes from `PEAK_TFLOPS`; a CPU's is measured here.
    """
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
    """Whether a run with this many operations is long enough to compile; its time without the compiler is estimated.

    A CPU needs bfloat16 units: in float32, compiling gains almost nothing.
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
    """A network that is compiled except for its embedding, for a CPU.

    In the compiled embedding, several threads would add up the gradient in any order.  A resumed run would then not end
    with the same weights as a run that was never interrupted.
    """

    def __init__(self, network: torch.nn.Module):
        super().__init__()
        self.network = network
        self.loss_of = torch.compile(network.loss_of, dynamic=False)

    def forward(self, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the network's loss."""
        return self.loss_of(self.network.embed(ids), targets)


def compiled(network: torch.nn.Module, precision: Precision, batches: Iterable) -> torch.nn.Module:
    """Return the network compiled for batches of these shapes, or the network itself if compiling fails."""
    log.info("compiling the network, which takes up to a minute; --compile off skips this")
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
    except Exception as error:  # no C compiler, no Triton (Windows), too old a card: each raises another error
        reason = missing_for_compiling(device) or reason_of(error, 200)
        log.info(f"compiling failed, training without it: {reason}")
        return network
    finally:
        network.zero_grad(set_to_none=True)
    log.info(f"compiled in {time.perf_counter() - began:.0f} s")
    return faster


def missing_for_compiling(device: torch.device) -> str | None:
    """Return what torch.compile needs and does not find here, and how to install it; None if nothing is missing."""
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
