"""Intervals and the bootstrap, apart from statistics.py, which takes long to import."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval; NaN where undefined, infinite where unbounded."""

    estimate: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """Return the estimate's sign; 0 when it is 0 or undefined."""
        return 0 if math.isnan(self.estimate) else int(np.sign(self.estimate))

    def excludes(self, value: float) -> bool:
        """Say whether the whole interval lies on one side of ``value``."""
        return self.low > value or self.high < value

    def columns(self, name: str) -> dict[str, object]:
        """Return the columns of a table that hold it: ``name``, ``name_low``, ``name_high``."""
        return {name: self.estimate, f"{name}_low": self.low, f"{name}_high": self.high}

    def map(self, slope: float, offset: float = 0.0) -> Interval:
        """Return the interval of ``offset + slope · x``; the slope is positive."""
        return Interval(*(offset + slope * x for x in (self.estimate, self.low, self.high)))


UNDEFINED = Interval(math.nan, math.nan, math.nan)


def resample(
    units: int, draws: int, seed: int | Sequence[int] | np.random.Generator
) -> NDArray[np.int64]:
    """Return how often each unit is drawn, with replacement, in each sample, [draws, units].

    The bootstrap (Efron, Annals of Statistics 7, 1979) of a sum over units is its product with
    the units' values.
    """
    rng = np.random.default_rng(seed)
    return rng.multinomial(units, np.full(units, 1 / units), size=draws)


def percentile_interval(
    estimate: float,
    samples: ArrayLike,
    confidence: float = 0.95,
    method: Literal["linear", "outward"] = "linear",
) -> Interval:
    """Return an estimate with the percentile interval of its bootstrap samples; NaN do not count.

    Between two samples the bounds are interpolated, or (``outward``, for samples that may be
    infinite) they are the outer one of the two.
    """
    known = np.asarray(samples, dtype=np.float64)
    known = known[~np.isnan(known)]
    if not len(known):
        return Interval(estimate, math.nan, math.nan)
    tail = round(50 * (1 - confidence), 9)
    if method == "linear":
        low, high = np.percentile(known, [tail, 100 - tail])
    else:
        low = np.percentile(known, tail, method="lower")
        high = np.percentile(known, 100 - tail, method="higher")
    return Interval(estimate, float(low), float(high))
