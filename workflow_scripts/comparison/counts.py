"""The first two statistics: anchored counts, and the share of unique latents in one crosscoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from workflow_scripts.comparison import statistics
from workflow_scripts.comparison.inputs import RESERVED, Labelled
from workflow_scripts.comparison.statistics import UNDEFINED, Interval

Level = Literal["category", "class"]
Reference = Literal["others", "lower_half"]
REFERENCES: tuple[Reference, ...] = ("others", "lower_half")


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

    @property
    def clear(self) -> bool:
        """Say whether the interval excludes «no change»."""
        return self.change.excludes(0.0)


def unique_mask(side: Labelled, model: str, other: str | None) -> pd.Series[bool]:
    """Return which latents are unique to ``model``: against ``other``, or against all others."""
    if other is None:
        return side.frame["unique_to"] == model
    return side.frame[f"unique_{model}_vs_{other}"].astype(bool)


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


@dataclass(frozen=True)
class Share:
    """Share of a category's live latents that are unique to either model, and its reference."""

    labelled: int  # latents with this label
    live: float  # live latents for which they stand
    unique: int
    share: Interval
    reference_live: float
    reference_share: float
    p: float
    detectable: float

    @property
    def others(self) -> int:
        """Labelled latents of the category that are not unique."""
        return self.labelled - self.unique


def shares(
    frame: pd.DataFrame,
    unique: pd.Series[bool],
    level: Level,
    reference: Reference,
    confidence: float,
) -> dict[str, Share]:
    """Return the share unique to either model for each name of ``level``.

    The exact test is one-sided, against the latents of the reference: ``others``, all other live
    latents, those without category among them; ``lower_half``, those of the half of the
    categories with the lowest shares, so that many changed categories do not hide each other.
    Where shared latents are a sample, the test compares the odds among the labelled latents,
    which do not depend on the sampling rate.
    """
    table = pd.DataFrame(
        {"name": frame[level], "unique": unique.to_numpy(), "weight": frame["weight"].to_numpy()}
    )
    tallies = {str(name): _tally(rows) for name, rows in table.groupby("name")}
    ranked = sorted(
        (name for name in tallies if name not in RESERVED), key=lambda n: tallies[n].share
    )
    result = {}
    for name, own in tallies.items():
        names = list(tallies) if reference == "others" else ranked[: max(len(ranked) // 2, 1)]
        result[name] = _share(own, _total([tallies[n] for n in names if n != name]), confidence)
    return result


@dataclass(frozen=True)
class _Tally:
    unique: int
    others: int
    live: float

    @property
    def share(self) -> float:
        return self.unique / self.live if self.live else math.nan


def _tally(rows: pd.DataFrame) -> _Tally:
    unique = rows["unique"].to_numpy(dtype=bool)
    return _Tally(int(unique.sum()), int((~unique).sum()), float(rows["weight"].sum()))


def _total(tallies: Sequence[_Tally]) -> _Tally:
    return _Tally(
        sum(t.unique for t in tallies),
        sum(t.others for t in tallies),
        sum(t.live for t in tallies),
    )


def _share(own: _Tally, reference: _Tally, confidence: float) -> Share:
    size, reference_size = own.unique + own.others, reference.unique + reference.others
    weight = (own.live - own.unique) / own.others if own.others else 1.0
    tested = min(size, reference_size) > 0
    return Share(
        size,
        own.live,
        own.unique,
        statistics.sampled_share(own.unique, own.others, weight, confidence),
        reference.live,
        reference.share,
        statistics.fisher(own.unique, size, reference.unique, reference_size, "greater")
        if tested
        else math.nan,
        statistics.detectable_share(size, reference.unique, reference_size, 1 - confidence),
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
        mine, rest = known & (names == name), known & (names != name)
        result[str(name)] = statistics.mean_difference(
            delta_norm[mine], delta_norm[rest], weight[mine], weight[rest], confidence
        )
    return result
