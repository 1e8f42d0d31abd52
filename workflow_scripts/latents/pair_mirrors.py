"""Find mirror latents: one of each model for the same text. ``mirrors.parquet``.

A text that only one of two models knows well gives latents that belong to either model in the same
crosscoder: one writes what the first model computes there, one what the second does. Such a pair
fires together; it says that something differs, not which way.
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import sparse

from workflow_scripts.activations.controls import StoreInputs
from workflow_scripts.common import cli, files
from workflow_scripts.common.device import Compute
from workflow_scripts.crosscoder.model import Crosscoder
from workflow_scripts.latents.activity import activity, correlations, mutual_best, sample_rows
from workflow_scripts.latents.settings import Matching

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
        together = sparse.coo_array(fires[:, left].T @ fires[:, right])
        i, j = left[together.row], right[together.col]
        correlation = correlations(fires, fires, i, j)
        best = mutual_best(i, j, correlation, least)
        i, j = i[best], j[best]
        d = crosscoder.w_dec
        cosine = torch.cosine_similarity(d[i, a].double(), d[j, b].double()).cpu().numpy()
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


@torch.no_grad()
def pair_mirrors(
    inputs: StoreInputs,
    crosscoder: Path,
    selection: Path,
    rule: Matching,
    seed: int,
    compute: Compute,
    output: Path,
) -> None:
    """Write the pairs of latents of two models that fire for the same text.

    Parameters
    ----------
    crosscoder
        folder of the crosscoder
    selection
        which latents are unique (Parquet)
    seed
        seed of the sample of tokens
    output
        table to write, a row per pair (Parquet)
    """
    device = compute.start()
    store, fitted = inputs.open(), Crosscoder.load(crosscoder)
    rows = sample_rows(store, SPLIT, rule.match_tokens, seed)
    fires = activity(store, fitted.to(device), rows)
    table = mirrors(fitted, fires, files.read_parquet(selection), rule.match_least)
    files.write_parquet(output, table)


main = cli.command(pair_mirrors)


if __name__ == "__main__":
    raise SystemExit(main())
