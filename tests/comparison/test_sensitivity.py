"""What latents call under other decisions, and shares under other weightings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.comparison.run_folder import GAINED, LOST, Run, make_run
from workflow_scripts.common.intervals import resample
from workflow_scripts.common.tables import read_csv
from workflow_scripts.comparison import vary_decisions, weight_shares
from workflow_scripts.comparison.weight_shares import WeightedLatents, bootstrap_changes


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("run"))


def test_each_variant_is_compared(run: Run, tmp_path: Path) -> None:
    output = tmp_path / "sensitivity.csv"
    assert vary_decisions.main(run.compare_flags(output)) == 0
    table = read_csv(output)
    assert table["variant"].nunique() == 5
    base = table[table["variant"] == vary_decisions.BASE]
    assert (base["same_call"] == "yes").all()
    mine = table[(table["comparison"] == "direct") & (table["labeller"] == "true")]
    counts = mine.groupby("variant")["n_baseline"].sum()
    assert counts["ν^r < 0.3, ν^ε < 0.1"] < counts["as configured"]
    assert counts["ν^r < 0.7, ν^ε < 0.3"] >= counts["as configured"]
    classes = mine[mine["variant"] == vary_decisions.BY_CLASS]
    assert set(classes["name"]) <= set(base["name"])
    assert (classes["N_baseline"] == classes["N_baseline"].iloc[0]).all()
    merged = classes.merge(base[base["comparison"] == "direct"], on=["labeller", "name"])
    assert (merged["n_baseline_x"] >= merged["n_baseline_y"]).all()
    called = base.set_index(["comparison", "labeller", "name"])["called"]
    keys = pd.MultiIndex.from_frame(table[["comparison", "labeller", "name"]])
    same = table["called"].to_numpy() == called.reindex(keys).to_numpy()
    assert (table["same_call"] == np.where(same, "yes", "no")).all()
    changed = base[(base["comparison"] == "direct") & base["name"].isin([*LOST, *GAINED])]
    assert (changed["called"] == "yes").sum() >= 3
    tight = mine[mine["variant"] == "ν^r < 0.3, ν^ε < 0.1"].set_index("name")
    assert (tight["same_call"] == "no").any()  # a part of the unique latents is left


def test_weighted_shares(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "weighted.csv"
    monkeypatch.setattr(weight_shares, "DRAWS", 200)
    assert weight_shares.main(run.compare_flags(output)) == 0
    table = read_csv(output)
    labellers = table.groupby("weighting")["labeller"].unique()
    assert set(labellers["latent"]) == {"true", "lexical"}
    assert set(labellers["label_score"]) == {"lexical"}
    known = table.dropna(subset=["percent_change", "low"])
    assert (known["low"] <= known["percent_change"] + 1e-3).mean() > 0.9


def test_bootstrap_with_equal_weights_is_the_plain_change() -> None:
    rng = np.random.default_rng(0)
    before = WeightedLatents((np.arange(100) < 20)[:, None], np.ones(100))
    after = WeightedLatents((np.arange(200) < 80)[:, None], np.ones(200))
    counts = (resample(100, 4000, rng), resample(200, 4000, rng))
    ((*shares, change),) = bootstrap_changes((before, after), counts, 0.95)
    assert (*shares, change.estimate) == pytest.approx((0.2, 0.4, 100.0))
    # The logarithm's standard error is √(1/80 - 1/200 + 1/20 - 1/100).
    reach = 1.96 * np.sqrt(1 / 80 - 1 / 200 + 1 / 20 - 1 / 100)
    assert 1 + change.low / 100 == pytest.approx(2 * np.exp(-reach), rel=0.08)
    assert 1 + change.high / 100 == pytest.approx(2 * np.exp(reach), rel=0.08)


def test_no_category_before_has_no_percentage() -> None:
    rng = np.random.default_rng(0)
    none, all_ = np.zeros((10, 1), bool), np.ones((10, 1), bool)
    counts = (resample(10, 50, rng), resample(10, 50, rng))
    sides = WeightedLatents(none, np.ones(10)), WeightedLatents(all_, np.ones(10))
    ((_, _, change),) = bootstrap_changes(sides, counts, 0.95)
    assert np.isnan(change.estimate)
    assert change.low == np.inf
