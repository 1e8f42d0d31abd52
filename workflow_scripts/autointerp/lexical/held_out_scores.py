"""Score lexical explanations on held-out contexts, against a null of permuted explanations.

Shapes: L latents, W windows, R permutations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workflow_scripts.autointerp.context_schema import STRATA
from workflow_scripts.autointerp.lexical.terms import (
    Design,
    LexicalResult,
    window_scores,
)
from workflow_scripts.autointerp.score_statistics import (
    balanced_accuracy,
    balanced_accuracy_interval,
    best_threshold,
    derangement,
    grouped_auroc,
)

PERMUTATIONS = 5


@dataclass(frozen=True)
class HeldOutScores:
    """Detection scores of L latents on held-out contexts. All arrays [L] but ``null`` [L, R]."""

    auroc: NDArray[np.float64]
    auroc_random: NDArray[np.float64]
    """Against random negatives only."""
    auroc_hard: NDArray[np.float64]
    auroc_by_stratum: dict[str, NDArray[np.float64]]
    """Positives of one stratum against all negatives."""
    balanced_accuracy: NDArray[np.float64]
    """At the threshold that is best on the training contexts."""
    balanced_accuracy_low: NDArray[np.float64]
    balanced_accuracy_high: NDArray[np.float64]
    positives: NDArray[np.int64]
    negatives: NDArray[np.int64]
    null: NDArray[np.float64]
    """AUROC of another latent's explanation on this latent's contexts."""


def score_held_out(design: Design, result: LexicalResult, seed: Sequence[int]) -> HeldOutScores:
    """Score each latent's shown terms: the summed z of those that occur in a window."""
    size = design.latents
    owner = np.arange(size)
    test = ~design.train & (design.latent >= 0)
    score = detection_scores(design, result, owner)
    latent, positive = design.latent[test], design.positive[test]
    whole = grouped_auroc(score[test], positive, latent, size)
    easy = test & ~design.hard
    tough = test & (design.hard | design.positive)
    predicted = score[test] > _thresholds(score, design)[latent]
    low, high = balanced_accuracy_interval(predicted, positive, latent, size)
    rng = np.random.default_rng([*seed, 11])
    null = np.full((size, PERMUTATIONS), np.nan)
    if size > 1:
        for column in range(PERMUTATIONS):
            other = detection_scores(design, result, derangement(size, rng))
            null[:, column] = grouped_auroc(other[test], positive, latent, size).auroc
    return HeldOutScores(
        auroc=whole.auroc,
        auroc_random=_auroc(score, design, easy),
        auroc_hard=_auroc(score, design, tough),
        auroc_by_stratum={
            name: _auroc(score, design, test & (~design.positive | (design.stratum == name)))
            for name in STRATA
        },
        balanced_accuracy=balanced_accuracy(predicted, positive, latent, size),
        balanced_accuracy_low=low,
        balanced_accuracy_high=high,
        positives=whole.positives,
        negatives=whole.negatives,
        null=null,
    )


def detection_scores(
    design: Design, result: LexicalResult, owner: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return [W] scores of each window under the explanation of latent ``owner[its latent]``."""
    row = np.where(design.latent >= 0, owner[np.maximum(design.latent, 0)], -1)
    total = np.zeros(len(design.latent))
    for name, terms in result.shown.items():
        total += window_scores(result.channels[name], terms, row)
    return total


def _auroc(
    score: NDArray[np.float64], design: Design, mask: NDArray[np.bool_]
) -> NDArray[np.float64]:
    group = design.latent[mask]
    return grouped_auroc(score[mask], design.positive[mask], group, design.latents).auroc


def _thresholds(score: NDArray[np.float64], design: Design) -> NDArray[np.float64]:
    train = np.flatnonzero(design.train)
    order = train[np.argsort(design.latent[train], kind="stable")]
    cuts = np.zeros(design.latents)
    bounds = np.searchsorted(design.latent[order], np.arange(design.latents + 1))
    for latent in range(design.latents):
        windows = order[bounds[latent] : bounds[latent + 1]]
        cuts[latent] = best_threshold(score[windows], design.positive[windows])
    return cuts
