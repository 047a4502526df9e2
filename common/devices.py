"""What the network is computed on: the device, its half precision, its peak, and the compiler.

In reading order: `choose_device`; `Precision`, how training computes; `ready_to_write`, how writing does; `peak_flops`,
what the device could do at best; `compiled`, the network translated into fewer and larger kernels.
"""

import contextlib
import re
import time
from collections.abc import Iterable

import torch

from common.console import log
from common.errors import UserError, reason_of

PEAK_TFLOPS = {"T4": 65, "L4": 121, "A100": 312, "H100": 990, "H200": 990}  # dense 16-bit, from the data sheets
WORTH_COMPILING = 600  # seconds that a run must take without the compiler
USUAL_MFU = 0.2  # of a run without the compiler, to guess how long it takes
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
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UserError(f"--device {name} cannot be used here: {reason_of(error)}") from None
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32 from Ampere on
        torch.backends.cuda.enable_cudnn_sdp(False)  # gradients of NaN on H100 (huggingface/trl issue 7181)
    log.info(f"device: {describe_device(device)}")
    return device


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


def ready_to_write(model: torch.nn.Module) -> torch.nn.Module:
    """The model for `generate`: on a CPU with bfloat16 units the weights in bfloat16, half as much to read."""
    device = model.tokens.weight.device
    return model.bfloat16() if device.type == "cpu" and has_bfloat16(device) else model


# How fast the device could be ---------------------------------------------------------------------------------------


def known_card(name: str) -> str | None:
    """Which of `PEAK_TFLOPS` a device's name names, None where it is none of them."""
    words = re.split(r"\W+", name)
    return next((card for card in PEAK_TFLOPS if card in words), None)


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

    Never on a CPU: compiled sums of several threads come in any order, and a resumed run would not end as one that
    was never interrupted.
    """
    if device.type != "cuda":
        return False
    flops_per_second = min(USUAL_MFU * (peak or USUAL_PEAK), MOST_FLOPS)
    if dtype == torch.float32:
        flops_per_second /= 4
    return flops / flops_per_second > WORTH_COMPILING


def compiled(network: torch.nn.Module, precision: Precision, batches: Iterable) -> torch.nn.Module:
    """The network compiled for training on batches of these shapes, or, where that fails, the network itself."""
    log.info("compiling the network, which takes a minute or so; --compile off does without")
    began = time.perf_counter()
    device = precision.device
    one_of_each_shape = {inputs.shape: (inputs, targets) for inputs, targets in batches}
    try:
        faster = torch.compile(network, dynamic=False)
        for inputs, targets in one_of_each_shape.values():
            with torch.random.fork_rng([device] if device.type == "cuda" else []), precision.autocast():
                loss = faster(inputs.to(device), targets.to(device))
            loss.backward()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # no C compiler, no Triton (Windows), too old a card: each raises something else
        log.info(f"compiling failed, the run goes on without: {reason_of(error, 200)}")
        return network
    finally:
        network.zero_grad(set_to_none=True)
    log.info(f"compiled in {time.perf_counter() - began:.0f} s")
    return faster
