"""Speed of the crosscoder step, as ratios to the dense reference and to the encoder alone.

``python -m tests.benchmarks.bench_crosscoder`` (part of ``make bench``).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from tests.benchmarks.report import Figure, at_least, at_most, record
from tests.benchmarks.sizes import M, Size, new_trainer
from tests.crosscoder.dense import as_leaves, dense_loss
from workflow_scripts.crosscoder import step
from workflow_scripts.crosscoder.products import DENSE_FROM, DenseProducts, SparseProducts
from workflow_scripts.crosscoder.sparsity import Active, BatchTopK

SIZE = Size()
B, D, F, K = SIZE.B, SIZE.D, SIZE.F, SIZE.k


def seconds(action: Callable[[], object], repeats: int) -> float:
    """Return the median time of ``action``, after one call to warm up."""
    action()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def dense_by_sparse(latents: int = 4096) -> float:
    """Return the time of a step's dense products over that of its sparse ones at DENSE_FROM."""
    active = Active(*torch.nonzero(torch.rand(B, latents) < DENSE_FROM["cpu"], as_tuple=True))
    values, bias = torch.rand(len(active.rows)), torch.zeros(M * D)
    x, right = torch.randn(B, M * D), torch.randn(latents, M * D)

    def once(kind: type[DenseProducts | SparseProducts]) -> None:
        products = kind(active, (B, latents))
        products.matmul(values, right, bias)
        products.sampled(x, right)
        products.transposed(values, x)
        products.transposed(values, x)

    return seconds(lambda: once(DenseProducts), 3) / seconds(lambda: once(SparseProducts), 3)


def measure() -> list[Figure]:
    """Return the ratios, all of one run."""
    torch.manual_seed(0)
    batches = iter([torch.randn(B, M * D) for _ in range(64)] * 4)
    trainer = new_trainer(SIZE)
    weights, rule = trainer.weights, BatchTopK()

    def forward_backward() -> None:
        x = next(batches)
        pre = weights.pre_activations(x)
        active = rule.select(pre * weights.norms().sum(1), K)
        step.gradients(x, step.decode(x, pre, active, weights), weights)

    leaves = as_leaves(weights)
    optimizer = torch.optim.Adam(list(leaves.tensors().values()), lr=1e-4, fused=True)

    def dense_step() -> None:
        loss = dense_loss(next(batches), leaves, K)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(leaves.tensors().values()), 1.0)
        optimizer.step()

    with torch.no_grad():
        encoder = seconds(lambda: weights.pre_activations(next(batches)), 9)
        ours = seconds(forward_backward, 9)
        whole = seconds(lambda: trainer.step(next(batches)), 9)
        aux = new_trainer(SIZE, dead_tokens=1)
        with_aux = seconds(lambda: aux.step(next(batches)), 3)
    dense = seconds(dense_step, 3)
    name = "crosscoder_step"
    return [
        at_least(name, "dense step / our step", dense / whole, "ratio", 4.0),
        at_most(name, "forward + backward / encoder product", ours / encoder, "ratio", 1.8),
        Figure(name, "our step with AuxK / without", with_aux / whole, "ratio"),
        Figure(name, "dense / sparse products where we change over", dense_by_sparse(), "ratio"),
        Figure(name, "encoder product", encoder, "s"),
        Figure(name, "our step", whole, "s"),
        Figure(name, "dense step", dense, "s"),
        Figure(name, "tokens per second", B / whole, "1/s"),
    ]


if __name__ == "__main__":
    torch.set_num_threads(torch.get_num_threads())
    record(measure())
