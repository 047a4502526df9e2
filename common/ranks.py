"""Several processes that train one model: `torchrun` starts one a GPU, or several on a CPU; otherwise there is one.

Each rank takes its own share of the rows of a step; gradients are averaged by DistributedDataParallel. Numbers that all
ranks must agree on go over the CPU, so that no GPU waits for them.
"""

import contextlib
import datetime
import logging
import os
from collections.abc import Iterator

import torch
import torch.distributed as distributed
from torch.nn.parallel import DistributedDataParallel

from common.console import log

WAIT_FOR_TOKENIZING = datetime.timedelta(hours=6)  # which rank 0 does for all
WAIT = datetime.timedelta(minutes=10)  # for everything else: a rank that hangs is noticed in the same lesson


class Ranks:
    """rank: this process's number, from 0; count: how many there are."""

    def __init__(self, count: int | None = None):
        """count: how many; None: as `torchrun` says."""
        self.count = count or int(os.environ.get("WORLD_SIZE", 1))
        self.rank = int(os.environ.get("RANK", 0)) if self.count > 1 else 0
        self.local_rank = int(os.environ.get("LOCAL_RANK", 0))
        if self.rank > 0:
            log.setLevel(logging.ERROR)  # rank 0 reports for all
        if self.count > 1:
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            distributed.init_process_group(backend, timeout=WAIT)
            self.patient = distributed.new_group(backend="gloo", timeout=WAIT_FOR_TOKENIZING)

    def wrap(self, model: torch.nn.Module) -> torch.nn.Module:
        """The network whose backward pass averages the gradients of all ranks; model itself where there is one rank."""
        if self.count == 1:
            return model
        # All buffers are tables that no step changes; and a gradient need not be copied to be sent.
        return DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)

    def sum(self, *numbers: float) -> list[float]:
        """The sums of numbers over all ranks."""
        if self.count == 1:
            return list(numbers)
        totals = torch.tensor(numbers, dtype=torch.float64)
        distributed.all_reduce(totals)
        return totals.tolist()

    def gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """A list of every rank's tensor, on the CPU and of one shape."""
        if self.count == 1:
            return [tensor]
        tensors = [torch.empty_like(tensor) for _ in range(self.count)]
        distributed.all_gather(tensors, tensor)
        return tensors

    @contextlib.contextmanager
    def first_alone(self) -> Iterator[None]:
        """Let rank 0 do what the others then find done."""
        if self.rank > 0:
            distributed.barrier(self.patient)
        yield
        if self.count > 1 and self.rank == 0:
            distributed.barrier(self.patient)

    def close(self) -> None:
        if self.count > 1:
            distributed.barrier()  # a rank that leaves early takes the others' connections with it
            distributed.destroy_process_group()


ONE_RANK = Ranks(1)
