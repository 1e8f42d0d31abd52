"""AUROC, its interval, balanced accuracy and the gate, against other implementations."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from workflow_scripts.autointerp.score_statistics import (
    Gate,
    auroc_interval,
    balanced_accuracy,
    balanced_accuracy_interval,
    best_threshold,
    derangement,
    grouped_auroc,
    percentile_of_others,
)


def test_grouped_auroc_equals_scikit_learn_with_ties() -> None:
    rng = np.random.default_rng(0)
    group = rng.integers(0, 7, 600)
    positive = rng.random(600) < 0.4
    score = rng.integers(0, 6, 600) + 1.5 * positive
    found = grouped_auroc(score, positive, group, 8)
    for g in range(7):
        mine = group == g
        assert found.auroc[g] == pytest.approx(roc_auc_score(positive[mine], score[mine]))
    assert np.isnan(found.auroc[7])


def test_balanced_accuracy_equals_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    positive, predicted = rng.random(50) < 0.5, rng.random(50) < 0.5
    value = balanced_accuracy(predicted, positive, np.zeros(50, np.int64), 1)[0]
    assert value == pytest.approx(balanced_accuracy_score(positive, predicted))


def test_the_interval_of_balanced_accuracy_covers_and_has_width_at_one() -> None:
    rng = np.random.default_rng(4)
    runs, m, n = 2000, 25, 40
    positive = np.tile(np.arange(m + n) < m, (runs, 1))
    right = rng.random((runs, m + n)) < np.where(positive, 0.9, 0.6)
    predicted = np.where(positive, right, ~right)
    group = np.repeat(np.arange(runs), m + n)
    low, high = balanced_accuracy_interval(predicted.ravel(), positive.ravel(), group, runs)
    assert 0.94 <= ((low <= 0.75) & (high >= 0.75)).mean() <= 0.97
    some = np.array([True] * 20 + [False] * 20)
    low, high = balanced_accuracy_interval(some, some, np.zeros(40, np.int64), 2)
    # By hand: Wilson's lower limit of 20 of 20 is 0.8389; 1 - sqrt(2) * (1 - 0.8389) / 2.
    assert low[0] == pytest.approx(0.8861, abs=1e-4)
    assert high[0] == pytest.approx(1.0)
    assert np.isnan([low[1], high[1]]).all()


def test_always_yes_and_always_no_score_one_half() -> None:
    positive = np.array([True] * 10 + [False] * 30)
    zero = np.zeros(40, np.int64)
    for answer in (True, False):
        assert balanced_accuracy(np.full(40, answer), positive, zero, 1)[0] == 0.5
    assert grouped_auroc(np.ones(40), positive, zero, 1).auroc[0] == 0.5


def test_interval_has_width_at_one_and_covers() -> None:
    low, high = auroc_interval(np.array([1.0, np.nan]), np.array([20, 0]), np.array([20, 0]))
    assert 0.8 < low[0] < 1.0
    assert high[0] == pytest.approx(1.0)
    assert np.isnan(low[1])
    rng = np.random.default_rng(2)
    # Two normals 1.19 apart: AUROC 0.8.
    runs, m, n = 400, 25, 25
    score = np.concatenate([rng.normal(1.19, 1, (runs, m)), rng.normal(0, 1, (runs, n))], axis=1)
    positive = np.tile(np.arange(m + n) < m, (runs, 1))
    group = np.repeat(np.arange(runs), m + n)
    auroc = grouped_auroc(score.ravel(), positive.ravel(), group, runs).auroc
    low, high = auroc_interval(auroc, np.full(runs, m), np.full(runs, n))
    assert 0.92 <= ((low <= 0.8) & (high >= 0.8)).mean() <= 0.99


def test_gate_needs_margin_and_null() -> None:
    gate = Gate(margin=0.05)
    null = np.linspace(0.4, 0.7, 101)
    auroc = np.array([0.9, 0.66, 0.9, np.nan])
    low = np.array([0.7, 0.6, 0.54, np.nan])
    assert gate.passes(auroc, low, null).tolist() == [True, False, False, False]


@pytest.mark.parametrize("percentile", [0.0, 37.3, 50.0, 95.0, 100.0])
def test_percentile_of_others_is_numpys_without_a_row(percentile: float) -> None:
    rng = np.random.default_rng(4)
    for rows, columns in [(1, 1), (2, 1), (7, 5), (40, 5), (300, 1)]:
        for values in (rng.random((rows, columns)), rng.integers(0, 6, (rows, columns)) / 7):
            for missing in (0.0, 0.3, 0.9):
                values[rng.random(values.shape) < missing] = np.nan
                gate = Gate(0.05, percentile)
                expected = [gate.null_bar(np.delete(values, row, 0)) for row in range(rows)]
                assert percentile_of_others(values, percentile).tolist() == expected


def test_best_threshold_and_derangement() -> None:
    score = np.array([0.0, 1.0, 2.0, 3.0])
    assert best_threshold(score, np.array([False, False, True, True])) == 1.5
    assert best_threshold(score, np.ones(4, np.bool_)) == 0.0
    moved = derangement(9, np.random.default_rng(3))
    assert sorted(moved) == list(range(9))
    assert not (moved == np.arange(9)).any()
