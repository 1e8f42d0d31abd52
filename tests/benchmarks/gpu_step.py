"""Speed of the crosscoder step on a GPU, against a compiled dense step and the encoder's roofline.

Part of ``make bench-gpu``. Products in bfloat16, weights in float32.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from tests.benchmarks.report import Figure, at_least
from tests.benchmarks.sizes import NEVER, M, Size, new_trainer
from tests.crosscoder.dense import as_leaves, dense_loss
from workflow_scripts.crosscoder.model import initial_weights

SIDE = 8192  # of the square product


def seconds(action: Callable[[], object], device: torch.device, repeats: int = 9) -> float:
    """Return the median time of ``action`` after three calls to warm up, the device idle again."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    times = []
    for turn in range(3 + repeats):
        wait()
        started = time.perf_counter()
        action()
        wait()
        if turn >= 3:
            times.append(time.perf_counter() - started)
    return statistics.median(times)


def peak_rate(device: torch.device, side: int) -> float:
    """Return the operations per second of a large square product in bfloat16."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in "ab")
    return 2 * side**3 / seconds(lambda: a @ b, device)


def dense_step(size: Size, device: torch.device, x: Tensor, compiled: bool) -> Callable[[], None]:
    """Return a step of plain autograd under autocast, compiled on request."""
    leaves = as_leaves(initial_weights(size.F, M, size.D, 0, 1.0).map(lambda t: t.to(device)))
    parameters = list(leaves.tensors().values())
    optimizer = torch.optim.Adam(parameters, lr=1e-4, fused=True)

    def loss() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return dense_loss(x, leaves, size.k)

    forward = torch.compile(loss) if compiled else loss

    def once() -> None:
        with torch.enable_grad():
            found = forward()
            optimizer.zero_grad()
            found.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    return once


@torch.no_grad()
def our_step(size: Size, device: torch.device, x: Tensor) -> tuple[float, float, float]:
    """Return the seconds of a step of ours, of one with AuxK, and of the encoder's product."""
    times = []
    for dead_tokens in (NEVER, 1):  # one after the other, for memory
        trainer = new_trainer(size, dead_tokens, torch.bfloat16, device)
        times.append(seconds(partial(trainer.step, x), device))
    product = partial(trainer.weights.pre_activations, x, torch.bfloat16)
    return times[0], times[1], seconds(product, device)


def measure(
    size: Size, device: torch.device, compiled: bool = True, side: int = SIDE
) -> list[Figure]:
    """Return the figures of one size."""
    torch.manual_seed(0)
    x = torch.randn(size.B, M * size.D, device=device)
    whole, with_aux, encoder = our_step(size, device, x)
    memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    dense = seconds(dense_step(size, device, x, compiled), device, 5)
    rate = peak_rate(device, side)
    flop = 2 * size.B * size.F * M * size.D
    name = f"crosscoder_step_{device.type}_D{size.D}"
    return [
        at_least(name, "dense compiled step / our step", dense / whole, "ratio", 3.0),
        Figure(name, "our step", whole, "s"),
        Figure(name, "our step / encoder product", whole / encoder, "ratio"),
        Figure(name, "our step with AuxK / without", with_aux / whole, "ratio"),
        Figure(name, "dense compiled step", dense, "s"),
        Figure(name, "tokens per second", size.B / whole, "1/s"),
        Figure(name, "memory at the peak", memory / 1e9, "GB"),
        Figure(name, "encoder product / square product, rates", flop / encoder / rate, "ratio"),
    ]
