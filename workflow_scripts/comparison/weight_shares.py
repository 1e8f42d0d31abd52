"""Count unique latents by more than their number: by firing, by activation, by explanation score.

Leaves ``weighted.csv``, a row per comparison, seed, labeller, category and weighting. A weighted
share is no proportion of counts, so its interval is a bootstrap over latents.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workflow_scripts import cli
from workflow_scripts.comparison.counts import unique_mask
from workflow_scripts.comparison.evidence import Pair
from workflow_scripts.comparison.inputs import RESERVED, Labelled
from workflow_scripts.comparison.job import Job, add_flags, read_job
from workflow_scripts.comparison.tables import write_csv

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


def bootstrap_change(
    before: tuple[NDArray[np.bool_], NDArray[np.float64]],
    after: tuple[NDArray[np.bool_], NDArray[np.float64]],
    draws: int,
    confidence: float,
    rng: np.random.Generator,
) -> tuple[float, float, float, float, float]:
    """Return both weighted shares, the change in percent and its percentile interval.

    Each side is (has the category, weight) per unique latent. Latents are drawn with replacement
    within each side (Efron 1979); a draw in which the baseline's share is 0 counts as infinite.
    """
    shares, drawn = [], []
    for has, weight in (before, after):
        total = float(weight.sum())
        shares.append(float(weight[has].sum()) / total if total else math.nan)
        counts = rng.multinomial(len(has), np.full(len(has), 1 / len(has)), size=draws)
        with np.errstate(divide="ignore", invalid="ignore"):
            drawn.append((counts @ (weight * has)) / (counts @ weight))
    with np.errstate(divide="ignore", invalid="ignore"):
        change = 100 * (drawn[1] / drawn[0] - 1)
    known = np.sort(change[~np.isnan(change)])
    if not len(known):
        return shares[0], shares[1], math.nan, math.nan, math.nan
    tail = (1 - confidence) / 2
    low = known[math.floor(tail * (len(known) - 1))]
    high = known[math.ceil((1 - tail) * (len(known) - 1))]
    percent = 100 * (shares[1] / shares[0] - 1) if shares[0] else math.nan
    return shares[0], shares[1], percent, float(low), float(high)


def weighted_rows(
    pair: Pair, labeller: str, draws: int, confidence: float
) -> list[dict[str, object]]:
    """Return the rows of one pair and labeller; none where a side has no unique latent."""
    before, after = pair.baseline[labeller], pair.candidate[labeller]
    base, cand = pair.comparison.baseline.model, pair.comparison.candidate.model
    direct = pair.comparison.direct and base != cand
    old = _unique(before, base, cand if direct else None)
    new = _unique(after, cand, base if direct else None)
    if min(len(old), len(new)) == 0:
        return []
    names = sorted((set(old["category"]) | set(new["category"])) - set(RESERVED))
    rows = []
    for weighting in WEIGHTINGS:
        sides = [weights(frame, weighting) for frame in (old, new)]
        for index, name in enumerate(names):
            one, other = sides
            if one is None or other is None:
                continue
            found = bootstrap_change(
                ((old["category"] == name).to_numpy(), one),
                ((new["category"] == name).to_numpy(), other),
                draws,
                confidence,
                np.random.default_rng([pair.seed, index]),
            )
            values = (pair.name, pair.seed, labeller, name, weighting, *found)
            rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def _unique(side: Labelled, model: str, other: str | None) -> pd.DataFrame:
    return side.frame[unique_mask(side, model, other)]


def weight_shares(job: Job, draws: int, output: Path) -> None:
    """Write ``weighted.csv``."""
    rows = [
        row
        for pair in job.pairs
        for labeller in pair.labellers
        for row in weighted_rows(pair, labeller, draws, job.settings.confidence)
    ]
    write_csv(output, pd.DataFrame(rows, columns=list(COLUMNS)))


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and weight."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_flags(parser)
    parser.add_argument("--draws", type=int, default=2000, help="bootstrap samples")
    parser.add_argument("--output", type=Path, required=True)
    a = parser.parse_args(argv)
    return cli.guarded(lambda: weight_shares(read_job(a), a.draws, a.output))


if __name__ == "__main__":
    raise SystemExit(main())
