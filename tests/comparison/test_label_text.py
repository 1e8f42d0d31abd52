"""Measures of a label's text, with the bootstrap over its documents."""

from __future__ import annotations

import math
import zlib

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from workflow_scripts.comparison.label_text import (
    BESIDE,
    DRAWS,
    LabelText,
    Measure,
    drawn_sums,
    measure_label,
    measures,
    parts,
)

DOCUMENTS = 80


def gap_table(count: int = DOCUMENTS, seed: int = 0) -> pd.DataFrame:
    """Return gaps of documents."""
    rng = np.random.default_rng(seed)
    gaps = {"tokens": rng.integers(5, 50, count), "gap": rng.normal(0.3, 0.2, count)}
    spread, divergence = rng.gamma(4, 0.1, count), rng.gamma(2, 0.1, count)
    return pd.DataFrame({**gaps, "spread": spread, "divergence": divergence})


def weight_table(count: int = DOCUMENTS, seed: int = 1) -> pd.DataFrame:
    """Return weighed documents of different length."""
    rng = np.random.default_rng(seed)
    energy = rng.gamma(3, 10, count)
    return pd.DataFrame(
        {
            "tokens": rng.integers(5, 50, count),
            "difference": energy * rng.uniform(0.1, 0.4, count),
            "energy": energy,
            "signed": energy * rng.normal(0.05, 0.1, count),
            "unique_baseline": energy * rng.uniform(0, 0.1, count),
            "unique_candidate": energy * rng.uniform(0, 0.2, count),
            "total": energy * rng.uniform(0.8, 1, count),
            "delta_norm": rng.uniform(0.4, 0.6, count),
        }
    )


def test_estimates_are_ratios_of_sums() -> None:
    gaps, weights = gap_table(), weight_table()
    text = measure_label("news", gaps, weights, 0.95)
    assert text.gap.interval.estimate == pytest.approx(gaps["gap"].mean())
    assert text.spread == pytest.approx(gaps["spread"].mean())
    assert text.tokens == gaps["tokens"].sum()
    assert text.documents == DOCUMENTS
    sums = weights.sum()
    unique = sums["unique_baseline"] + sums["unique_candidate"]
    expected = {
        "distance": sums["difference"] / sums["energy"],
        "signed_norm": sums["signed"] / sums["energy"],
        "unique_mass": unique / sums["total"],
        "delta_norm": weights["delta_norm"].mean(),
        "divergence": gaps["divergence"].mean(),
    }
    assert list(text.ratios) == list(BESIDE)
    found = {name: measure.interval.estimate for name, measure in text.ratios.items()}
    assert found == pytest.approx(expected)
    assert text.distance is text.ratios["distance"]


def test_the_bootstrap_is_scipys() -> None:
    gaps, weights = gap_table(), weight_table()
    text = measure_label("news", gaps, weights, 0.9)
    rng = np.random.default_rng(3)
    mean = stats.bootstrap(
        (gaps["gap"],), np.mean, confidence_level=0.9, method="percentile", random_state=rng
    )
    pair = (weights["difference"].to_numpy(), weights["energy"].to_numpy())
    ratio = stats.bootstrap(
        pair,
        lambda a, b, axis: a.sum(axis=axis) / b.sum(axis=axis),
        paired=True,
        confidence_level=0.9,
        method="percentile",
        random_state=rng,
    )
    for measure, other in ((text.gap, mean), (text.distance, ratio)):
        bounds = (measure.interval.low, measure.interval.high)
        assert bounds == pytest.approx(other.confidence_interval, rel=0.03)
        assert measure.error == pytest.approx(other.standard_error, rel=0.08)
    error = text.distance.error / text.distance.interval.estimate
    assert text.distance.relative == pytest.approx(error)


def test_intervals_cover_the_truth() -> None:
    """Long documents weigh more in a ratio; 95 % intervals of 40 documents cover about 90 %."""
    rng = np.random.default_rng(0)
    held = []
    for seed in range(300):
        energy = rng.gamma(3, 10, 40)
        frame = pd.DataFrame({"a": energy * rng.gamma(4, 0.05, 40), "b": energy})
        interval = measures(frame, {"r": ("a", "b")}, seed, 0.95)["r"].interval
        held.append(interval.low <= 0.2 <= interval.high)
    assert 0.87 <= np.mean(held) <= 0.97


def test_labels_do_not_depend_on_each_other() -> None:
    """The seed is the label's own: the same numbers whatever else is measured, and twice."""
    first = measure_label("news", gap_table(), weight_table(), 0.95)
    measure_label("advice", gap_table(seed=5), weight_table(seed=6), 0.95)
    assert measure_label("news", gap_table(), weight_table(), 0.95) == first
    other = measure_label("advice", gap_table(), weight_table(), 0.95)
    assert other.gap.interval.estimate == first.gap.interval.estimate
    assert other.gap.interval != first.gap.interval


def test_draws_are_made_in_parts_that_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(30.0).reshape(10, 3)
    whole = drawn_sums(values, 7)
    assert whole.shape == (DRAWS, 3)
    assert whole.mean(0) == pytest.approx(values.sum(0), rel=0.03)
    monkeypatch.setattr("workflow_scripts.comparison.label_text.CHUNK", DRAWS)
    assert np.array_equal(whole, drawn_sums(values, 7))


def test_one_document_has_no_interval() -> None:
    text = measure_label("news", gap_table(1), weight_table(1), 0.95)
    for measure in (text.gap, *text.ratios.values()):
        assert math.isfinite(measure.interval.estimate)
        assert math.isnan(measure.interval.low)
        assert math.isnan(measure.interval.high)
        assert math.isnan(measure.error)
        assert measure.documents == 1


def test_documents_without_a_direction_of_any_latent_do_not_count() -> None:
    weights = weight_table()
    weights.loc[::2, "delta_norm"] = np.nan
    text = measure_label("news", gap_table(), weights, 0.95)
    assert text.ratios["delta_norm"].interval.estimate == pytest.approx(
        weights["delta_norm"].mean()
    )
    weights["delta_norm"] = np.nan
    none = measure_label("news", gap_table(), weights, 0.95).ratios["delta_norm"]
    assert math.isnan(none.interval.estimate)
    assert math.isnan(none.interval.low)
    assert parts(weights)["fired"].sum() == 0


def test_text_on_which_nothing_fires_has_no_unique_mass() -> None:
    weights = weight_table()
    weights[["unique_baseline", "unique_candidate", "total"]] = 0.0
    text = measure_label("news", gap_table(), weights, 0.95)
    assert math.isnan(text.ratios["unique_mass"].interval.estimate)
    assert math.isfinite(text.distance.interval.low)


def test_equal_activations_have_distance_nothing() -> None:
    weights = weight_table().assign(difference=0.0, signed=0.0)
    distance = measure_label("news", gap_table(), weights, 0.95).distance
    assert (distance.interval.estimate, distance.interval.low, distance.error) == (0, 0, 0)
    assert distance.relative == 0


def test_an_axis_without_documents_is_not_measured() -> None:
    behaves = measure_label("news", gap_table(), None, 0.95)
    assert list(behaves.ratios) == ["divergence"]
    assert behaves.distance == Measure()
    assert behaves.documents == DOCUMENTS
    weighed = measure_label("news", gap_table().iloc[:0], weight_table(30), 0.95)
    assert weighed.gap.documents == 0
    assert weighed.tokens == 0
    assert weighed.documents == 30
    nothing = measure_label("news", gap_table().iloc[:0], weight_table().iloc[:0], 0.95)
    assert nothing.documents == 0
    assert LabelText().documents == 0


@pytest.mark.parametrize(
    "label", ["=cmd|'/c calc'!A1", "a\x00b", "\ud800", "../../x", "", "ß" * 999]
)
def test_any_label_is_text(label: str) -> None:
    """Labels come from users' data: they seed the bootstrap, and nothing else."""
    text = measure_label(label, gap_table(), weight_table(), 0.95)
    assert text.gap.interval.estimate == pytest.approx(gap_table()["gap"].mean())
    seed = zlib.crc32(label.encode("utf-8", "surrogatepass"))
    found = measures(gap_table().assign(one=1.0), {"gap": ("gap", "one")}, seed, 0.95)
    assert found["gap"] == text.gap
