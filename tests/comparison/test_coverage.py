"""Coverage of the intervals under simulation, and the false discovery rate of the tests."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from scipy import stats

from workflow_scripts.common import statistics


@functools.cache
def bounds(x1: int, n1: int, x2: int, n2: int) -> tuple[float, float]:
    if x1 == x2 == 0:
        return 0.0, math.inf
    interval = statistics.ratio_interval(x1, n1, x2, n2)
    return interval.low, interval.high


def exact_coverage(expected: float, ratio: float, n1: int = 90, n2: int = 110) -> float:
    """Return the probability that the interval holds the true ratio, summed over all counts."""
    p2 = expected / n2
    p1 = ratio * p2
    weight1 = stats.binom.pmf(np.arange(n1 + 1), n1, p1)
    weight2 = stats.binom.pmf(np.arange(n2 + 1), n2, p2)
    covered = 0.0
    for x1 in np.flatnonzero(weight1 > 1e-4):
        for x2 in np.flatnonzero(weight2 > 1e-4):
            low, high = bounds(int(x1), n1, int(x2), n2)
            covered += weight1[x1] * weight2[x2] * (low <= ratio <= high)
    return float(covered)


@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("expected", [2.0, 4.0, 8.0])
def test_score_interval_covers(expected: float, ratio: float) -> None:
    covered = exact_coverage(expected, ratio)
    assert covered >= 0.94
    if expected >= 4:
        assert covered <= 0.975


@pytest.mark.slow
@pytest.mark.parametrize("totals", [(50, 50), (112, 89), (300, 300), (820, 700)])
@pytest.mark.parametrize("ratio", [0.5, 0.75, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("expected", [2.0, 3.0, 4.0, 6.0, 8.0, 16.0])
def test_score_interval_covers_on_a_grid(
    expected: float, ratio: float, totals: tuple[int, int]
) -> None:
    """``expected`` is the smaller of both expected counts."""
    n1, n2 = totals
    covered = exact_coverage(expected * max(1.0, n2 / (n1 * ratio)), ratio, n1, n2)
    assert covered >= 0.94
    if expected >= 4:
        assert covered <= 0.975


def clustered_counts(
    rng: np.random.Generator, n: int, p: float, size: int, draws: int
) -> np.ndarray:
    """Return counts of ``n`` latents that come in clusters of ``size`` equal ones."""
    return np.asarray(rng.binomial(n // size, p, draws) * size)


def test_independent_interval_under_covers_clustered_latents() -> None:
    """Features that split into four latents halve the information: 95 % becomes about 70 %."""
    rng = np.random.default_rng(0)
    covered = {}
    for size in (1, 4):
        x1, x2 = (clustered_counts(rng, 120, 0.1, size, 400) for _ in range(2))
        held = [
            low <= 1 <= high
            for low, high in (bounds(int(a), 120, int(b), 120) for a, b in zip(x1, x2, strict=True))
        ]
        covered[size] = float(np.mean(held))
    assert covered[1] > 0.93
    assert covered[4] < 0.85


def false_discovery_rate(unchanged: int, latents: int, share: float, draws: int) -> float:
    """Return the realised rate of BH at 10 % over Fisher's exact test, five categories changed."""
    rng = np.random.default_rng(1)
    before = np.full(unchanged + 5, share)
    factors = np.concatenate([np.ones(unchanged), [0.1, 0.2, 3, 3, 4]])
    rates = []
    for _ in range(draws):
        n1, n2 = rng.binomial(latents, before * factors), rng.binomial(latents, before)
        p = [fisher(int(a), int(b), latents) for a, b in zip(n1, n2, strict=True)]
        called = statistics.adjust(p) <= 0.1
        rates.append(called[:unchanged].sum() / max(called.sum(), 1))
    return float(np.mean(rates))


@functools.cache
def fisher(x1: int, x2: int, n: int) -> float:
    return statistics.fisher(x1, n, x2, n)


def test_false_discoveries_stay_below_the_rate() -> None:
    assert false_discovery_rate(10, 300, 20 / 300, 150) <= 0.1


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.02, 0.05, 0.1])
@pytest.mark.parametrize("latents", [100, 300, 1000])
@pytest.mark.parametrize("unchanged", [0, 5, 10, 25, 100])
def test_false_discoveries_stay_below_the_rate_on_a_grid(
    unchanged: int, latents: int, share: float
) -> None:
    assert false_discovery_rate(unchanged, latents, share, 400) <= 0.1
