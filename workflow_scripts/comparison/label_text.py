"""What two models make of one label's text, measured over its documents with a bootstrap."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workflow_scripts.common.intervals import UNDEFINED, Interval, percentile_interval, resample

DRAWS = 1000
CHUNK = 100  # draws that exist at one time
RATIOS = {
    "distance": ("difference", "energy"),
    "signed_norm": ("signed", "energy"),
    "unique_mass": ("unique", "total"),
    "delta_norm": ("delta", "fired"),
}
"""Each measure of representation as a ratio of sums over documents."""
DIVERGENCE = "divergence"
BESIDE = (*RATIOS, DIVERGENCE)
"""Measures that stand beside the two effects."""


@dataclass(frozen=True)
class Measure:
    """A mean or ratio over documents, with its interval and standard error."""

    interval: Interval = UNDEFINED
    error: float = math.nan
    documents: int = 0

    @property
    def relative(self) -> float:
        """The standard error of its logarithm."""
        return self.error / self.interval.estimate if self.interval.estimate else 0.0


@dataclass(frozen=True)
class LabelText:
    """One label's text as two models see it; ``gap`` and ``spread`` are in nats per token.

    ``gap`` is the mean over documents of the baseline's minus the candidate's loss, ``spread`` that
    of the absolute gap of single tokens. ``ratios`` are those of ``RATIOS``, where a crosscoder of
    both models was weighed, and the mean divergence of the models' predictions.
    """

    gap: Measure = Measure()
    spread: float = math.nan
    tokens: int = 0
    ratios: dict[str, Measure] = field(default_factory=dict)

    @property
    def documents(self) -> int:
        """Documents of the label that any axis was measured on."""
        return max(self.gap.documents, self.distance.documents)

    @property
    def distance(self) -> Measure:
        """The relative distance of activations."""
        return self.ratios.get("distance", Measure())


def measure_label(
    label: str, gaps: pd.DataFrame, weights: pd.DataFrame | None, confidence: float
) -> LabelText:
    """Return what is known of one label.

    ``gaps`` has a row per document of its behaviour (``document_gaps``), with its ``divergence``;
    ``weights`` one per document that was weighed (``weigh_documents``), None where none was.
    """
    seed = zlib.crc32(label.encode("utf-8", "surrogatepass"))
    means = {name: (name, "one") for name in ("gap", DIVERGENCE)}
    behaviour = measures(gaps[list(means)].assign(one=1.0), means, seed, confidence)
    ratios = {} if weights is None else measures(parts(weights), RATIOS, seed, confidence)
    return LabelText(
        gap=behaviour.get("gap", Measure()),
        spread=float(gaps["spread"].mean()),
        tokens=int(gaps["tokens"].sum()),
        ratios=ratios | {DIVERGENCE: behaviour.get(DIVERGENCE, Measure())},
    )


def parts(weights: pd.DataFrame) -> pd.DataFrame:
    """Return numerators and denominators of the ratios, by document."""
    fired = weights["delta_norm"].notna()
    return pd.DataFrame(
        {
            **{name: weights[name] for name in ("difference", "energy", "signed", "total")},
            "unique": weights["unique_baseline"] + weights["unique_candidate"],
            "delta": weights["delta_norm"].where(fired, 0.0),
            "fired": fired.astype(float),
        }
    )


def measures(
    documents: pd.DataFrame,
    ratios: dict[str, tuple[str, str]],
    seed: int,
    confidence: float,
) -> dict[str, Measure]:
    """Return ratios of sums over documents, with percentile intervals of their bootstrap.

    The same draws serve all ratios; of fewer than two documents there is no interval.
    """
    names = sorted({name for pair in ratios.values() for name in pair})
    place = {name: index for index, name in enumerate(names)}
    values = documents[names].to_numpy(dtype=np.float64)
    count = len(values)
    if not count:
        return {}
    totals, drawn = values.sum(0), drawn_sums(values, seed)
    found = {}
    for name, (above, below) in ratios.items():
        over, under = place[above], place[below]
        with np.errstate(divide="ignore", invalid="ignore"):
            estimate = float(totals[over] / totals[under])
            samples = drawn[:, over] / drawn[:, under]
        interval = percentile_interval(estimate, samples, confidence)
        known = samples[np.isfinite(samples)]
        error = float(known.std(ddof=1)) if len(known) > 1 else math.nan
        if count < 2:
            interval, error = Interval(estimate, math.nan, math.nan), math.nan
        found[name] = Measure(interval, error, count)
    return found


def drawn_sums(values: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Return the sums of each bootstrap sample of rows, [draws, columns]."""
    rng = np.random.default_rng(seed)
    draws = (resample(len(values), CHUNK, rng) for _ in range(DRAWS // CHUNK))
    return np.concatenate([counts @ values for counts in draws])
