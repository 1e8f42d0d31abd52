"""Weigh unique latents in several ways: equally, by firing, by activation, by label score.

Leaves ``weighted.csv``, a row per comparison, seed, labeller, category and weighting. A weighted
share is no proportion of counts, so its interval is a bootstrap over latents.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workflow_scripts.common import cli
from workflow_scripts.common.artifacts import LabelledLatents
from workflow_scripts.common.intervals import Interval, percentile_interval, resample
from workflow_scripts.common.tables import write_csv
from workflow_scripts.common.taxonomy import WITHOUT_CATEGORY
from workflow_scripts.comparison.pairs import ComparedPair, ComparisonInputs
from workflow_scripts.comparison.settings import CategoryTest
from workflow_scripts.latents.ownership import is_unique

DRAWS = 2000
"""Bootstrap samples."""
WEIGHTINGS = ("latent", "firing_rate", "activation_mass", "label_score")
COLUMNS = (
    "comparison",
    "seed",
    "labeller",
    "name",
    "weighting",
    "share_baseline",
    "share_candidate",
    "percent_change",
    "low",
    "high",
)
"""Columns of ``weighted.csv``; ``COLUMNS.md`` says what each means."""


def weights(frame: pd.DataFrame, weighting: str) -> NDArray[np.float64] | None:
    """Return the weight of each latent, or None where the frame lacks what it needs.

    ``activation_mass``: firing rate times mean activation; ``label_score``: the annotator's score.
    """
    if weighting == "latent":
        return np.ones(len(frame))
    if weighting == "firing_rate":
        return frame["firing_rate"].to_numpy(dtype=np.float64)
    if weighting == "activation_mass":
        mass = frame["firing_rate"] * frame["activation_mean"]
        return mass.to_numpy(dtype=np.float64)
    if "score" not in frame.columns:
        return None
    return frame["score"].fillna(0).clip(lower=0).to_numpy(dtype=np.float64)


@dataclass(frozen=True)
class WeightedLatents:
    """The unique latents of one model: ``has`` [n, C] per category, ``weight`` [n]."""

    has: NDArray[np.bool_]
    weight: NDArray[np.float64]

    def shares(self, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the weighted share of each category, [draws, C], for latents drawn so often."""
        with np.errstate(divide="ignore", invalid="ignore"):
            shares: NDArray[np.float64] = (counts @ (self.weight[:, None] * self.has)) / (
                counts @ self.weight
            )[:, None]
        return shares


def bootstrap_changes(
    sides: tuple[WeightedLatents, WeightedLatents],
    counts: tuple[NDArray[np.int64], NDArray[np.int64]],
    confidence: float,
) -> list[tuple[float, float, Interval]]:
    """Return, per category, both weighted shares and the change in percent with its interval.

    ``counts`` says how often each latent of a side is drawn, [draws, n]. A draw in which the
    baseline's share is 0 counts as infinite.
    """
    once = [side.shares(np.ones((1, len(side.weight)), dtype=np.int64))[0] for side in sides]
    drawn = [side.shares(count) for side, count in zip(sides, counts, strict=True)]
    with np.errstate(divide="ignore", invalid="ignore"):
        changes = 100 * (drawn[1] / drawn[0] - 1)
    result = []
    for before, after, samples in zip(*once, changes.T, strict=True):
        percent = float(100 * (after / before - 1)) if before else math.nan
        change = percentile_interval(percent, samples, confidence, method="outward")
        result.append((float(before), float(after), change))
    return result


def weighted_rows(
    pair: ComparedPair, labeller: str, draws: int, confidence: float
) -> list[dict[str, object]]:
    """Return the rows of one pair and labeller; none where a side has no unique latent."""
    before, after = pair.baseline[labeller], pair.candidate[labeller]
    base, cand = pair.comparison.baseline.model, pair.comparison.candidate.model
    others = pair.comparison.others
    old, new = _unique(before, base, others[0]), _unique(after, cand, others[1])
    if min(len(old), len(new)) == 0:
        return []
    names = sorted((set(old["category"]) | set(new["category"])) - set(WITHOUT_CATEGORY))
    rng = np.random.default_rng(pair.seed)
    counts = (resample(len(old), draws, rng), resample(len(new), draws, rng))
    rows = []
    for weighting in WEIGHTINGS:
        one, other = (_weighted(frame, names, weighting) for frame in (old, new))
        if one is None or other is None:
            continue
        changes = bootstrap_changes((one, other), counts, confidence)
        for name, (*shares, change) in zip(names, changes, strict=True):
            bounds = (change.estimate, change.low, change.high)
            values = (pair.name, pair.seed, labeller, name, weighting, *shares, *bounds)
            rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def _weighted(frame: pd.DataFrame, names: Sequence[str], weighting: str) -> WeightedLatents | None:
    weight = weights(frame, weighting)
    has = frame["category"].to_numpy()[:, None] == np.array(names, dtype=object)
    return None if weight is None else WeightedLatents(has, weight)


def _unique(side: LabelledLatents, model: str, other: str | None) -> pd.DataFrame:
    return side.frame[is_unique(side.frame, model, other)]


def weight_shares(inputs: ComparisonInputs, test: CategoryTest, output: Path) -> None:
    """Write each category's share of the unique latents, counted and weighted.

    Parameters
    ----------
    output
        table to write, a row per comparison, seed, labeller, category and weighting (CSV)
    """
    rows = [
        row
        for pair in inputs.read_pairs()
        for labeller in pair.labellers
        for row in weighted_rows(pair, labeller, DRAWS, test.confidence)
    ]
    write_csv(output, rows, COLUMNS)


main = cli.command(weight_shares)


if __name__ == "__main__":
    raise SystemExit(main())
