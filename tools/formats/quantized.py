"""Round a model's weights to fewer bits (quantization), so that they need less space.

A matrix is cut into groups of weights.  Each group gets a scale, its largest absolute weight divided by the largest
integer, and each weight becomes the nearest multiple of its scale (Dettmers et al. 2022, absmax quantization):

    weights   0.30  -0.11   0.02  -0.48        largest 0.48, so with 8 bits the scale is 0.48 / 127 = 0.00378
    integers    79    -29      5   -127        0.30 / 0.00378 = 79.4, and so on
    rounded   0.299 -0.110  0.019 -0.480

Norms and biases stay float32: they are few.  In float16 all numbers have 16 bits, and there are no scales.

In reading order: `Format`, how to round; `quantize` and `dequantize`; `round_weights`, for a whole model.
"""

from dataclasses import dataclass

import torch

from model import Transformer


@dataclass(frozen=True)
class Format:
    """How to round matrices.  bits: of each weight; group: how many weights share a scale (None: each row has one)."""

    bits: int
    group: int | None = None

    @property
    def largest(self) -> int:
        """The largest integer: 127 with 8 bits, 7 with 4 bits."""
        return 2 ** (self.bits - 1) - 1


# With 4 bits there are only 15 values, so fewer weights share a scale.
FORMATS = {"int8": Format(8), "int4": Format(4, group=64)}
FLOAT16 = "float16"


def quantize(weight: torch.Tensor, how: Format) -> tuple[torch.Tensor, torch.Tensor]:
    """weight (rows, columns) -> integers int8 (rows, columns), scales float32 (rows, groups)."""
    rows, columns = weight.shape
    group = min(how.group or columns, columns)
    padded = torch.nn.functional.pad(weight.float(), (0, -columns % group))  # zeros, up to a whole group
    groups = padded.view(rows, -1, group)
    scales = groups.abs().amax(-1) / how.largest  # (rows, groups)
    divisors = scales.where(scales > 0, 1)  # a group of zeros has the scale 0
    integers = (groups / divisors[..., None]).round().to(torch.int8)
    return integers.view(rows, -1)[:, :columns], scales


def dequantize(integers: torch.Tensor, scales: torch.Tensor, how: Format) -> torch.Tensor:
    """integers (rows, columns), scales (rows, groups) -> the rounded weights, float32 (rows, columns)."""
    columns = integers.size(1)
    group = min(how.group or columns, columns)
    return integers * scales.repeat_interleave(group, dim=1)[:, :columns]


@torch.no_grad()
def round_weights(model: Transformer, name: str) -> int:
    """Round the weights of a float32 model, in place; return how many bytes they need now.

    name: "float16", or a key of FORMATS.
    """
    size = 0
    for parameter in model.parameters():
        if name == FLOAT16:
            parameter.copy_(parameter.half())
            size += 2 * parameter.numel()
        elif parameter.dim() == 2:
            how = FORMATS[name]
            integers, scales = quantize(parameter, how)
            parameter.copy_(dequantize(integers, scales, how))
            size += parameter.numel() * how.bits // 8 + 4 * scales.numel()
        else:
            size += 4 * parameter.numel()
    return size
