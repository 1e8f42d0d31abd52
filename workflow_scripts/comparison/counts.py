"""The counts of unique latents in a comparison, and the shift of Δnorm."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from workflow_scripts.common import statistics
from workflow_scripts.common.intervals import UNDEFINED, Interval

Level = Literal["category", "class"]


@dataclass(frozen=True)
class Counts:
    """Unique latents of a category on either side, and of any category."""

    n_baseline: int
    N_baseline: int
    n_candidate: int
    N_candidate: int
    change: Interval  # percent
    p: float
    detectable: tuple[float, float]  # percent down, up

    @property
    def sign(self) -> int:
        """Return +1 when the candidate's share is the larger, -1 when the smaller, else 0."""
        if min(self.N_baseline, self.N_candidate) == 0:
            return 0
        left = self.n_candidate * self.N_baseline
        right = self.n_baseline * self.N_candidate
        return (left > right) - (left < right)


def count(
    baseline: pd.Series[str], candidate: pd.Series[str], name: str, confidence: float
) -> Counts:
    """Return the counts of ``name`` among the labels of each side's unique latents."""
    n_b, n_c = int((baseline == name).sum()), int((candidate == name).sum())
    N_b, N_c = len(baseline), len(candidate)
    if min(N_b, N_c) == 0:
        return Counts(n_b, N_b, n_c, N_c, UNDEFINED, math.nan, (math.nan, math.nan))
    return Counts(
        n_b,
        N_b,
        n_c,
        N_c,
        statistics.percent_change(n_c, N_c, n_b, N_b, confidence),
        statistics.fisher(n_c, N_c, n_b, N_b),
        statistics.detectable_change(n_b, N_c, N_b, 1 - confidence),
    )


def norm_shift(
    frame: pd.DataFrame, level: Level, delta_norm: np.ndarray, confidence: float
) -> dict[str, Interval]:
    """Return, for each name, the mean Δnorm of its latents minus that of all the rest.

    ``delta_norm`` is turned so that 1 = only the candidate.
    """
    known = np.isfinite(delta_norm)
    names, weight = frame[level].to_numpy(), frame["weight"].to_numpy(dtype=np.float64)
    result = {}
    for name in sorted(set(names)):
        own, rest = known & (names == name), known & (names != name)
        result[str(name)] = statistics.mean_difference(
            delta_norm[own], delta_norm[rest], weight[own], weight[rest], confidence
        )
    return result
