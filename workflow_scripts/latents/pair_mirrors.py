"""Find mirror latents: one of each model for the same text. ``mirrors.parquet``.

A text that only one of two models knows well gives latents that belong to either model in the same
crosscoder: one writes what the first model computes there, one what the second does. Such a pair
fires together; it says that something differs, not which way.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import sparse

from workflow_scripts.activations.controls import add_store_flags, open_store
from workflow_scripts.activations.store import ActivationStore
from workflow_scripts.common import cli, files
from workflow_scripts.common.device import choose_device, set_threads
from workflow_scripts.crosscoder.model import Crosscoder
from workflow_scripts.latents.activity import (
    CPU,
    activity,
    correlations,
    mutual_best,
    sample_rows,
)
from workflow_scripts.models.loading import add_device_flags

SPLIT = "score"
COLUMNS = ("model_a", "latent_a", "model_b", "latent_b", "correlation", "cosine")


def mirrors(
    crosscoder: Crosscoder, fires: sparse.csc_array, selection: pd.DataFrame, least: float
) -> pd.DataFrame:
    """Return the pairs of latents unique to two models that are each other's best correlated.

    ``cosine`` is that of their own directions, d_i^a and d_j^b.
    """
    rows = []
    for a, b in combinations(range(len(crosscoder.models)), 2):
        one, other = crosscoder.models[a], crosscoder.models[b]
        left = selection.loc[selection[f"unique_{one}_vs_{other}"], "latent"].to_numpy(np.int64)
        right = selection.loc[selection[f"unique_{other}_vs_{one}"], "latent"].to_numpy(np.int64)
        i, j = (grid.ravel() for grid in np.meshgrid(left, right, indexing="ij"))
        together = np.asarray((fires[:, left].T @ fires[:, right]).todense()).ravel() > 0
        i, j = i[together], j[together]
        correlation = correlations(fires, fires, i, j)
        best = mutual_best(i, j, correlation, least)
        i, j = i[best], j[best]
        d = crosscoder.w_dec.double().numpy()
        norms = np.linalg.norm(d[i, a], axis=1) * np.linalg.norm(d[j, b], axis=1)
        cosine = (d[i, a] * d[j, b]).sum(1) / np.maximum(norms, 1e-12)
        rows.append(
            pd.DataFrame(
                {
                    "model_a": one,
                    "latent_a": i,
                    "model_b": other,
                    "latent_b": j,
                    "correlation": correlation[best],
                    "cosine": cosine,
                }
            )
        )
    return pd.concat(rows, ignore_index=True)[list(COLUMNS)]


def pair_mirrors(
    store: ActivationStore,
    crosscoder: Crosscoder,
    selection: pd.DataFrame,
    tokens: int,
    least: float,
    seed: int,
    output: Path,
    device: torch.device = CPU,
) -> None:
    """Write the table, from up to ``tokens`` tokens of the score split."""
    rows = sample_rows(store, SPLIT, tokens, seed)
    fires = activity(store, crosscoder.to(device), rows)
    found = mirrors(crosscoder, fires, selection, least)
    files.write_parquet(output, found)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and pair."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_store_flags(parser)
    parser.add_argument("--crosscoder", type=Path, required=True)
    parser.add_argument("--selection", type=Path, required=True)
    parser.add_argument("--sample", type=int, default=100_000, help="tokens compared, at most")
    parser.add_argument("--least", type=float, default=0.5, help="least correlation of a pair")
    parser.add_argument("--seed", type=int, required=True)
    add_device_flags(parser)
    parser.add_argument("--output", type=Path, required=True)
    a = parser.parse_args(argv)

    def run() -> None:
        set_threads(a.threads)
        store = open_store(a)
        with torch.no_grad():
            pair_mirrors(
                store,
                Crosscoder.load(a.crosscoder),
                files.read_parquet(a.selection),
                a.sample,
                a.least,
                a.seed,
                a.output,
                choose_device(a.device),
            )

    return cli.guarded(run)


if __name__ == "__main__":
    raise SystemExit(main())
