"""The processes that fit one crosscoder together, each with its part of every batch.

Started by ``torchrun``, which gives each its rank. Every process reads the same batches, keeps its
own rows of them, and applies the same summed gradients, so that all hold the same weights.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

# The optimiser imports this late; its default arguments would then hold the group of processes,
# whose threads outlive `destroy_process_group` and now and then abort the process at its exit.
import torch.distributed.nn
from torch import Tensor, distributed

from workflow_scripts.common.cli import UserError
from workflow_scripts.common.gpus import take_gpus


@dataclass(frozen=True)
class Processes:
    """Number of processes and the place of this one; the sums of one process are its own."""

    count: int = 1
    rank: int = 0

    def part(self, x: Tensor) -> Tensor:
        """Return this process's rows of a batch, whose size is a multiple of ``count``."""
        return x if self.count == 1 else x.chunk(self.count)[self.rank]

    def sum(self, tensor: Tensor) -> Tensor:
        """Add up ``tensor`` over all processes, in place."""
        if self.count > 1:
            distributed.all_reduce(tensor)
        return tensor

    def mean(self, tensor: Tensor) -> Tensor:
        """Average ``tensor`` over all processes, in place."""
        return self.sum(tensor).div_(self.count) if self.count > 1 else tensor

    def any(self, mask: Tensor) -> Tensor:
        """Return where any process's ``mask`` is true."""
        return mask if self.count == 1 else self.sum(mask.to(torch.int32)) > 0

    def gather(self, values: Tensor) -> tuple[Tensor, int]:
        """Return the values [n] of all processes in order, and where this one's begin."""
        if self.count == 1:
            return values, 0
        sizes = torch.zeros(self.count, dtype=torch.int64, device=values.device)
        sizes[self.rank] = values.numel()
        lengths: list[int] = self.sum(sizes).tolist()
        padded = values.new_zeros(max(lengths))
        padded[: values.numel()] = values
        parts = [torch.empty_like(padded) for _ in lengths]
        distributed.all_gather(parts, padded)
        cut = [part[:length] for part, length in zip(parts, lengths, strict=True)]
        return torch.cat(cut), sum(lengths[: self.rank])


@contextmanager
def joined(device: str) -> Iterator[tuple[Processes, torch.device]]:
    """Yield the processes that ``torchrun`` started, or this one, and this one's device.

    ``device`` is ``auto`` (CUDA where there is one, else the CPU), ``cpu`` or ``cuda``; every
    process has a GPU of its own.

    Raises
    ------
    UserError
        If there is no GPU, or there are fewer than processes on this machine.
    """
    if device != "cpu":
        take_gpus(1)
    gpus = torch.cuda.device_count()
    here = torch.device("cuda" if device == "cuda" or (device == "auto" and gpus) else "cpu")
    count, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if here.type == "cuda":
        if local >= gpus:
            raise UserError(
                f"the fit asks for {local + 1} GPUs, but there are {gpus}: lower "
                "crosscoder.processes, or set activations.device to cpu"
            )
        here = torch.device("cuda", local)
        torch.cuda.set_device(here)
    if count == 1:
        yield Processes(), here
        return
    distributed.init_process_group("nccl" if here.type == "cuda" else "gloo")
    try:
        yield Processes(count, rank), here
    finally:
        distributed.destroy_process_group()
