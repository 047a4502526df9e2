"""Check that a device computes the same as a CPU.

Some do not, and report no error: attention on Apple's MPS was wrong for heads of 64 and more (pytorch issue 181133).
"""

import dataclasses

import torch

from common.devices import Precision
from common.errors import UserError
from model import ModelConfig, Transformer

ROWS = 2
LONGEST_ROW = 128  # tokens
VOCABULARY = 256
LARGER = 5  # times the usual initial weights: with small weights, attention hardly changes the result
# How far a gradient may be from the CPU's, relative to its length: several times the rounding error.
TOLERANCES = {torch.float32: 0.02, torch.float16: 0.05, torch.bfloat16: 0.3}


def check_device(config: ModelConfig, precision: Precision) -> None:
    """Compare the loss and the gradients of a network of one layer with the CPU's.

    Raises UserError if they differ by more than the precision explains.
    """
    length = min(config.max_seq_len, LONGEST_ROW)
    config = dataclasses.replace(config, num_layers=1, vocab_size=VOCABULARY, max_seq_len=length, dropout=0.0)
    with torch.random.fork_rng(devices=[]):  # the run's own random numbers do not change
        torch.default_generator.manual_seed(0)  # the CPU's; torch.manual_seed would change those of all devices
        model = Transformer(config)
        with torch.no_grad():
            for matrix in (parameter for parameter in model.parameters() if parameter.dim() == 2):
                matrix *= LARGER
        ids = torch.randint(VOCABULARY, (ROWS, length + 1))
    right = loss_and_gradients(model, ids, Precision(torch.device("cpu")))
    found = loss_and_gradients(model.to(precision.device), ids, precision)
    for name, expected in right.items():
        distance = ((found[name] - expected).norm() / expected.norm()).item()
        if not distance <= TOLERANCES[precision.dtype]:
            raise UserError(
                f"--device {precision.device} gives wrong results in {precision.name()}: {name} differs from the CPU's "
                f"by {distance:.0%}; try another version of torch, pass --device cpu, or, to train anyway, "
                "--no-device_check"
            )


def loss_and_gradients(model: Transformer, ids: torch.Tensor, precision: Precision) -> dict[str, torch.Tensor]:
    """Return {name: loss or gradient}, moved to the CPU, for ids int64 (rows, tokens + 1)."""
    model.zero_grad()
    ids = ids.to(precision.device)
    with precision.autocast():
        loss = model(ids[:, :-1], ids[:, 1:])
    loss.backward()
    gradients = {f"the gradient of {name}": parameter.grad.cpu() for name, parameter in model.named_parameters()}
    return {"the loss": loss.detach().cpu()} | gradients
