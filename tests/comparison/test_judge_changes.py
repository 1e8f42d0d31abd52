"""The step that judges changes, from files to table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.comparison.run_folder import CATEGORIES, DOCUMENTS, GAINED, LOST, TOKENS, Run, make_run
from workflow_scripts.common import files
from workflow_scripts.common.tables import read_csv
from workflow_scripts.comparison import judge_changes
from workflow_scripts.comparison.behaviour import document_gaps
from workflow_scripts.comparison.label_text import BESIDE
from workflow_scripts.comparison.verdicts import VERDICTS

KEY = ["comparison", "seed", "labeller", "label"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("run"), seeds=(0, 1))


@pytest.fixture(scope="module")
def table(run: Run) -> pd.DataFrame:
    output = run.root / "comparison/changes.csv"
    assert judge_changes.main(run.judge_flags(output)) == 0
    return read_csv(output)


def judge(run: Run, folder: Path, limit: int = 200, **other: Any) -> pd.DataFrame:
    """Run the step with other inputs: labels or losses (tables), or pairs."""
    flags = {flag.split("=", 1)[0]: flag.split("=", 1)[1] for flag in run.judge_flags(folder)}
    flags["--output"] = str(folder / "changes.csv")
    flags["--documents-per-label"] = str(limit)
    for name, value in other.items():
        if isinstance(value, pd.DataFrame):
            files.write_parquet(folder / f"{name}.parquet", value)
            flags[f"--{name}"] = str(folder / f"{name}.parquet")
        else:
            flags[f"--{name}"] = json.dumps(value)
    assert judge_changes.main([f"{name}={value}" for name, value in flags.items()]) == 0
    found = read_csv(folder / "changes.csv")
    assert tuple(found.columns) == judge_changes.COLUMNS
    return found


def rows_of(
    table: pd.DataFrame, comparison: str = "direct", labeller: str = "true"
) -> pd.DataFrame:
    mine = (table["comparison"] == comparison) & (table["labeller"] == labeller)
    return table[mine & (table["seed"] == 0)].set_index("label")


def test_a_row_per_comparison_seed_labeller_and_label(table: pd.DataFrame) -> None:
    assert tuple(table.columns) == judge_changes.COLUMNS
    assert not table.duplicated(KEY).any()
    counts = table.groupby(["comparison", "seed", "labeller"]).size().to_dict()
    assert counts == {
        (comparison, seed, labeller): len(CATEGORIES)
        for comparison, seeds in (("direct", (0, 1)), ("anchored", (0,)))
        for seed in seeds
        for labeller in ("true", "topics")
    }
    assert set(table["verdict"]) <= set(VERDICTS)


@pytest.mark.parametrize(("labeller", "prefix"), [("true", ""), ("topics", "words of ")])
def test_planted_changes_are_called(table: pd.DataFrame, labeller: str, prefix: str) -> None:
    verdicts = rows_of(table, labeller=labeller)["verdict"]
    words = dict.fromkeys(CATEGORIES, "unchanged")
    words |= dict.fromkeys(GAINED, "gained") | dict.fromkeys(LOST, "lost")
    assert verdicts.to_dict() == {prefix + name: word for name, word in words.items()}


def test_numbers_are_those_of_the_documents(run: Run, table: pd.DataFrame) -> None:
    labels = files.read_parquet(run.labels)
    gaps = document_gaps(files.read_parquet(run.losses), "it", "simpo")
    weights = files.read_parquet(run.weighed("direct", 0)).set_index("document")
    for labeller in ("true", "topics"):
        rows = rows_of(table, labeller=labeller)
        of = labels[labels["labeller"] == labeller].set_index("document")["label"]
        shift = gaps["gap"].groupby(of).mean() - rows["behaviour"]
        assert shift.to_numpy() == pytest.approx(shift.iloc[0], abs=1e-4)  # one for all labels
        assert abs(shift.iloc[0]) < 0.02
        sums = weights.groupby(of.reindex(weights.index)).sum()
        found = rows.loc[sums.index]
        distance = sums["difference"] / sums["energy"]
        assert found["distance"].to_numpy() == pytest.approx(distance.to_numpy(), rel=1e-4)
        unique = (sums["unique_baseline"] + sums["unique_candidate"]) / sums["total"]
        assert found["unique_mass"].to_numpy() == pytest.approx(unique.to_numpy(), rel=1e-4)
        documents = DOCUMENTS - (labeller == "topics")
        assert (rows["documents"] == documents).all()
        assert (rows["tokens"] == documents * TOKENS).all()


def test_predictions_differ_where_something_changed(table: pd.DataFrame) -> None:
    rows = rows_of(table)
    assert (rows.loc[[*GAINED, *LOST], "divergence"] == 0.4).all()
    assert (rows.drop([*GAINED, *LOST])["divergence"] == 0.01).all()
    assert rows_of(table, "anchored")["divergence"].notna().all()  # of the same two models


def test_a_label_counts_its_own_sample_alone(run: Run, tmp_path: Path) -> None:
    """Whatever documents other labellers add; they may lean to some kinds of its text."""
    labels = files.read_parquet(run.labels)
    true = labels[labels["labeller"] == "true"]
    one = true.assign(label="all text")
    rare = true[true["label"].isin(LOST)].assign(labeller="rare")
    alone = judge(run, tmp_path, labels=one, limit=30)
    beside = judge(run, tmp_path, labels=pd.concat([one, rare]), limit=30)
    assert rows_of(alone).loc["all text", "documents"] == 30
    pd.testing.assert_frame_equal(rows_of(alone), rows_of(beside))


def test_intervals_hold_their_estimates(table: pd.DataFrame) -> None:
    for name in ("behaviour", "representation", *BESIDE):
        known = table.dropna(subset=[name])
        assert (known[f"{name}_low"] <= known[name]).all()
        assert (known[name] <= known[f"{name}_high"]).all()


def test_behaviour_is_the_same_under_every_seed(table: pd.DataFrame) -> None:
    first, second = (
        table[(table["comparison"] == "direct") & (table["seed"] == seed)] for seed in (0, 1)
    )
    behaviour = [name for name in table.columns if name.startswith("behaviour")]
    assert np.array_equal(first[behaviour], second[behaviour], equal_nan=True)
    assert not np.array_equal(first["distance"], second["distance"])


def test_the_same_bytes_twice(run: Run, table: pd.DataFrame, tmp_path: Path) -> None:
    """Also where rows of the inputs come in another order."""
    labels, losses = files.read_parquet(run.labels), files.read_parquet(run.losses)
    judge(run, tmp_path)
    once = (tmp_path / "changes.csv").read_bytes()
    assert once == (run.root / "comparison/changes.csv").read_bytes()
    turned = labels.iloc[::-1].reset_index(drop=True)
    found = judge(run, tmp_path, labels=turned, losses=losses)
    pd.testing.assert_frame_equal(found, table)


def test_without_a_crosscoder_of_both_there_is_behaviour_alone(table: pd.DataFrame) -> None:
    rows = rows_of(table, "anchored")
    assert rows["representation"].isna().all()
    assert rows["representation_q"].isna().all()
    assert rows["distance"].isna().all()
    direct = rows_of(table)
    assert np.array_equal(rows["behaviour"], direct["behaviour"])
    assert rows["verdict"].tolist() == direct["verdict"].tolist()


def test_a_model_that_was_not_run_cannot_be_told(run: Run, tmp_path: Path) -> None:
    """No common document: representation is still judged."""
    losses = files.read_parquet(run.losses)
    rows = rows_of(judge(run, tmp_path, losses=losses[losses["model"] != "simpo"]))
    assert rows["behaviour"].isna().all()
    assert (rows["tokens"] == 0).all()
    assert (rows["documents"] == DOCUMENTS).all()
    assert rows["distance"].notna().all()
    assert set(rows.loc[[*LOST, *GAINED], "verdict"]) <= {"moved", "cannot tell"}
    others = rows.drop([*LOST, *GAINED])
    assert set(others["verdict"]) == {"cannot tell"}


def test_labels_of_text_that_was_not_weighed_or_not_read(run: Run, tmp_path: Path) -> None:
    labels = files.read_parquet(run.labels)
    first = len(CATEGORIES) * DOCUMENTS
    more = pd.DataFrame({"document": np.arange(first, first + 40), "labeller": "true"})
    more["label"] = np.repeat(["only read", "nowhere"], 20)
    losses = files.read_parquet(run.losses)
    one = losses[losses["document"] < 20]
    losses = pd.concat([losses, one.assign(document=one["document"] + first)])
    rows = rows_of(judge(run, tmp_path, labels=pd.concat([labels, more]), losses=losses))
    assert "nowhere" not in rows.index
    assert rows["distance"].isna()["only read"]
    assert rows.loc["only read", "verdict"] == "unchanged"
    assert rows.loc["only read", "tokens"] == 20 * TOKENS
    changed = rows[rows["verdict"].isin(["gained", "lost"])]
    assert sorted(changed.index) == sorted([*GAINED, *LOST])


def test_labels_of_two_tables_stand_side_by_side(run: Run, tmp_path: Path) -> None:
    table = files.read_parquet(run.labels)
    of_llm = table[(table["labeller"] == "true") & (table["document"] % 3 > 0)]
    files.write_parquet(tmp_path / "llm.parquet", of_llm.assign(labeller="llm"))
    flags = [f"--labels={tmp_path / 'llm.parquet'}", f"--output={tmp_path / 'both.csv'}"]
    given = [f for f in run.judge_flags(tmp_path) if not f.startswith("--output")]
    assert judge_changes.main([*given, *flags]) == 0
    both = read_csv(tmp_path / "both.csv")
    rows = rows_of(both, labeller="llm")
    assert rows.loc[list(GAINED), "verdict"].tolist() == ["gained"] * len(GAINED)
    assert rows.loc[list(LOST), "verdict"].tolist() == ["lost"] * len(LOST)
    assert rows["documents"].sum() == len(of_llm)
    pd.testing.assert_frame_equal(rows_of(both), rows_of(judge(run, tmp_path)))


def test_rare_labels_cannot_be_told(run: Run, tmp_path: Path) -> None:
    labels = files.read_parquet(run.labels)
    labels = labels[labels["labeller"] == "true"].reset_index(drop=True)
    name = labels["label"] == GAINED[0]
    labels.loc[labels.index[name][:5], "label"] = "rare"
    labels.loc[labels.index[name][5:6], "label"] = "single"
    rows = rows_of(judge(run, tmp_path, labels=labels))
    assert (rows.loc[["rare", "single"], "verdict"] == "cannot tell").all()
    assert rows.loc["rare", "documents"] == 5
    assert rows["behaviour"].isna()["rare"]
    assert rows["distance_low"].isna()["single"]
    assert rows.loc[GAINED[0], "verdict"] == "gained"


def test_a_model_against_itself_is_unchanged(run: Run, tmp_path: Path) -> None:
    weights = files.read_parquet(run.weighed("direct", 0))
    files.write_parquet(tmp_path / "weights.parquet", weights.assign(difference=0.0, signed=0.0))
    pair = {"baseline": "it", "candidate": "it"}
    pairs = {"direct": pair | {"documents": {"0": str(tmp_path / "weights.parquet")}}}
    rows = rows_of(judge(run, tmp_path, pairs=pairs))
    assert set(rows["verdict"]) == {"unchanged"}
    assert (rows["behaviour"] == 0).all()
    assert (rows["distance"] == 0).all()


def test_shuffled_labels_call_little(run: Run, tmp_path: Path) -> None:
    labels = files.read_parquet(run.labels)
    labels = labels[labels["labeller"] == "true"].reset_index(drop=True)
    rng = np.random.default_rng(0)
    labels["label"] = rng.permutation(labels["label"].to_numpy())
    rows = rows_of(judge(run, tmp_path, labels=labels))
    assert (rows["verdict"].isin(["gained", "lost"])).sum() <= 1


def test_text_without_labels_gives_an_empty_table(run: Run, tmp_path: Path) -> None:
    labels = files.read_parquet(run.labels).iloc[:0]
    assert judge(run, tmp_path, labels=labels).empty


def test_any_label_is_text(run: Run, tmp_path: Path) -> None:
    """Labels with quotes, line ends or markup come back as they are."""
    labels = files.read_parquet(run.labels)
    names = ['a "quoted", one', "line\nend", "<script>", "=1+1", "n/a"]
    swap = dict(zip(CATEGORIES, names, strict=False))
    table = judge(run, tmp_path, labels=labels.replace({"label": swap}))
    assert set(names) <= set(table["label"])


def test_missing_inputs_are_told(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [f for f in run.judge_flags(tmp_path / "c.csv") if not f.startswith("--losses")]
    assert judge_changes.main([*flags, f"--losses={tmp_path / 'none.parquet'}"]) == 2
    assert "none.parquet does not exist" in capsys.readouterr().err
    assert not (tmp_path / "c.csv").exists()
