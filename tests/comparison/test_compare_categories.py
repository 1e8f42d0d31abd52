"""The comparison of categories on a made-up run whose changes are planted."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.comparison.run_folder import CHAT, GAINED, LOST, Run, make_run
from workflow_scripts.common import files
from workflow_scripts.common.tables import read_csv
from workflow_scripts.comparison import (
    behaviour,
    carriers,
    compare_answers,
    compare_categories,
    compare_predictions,
    compare_witnesses,
    document_weights,
    explain_gaps,
    generate_answers,
    judge_changes,
    score_recovery,
    vary_decisions,
    weight_shares,
)
from workflow_scripts.comparison.category_table import COLUMNS

COLUMNS_FILE = Path(compare_categories.__file__).with_name("COLUMNS.md")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("run"), seeds=(0, 1))


@pytest.fixture(scope="module")
def table(run: Run) -> pd.DataFrame:
    output = run.root / "comparison/categories.csv"
    flags = run.compare_flags(output)
    assert compare_categories.main(flags) == 0
    return read_csv(output)


def rows_of(table: pd.DataFrame, comparison: str, labeller: str = "true") -> pd.DataFrame:
    mine = table[(table["comparison"] == comparison) & (table["labeller"] == labeller)]
    mine = mine[(mine["level"] == "category") & (mine["seed"] == 0)]
    return mine.set_index("name")


def test_columns_are_those_documented(table: pd.DataFrame) -> None:
    text = COLUMNS_FILE.read_text(encoding="utf-8")
    parts = [part.split("\n", 1) for part in text.split("\n## ")[1:]]
    documented = {name: tuple(re.findall(r"^\| `(\w+)` \|", part, re.M)) for name, part in parts}
    weighed = "`documents/<comparison>_seed<S>"
    assert tuple(table.columns) == COLUMNS
    assert documented == {
        "changes.csv": judge_changes.COLUMNS,
        "categories.csv": COLUMNS,
        "losses.parquet": behaviour.LOSS_COLUMNS,
        "divergences.parquet": behaviour.DIVERGENCE_COLUMNS,
        "`predictions/<comparison>.csv`": compare_predictions.LABEL_COLUMNS,
        "`predictions/<comparison>_tokens.parquet`": compare_predictions.TOKEN_COLUMNS,
        "`predictions/<comparison>_rows.parquet`": compare_predictions.ROW_COLUMNS,
        "`answers/<comparison>.parquet`": generate_answers.COLUMNS,
        "`answers/<comparison>.csv`": compare_answers.COLUMNS,
        "witnesses.csv": compare_witnesses.COLUMNS,
        f"{weighed}.parquet`": document_weights.COLUMNS,
        f"{weighed}_carriers.parquet`": carriers.COLUMNS,
        "recovery.csv": score_recovery.COLUMNS,
        "sensitivity.csv": vary_decisions.COLUMNS,
        "weighted.csv": weight_shares.COLUMNS,
        "gaps.csv": explain_gaps.COLUMNS,
    }


def test_a_row_per_comparison_seed_labeller_level_and_name(table: pd.DataFrame) -> None:
    key = ["comparison", "seed", "labeller", "level", "name"]
    assert not table.duplicated(key).any()
    assert set(table["labeller"]) == {"true", "lexical"}
    assert set(table["seed"]) == {0, 1}
    assert dict(zip(table["comparison"], table["kind"], strict=True)) == {
        "anchored": "anchored",
        "direct": "direct",
    }


def test_counts_agree_with_the_artifacts(run: Run, table: pd.DataFrame) -> None:
    rows = rows_of(table, "anchored")
    latents = files.read_parquet(run.root / "latents/pt_it/seed0/latents.parquet")
    selection = files.read_parquet(run.root / "latents/pt_it/seed0/selection.parquet")
    unique = selection.loc[selection["unique_to"] == "it", "latent"]
    named = latents.set_index("latent").loc[unique, "true_category"]
    assert (rows["N_baseline"] == len(unique)).all()
    for name, row in rows.iterrows():
        assert row["n_baseline"] == (named == name).sum()
    assert rows["n_baseline"].sum() == len(unique)
    assert "none" in rows.index
    assert not rows.loc["none", "tested"]


def test_direct_share_counts_all_live_latents(run: Run, table: pd.DataFrame) -> None:
    rows = rows_of(table, "direct")
    selection = files.read_parquet(run.root / "latents/it_simpo/seed0/selection.parquet")
    assert rows["live"].sum() == len(selection)
    assert rows["unique"].sum() == (selection["unique_to"] != "").sum()
    assert rows["unique_share"].to_numpy() == pytest.approx(
        (rows["unique"] / rows["live"]).to_numpy(), rel=1e-4
    )


def test_sampled_labels_stand_for_all_live_latents(run: Run, table: pd.DataFrame) -> None:
    rows = rows_of(table, "direct", "lexical")
    selection = files.read_parquet(run.root / "latents/it_simpo/seed0/selection.parquet")
    assert rows["live"].sum() == pytest.approx(len(selection), rel=1e-3)
    assert rows["labelled"].sum() < len(selection)
    assert "unassigned" in rows.index


def test_latents_of_planted_changes_are_called(table: pd.DataFrame) -> None:
    rows = rows_of(table, "direct")
    assert (rows.loc[list(LOST), "delta_norm_high"] < 0).all()
    assert (rows.loc[list(GAINED), "delta_norm_low"] > 0).all()
    called = rows["called"] == "yes"
    assert called[[*LOST, *GAINED]].sum() >= 3
    assert not called[list(CHAT)].any()
    assert set(rows.loc[~rows["tested"].astype(bool), "called"]) == {""}
    tested = rows[rows["tested"].astype(bool)]
    assert ((tested["detection_q"] <= 0.1) == (tested["called"] == "yes")).all()


def test_counts_are_called_by_their_own_test(table: pd.DataFrame) -> None:
    rows = rows_of(table, "anchored")
    tested = rows[rows["tested"].astype(bool)]
    assert ((tested["q"] <= 0.1) == (tested["called"] == "yes")).all()
    assert rows["unique_share"].isna().all()


def test_seed_level_interval_needs_two_seeds(table: pd.DataFrame) -> None:
    assert (table.loc[table["labeller"] == "true", "seeds"] == 2).all()
    assert set(table["robust"].dropna()) <= {"yes", "no"}


def test_shuffled_labels_find_nothing(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shuffled = make_run(tmp_path / "shuffled")
    for path in shuffled.root.glob("latents/*/seed0/latents.parquet"):
        latents = files.read_parquet(path)
        latents["true_category"] = rng.permutation(latents["true_category"].to_numpy())
        files.write_parquet(path, latents)
    output = tmp_path / "categories.csv"
    assert compare_categories.main(shuffled.compare_flags(output)) == 0
    rows = rows_of(read_csv(output), "direct")
    assert (rows.loc[rows["tested"], "called"] != "yes").all()


def test_order_of_the_models_in_the_fit_does_not_matter(run: Run, tmp_path: Path) -> None:
    """Baseline and candidate exchanged: every direction turns round."""
    swapped = Run(run.root, run.taxonomy)
    sides = run.comparisons["direct"]
    turned: dict[str, object] = {"baseline": sides["candidate"], "candidate": sides["baseline"]}
    swapped.comparisons = {"direct": turned}
    output = tmp_path / "categories.csv"
    assert compare_categories.main(swapped.compare_flags(output)) == 0
    rows = rows_of(read_csv(output), "direct")
    assert (rows.loc[list(LOST), "delta_norm"] > 0).all()
    assert (rows.loc[list(GAINED), "delta_norm"] < 0).all()


def test_placebo_stands_beside(run: Run, tmp_path: Path) -> None:
    """Here the first fit plays the placebo of the direct comparison."""
    other = Run(run.root, run.taxonomy)
    null: dict[str, object] = {
        "baseline": {"fit": "pt_it", "model": "pt"},
        "candidate": {"fit": "pt_it", "model": "it"},
    }
    direct_sides = dict(run.comparisons["direct"])
    other.comparisons = {"null": null, "direct": {**direct_sides, "placebo": "null"}}
    del other.comparisons["direct"]["anchored"]
    output = tmp_path / "categories.csv"
    assert compare_categories.main(other.compare_flags(output)) == 0
    table = read_csv(output)
    direct, beside = rows_of(table, "direct"), rows_of(table, "null")
    assert direct["placebo_share"].tolist() == beside["unique_share"].tolist()
    assert direct["placebo_p"].between(0, 1).all()


def test_a_flag_of_another_form_is_refused(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = run.compare_flags(tmp_path / "c.csv")
    flags[flags.index("--comparisons") + 1] = json.dumps({"direct": {"baseline": 3}})
    assert compare_categories.main(flags) == 2
    assert "--comparisons.direct.baseline is 3: Input should be" in capsys.readouterr().err


def test_companions_are_those_of_the_seed_in_the_same_place(run: Run, tmp_path: Path) -> None:
    """The direct fit has other seeds than the anchored ones: 7 goes with their first."""
    flags = run.compare_flags(tmp_path / "c.csv")
    fits = json.loads(run.fits_json())
    seeds = fits["it_simpo"]["seeds"]
    fits["it_simpo"]["seeds"] = {"7": seeds["0"], "8": seeds["1"]}
    flags[flags.index("--fits") + 1] = json.dumps(fits)
    assert compare_categories.main(flags) == 0
    found = read_csv(tmp_path / "c.csv")
    found = found[(found["level"] == "category") & (found["labeller"] == "true")]
    planted = found[found["name"].isin([*LOST, *GAINED])]
    direct = planted[planted["comparison"] == "direct"].replace({"seed": {7: 0, 8: 1}})
    anchored = planted[planted["comparison"] == "anchored"]
    both = direct.merge(anchored, on=["seed", "name"], suffixes=("", "_companion"))
    assert len(both) == len(planted) / 2 > 0
    assert (both["anchored_sign"] == both["count_sign_companion"]).all()
    pd.testing.assert_series_equal(
        both["anchored_change"], both["percent_change_companion"], check_names=False
    )
