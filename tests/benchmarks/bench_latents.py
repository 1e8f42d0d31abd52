"""Cost of scoring latents against the encode pass alone, and whether memory grows with tokens.

``python -m tests.benchmarks.bench_latents`` (part of ``make bench``).
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from tests.benchmarks.report import Figure, at_most, record
from workflow_scripts.crosscoder.model import Crosscoder, initial_weights
from workflow_scripts.crosscoder.sparsity import BatchTopK
from workflow_scripts.latents.context import TokenContext
from workflow_scripts.latents.score_latents import Bounds, document_groups, score_latents

M, D, F, K, LENGTH = 2, 512, 16_384, 32, 128
GROUPS, BATCH = 4, 4096  # as with 50 groups of a million tokens: batches are full
TOKENS = 128 * LENGTH
BOUNDS = Bounds(0.5, 0.2, -0.1, 10, 0.05)


class RandomStore:
    """Activations without end: the same block of random rows over and over."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        rng = np.random.default_rng(0)
        self.block = rng.standard_normal((4 * BATCH, M, D), dtype=np.float32)

    def rows(self, split: str) -> NDArray[np.int64]:
        return np.arange(self.tokens)

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return self.block[rows % len(self.block)]


def context_of(tokens: int) -> TokenContext:
    """Return documents of equal length."""
    document = (np.arange(tokens) // LENGTH).astype(np.int32)
    return TokenContext(
        ids=np.zeros(tokens, dtype=np.int32),
        document=document,
        position=(np.arange(tokens) % LENGTH).astype(np.int32),
        role=np.zeros(tokens, dtype=np.uint8),
        template=np.zeros(tokens, dtype=bool),
        category=np.zeros(tokens, dtype=np.int16),
        row_starts=np.arange(0, tokens + 1, LENGTH),
        categories=["news"],
    )


def crosscoder(store: RandomStore) -> Crosscoder:
    """Return a crosscoder whose threshold lets K latents through, on average."""
    weights = initial_weights(F, M, D, 0, 1.0)
    found = Crosscoder(["a", "b"], weights, 0.0, torch.zeros(M, D), torch.ones(M), K, {})
    scores = found.pre_activations(torch.from_numpy(store.block[:1024])).relu_()
    scores *= found.decoder_norms().sum(1)
    active = BatchTopK().select(scores, K)
    found.threshold = float(scores[active.rows, active.columns].min())
    return found


def batches(store: RandomStore, context: TokenContext) -> Iterator[torch.Tensor]:
    """Yield the batches that scoring reads."""
    for _, _, x in document_groups(store, "score", context, GROUPS, BATCH):  # type: ignore[arg-type]
        yield x


def measure() -> list[Figure]:
    """Return the ratio of both passes over the same batches, and of the peaks of memory."""
    store, context = RandomStore(TOKENS), context_of(TOKENS)
    scored = crosscoder(store)

    def encode() -> None:
        for x in batches(store, context):
            scored.encode(x)

    def score() -> None:
        score_latents(store, scored, context, BOUNDS, GROUPS)  # type: ignore[arg-type]

    times: dict[str, list[float]] = {"encode": [], "score": []}
    for _ in range(2):
        for name, action in (("encode", encode), ("score", score)):
            started = time.perf_counter()
            action()
            times[name].append(time.perf_counter() - started)
    ratio = min(times["score"]) / min(times["encode"])
    rate = TOKENS / min(times["score"])
    peaks = []
    for tokens in (TOKENS // 4, TOKENS):
        small, about = RandomStore(tokens), context_of(tokens)
        tracemalloc.start()
        score_latents(small, scored, about, BOUNDS, GROUPS)  # type: ignore[arg-type]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    name = "latents"
    return [
        at_most(name, "scoring against the encode pass", ratio, "x", 1.3),
        Figure(name, "scored", rate, "tokens/s"),
        Figure(name, "peak of memory at 4x the tokens", peaks[1] / peaks[0], "x"),
    ]


def main() -> None:
    """Measure and record."""
    with torch.no_grad():
        record(measure())


if __name__ == "__main__":
    main()
