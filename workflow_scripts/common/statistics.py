"""Intervals and tests for counts of latents, each with the source of its formula.

All of them assume that latents are independent. Where latents cluster (features split into
several) an interval covers less than it says; ``tests/comparison/test_coverage.py`` shows how much
less.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from workflow_scripts.common.intervals import UNDEFINED, Interval

WIDEST = 25.0
"""Natural logarithm of the largest ratio that is searched for the bounds of an interval."""


def ratio_interval(x1: int, n1: int, x2: int, n2: int, confidence: float = 0.95) -> Interval:
    """Return (x1/n1) / (x2/n2) with Koopman's score interval (Biometrics 40, 1984, 513-517).

    The interval holds every ratio that the score test of two binomial proportions does not
    reject. It equals statsmodels' ``confint_proportions_2indep(compare="ratio", method="score",
    correction=False)``, which goes wrong when a count equals its total: there its roots are not
    the bounds. With x2 = 0 the upper bound is infinite; with both counts 0 all is undefined.

    Raises
    ------
    ValueError
        If a count is negative or above its total, or a total is not positive.
    """
    _check_count(x1, n1)
    _check_count(x2, n2)
    if x1 == x2 == 0:
        return UNDEFINED
    limit = float(stats.chi2.ppf(confidence, 1))

    def excess(log_ratio: float) -> float:
        return score_statistic(x1, n1, x2, n2, math.exp(log_ratio)) - limit

    centre = math.log(x1 / n1) - math.log(x2 / n2) if x1 and x2 else 0.0
    ratio = math.inf if x2 == 0 else (x1 / n1) / (x2 / n2)
    low = _root(excess, -WIDEST, centre if x2 else WIDEST) if x1 else 0.0
    high = _root(excess, centre if x1 else -WIDEST, WIDEST) if x2 else math.inf
    return Interval(ratio, low, high)


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    return math.exp(optimize.brentq(function, low, high))


def score_statistic(x1: int, n1: int, x2: int, n2: int, ratio: float) -> float:
    """Return the score test's χ² (1 degree of freedom) of H0 «p1 = ratio · p2».

    Miettinen and Nurminen, Statistics in Medicine 4 (1985) 213-226, equations 9 and 10, without
    their factor N/(N-1).
    """
    a = (n1 + n2) * ratio
    b = -(n1 * ratio + x1 + n2 + x2 * ratio)
    root = 2 * (x1 + x2) / (-b + math.sqrt(max(b * b - 4 * a * (x1 + x2), 0.0)))
    p2 = min(root, 1.0, 1 / ratio)  # rounding must not lead out of the square of probabilities
    p1 = min(p2 * ratio, 1.0)
    variance = p1 * (1 - p1) / n1 + ratio**2 * p2 * (1 - p2) / n2
    difference = x1 / n1 - ratio * x2 / n2
    if variance <= 0:
        return 0.0 if abs(difference) < 1e-12 else math.inf
    return difference**2 / variance


def percent_change(x1: int, n1: int, x2: int, n2: int, confidence: float = 0.95) -> Interval:
    """Return the change from share x2/n2 (before) to x1/n1 (after) in percent, with interval.

    From 0 no percentage leads anywhere: the estimate is undefined, the lower bound is not.
    """
    if min(n1, n2) == 0:
        return UNDEFINED
    change = ratio_interval(x1, n1, x2, n2, confidence).map(100.0, -100.0)
    return change if x2 else Interval(math.nan, change.low, change.high)


@lru_cache(maxsize=1 << 16)
def fisher(
    x1: int, n1: int, x2: int, n2: int, alternative: Literal["two-sided", "greater"] = "two-sided"
) -> float:
    """Return Fisher's exact p of equal shares; ``greater`` asks whether x1/n1 is the larger."""
    _check_count(x1, n1)
    _check_count(x2, n2)
    table = np.array([[x1, n1 - x1], [x2, n2 - x2]])
    return float(stats.fisher_exact(table, alternative=alternative).pvalue)


def weighted_fisher(one: tuple[int, int, float], other: tuple[int, int, float]) -> float:
    """Return the one-sided p of «the first share is no larger», of (unique, labelled, weight).

    Each labelled latent that is not unique stands for ``weight`` live ones, so equal shares give
    odds among the labelled that differ by the ratio of the weights: Fisher's noncentral
    hypergeometric distribution in place of the central one (Fog 2008).
    """
    (x1, n1, w1), (x2, n2, w2) = one, other
    _check_count(x1, n1)
    _check_count(x2, n2)
    return float(stats.nchypergeom_fisher.sf(x1 - 1, n1 + n2, x1 + x2, n1, w1 / w2))


def adjust(p: ArrayLike) -> NDArray[np.float64]:
    """Return Benjamini-Hochberg q values; NaN marks what was not tested and stays NaN."""
    values = np.asarray(p, dtype=np.float64)
    q = np.full(values.shape, np.nan)
    tested = ~np.isnan(values)
    if tested.any():
        q[tested] = stats.false_discovery_control(values[tested])
    return q


def wilson(x: int, n: int, confidence: float = 0.95) -> Interval:
    """Return the proportion x/n with Wilson's score interval (JASA 22, 1927, 209-212)."""
    if n == 0:
        return UNDEFINED
    bounds = stats.binomtest(x, n).proportion_ci(confidence, method="wilson")
    return Interval(x / n, float(bounds.low), float(bounds.high))


def sampled_share(x: int, others: int, weight: float, confidence: float = 0.95) -> Interval:
    """Return the share of x in x + weight · others, where ``others`` are a sample of the rest.

    All x are known and each of the ``others`` stands for ``weight`` of its kind. Wilson's
    interval of x/(x + others) is carried over by the monotone map p → p/(p + weight (1-p)); with
    weight 1 it is Wilson's interval itself.
    """
    plain = wilson(x, x + others, confidence)
    shares = [
        p / (p + weight * (1 - p)) if p > 0 else p for p in (plain.estimate, plain.low, plain.high)
    ]
    return Interval(*shares)


def mean_difference(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    x_weight: NDArray[np.float64] | None = None,
    y_weight: NDArray[np.float64] | None = None,
    confidence: float = 0.95,
) -> Interval:
    """Return mean(x) - mean(y), weighted, with a jackknife interval over latents.

    The standard error is the infinitesimal jackknife's, √(Σ w²(x-μ)² · n/(n-1)) / Σ w, which
    without weights is s/√n; degrees of freedom after Welch (Biometrika 34, 1947). Undefined with
    fewer than two values on a side.
    """
    if min(len(x), len(y)) == 0:
        return UNDEFINED
    mean_x, variance_x = _weighted_mean(x, x_weight)
    mean_y, variance_y = _weighted_mean(y, y_weight)
    difference, variance = mean_x - mean_y, variance_x + variance_y
    if min(len(x), len(y)) < 2:
        return Interval(difference, math.nan, math.nan)
    if variance == 0:
        return Interval(difference, difference, difference)
    freedom = variance**2 / (variance_x**2 / (len(x) - 1) + variance_y**2 / (len(y) - 1))
    reach = float(stats.t.ppf(0.5 + confidence / 2, freedom)) * math.sqrt(variance)
    return Interval(difference, difference - reach, difference + reach)


def mean_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """Return the mean of a few values (one per seed) with Student's t interval."""
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    if len(known) == 0:
        return UNDEFINED
    mean = float(known.mean())
    if len(known) == 1:
        return Interval(mean, math.nan, math.nan)
    reach = float(stats.t.ppf(0.5 + confidence / 2, len(known) - 1) * stats.sem(known))
    return Interval(mean, mean - reach, mean + reach)


def normal_interval(estimate: float, error: float, confidence: float = 0.95) -> Interval:
    """Return an estimate with the normal interval of its standard error."""
    reach = float(stats.norm.ppf(0.5 + confidence / 2)) * error
    return Interval(estimate, estimate - reach, estimate + reach)


def detectable_change(x2: int, n1: int, n2: int, alpha: float = 0.05) -> tuple[float, float]:
    """Return the least drop and the least rise, in percent, that Fisher's test would call.

    Given x2 of n2 before and n1 latents after: the changes nearest to 0 on either side whose
    two-sided p is at most ``alpha``. NaN where no count reaches it, or nothing was there before.
    """
    if x2 == 0 or n1 == 0:
        return math.nan, math.nan
    expected = x2 * n1 / n2
    below, above = math.ceil(expected) - 1, math.floor(expected) + 1
    down = first(lambda i: fisher(below - i, n1, x2, n2) <= alpha, below + 1)
    up = first(lambda i: fisher(above + i, n1, x2, n2) <= alpha, n1 + 1 - above)
    return (
        math.nan if down is None else 100 * ((below - down) / expected - 1),
        math.nan if up is None else 100 * ((above + up) / expected - 1),
    )


def first(holds: Callable[[int], bool], count: int) -> int | None:
    """Return the least of 0 … count - 1 for which ``holds``, which stays true once it is."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low if low < count else None


def _check_count(x: int, n: int) -> None:
    if not 0 <= x <= n or n <= 0:
        raise ValueError(f"{x} of {n} is no count of a total")


def _weighted_mean(
    x: NDArray[np.float64], weight: NDArray[np.float64] | None
) -> tuple[float, float]:
    """Return the weighted mean and its jackknife variance (0 for a single value)."""
    w = np.ones(len(x)) if weight is None else weight
    mean = float((w * x).sum() / w.sum())
    if len(x) < 2:
        return mean, 0.0
    squares = float((w**2 * (x - mean) ** 2).sum()) * len(x) / (len(x) - 1)
    return mean, squares / float(w.sum()) ** 2
