"""Worked examples and reference implementations for the intervals and tests."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.proportion import confint_proportions_2indep

from workflow_scripts.common import statistics
from workflow_scripts.common.intervals import percentile_interval, resample

# A hypothetical example: pairs of totals with which these percentages are possible.
HYPOTHETICAL = {
    "safety": (18, 19, 32.8),
    "multilingual": (7, 8, 43.8),
    "instruction_following": (1, 2, 151.7),
    "self_reference": (9, 4, -44.1),
    "hallucination": (4, 1, -68.5),
}


@pytest.mark.parametrize("name", HYPOTHETICAL)
def test_the_hypothetical_counts_give_the_percentages_but_no_change(name: str) -> None:
    before, after, expected = HYPOTHETICAL[name]
    change = statistics.percent_change(after, 89, before, 112)
    assert change.estimate == pytest.approx(expected, abs=0.05)
    assert change.low < 0 < change.high
    assert 0.3 < statistics.fisher(after, 89, before, 112) <= 1


@st.composite
def tables(draw: st.DrawFn) -> tuple[int, int, int, int]:
    n1, n2 = draw(st.integers(1, 400)), draw(st.integers(1, 400))
    x1, x2 = draw(st.integers(0, n1)), draw(st.integers(0, n2))
    return (x1, n1, x2, n2) if x1 + x2 else (1, n1, x2, n2)


@given(tables())
@settings(max_examples=150, deadline=None)
def test_score_interval_equals_statsmodels_and_is_symmetric(t: tuple[int, int, int, int]) -> None:
    x1, n1, x2, n2 = t
    mine = statistics.ratio_interval(x1, n1, x2, n2)
    swapped = statistics.ratio_interval(x2, n2, x1, n1)
    assert mine.low <= mine.high
    assert mine.low == pytest.approx(1 / swapped.high if swapped.high else math.inf, rel=1e-5)
    assert mine.high == pytest.approx(1 / swapped.low if swapped.low else math.inf, rel=1e-5)
    if x1 < n1 and x2 < n2:
        with np.errstate(divide="ignore", invalid="ignore"):
            low, high = confint_proportions_2indep(
                x1, n1, x2, n2, compare="ratio", method="score", correction=False
            )
        # A ratio is not negative; statsmodels' root finding ends a little below 0 now and then.
        assert mine.low == pytest.approx(max(low, 0.0), rel=1e-4, abs=1e-7)
        assert mine.high == pytest.approx(high, rel=1e-4)


def test_full_groups_where_the_closed_form_fails() -> None:
    """With both groups full the bounds solve the score equation; checked by hand: 1/(1+z²/n)."""
    interval = statistics.ratio_interval(89, 89, 112, 112)
    assert interval.low == pytest.approx(1 / (1 + 3.8415 / 89), rel=1e-4)
    assert interval.high == pytest.approx(1 + 3.8415 / 112, rel=1e-4)


def test_zero_counts() -> None:
    from_zero = statistics.percent_change(3, 89, 0, 112)
    assert math.isnan(from_zero.estimate)
    assert from_zero.high == math.inf
    assert statistics.percent_change(0, 89, 4, 112).estimate == -100
    assert math.isnan(statistics.percent_change(0, 89, 0, 112).low)
    assert math.isnan(statistics.percent_change(0, 0, 4, 112).low)
    with pytest.raises(ValueError, match="no count"):
        statistics.ratio_interval(5, 4, 1, 2)


def test_adjust_leaves_untested_alone() -> None:
    q = statistics.adjust([0.01, math.nan, 0.02, 0.03])
    assert q[[0, 2, 3]] == pytest.approx([0.03, 0.03, 0.03])
    assert math.isnan(q[1])
    assert np.isnan(statistics.adjust([math.nan])).all()


def test_sampled_share_is_wilson_with_weight_one_and_scales_the_odds() -> None:
    assert statistics.sampled_share(6, 14, 1.0) == statistics.wilson(6, 20)
    share = statistics.sampled_share(6, 14, 3.0)
    assert share.estimate == pytest.approx(6 / (6 + 3 * 14))
    assert share.low < share.estimate < share.high
    assert statistics.sampled_share(0, 5, 3.0).estimate == 0


def test_mean_difference_is_welch() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(1, 1, 20), rng.normal(0, 3, 35)
    found = statistics.mean_difference(x, y)
    from scipy import stats

    expected = stats.ttest_ind(x, y, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    doubled = statistics.mean_difference(x, y, np.full(20, 2.0), np.full(35, 0.5))
    assert doubled == pytest.approx(found) if isinstance(doubled, float) else True
    assert doubled.low == pytest.approx(found.low)


def test_mean_difference_of_single_and_constant_values() -> None:
    one = statistics.mean_difference(np.array([1.0]), np.array([0.0, 2.0]))
    assert one.estimate == 0
    assert math.isnan(one.low)
    same = statistics.mean_difference(np.ones(3), np.zeros(3))
    assert (same.low, same.high) == (1, 1)
    assert math.isnan(statistics.mean_difference(np.zeros(0), np.zeros(3)).estimate)


def test_detectable_changes_are_the_first_that_the_test_calls() -> None:
    down, up = statistics.detectable_change(18, 89, 112)
    expected = 18 * 89 / 112
    for change, step in ((down, 1), (up, -1)):
        count = round(expected * (1 + change / 100))
        assert statistics.fisher(count, 89, 18, 112) <= 0.05
        assert statistics.fisher(count + step, 89, 18, 112) > 0.05
    assert math.isnan(statistics.detectable_change(4, 89, 112)[0])


def test_seed_interval() -> None:
    assert math.isnan(statistics.mean_interval([]).estimate)
    assert math.isnan(statistics.mean_interval([1.0]).low)
    found = statistics.mean_interval([1.0, 2.0, 3.0])
    assert found.low == pytest.approx(2 - 4.3027 / math.sqrt(3), rel=1e-4)


def test_weighted_fisher_is_fishers_test_at_equal_weights() -> None:
    plain = statistics.fisher(9, 30, 12, 80, "greater")
    assert statistics.weighted_fisher((9, 30, 3.0), (12, 80, 3.0)) == pytest.approx(plain)


def test_samples_at_other_rates_of_equal_shares_are_not_told_apart() -> None:
    """30 of 100 unique in both; of the rest every fifteenth is labelled, or every third."""
    one, other = (30, 30 + 70 // 15, 15.0), (30, 30 + 70 // 3, 3.0)
    assert statistics.fisher(*one[:2], *other[:2], "greater") < 0.01
    assert statistics.weighted_fisher(one, other) > 0.2


def test_a_bootstrap_draws_every_unit_as_often_on_average() -> None:
    counts = resample(20, 3000, [3, 1])
    assert (counts.sum(axis=1) == 20).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(20), abs=0.1)
    assert (counts == resample(20, 3000, [3, 1])).all()


def test_the_percentile_interval_leaves_out_what_is_undefined() -> None:
    samples = np.append(np.arange(101.0), np.nan)
    interval = percentile_interval(50.0, samples, 0.9)
    assert (interval.estimate, interval.low, interval.high) == pytest.approx((50, 5, 95))
    assert np.isnan(percentile_interval(1.0, [np.nan]).low)


def test_outward_bounds_are_samples_and_may_be_infinite() -> None:
    samples = [0.0, 1.0, 2.0, 3.0, np.inf]
    interval = percentile_interval(2.0, samples, 0.8, method="outward")
    assert (interval.low, interval.high) == (0.0, np.inf)
