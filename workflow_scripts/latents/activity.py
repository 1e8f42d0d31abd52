"""Latent activations on a sample of tokens, sparse, and how two sets of latents correlate."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float64, Int
from scipy import sparse

from workflow_scripts.activations.store import ActivationStore
from workflow_scripts.common import cli
from workflow_scripts.crosscoder.codes import encode
from workflow_scripts.crosscoder.model import Crosscoder

CPU = torch.device("cpu")
PAIRS = 20_000  # pairs of latents whose products are held at once


def sample_rows(store: ActivationStore, split: str, limit: int, seed: int) -> Int[np.ndarray, " N"]:
    """Return up to ``limit`` usable tokens of a split, drawn at random, sorted.

    Raises
    ------
    UserError
        If the split holds none.
    """
    rows = store.rows(split)
    if not len(rows):
        raise cli.UserError(f"the {split} split holds no usable token: raise text.tokens")
    rng = np.random.default_rng([seed, 7])
    return np.sort(rng.permutation(rows)[:limit])


def activity(
    store: ActivationStore, crosscoder: Crosscoder, rows: Int[np.ndarray, " N"], batch: int = 4096
) -> sparse.csc_array:
    """Return the latent activations of tokens, float64 [N, F]."""
    parts = []
    for first in range(0, len(rows), batch):
        x = torch.from_numpy(store.read(rows[first : first + batch]))
        f = encode(crosscoder, x.to(crosscoder.mean.device)).to("cpu")
        place = (f.active.rows.numpy(), f.active.columns.numpy())
        parts.append(sparse.csr_array((f.values.double().numpy(), place), shape=f.shape))
    return sparse.csc_array(sparse.vstack(parts))


def correlations(
    f: sparse.csc_array,
    g: sparse.csc_array,
    i: Int[np.ndarray, " pairs"],
    j: Int[np.ndarray, " pairs"],
) -> Float64[np.ndarray, " pairs"]:
    """Return Pearson's correlation of column i of f with column j of g, for each pair.

    NaN where a latent never fires, or always equally.
    """
    tokens = f.shape[0]
    products = np.concatenate(
        [
            np.asarray(f[:, i[a : a + PAIRS]].multiply(g[:, j[a : a + PAIRS]]).sum(axis=0)).ravel()
            for a in range(0, len(i), PAIRS)
        ]
        or [np.zeros(0)]
    )
    (mean_f, spread_f), (mean_g, spread_g) = _moments(f), _moments(g)
    with np.errstate(divide="ignore", invalid="ignore"):
        r: Float64[np.ndarray, " pairs"] = (products / tokens - mean_f[i] * mean_g[j]) / (
            spread_f[i] * spread_g[j]
        )
    return r


def _moments(
    f: sparse.csc_array,
) -> tuple[Float64[np.ndarray, " F"], Float64[np.ndarray, " F"]]:
    mean = np.asarray(f.mean(axis=0)).ravel()
    square = np.asarray(f.multiply(f).mean(axis=0)).ravel()
    return mean, np.sqrt(np.maximum(square - mean**2, 0))


def mutual_best(
    i: Int[np.ndarray, " pairs"],
    j: Int[np.ndarray, " pairs"],
    similarity: Float64[np.ndarray, " pairs"],
    least: float,
) -> Int[np.ndarray, " best"]:
    """Return which pairs are each other's best and at least ``least`` alike, sorted by ``i``.

    Of equally good partners the one with the lower number is the best.
    """
    known = np.flatnonzero(np.isfinite(similarity))
    order = known[np.lexsort((j[known], i[known], -similarity[known]))]
    one, other = (order[np.unique(side[order], return_index=True)[1]] for side in (i, j))
    both = np.intersect1d(one, other)
    both = both[similarity[both] >= least]
    chosen: Int[np.ndarray, " best"] = both[np.argsort(i[both], kind="stable")]
    return chosen
