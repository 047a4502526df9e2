"""Several processes that train one model: `torchrun` starts one per GPU, or several on a CPU; otherwise there is one.

Each rank processes its own share of a step's rows, and DistributedDataParallel averages the gradients.  Numbers that
all ranks must agree on are sent over the CPU, so that no GPU waits for them.
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

WAIT_FOR_TOKENIZING = datetime.timedelta(hours=6)  # rank 0 tokenizes for all ranks
WAIT = datetime.timedelta(minutes=10)  # for everything else: a rank that hangs is noticed within the lesson


class Ranks:
    """The processes of a run.  rank: the number of this process, from 0; count: how many there are."""

    def __init__(self, count: int | None = None):
        """count: the number of processes; None: as `torchrun` sets it."""
        self.count = count or int(os.environ.get("WORLD_SIZE", 1))
        self.rank = int(os.environ.get("RANK", 0)) if self.count > 1 else 0
        self.local_rank = int(os.environ.get("LOCAL_RANK", 0))
        if self.rank > 0:
            log.setLevel(logging.ERROR)  # only rank 0 logs
        if self.count > 1:
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            distributed.init_process_group(backend, timeout=WAIT)
            self.patient = distributed.new_group(backend="gloo", timeout=WAIT_FOR_TOKENIZING)

    def wrap(self, model: torch.nn.Module) -> torch.nn.Module:
        """Return the network, with gradients averaged over all ranks; with one rank, the model itself."""
        if self.count == 1:
            return model
        # Buffers are constant tables, so they need no broadcast.  A view of the bucket saves a copy of the gradients.
        return DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)

    def sum(self, *numbers: float) -> list[float]:
        """Return the sum of each number over all ranks."""
        if self.count == 1:
            return list(numbers)
        totals = torch.tensor(numbers, dtype=torch.float64)
        distributed.all_reduce(totals)
        return totals.tolist()

    def gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """Return a list of every rank's tensor; they are on the CPU and have the same shape."""
        if self.count == 1:
            return [tensor]
        tensors = [torch.empty_like(tensor) for _ in range(self.count)]
        distributed.all_gather(tensors, tensor)
        return tensors

    @contextlib.contextmanager
    def first_alone(self) -> Iterator[None]:
        """Let rank 0 run the block before the others, which then find its work done."""
        if self.rank > 0:
            distributed.barrier(self.patient)
        yield
        if self.count > 1 and self.rank == 0:
            distributed.barrier(self.patient)

    def close(self) -> None:
        if self.count > 1:
            distributed.barrier()  # a rank that leaves early would close the connections of the others
            distributed.destroy_process_group()


ONE_RANK = Ranks(1)
