"""The processes that fit one crosscoder together, each with its part of the latents.

Started by ``torchrun``, which gives each its rank. Every process reads its part of a batch and gets
the others'; it holds encoder, decoder and moments of its latents, selects among the scores of
all, and adds its part of the reconstruction to theirs. What goes between them is O(B·M·D) a step
for B tokens of M models of width D, whatever the number of latents.
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
from jaxtyping import Float
from torch import Tensor, distributed

from workflow_scripts.common.cli import UserError
from workflow_scripts.common.gpus import take_gpus


@dataclass(frozen=True)
class Processes:
    """Number of processes and the place of this one; the sums of one process are its own."""

    count: int = 1
    rank: int = 0

    def tokens(self, batch: int) -> slice:
        """Return the tokens that this process reads of a batch, a multiple of ``count``."""
        own = batch // self.count
        return slice(self.rank * own, (self.rank + 1) * own)

    def latents(self, total: int, rank: int | None = None) -> slice:
        """Return the latents that a process holds, by default this one."""
        place = self.rank if rank is None else rank
        return slice(total * place // self.count, total * (place + 1) // self.count)

    def sum(self, tensor: Tensor) -> Tensor:
        """Add up ``tensor`` over all processes, in place."""
        if self.count > 1:
            distributed.all_reduce(tensor)
        return tensor

    def numbers(self, number: int) -> list[int]:
        """Return every process's number; no device is waited for."""
        if self.count == 1:
            return [number]
        every = torch.zeros(self.count, dtype=torch.int64)
        every[self.rank] = number
        counted: list[int] = self.sum(every).tolist()
        return counted

    def first_says(self, answer: bool) -> bool:
        """Return the first process's answer."""
        return bool(self.numbers(answer)[0])

    def whole(self, x: Tensor) -> Tensor:
        """Return the rows [n, …] of all processes in order, as many of each."""
        if self.count == 1:
            return x
        parts = [torch.empty_like(x) for _ in range(self.count)]
        distributed.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    def gather(self, values: Float[Tensor, " n"]) -> tuple[Float[Tensor, " all"], int]:
        """Return the values of all processes in order, and where this one's begin."""
        if self.count == 1:
            return values, 0
        lengths = self.numbers(values.numel())
        most = max(1, *lengths)
        padded = values.new_zeros(most)
        padded[: values.numel()] = values
        parts = self.whole(padded).split(most)
        cut = [part[:length] for part, length in zip(parts, lengths, strict=True)]
        return torch.cat(cut), sum(lengths[: self.rank])

    def beside(
        self, values: Float[Tensor, "B n"], width: int, fill: float
    ) -> tuple[Float[Tensor, "B all"], slice]:
        """Return the columns of all processes, ``width`` of each, and which are this one's.

        ``fill`` stands where a process has fewer.
        """
        if self.count == 1:
            return values, slice(0, values.shape[1])
        padded = values.new_full((len(values), width), fill)
        padded[:, : values.shape[1]] = values
        begin = self.rank * width
        every = torch.cat(self.whole(padded).split(len(values)), dim=1)
        return every, slice(begin, begin + values.shape[1])

    def pieces(self, own: Tensor) -> Iterator[Tensor]:
        """Yield, in the first process, every process's tensor in order, on the CPU; else nothing.

        One of the others' is held at a time.
        """
        lengths = self.numbers(len(own))
        if self.rank:
            distributed.send(own.contiguous(), 0)
            return
        yield own.cpu()
        for rank, length in enumerate(lengths[1:], 1):
            received = own.new_empty((length, *own.shape[1:]))
            distributed.recv(received, rank)
            yield received.cpu()


ALONE = Processes()


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
        yield ALONE, here
        return
    # Numbers that Python knows go by way of the CPU, so that no device is waited for.
    backend = "cpu:gloo,cuda:nccl" if here.type == "cuda" else "gloo"
    distributed.init_process_group(backend)
    try:
        yield Processes(count, rank), here
    finally:
        distributed.destroy_process_group()
