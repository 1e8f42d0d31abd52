"""Choose the stretches of text in which a latent is shown.

A window is a run of tokens within one document; a positive one has the latent's strongest token of
that document three quarters in, so that the context before it is seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int, Int8
from scipy import sparse
from sklearn.feature_extraction.text import TfidfTransformer

from workflow_scripts.latents.settings import ExampleCounts
from workflow_scripts.latents.token_context import TokenContext


class Peaks(NamedTuple):
    """One latent's strongest token in each document in which it fires."""

    row: Int[np.ndarray, " peaks"]
    token: Int[np.ndarray, " peaks"]  # global index
    value: Float32[np.ndarray, " peaks"]


class Windows(NamedTuple):
    """Stretches [start, end) of token indices with their document's row and kind."""

    row: Int[np.ndarray, " windows"]
    start: Int[np.ndarray, " windows"]
    end: Int[np.ndarray, " windows"]
    kind: Int8[np.ndarray, " windows"]  # index of KINDS


KINDS = (
    ("positive", "top"),
    ("positive", "quantile"),
    ("random_negative", "none"),
    ("hard_negative", "none"),
)
"""Kind and stratum of a window."""
TOP, QUANTILE, RANDOM_NEGATIVE, HARD_NEGATIVE = range(len(KINDS))


def joined(parts: Sequence[Windows]) -> Windows:
    """Return windows end to end."""
    return Windows(*(np.concatenate(column) for column in zip(*parts, strict=True)))


class Pool:
    """Random windows of a split, one per document: negatives and background are drawn here."""

    def __init__(
        self,
        tokens: Int[np.ndarray, " N"],
        context: TokenContext,
        length: int,
        size: int,
        rng: np.random.Generator,
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

    def similarity(
        self, given: Sequence[Windows], context: TokenContext
    ) -> Iterator[Float64[np.ndarray, " pool"]]:
        """Yield, for each group of windows, each pool window's cosine with the group's mean.

        By tf-idf of token ids; 0 for a group without windows.
        """
        every = joined(given)
        if not len(every.row):  # which the transformer refuses
            yield from (np.zeros(len(self.row)) for _ in given)
            return
        counts = count_tokens(every.start, every.end, context, self.tfidf.shape[1])
        sizes = np.array([len(windows.row) for windows in given])
        ends = np.concatenate([[0], np.cumsum(sizes)])
        weight = np.repeat(1.0 / np.maximum(sizes, 1), sizes)
        mean = sparse.csr_matrix(
            (weight, np.arange(len(weight)), ends), shape=(len(given), len(weight))
        )
        for row in mean @ self._transform.transform(counts):
            similarity: Float64[np.ndarray, " pool"] = self.tfidf @ row.toarray().ravel()
            yield similarity


def count_tokens(
    start: Int[np.ndarray, " windows"],
    end: Int[np.ndarray, " windows"],
    context: TokenContext,
    width: int | None = None,
) -> sparse.csr_matrix:
    """Return counts of token ids per window, template tokens left out, [windows, vocabulary]."""
    index, owner = spread(start, end)
    keep = ~context.template[index]
    width = width or int(context.ids.max()) + 1
    return sparse.csr_matrix(
        (np.ones(int(keep.sum())), (owner[keep], context.ids[index][keep])),
        shape=(len(start), width),
    )


def spread(
    start: Int[np.ndarray, " windows"], end: Int[np.ndarray, " windows"]
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Return every token index of the windows [start, end), and the window it belongs to."""
    lengths = end - start
    owner = np.repeat(np.arange(len(start)), lengths)
    firsts = np.repeat(start - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
    return np.arange(len(owner)) + firsts, owner


def positive_windows(
    peaks: Peaks, context: TokenContext, length: int, counts: ExampleCounts, seed: Sequence[int]
) -> Windows:
    """Choose a latent's positive windows from its ``peaks``, one per document.

    The strongest documents come first (stratum ``top``); the others are drawn evenly over the
    quantiles of the remaining ones (``quantile``).
    """
    order = np.lexsort((peaks.token, -peaks.value))
    rest = len(order) - min(counts.top, len(order))
    rng = np.random.default_rng(seed)
    wanted = min(counts.quantile, rest)
    edges = np.arange(wanted + 1) * rest // max(wanted, 1)  # whole, so that none is drawn twice
    picks = edges[:-1] + (rng.random(wanted) * np.diff(edges)).astype(np.int64)
    top = len(order) - rest
    chosen = np.concatenate([order[:top], order[top:][picks]])
    token, row = peaks.token[chosen], peaks.row[chosen]
    first, last = context.row_starts[row], context.row_starts[row + 1]
    start = np.maximum(first, token - 3 * length // 4)
    end = np.minimum(start + length, last)
    kind = np.repeat(np.array([TOP, QUANTILE], dtype=np.int8), [top, wanted])
    return Windows(row, np.maximum(first, end - length), end, kind)


def negative_windows(
    peaks: Peaks,
    near: Float64[np.ndarray, " pool"],
    pool: Pool,
    context: TokenContext,
    counts: ExampleCounts,
    seed: Sequence[int],
) -> Windows:
    """Choose windows of documents in which the latent never fires: random ones and near ones.

    ``near`` says how near each window of the pool is to the latent's positive ones.
    """
    rng = np.random.default_rng(seed)
    fires = np.zeros(len(context.row_starts) - 1, dtype=bool)
    fires[peaks.row] = True
    silent = np.flatnonzero(~fires[pool.row])
    wanted = counts.hard if len(peaks.row) else 0
    hard = silent[np.argsort(-near[silent], kind="stable")][:wanted]
    others = np.setdiff1d(silent, hard, assume_unique=True)
    random = rng.permutation(others)[: counts.random]
    chosen = np.concatenate([random, hard])
    sizes = [len(random), len(hard)]
    kind = np.repeat(np.array([RANDOM_NEGATIVE, HARD_NEGATIVE], dtype=np.int8), sizes)
    return Windows(pool.row[chosen], pool.start[chosen], pool.end[chosen], kind)
