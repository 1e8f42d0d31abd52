"""FVE of our fit against the dense reference's, at equal k and tokens, over three seeds.

``python -m tests.benchmarks.bench_fve`` (part of ``make bench``). Both read the same batches of a
known dictionary; the reference is plain autograd with the same optimiser, schedule and clipping,
and no AuxK. Ours is measured without AuxK, and as it is shipped.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from tests.benchmarks.report import Figure, at_least, record
from tests.crosscoder import synthetic
from tests.crosscoder.dense import as_leaves, dense_loss
from workflow_scripts.crosscoder import step
from workflow_scripts.crosscoder.model import Weights, initial_weights
from workflow_scripts.crosscoder.settings import Training
from workflow_scripts.crosscoder.sparsity import BatchTopK
from workflow_scripts.crosscoder.training import Trainer, fit

SEEDS, STEPS, BATCH = (0, 1, 2), 600, 512
FEATURES, M, D, F, K = 192, 2, 64, 384, 8
TOKENS = 100_000


def settings(auxk_weight: float) -> Training:
    """Return the settings of all fits."""
    return Training(
        k=K,
        tokens=BATCH * STEPS,
        batch=BATCH,
        learning_rate=2e-3,
        decay_share=0.3,
        dead_tokens=30_000,
        auxk_weight=auxk_weight,
    )


def batches(data: Tensor, seed: int) -> Iterator[Tensor]:
    """Yield batches [B, M, D] without end."""
    rng = np.random.default_rng([seed, 2])
    while True:
        yield data[torch.from_numpy(rng.integers(0, len(data), BATCH))]


def ours(data: Tensor, seed: int, auxk_weight: float) -> Weights:
    """Fit as the workflow does."""
    trainer = Trainer(initial_weights(F, M, D, seed, 0.1), settings(auxk_weight))
    for _ in fit(trainer, batches(data, seed)):
        pass
    return trainer.weights


def dense(data: Tensor, seed: int) -> Weights:
    """Fit the reference."""
    leaves = as_leaves(initial_weights(F, M, D, seed, 0.1))
    parameters = list(leaves.tensors().values())
    chosen = settings(0.0)
    optimizer = torch.optim.Adam(parameters, lr=chosen.learning_rate, fused=True)
    stream = batches(data, seed)
    for done in range(STEPS):
        optimizer.param_groups[0]["lr"] = chosen.learning_rate_at(done)
        with torch.enable_grad():
            loss = dense_loss(next(stream).flatten(1), leaves, K)
            optimizer.zero_grad()
            loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, chosen.clip_norm)
        optimizer.step()
    return leaves.map(Tensor.detach)


def fve(weights: Weights, held_out: Tensor) -> float:
    """Return the FVE of both models together on held-out tokens, k active per token on average."""
    x = held_out.flatten(1)
    pre = weights.pre_activations(x)
    active = BatchTopK().select(pre * weights.norms().sum(1), K)
    residual = step.decode(x, pre, active, weights).residual
    return float(1 - residual.square().sum() / (x - x.mean(0)).square().sum())


def measure() -> list[Figure]:
    """Return mean FVEs over the seeds, and the differences."""
    truth = synthetic.known_dictionary(FEATURES, D, 0)
    held_out = torch.from_numpy(truth.activations(8192, 77))
    found: dict[str, list[float]] = {"dense": [], "ours": [], "ours with AuxK": []}
    for seed in SEEDS:
        data = torch.from_numpy(truth.activations(TOKENS, seed))
        fits = (dense(data, seed), ours(data, seed, 0.0), ours(data, seed, 1 / 32))
        for name, weights in zip(found, fits, strict=True):
            found[name].append(fve(weights, held_out))
    mean = {name: statistics.mean(values) for name, values in found.items()}
    spread = statistics.stdev(found["dense"])
    name = "fve_at_equal_k"
    return [
        *(Figure(name, f"{kind}, mean of {len(SEEDS)}", mean[kind], "share") for kind in found),
        Figure(name, "dense, spread of seeds", spread, "share"),
        *(
            at_least(name, f"{kind} - dense", mean[kind] - mean["dense"], "share", -spread)
            for kind in ("ours", "ours with AuxK")
        ),
    ]


if __name__ == "__main__":
    with torch.no_grad():
        record(measure())
