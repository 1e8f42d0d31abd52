"""Cost of scoring latents and of weighing documents against the encode pass, and their memory.

``python -m tests.benchmarks.bench_latents`` (part of ``make bench``; also of ``make bench-gpu``, at
the size of a crosscoder on Gemma-2-2B: 73,728 latents, width 2,304).
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from tests.benchmarks.report import Figure, at_most, record
from workflow_scripts.activations.store import ActivationStore
from workflow_scripts.comparison.document_weights import ComparedLatents
from workflow_scripts.comparison.weigh_documents import Weighing
from workflow_scripts.crosscoder.codes import encode
from workflow_scripts.crosscoder.model import Crosscoder, initial_weights
from workflow_scripts.crosscoder.sparsity import BatchTopK
from workflow_scripts.latents.activity import CPU
from workflow_scripts.latents.document_batches import document_groups
from workflow_scripts.latents.score_latents import latent_scores
from workflow_scripts.latents.settings import Scoring
from workflow_scripts.latents.token_context import TokenContext

M, LENGTH = 2, 128
GROUPS, BATCH = 4, 4096  # as with 50 groups of a million tokens: batches are full
RULE = Scoring(groups=GROUPS)


@dataclass(frozen=True)
class Size:
    """Latents F, width D, active latents per token K, tokens scored."""

    F: int
    D: int
    K: int
    tokens: int


ON_CPU = Size(16_384, 512, 32, 512 * LENGTH)
ON_GPU = Size(73_728, 2304, 64, 1024 * LENGTH)


class RandomStore(ActivationStore):
    """Activations without end: the same block of random rows over and over."""

    def __init__(self, size: Size, tokens: int) -> None:
        self.tokens = tokens
        rng = np.random.default_rng(0)
        self.block = rng.standard_normal((4 * BATCH, M, size.D), dtype=np.float32)

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


def crosscoder(store: RandomStore, size: Size, device: torch.device) -> Crosscoder:
    """Return a crosscoder whose threshold lets K latents through, on average."""
    weights = initial_weights(size.F, M, size.D, 0, 1.0)
    mean = torch.zeros(M, size.D)
    found = Crosscoder(["a", "b"], weights, 0.0, mean, torch.ones(M), size.K, {}).to(device)
    x = torch.from_numpy(store.block[:1024]).to(device)
    scores = found.pre_activations(x).relu_()
    scores *= found.decoder_norms().sum(1)
    active = BatchTopK().select(scores, size.K)
    found.threshold = float(scores[active.rows, active.columns].min())
    return found


def batches(store: RandomStore, context: TokenContext) -> Iterator[torch.Tensor]:
    """Yield the batches that scoring reads."""
    for _, _, x in document_groups(store, "score", context, GROUPS, BATCH):
        yield x


def measure(size: Size = ON_CPU, device: torch.device = CPU) -> list[Figure]:
    """Return the ratio of both passes over the same batches, and of the peaks of memory."""
    store, context = RandomStore(size, size.tokens), context_of(size.tokens)
    scored = crosscoder(store, size, device)

    def encode_all() -> None:
        for x in batches(store, context):
            encode(scored, x.to(device)).values.sum().item()

    def score() -> None:
        latent_scores(store, scored, context, RULE)

    parts = list(document_groups(store, "score", context, 1, BATCH))
    codes = [encode(scored, x.to(device)).to("cpu") for _, _, x in parts]

    def weigh_encoded() -> None:
        weighing = Weighing(pair_of(scored), (0, 1), labels_of(context))
        for (_, rows, x), f in zip(parts, codes, strict=True):
            weighing.add(context, rows, x.to(device), f)
        weighing.tables()

    times: dict[str, list[float]] = {"encode": [], "score": [], "weigh": []}
    for _ in range(2):
        for name, action in (("encode", encode_all), ("score", score), ("weigh", weigh_encoded)):
            started = time.perf_counter()
            action()
            times[name].append(time.perf_counter() - started)
    ratio = min(times["score"]) / min(times["encode"])
    weighed = min(times["weigh"]) / min(times["score"])
    peaks = []
    for tokens in (size.tokens // 4, size.tokens):
        small, about = RandomStore(size, tokens), context_of(tokens)
        peaks.append(peak(partial(latent_scores, small, scored, about, RULE)))
    name = "latents" if device.type == "cpu" else "latents_gpu"
    return [
        at_most(name, "scoring against the encode pass", ratio, "x", 1.3),
        Figure(name, "scored", 1e6 * min(times["score"]) / size.tokens, "s per million tokens"),
        at_most(name, "weighing encoded documents against scoring", weighed, "x", 0.1),
        Figure(name, "encoded", 1e6 * min(times["encode"]) / size.tokens, "s per million tokens"),
        Figure(name, "peak of memory at 4x the tokens", peaks[1] / peaks[0], "x"),
    ]


def pair_of(crosscoder: Crosscoder) -> ComparedLatents:
    """Return the latents as the two models have them: one in ten unique to either."""
    norms = crosscoder.decoder_norms().double().square().cpu().numpy()
    unique = np.arange(len(norms)) % 20
    apart = np.random.default_rng(1).random(len(norms))
    return ComparedLatents(
        norms[:, 0], norms[:, 1], apart, unique == 0, unique == 1, np.full(len(norms), 0.5)
    )


def labels_of(context: TokenContext) -> pd.DataFrame:
    """Return labels of all documents by three labellers, of ten, forty and three hundred kinds."""
    document = np.unique(context.document)
    parts = [
        pd.DataFrame({"document": document, "labeller": f"by {n}", "label": document % n})
        for n in (10, 40, 300)
    ]
    return pd.concat(parts, ignore_index=True).astype({"label": str})


def peak(action: Callable[[], object]) -> int:
    """Return the peak of the memory that Python allocates in an action, in bytes."""
    tracemalloc.start()
    action()
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


def main() -> None:
    """Measure and record."""
    with torch.no_grad():
        record(measure())


if __name__ == "__main__":
    main()
