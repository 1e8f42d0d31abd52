"""Scores of explanations: AUROC with interval, balanced accuracy, thresholds, for many latents."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from statsmodels.stats.proportion import proportion_confint

Z_95 = 1.959963984540054
CHANCE = 0.5
"""AUROC of scores that say nothing, and the bar where there is no null."""


@dataclass(frozen=True)
class GroupedAuroc:
    """AUROC per group; NaN where a group lacks positives or negatives."""

    auroc: NDArray[np.float64]
    positives: NDArray[np.int64]
    negatives: NDArray[np.int64]


def grouped_auroc(
    score: NDArray[np.float64],
    positive: NDArray[np.bool_],
    group: NDArray[np.int64],
    groups: int,
) -> GroupedAuroc:
    """Return the AUROC of each group from mid-ranks (Mann-Whitney; ties count one half)."""
    positives = np.bincount(group[positive], minlength=groups)
    negatives = np.bincount(group[~positive], minlength=groups)
    rank_sum = np.bincount(group, weights=_mid_ranks(score, group) * positive, minlength=groups)
    pairs = positives * negatives
    with np.errstate(invalid="ignore", divide="ignore"):
        auroc = (rank_sum - positives * (positives + 1) / 2.0) / pairs
    return GroupedAuroc(np.where(pairs > 0, auroc, np.nan), positives, negatives)


def _mid_ranks(score: NDArray[np.float64], group: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return ranks within each group from 1, ties at their mean."""
    order = np.lexsort((score, group))
    g, s = group[order], score[order]
    if not len(g):
        return np.zeros(0)
    new = np.ones(len(g), np.bool_)
    new[1:] = (g[1:] != g[:-1]) | (s[1:] != s[:-1])
    start = np.flatnonzero(new)
    stop = np.append(start[1:], len(g))
    offset = np.searchsorted(g, g[start])
    middle = (start + stop - 1) / 2.0 - offset + 1.0
    ranks = np.empty(len(g))
    ranks[order] = np.repeat(middle, stop - start)
    return ranks


def auroc_interval(
    auroc: NDArray[np.float64], positives: NDArray[np.int64], negatives: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the 95 % interval of an AUROC (Newcombe 2006, Statist. Med. 25:559, method 5).

    A score interval: the variance of Hanley and McNeil with N* = (m + n) / 2 - 1 at the limit
    itself, so that an observed 1.0 still has width. NaN in, NaN out.
    """
    m, n = np.maximum(positives, 1).astype(float), np.maximum(negatives, 1).astype(float)
    return (
        _bisect(auroc, m, n, np.zeros_like(auroc), auroc),
        _bisect(auroc, m, n, np.ones_like(auroc), auroc),
    )


def _bisect(
    auroc: NDArray[np.float64],
    m: NDArray[np.float64],
    n: NDArray[np.float64],
    outside: NDArray[np.float64],
    inside: NDArray[np.float64],
) -> NDArray[np.float64]:
    half = (m + n) / 2.0 - 1.0
    for _ in range(60):
        middle = (outside + inside) / 2.0
        spread = 1.0 + half * (1.0 - middle) / (2.0 - middle) + half * middle / (1.0 + middle)
        reach = Z_95 * np.sqrt(middle * (1.0 - middle) * spread / (m * n))
        within = np.abs(middle - auroc) <= reach
        inside = np.where(within, middle, inside)
        outside = np.where(within, outside, middle)
    limit: NDArray[np.float64] = np.where(np.isnan(auroc), np.nan, (inside + outside) / 2.0)
    return limit


def balanced_accuracy(
    predicted: NDArray[np.bool_],
    positive: NDArray[np.bool_],
    group: NDArray[np.int64],
    groups: int,
) -> NDArray[np.float64]:
    """Return (sensitivity + specificity) / 2 per group; NaN where a class is absent."""
    hit = np.bincount(group[predicted & positive], minlength=groups)
    reject = np.bincount(group[~predicted & ~positive], minlength=groups)
    positives = np.bincount(group[positive], minlength=groups)
    negatives = np.bincount(group[~positive], minlength=groups)
    with np.errstate(invalid="ignore", divide="ignore"):
        value: NDArray[np.float64] = (hit / positives + reject / negatives) / 2.0
    return value


def balanced_accuracy_interval(
    predicted: NDArray[np.bool_],
    positive: NDArray[np.bool_],
    group: NDArray[np.int64],
    groups: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the 95 % interval of the balanced accuracy per group; NaN where a class is absent.

    Sensitivity and specificity are independent shares with Wilson's intervals; their mean's is put
    together from the distances of the limits (Newcombe 1998, Statist. Med. 17:873, method 10).
    """
    centre, below, above = (np.zeros(groups) for _ in range(3))
    for members, right in ((positive, predicted), (~positive, ~predicted)):
        hits = np.bincount(group[members & right], minlength=groups)
        count = np.bincount(group[members], minlength=groups)
        with np.errstate(invalid="ignore", divide="ignore"):
            share = hits / count
            low, high = proportion_confint(hits, count, method="wilson")
        centre += share / 2.0
        below += (share - low) ** 2
        above += (high - share) ** 2
    return centre - np.sqrt(below) / 2.0, centre + np.sqrt(above) / 2.0


def best_threshold(score: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Return the cut (predict when score > cut) of the best balanced accuracy.

    Halfway between neighbouring scores; the smallest of equal cuts; 0 when a class is absent.
    """
    if not positive.any() or positive.all():
        return 0.0
    values = np.unique(score)
    cuts = np.concatenate([values[:1] - 1.0, (values[1:] + values[:-1]) / 2.0])
    above = score[None, :] > cuts[:, None]
    sensitivity = above[:, positive].mean(axis=1)
    specificity = (~above[:, ~positive]).mean(axis=1)
    return float(cuts[int(np.argmax(sensitivity + specificity))])


def grouped_pearson(
    x: NDArray[np.float64], y: NDArray[np.float64], group: NDArray[np.int64], groups: int
) -> NDArray[np.float64]:
    """Return Pearson's r of x and y in each group; NaN where either is constant or absent."""
    count = np.maximum(np.bincount(group, minlength=groups), 1)
    dx, dy = (v - (np.bincount(group, v, groups) / count)[group] for v in (x, y))
    both, xx, yy = (np.bincount(group, v, groups) for v in (dx * dy, dx * dx, dy * dy))
    with np.errstate(invalid="ignore", divide="ignore"):
        r = np.clip(both / np.sqrt(xx * yy), -1.0, 1.0)
    return np.where(_varies(x, group, groups) & _varies(y, group, groups), r, np.nan)


def _varies(
    values: NDArray[np.float64], group: NDArray[np.int64], groups: int
) -> NDArray[np.bool_]:
    """Return which groups hold two different values; rounding of a mean cannot mislead it."""
    low, high = np.full(groups, np.inf), np.full(groups, -np.inf)
    np.minimum.at(low, group, values)
    np.maximum.at(high, group, values)
    return low < high


@dataclass(frozen=True)
class Gate:
    """When an explanation counts as good: better than chance by a margin, and than the null."""

    margin: float
    null_percentile: float = 95.0

    def passes(
        self, auroc: NDArray[np.float64], low: NDArray[np.float64], null: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Return, per latent, whether ``low`` > 0.5 + margin and ``auroc`` > the null's percentile.

        ``null`` holds the AUROC of explanations permuted between latents (any number; NaN is
        dropped). An undefined AUROC fails.
        """
        return self._over(auroc, low, self.null_bar(null))

    def passes_others(
        self, null: NDArray[np.float64], low: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Return which of ``null`` [L, R] pass, where row l must beat all rows but its own."""
        return self._over(null, low, percentile_of_others(null, self.null_percentile)[:, None])

    def _over(
        self, auroc: NDArray[np.float64], low: NDArray[np.float64], bar: float | NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        with np.errstate(invalid="ignore"):
            passed: NDArray[np.bool_] = (low > 0.5 + self.margin) & (auroc > bar)
        return passed

    def null_bar(self, null: NDArray[np.float64]) -> float:
        """Return the percentile of the null that must be beaten; 0.5 where there is no null."""
        known = null[~np.isnan(null)]
        return float(np.percentile(known, self.null_percentile)) if len(known) else CHANCE


def percentile_of_others(values: NDArray[np.float64], percentile: float) -> NDArray[np.float64]:
    """Return [L] the percentile of ``values`` [L, R] without row l, as `numpy.percentile` has it.

    NaN is dropped; 0.5 where nothing is left. One sort serves all rows.
    """
    known = ~np.isnan(values)
    order = np.argsort(values[known], kind="stable")
    if not len(order):
        return np.full(len(values), CHANCE)
    ordered = values[known][order]
    rank = np.full(values.shape, len(order))
    rank[known] = np.argsort(order)
    rank.sort(axis=1)
    last = len(order) - known.sum(axis=1) - 1
    place = np.maximum(last, 0) * (percentile / 100.0)
    below = np.floor(place).astype(np.int64)

    def at(number: NDArray[np.int64]) -> NDArray[np.float64]:
        for own in rank.T:
            number = number + (own <= number)
        value: NDArray[np.float64] = ordered[np.minimum(number, len(order) - 1)]
        return value

    low, high, share = at(below), at(np.minimum(below + 1, last)), place - below
    # From the nearer end, as numpy interpolates, so that not even rounding differs.
    between = np.where(share < 0.5, low + (high - low) * share, high - (high - low) * (1 - share))
    return np.where(last >= 0, between, CHANCE)


def derangement(size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return a random permutation without fixed points (one cycle; identity for size < 2)."""
    order = rng.permutation(size)
    shifted = np.empty(size, np.int64)
    shifted[order] = np.roll(order, 1)
    return shifted
