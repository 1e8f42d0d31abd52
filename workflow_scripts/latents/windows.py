"""Choose the stretches of text in which a latent is shown.

A window is a run of tokens within one document; a positive one has the latent's strongest token of
that document three quarters in, so that the context before it is seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import TfidfTransformer

from workflow_scripts.latents.context import TokenContext

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Counts:
    """How many windows of each kind a latent gets in one split."""

    top: int
    quantile: int
    random_negative: int
    hard_negative: int


class Pool:
    """Random windows of a split, one per document: negatives and background are drawn here."""

    def __init__(
        self, tokens: Ints, context: TokenContext, length: int, size: int, rng: np.random.Generator
    ) -> None:
        rows = np.unique(context.row_of(tokens))
        rows = rng.permutation(rows)[:size]
        starts, ends = context.row_starts[rows], context.row_starts[rows + 1]
        offset = rng.random(len(rows)) * np.maximum(ends - starts - length + 1, 1)
        self.row = rows
        self.start = starts + offset.astype(np.int64)
        self.end = np.minimum(self.start + length, ends)
        self._transform = TfidfTransformer(sublinear_tf=True)
        self.tfidf = self._transform.fit_transform(count_tokens(self.start, self.end, context))

    def similarity(self, start: Ints, end: Ints, context: TokenContext) -> NDArray[np.float64]:
        """Return each pool window's cosine with the mean of the given windows, by tf-idf of ids."""
        width = self.tfidf.shape[1]
        given = self._transform.transform(count_tokens(start, end, context, width))
        mean = np.asarray(given.mean(axis=0)).ravel()
        similarity: NDArray[np.float64] = self.tfidf @ mean
        return similarity


def count_tokens(
    start: Ints, end: Ints, context: TokenContext, width: int | None = None
) -> sparse.csr_matrix:
    """Return counts of token ids per window, template tokens left out, [windows, vocabulary]."""
    index, owner = spread(start, end)
    keep = ~context.template[index]
    width = width or int(context.ids.max()) + 1
    return sparse.csr_matrix(
        (np.ones(int(keep.sum())), (owner[keep], context.ids[index][keep])),
        shape=(len(start), width),
    )


def spread(start: Ints, end: Ints) -> tuple[Ints, Ints]:
    """Return every token index of the windows [start, end), and the window it belongs to."""
    lengths = end - start
    owner = np.repeat(np.arange(len(start)), lengths)
    firsts = np.repeat(start - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
    return np.arange(len(owner)) + firsts, owner


def positive_windows(
    peaks: pd.DataFrame, context: TokenContext, length: int, counts: Counts, seed: Sequence[int]
) -> pd.DataFrame:
    """Choose a latent's positive windows from its ``peaks`` (row, token, value), one per document.

    The strongest documents come first (stratum ``top``); the others are drawn evenly over the
    quantiles of the remaining ones (``quantile``).
    """
    ordered = peaks.sort_values(["value", "token"], ascending=[False, True], kind="stable")
    top = ordered.iloc[: counts.top].assign(stratum="top")
    rest = ordered.iloc[counts.top :]
    rng = np.random.default_rng(seed)
    wanted = min(counts.quantile, len(rest))
    edges = np.linspace(0, len(rest), wanted + 1)
    picks = (edges[:-1] + rng.random(wanted) * np.diff(edges)).astype(int)
    chosen = pd.concat([top, rest.iloc[picks].assign(stratum="quantile")])
    token = chosen["token"].to_numpy()
    row = chosen["row"].to_numpy()
    first, last = context.row_starts[row], context.row_starts[row + 1]
    start = np.maximum(first, token - 3 * length // 4)
    end = np.minimum(start + length, last)
    return pd.DataFrame(
        {
            "row": row,
            "start": np.maximum(first, end - length),
            "end": end,
            "kind": "positive",
            "stratum": chosen["stratum"].to_numpy(),
        }
    )


def negative_windows(
    peaks: pd.DataFrame,
    positives: pd.DataFrame,
    pool: Pool,
    context: TokenContext,
    counts: Counts,
    seed: Sequence[int],
) -> pd.DataFrame:
    """Choose windows of documents in which the latent never fires: random ones and near ones."""
    rng = np.random.default_rng(seed)
    silent = np.flatnonzero(~np.isin(pool.row, peaks["row"].to_numpy()))
    hard = np.zeros(0, dtype=np.int64)
    if len(positives) and counts.hard_negative:
        near = pool.similarity(positives["start"].to_numpy(), positives["end"].to_numpy(), context)
        hard = silent[np.argsort(-near[silent], kind="stable")][: counts.hard_negative]
    others = np.setdiff1d(silent, hard)
    random = rng.permutation(others)[: counts.random_negative]
    chosen = np.concatenate([random, hard])
    kinds = ["random_negative"] * len(random) + ["hard_negative"] * len(hard)
    return pd.DataFrame(
        {
            "row": pool.row[chosen],
            "start": pool.start[chosen],
            "end": pool.end[chosen],
            "kind": kinds,
            "stratum": "none",
        }
    )
