"""Peak memory of the steps that hold a whole crosscoder, against its size W.

``python -m tests.benchmarks.bench_memory`` (part of ``make bench``). W are the bytes of encoder and
decoder in float32. Each step runs at two sizes, in a process of its own; the slope of the peaks is
what it needs per W, from which follows its peak for 114,688 latents of two models of width 3,584.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from tests.benchmarks.report import Figure, at_most, record
from workflow_scripts.activations.difference import DifferenceStore
from workflow_scripts.activations.store import ActivationStore
from workflow_scripts.common import files
from workflow_scripts.comparison.document_weights import compared_latents
from workflow_scripts.comparison.weigh_documents import weigh
from workflow_scripts.crosscoder.evaluate_crosscoder import evaluate
from workflow_scripts.crosscoder.import_crosscoder import imported, read_published
from workflow_scripts.crosscoder.model import Crosscoder, initial_weights
from workflow_scripts.latents.activity import CPU, activity, sample_rows
from workflow_scripts.latents.collect_examples import collect_split
from workflow_scripts.latents.explain_difference import explained_shares
from workflow_scripts.latents.match_latents import match_seeds
from workflow_scripts.latents.pair_mirrors import mirrors
from workflow_scripts.latents.score_latents import latent_scores
from workflow_scripts.latents.settings import Examples, Matching, Scoring
from workflow_scripts.latents.token_context import TokenContext

M, D, K, TOKENS, LENGTH = 2, 1792, 32, 128, 32
SHOWN = 300  # latents of which contexts are collected
SIZES = (12_288, 24_576)  # latents; smaller ones hide behind the libraries
MODELS = ("a", "b")
FITTED: dict[str, object] = {"training": {"variant": "batch_topk"}}
PAPER = 4 * 2 * 114_688 * 2 * 3584  # bytes of W there


class RandomStore:
    """What the steps ask of a store: a few random activations."""

    models, width, layer = MODELS, D, 1

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.x = rng.standard_normal((TOKENS, M, D), dtype=np.float32)
        self.document = (np.arange(TOKENS) // LENGTH).astype(np.int32)

    def rows(self, split: str) -> NDArray[np.int64]:
        return np.arange(TOKENS)

    def contiguous(
        self, split: str, batch: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        yield self.rows(split), self.x

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return self.x[rows]

    def normalization(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return np.zeros((M, D)), np.ones(M)

    def dropped(self, split: str) -> dict[str, float]:
        return {}


class RandomDifference(RandomStore):
    """What ``explain_difference`` asks of a store of differences."""

    pair = (0, 1)

    def differences(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        difference: NDArray[np.float32] = self.x[rows, 1] - self.x[rows, 0]
        return difference


def prepare(folder: Path, latents: int) -> None:
    """Write a crosscoder as ours, another seed of it, the published layout, and its tables."""
    for seed in (0, 1):
        weights = initial_weights(latents, M, D, seed, 1.0)
        mean = torch.zeros(M, D)
        fitted = Crosscoder(list(MODELS), weights, 4.0, mean, torch.ones(M), K, FITTED)
        fitted.save(folder / f"seed{seed}")
    sae = initial_weights(latents, 1, D, 2, 1.0)
    difference = Crosscoder(["b-a"], sae, 4.0, torch.zeros(1, D), torch.ones(1), K, {})
    difference.save(folder / "difference")
    encoder = weights.encoder.view(latents, M, D).permute(1, 2, 0).contiguous()
    decoder = weights.decoder.view(latents, M, D).permute(1, 0, 2).contiguous()
    bias = {"encoder.bias": torch.zeros(latents), "decoder.bias": torch.zeros(M, D)}
    rule = {"threshold": torch.tensor(4.0), "k": torch.tensor(K)}
    (folder / "published").mkdir()
    save_file(
        {"encoder.weight": encoder, "decoder.weight": decoder} | bias | rule,
        folder / "published/model.safetensors",
    )
    selection = pd.DataFrame({"latent": np.arange(latents)})
    selection["unique_a_vs_b"] = selection["latent"] % 20 == 0
    selection["unique_b_vs_a"] = selection["latent"] % 20 == 1
    files.write_parquet(folder / "selection.parquet", selection)
    scores = pd.DataFrame({"latent": np.arange(latents), "delta_norm_a_b": 0.5})
    files.write_parquet(folder / "latents.parquet", scores)


def context() -> TokenContext:
    """Return documents of equal length."""
    document = (np.arange(TOKENS) // LENGTH).astype(np.int32)
    return TokenContext(
        ids=np.zeros(TOKENS, dtype=np.int32),
        document=document,
        position=(np.arange(TOKENS) % LENGTH).astype(np.int32),
        role=np.zeros(TOKENS, dtype=np.uint8),
        template=np.zeros(TOKENS, dtype=bool),
        category=np.zeros(TOKENS, dtype=np.int16),
        row_starts=np.arange(0, TOKENS + 1, LENGTH),
        categories=["news"],
    )


def load(folder: Path) -> None:
    """Read a crosscoder and encode a batch: what every step does."""
    store = cast(ActivationStore, RandomStore())
    activity(store, Crosscoder.load(folder / "seed0"), sample_rows(store, "score", TOKENS, 0))


def score(folder: Path) -> None:
    """Score the latents."""
    store = cast(ActivationStore, RandomStore())
    latent_scores(store, Crosscoder.load(folder / "seed0"), context(), Scoring(groups=4))


def match(folder: Path) -> None:
    """Match the latents of two seeds."""
    folders = {seed: folder / f"seed{seed}" for seed in (0, 1)}
    live = files.read_parquet(folder / "selection.parquet")["latent"].to_numpy()
    store = cast(ActivationStore, RandomStore())
    match_seeds(store, folders, dict.fromkeys(folders, live), Matching(), 0, CPU)


def import_published(folder: Path) -> None:
    """Convert a published crosscoder."""
    store = cast(ActivationStore, RandomStore())
    imported(read_published(folder / "published"), store).save(folder / "converted")


def pair(folder: Path) -> None:
    """Pair mirror latents."""
    store, fitted = cast(ActivationStore, RandomStore()), Crosscoder.load(folder / "seed0")
    fires = activity(store, fitted, np.arange(TOKENS))
    mirrors(fitted, fires, files.read_parquet(folder / "selection.parquet"), 0.5)


def weigh_documents(folder: Path) -> None:
    """Weigh documents."""
    store, fitted = cast(ActivationStore, RandomStore()), Crosscoder.load(folder / "seed0")
    scores, selection = (
        files.read_parquet(folder / f"{name}.parquet") for name in ("latents", "selection")
    )
    latents = compared_latents(fitted, scores, selection, *MODELS)
    numbers = np.arange(TOKENS // LENGTH)
    labels = pd.DataFrame({"document": numbers, "labeller": "source", "label": "news"})
    weigh(store, fitted, context(), latents, MODELS, labels)


def evaluate_crosscoder(folder: Path) -> None:
    """Measure a crosscoder."""
    store = cast(ActivationStore, RandomStore())
    sources = dict.fromkeys(range(TOKENS // LENGTH), "web")
    evaluate(store, Crosscoder.load(folder / "seed0"), "score", sources)


def explain(folder: Path) -> None:
    """Explain a difference by a crosscoder and an autoencoder of as many latents."""
    explained_shares(
        cast(ActivationStore, RandomStore()),
        cast(DifferenceStore, RandomDifference()),
        Crosscoder.load(folder / "difference"),
        Crosscoder.load(folder / "seed0"),
        np.arange(20),
        context(),
        "score",
        TOKENS,
        MODELS,
    )


def collect(folder: Path) -> None:
    """Collect contexts of a few latents, as many whatever the size."""
    latents = len(files.read_parquet(folder / "latents.parquet"))
    chosen = pd.DataFrame({"latent": np.arange(0, latents, latents // SHOWN)})
    store = cast(ActivationStore, RandomStore())
    shown = Crosscoder.load(folder / "seed0", chosen["latent"].tolist())
    for windows, values in collect_split(
        store, shown, context(), chosen, Examples(window=8, pool=3), 0, "explain"
    ):
        assert len(windows)
        assert values is not None


STEPS: dict[str, tuple[Callable[[Path], None], float]] = {
    "load and encode": (load, 1.2),
    "score_latents": (score, 1.5),
    "match_latents": (match, 2.5),
    "import_crosscoder": (import_published, 1.5),
    "pair_mirrors": (pair, 1.3),
    "weigh_documents": (weigh_documents, 1.2),
    "evaluate_crosscoder": (evaluate_crosscoder, 1.2),
    "explain_difference": (explain, 1.8),
    "collect_examples": (collect, 0.3),
}
"""Each step, and how many W it may take."""


def peak(step: str, folder: Path) -> int:
    """Return the peak of the resident memory of a step in a process of its own, in bytes."""
    command = [sys.executable, "-m", "tests.benchmarks.bench_memory", step, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return 1024 * int(done.stdout)


def measure(sizes: tuple[int, int] = SIZES) -> list[Figure]:
    """Return what each step needs per W, and at the paper's size."""
    peaks: dict[str, list[int]] = {step: [] for step in STEPS}
    for latents in sizes:
        with tempfile.TemporaryDirectory() as name:
            prepare(Path(name), latents)
            for step, found in peaks.items():
                found.append(peak(step, Path(name)))
    bytes_per_latent = 4 * 2 * M * D
    figures = []
    for step, (small, large) in peaks.items():
        slope = (large - small) / (bytes_per_latent * (sizes[1] - sizes[0]))
        fixed = large - slope * bytes_per_latent * sizes[1]
        figures += [
            at_most("memory", f"{step}, per W", slope, "W", STEPS[step][1]),
            Figure("memory", f"{step}, at the paper's size", (fixed + slope * PAPER) / 1e9, "GB"),
        ]
    return figures


def main() -> None:
    """Measure and record; with a step and a folder, run that step and print its peak in KiB."""
    if len(sys.argv) > 1:
        with torch.no_grad():
            STEPS[sys.argv[1]][0](Path(sys.argv[2]))
        # Of this program alone: the resource usage includes what it was forked from.
        status = dict(
            line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines()
        )
        print(status["VmHWM"].split()[0])
    else:
        record(measure())


if __name__ == "__main__":
    main()
