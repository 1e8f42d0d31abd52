"""Paired gaps of likelihood, label by label."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from workflow_scripts.comparison.behaviour import (
    Behaviour,
    document_gaps,
    label_gaps,
    likelihood_gaps,
)

DOCUMENTS = 300
EFFECT = {"a": 0.3, "b": 0.0, "c": 0.0, "d": -0.2}


@pytest.fixture(scope="module")
def behaviour() -> Behaviour:
    """Documents whose hardness differs far more than what either model makes of them."""
    rng = np.random.default_rng(0)
    label = rng.choice(list(EFFECT), DOCUMENTS)
    hardness = rng.normal(4, 2, DOCUMENTS)
    better = np.array([EFFECT[name] for name in label]) + rng.normal(0, 0.1, DOCUMENTS)
    numbers = 3 * np.arange(DOCUMENTS)
    losses = [
        pd.DataFrame({"document": numbers, "model": model, "tokens": 9, "nll": nll})
        for model, nll in (("it", hardness + 1), ("simpo", hardness + 1 - better))
    ]
    shuffled = pd.concat(losses).sample(frac=1, random_state=0)
    labels = pd.Series(label, index=numbers)
    partly = pd.Series("x", index=numbers[:7])
    return Behaviour(shuffled, {"true": labels, "partly": partly})


def test_gaps_are_taken_document_by_document(behaviour: Behaviour) -> None:
    gaps = behaviour.gaps("true", "it", "simpo", 0.95)
    by_document = document_gaps(behaviour.losses, "it", "simpo")
    labels = behaviour.labels["true"]
    assert list(gaps) == sorted(EFFECT)
    for name, effect in EFFECT.items():
        values = by_document[labels.index[labels == name]]
        assert gaps[name].estimate == pytest.approx(values.mean())
        student = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
        assert (gaps[name].low, gaps[name].high) == pytest.approx(student, abs=0.005)
        assert gaps[name].estimate == pytest.approx(effect, abs=0.05)
        assert gaps[name].high - gaps[name].low < 0.1
    turned = behaviour.gaps("true", "simpo", "it", 0.95)
    assert turned["a"].estimate == pytest.approx(-gaps["a"].estimate)
    assert len(document_gaps(behaviour.losses, "it", "absent")) == 0


def test_a_labeller_that_labels_a_part_counts_that_part(behaviour: Behaviour) -> None:
    by_document = document_gaps(behaviour.losses, "it", "simpo")
    gaps = behaviour.gaps("partly", "it", "simpo", 0.95)
    assert gaps["x"].estimate == pytest.approx(by_document[behaviour.labels["partly"].index].mean())
    assert behaviour.gaps("absent", "it", "simpo", 0.95) == {}


def test_one_document_has_no_interval() -> None:
    gaps = label_gaps(pd.Series({5: 0.5}), pd.Series({5: "x", 6: "y"}), 0.95)
    assert list(gaps) == ["x"]
    assert gaps["x"].estimate == 0.5
    assert np.isnan([gaps["x"].low, gaps["x"].high]).all()


def test_a_gap_is_relative_to_the_median_of_true_categories(behaviour: Behaviour) -> None:
    gaps = behaviour.gaps("true", "it", "simpo", 0.95)
    median = np.median([gap.estimate for gap in gaps.values()])
    relative = likelihood_gaps(behaviour, "it", "simpo", "category", str, 0.95)
    assert relative["a"].estimate == pytest.approx(gaps["a"].estimate - median)
    assert relative["a"].low == pytest.approx(gaps["a"].low - median)
    classes = likelihood_gaps(
        behaviour, "it", "simpo", "class", lambda n: "v" if n < "c" else "w", 0.95
    )
    assert list(classes) == ["v", "w"]
    assert classes["v"].estimate == pytest.approx(-classes["w"].estimate)
    assert likelihood_gaps(Behaviour(behaviour.losses, {}), "it", "simpo", "class", str, 0.9) == {}
