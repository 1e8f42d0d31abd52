"""The test of direct shares: exact, and sound where unchanged categories differ."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from workflow_scripts.comparison.settings import CategoryTest
from workflow_scripts.comparison.shares import (
    LatentTally,
    called_names,
    detection_p,
    reference_names,
    shares,
)


def tally(unique: int, size: int, weight: float = 1.0) -> LatentTally:
    return LatentTally(unique, size - unique, unique + weight * (size - unique))


def test_without_margin_it_is_fishers_test() -> None:
    own, other = tally(9, 30), tally(10, 300)
    expected = stats.fisher_exact(np.array([[9, 21], [10, 290]]), alternative="greater").pvalue
    assert detection_p(own, other, 0.0) == pytest.approx(expected)


def test_the_margin_is_a_binomial_test_of_the_share() -> None:
    own, other = tally(9, 30), tally(100, 3000)
    expected = stats.binomtest(9, 30, 100 / 3000 + 0.05, alternative="greater").pvalue
    assert detection_p(own, other, 0.05) == pytest.approx(expected)


def test_a_sample_of_the_shared_latents_gives_nearly_the_same_test() -> None:
    """All latents labelled, or a third of the shared ones: the same shares, about the same p."""
    full = detection_p(tally(12, 48), tally(12, 372), 0.05)
    sampled = detection_p(tally(12, 24, 3), tally(12, 132, 3), 0.05)
    assert tally(12, 24, 3).share == tally(12, 48).share
    assert 0.2 < math.log(sampled) / math.log(full) < 1.2


def test_a_name_without_a_labelled_shared_latent_keeps_the_sampling_weight() -> None:
    """Of a tenth of the shared latents none may carry a name that 22 unique ones do."""
    rows = (
        [("rare", True, 1.0)] * 22 + [("usual", False, 10.0)] * 100 + [("usual", True, 1.0)] * 250
    )
    frame = pd.DataFrame(rows, columns=["category", "unique", "weight"])
    unique = frame.pop("unique")
    found = shares(frame, unique, "category", CategoryTest(margin=0.15))["rare"]
    blind = shares(frame.assign(weight=1.0), unique, "category", CategoryTest(margin=0.15))["rare"]
    assert found.weight == 10.0
    assert found.share.estimate == 1.0
    assert found.share.low < 0.6 < blind.share.low
    assert found.p == pytest.approx(_chance_of_all(22, (250 / 1250) + 0.15, 10.0))


def _chance_of_all(count: int, share: float, weight: float) -> float:
    """Return the chance that all of so many labelled latents are unique."""
    odds = weight * share / (1 - share)
    return float((odds / (1 + odds)) ** count)


def test_called_categories_leave_the_reference() -> None:
    tallies = {f"same{i}": tally(2, 50) for i in range(8)} | {"none": tally(5, 100)}
    tallies |= {f"changed{i}": tally(20, 50) for i in range(4)}
    kept = reference_names(tallies, CategoryTest(margin=0.05))
    assert kept == {f"same{i}" for i in range(8)}
    assert sorted(called_names(tallies, kept, CategoryTest(margin=0.05))) == [
        f"changed{i}" for i in range(4)
    ]


def test_at_most_half_of_the_categories_leave() -> None:
    tallies = {f"changed{i}": tally(20 + i, 50) for i in range(6)} | {"same": tally(0, 500)}
    kept = reference_names(tallies, CategoryTest(margin=0.05))
    assert kept == {"same", "changed0", "changed1", "changed2"}


def test_detectable_share_is_the_least_that_is_called() -> None:
    frame = pd.DataFrame({"category": ["a"] * 40 + ["b"] * 400, "weight": 1.0})
    unique = pd.Series([i % 40 < 2 for i in range(440)])
    found = shares(frame, unique, "category", CategoryTest(margin=0.05))["a"]
    other = tally(20, 400)
    count = round(found.detectable * 40)
    assert detection_p(tally(count, 40), other, 0.05) <= 0.05
    assert detection_p(tally(count - 1, 40), other, 0.05) > 0.05


def tables(
    rng: np.random.Generator, changed: tuple[float, ...], spread: tuple[float, float]
) -> dict[str, LatentTally]:
    """Draw a table: changed categories, eight that differ among themselves, six of plain text."""
    rates = [*changed, *rng.beta(*spread, 8), *[0.004] * 6]
    sizes = rng.integers(25, 70, len(rates))
    drawn = {
        f"{'changed' if i < len(changed) else 'same'}{i}": tally(int(rng.binomial(n, p)), int(n))
        for i, (p, n) in enumerate(zip(rates, sizes, strict=True))
    }
    return drawn | {"none": tally(int(rng.binomial(150, 0.05)), 150)}


def rates_of(
    test: CategoryTest, changed: tuple[float, ...], draws: int = 60
) -> tuple[float, float]:
    """Return power per changed category, and the share of tables with a false call."""
    rng = np.random.default_rng(0)
    power, false = [], []
    for _ in range(draws):
        drawn = tables(rng, changed, (2, 38))
        called = called_names(drawn, reference_names(drawn, test), test)
        power.append(sum(name.startswith("changed") for name in called) / max(len(changed), 1))
        false.append(any(name.startswith("same") for name in called))
    return float(np.mean(power)), float(np.mean(false))


def test_the_default_keeps_power_and_calls_little_that_is_unchanged() -> None:
    """Unchanged shares here spread as 5 % ± 3.4 %, wider than chance; Fisher's test then errs."""
    doses = (0.45, 0.25, 0.45, 0.25)
    power, false = rates_of(CategoryTest(margin=0.05), doses)
    assert power >= 0.8
    assert false <= 0.25
    assert rates_of(CategoryTest(margin=0.0), doses)[1] > 0.6
    assert rates_of(CategoryTest(margin=0.05), ())[1] <= 0.15
    assert rates_of(CategoryTest(margin=0.0), ())[1] > 0.3
