"""The recovery table and the one-sentence answer."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.comparison.run_folder import Run, make_run
from workflow_scripts.common import files
from workflow_scripts.common.tables import read_csv
from workflow_scripts.comparison import compare_categories, score_recovery


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = make_run(tmp_path_factory.mktemp("run"))
    flags = made.compare_flags(made.root / "categories.csv")
    assert compare_categories.main(flags) == 0
    return made


def score(run: Run, folder: Path, *flags: str) -> tuple[int, Path, Path]:
    recovery, answer = folder / "recovery.csv", folder / "answer.json"
    code = score_recovery.main(
        [
            *("--categories", str(run.root / "categories.csv")),
            *("--recovery", str(recovery)),
            *("--answer", str(answer)),
            *flags,
        ]
    )
    return code, recovery, answer


def test_planted_changes_are_found(run: Run, tmp_path: Path) -> None:
    code, recovery, path = score(run, tmp_path, "--planted", str(run.planted))
    assert code == 0
    answer = files.read_json(path)
    assert (answer["comparison"], answer["labeller"]) == ("direct", "true")
    assert answer["planted_total"] == 4
    assert answer["planted_found"] >= 3
    assert answer["unchanged_called"] == 0
    assert answer["signs_right"] == 4
    assert f"{answer['planted_found']} of 4 planted changes were found" in answer["sentence"]
    assert "0 of 7 unchanged categories wrongly called" in answer["sentence"]
    assert {a["comparison"] for a in answer["all"]} == {"anchored", "direct"}
    table = read_csv(recovery)
    verdicts = table[(table["statistic"] == "verdict") & (table["comparison"] == "direct")]
    mine = verdicts[verdicts["labeller"] == "true"]
    right = mine["planted"].isin(["gained", "lost"]) & (mine["sign_right"] == "yes")
    assert right.sum() == answer["planted_found"]
    assert (mine["false_call"] == "yes").sum() == 0
    assert set(table["statistic"]) == set(score_recovery.STATISTICS)


def test_a_permuted_planted_table_is_not_recovered(run: Run, tmp_path: Path) -> None:
    planted = pd.read_csv(run.planted)
    swap = {"gained": "lost", "lost": "gained"}
    planted["planted"] = planted["planted"].replace(swap)
    planted.to_csv(tmp_path / "planted.csv", index=False)
    _, _, path = score(run, tmp_path, "--planted", str(tmp_path / "planted.csv"))
    answer = files.read_json(path)
    assert answer["planted_found"] == 0
    assert answer["signs_right"] == 0
    assert answer["planted_detected"] >= 3


def test_without_a_planted_table_nothing_is_claimed_of_it(run: Run, tmp_path: Path) -> None:
    code, recovery, path = score(run, tmp_path)
    answer = files.read_json(path)
    assert code == 0
    assert answer["planted_total"] is None
    assert "planted" not in answer["sentence"]
    assert len(read_csv(recovery)) == 0


def test_another_pair_has_no_truth(run: Run, tmp_path: Path) -> None:
    planted = pd.read_csv(run.planted).assign(candidate="it_placebo")
    planted.to_csv(tmp_path / "planted.csv", index=False)
    _, recovery, path = score(run, tmp_path, "--planted", str(tmp_path / "planted.csv"))
    assert files.read_json(path)["planted_total"] is None
    assert len(read_csv(recovery)) == 0


def test_the_lexical_answer_says_so(run: Run, tmp_path: Path) -> None:
    _, _, path = score(run, tmp_path, "--labeller", "lexical", "--primary", "anchored")
    answer = files.read_json(path)
    assert answer["comparison"] == "anchored"
    assert "no LLM was used" in answer["sentence"]
    assert 0 < answer["coverage"] < 1


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--primary", "nope"], "no comparison is called nope"),
        (["--labeller", "nope"], "no labels by nope"),
    ],
)
def test_mistakes_are_told(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], told: str
) -> None:
    assert score(run, tmp_path, *flags)[0] == 2
    assert told in capsys.readouterr().err
