"""Agreement between annotators on nominal labels; a missing label stays missing.

Shapes: U units (latents), R raters, C categories.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from workflow_scripts.common.intervals import UNDEFINED, Interval, percentile_interval, resample

RELIABLE = 0.667
"""Krippendorff's lowest alpha for tentative conclusions."""


def codes(labels: Sequence[Sequence[Hashable | None]]) -> tuple[NDArray[np.int64], list[Hashable]]:
    """Return [U, R] category numbers, -1 where a label is missing (None), and the categories."""
    names: dict[Hashable, int] = {}
    table = [
        [-1 if label is None else names.setdefault(label, len(names)) for label in row]
        for row in labels
    ]
    width = len(labels[0]) if labels else 0
    return np.array(table, np.int64).reshape(len(labels), width), list(names)


def krippendorff_alpha(table: NDArray[np.int64], draws: int = 1000, seed: int = 0) -> Interval:
    """Return nominal alpha (Krippendorff 2011) with a bootstrap interval over units.

    Units with fewer than two labels do not count. Undefined (NaN) when fewer than two categories
    occur among the pairable labels: agreement beyond chance does not show in it.
    """
    size = int(table.max(initial=-1)) + 1
    counts = (table[:, :, None] == np.arange(size)).sum(axis=1).astype(float)
    counts = counts[counts.sum(axis=1) >= 2]
    if not len(counts):
        return UNDEFINED
    value = float(_alpha(counts, np.ones((1, len(counts))))[0])
    weights = resample(len(counts), draws, seed)
    samples = _alpha(counts, weights.astype(float))
    return UNDEFINED if np.isnan(value) else percentile_interval(value, samples)


def _alpha(counts: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return alpha for each row of unit weights [draws, U], from category counts [U, C]."""
    raters = counts.sum(axis=1)
    disagreeing = (raters**2 - (counts**2).sum(axis=1)) / (raters - 1)
    observed = weights @ disagreeing
    totals = weights @ counts
    n = totals.sum(axis=1)
    expected = (n**2 - (totals**2).sum(axis=1)) / (n - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        alpha: NDArray[np.float64] = np.where(expected > 0, 1.0 - observed / expected, np.nan)
    return alpha


def cohen_kappa(first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
    """Return Cohen's kappa over units that both have labelled; NaN when chance agreement is 1."""
    from sklearn.metrics import cohen_kappa_score  # takes a second, which one annotator spares

    both = (first >= 0) & (second >= 0)
    a, b = first[both], second[both]
    if len(np.union1d(a, b)) < 2:
        return float("nan")
    return float(cohen_kappa_score(a, b))


def gwet_ac1(first: NDArray[np.int64], second: NDArray[np.int64], categories: int) -> float:
    """Return Gwet's AC1 (2008), which rare categories disturb less; NaN below two categories."""
    both = (first >= 0) & (second >= 0)
    a, b = first[both], second[both]
    if not len(a) or categories < 2:
        return float("nan")
    counts = np.bincount(a, minlength=categories) + np.bincount(b, minlength=categories)
    share = counts / (2 * len(a))
    chance = float((share * (1 - share)).sum() / (categories - 1))
    return float(((a == b).mean() - chance) / (1.0 - chance))
