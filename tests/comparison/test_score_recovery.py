"""The recovery table and the answer."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.comparison.run_folder import GAINED, LOST, Run, make_run
from workflow_scripts.common import files
from workflow_scripts.common.tables import read_csv
from workflow_scripts.comparison import compare_categories, judge_changes, score_recovery


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = make_run(tmp_path_factory.mktemp("run"))
    folder = made.root / "comparison"
    assert compare_categories.main(made.compare_flags(folder / "categories.csv")) == 0
    assert judge_changes.main(made.judge_flags(folder / "changes.csv")) == 0
    return made


def score(run: Run, folder: Path, *flags: str) -> tuple[int, Path, Path]:
    recovery, answer = folder / "recovery.csv", folder / "answer.json"
    code = score_recovery.main([*run.recovery_flags(recovery, answer), *flags])
    return code, recovery, answer


def test_planted_changes_are_found(run: Run, tmp_path: Path) -> None:
    code, recovery, path = score(run, tmp_path, f"--planted={run.planted}")
    assert code == 0
    answer = files.read_json(path)
    assert (answer["comparison"], answer["labeller"]) == ("direct", "true")
    assert (answer["planted_total"], answer["planted_found"]) == (4, 4)
    assert (answer["unchanged_total"], answer["unchanged_called"]) == (7, 0)
    assert answer["verdicts"]["gained"] == sorted(GAINED)
    assert answer["verdicts"]["lost"] == sorted(LOST)
    assert "4 of 4 planted changes were found and 0 of 7" in answer["sentence"]
    assert answer["text"]["left_out"] == {"empty": 60, "unknown role": 40}
    assert answer["text"]["warning"].startswith("Not all of the text was read: 10% of the docum")
    table = read_csv(recovery)
    statistics = {*score_recovery.OF_LATENTS, *score_recovery.OF_DOCUMENTS}
    assert set(table["statistic"]) == statistics
    verdicts = table[(table["statistic"] == "verdict") & (table["comparison"] == "direct")]
    assert set(verdicts["labeller"]) == {"true"}
    assert (verdicts["sign_right"] == "yes").sum() == 4
    assert (verdicts["false_call"] == "yes").sum() == 0
    assert (verdicts["false_call"] == "no").sum() == 7


def test_every_labeller_and_comparison_answers(run: Run, tmp_path: Path) -> None:
    """Topics are judged by the true category of their documents."""
    _, _, path = score(run, tmp_path, f"--planted={run.planted}")
    answer = files.read_json(path)
    said = {(a["comparison"], a["labeller"]) for a in answer["all"]}
    assert said == {(c, n) for c in ("anchored", "direct") for n in ("true", "topics")}
    assert set(answer["by_labeller"]) == {"true", "topics"}
    topics = answer["by_labeller"]["topics"]
    assert (topics["planted_found"], topics["unchanged_called"]) == (4, 0)
    assert topics["verdicts"]["gained"] == [f"words of {name}" for name in sorted(GAINED)]
    assert answer["by_labeller"]["true"]["sentence"] == answer["sentence"]


def test_without_a_crosscoder_of_both_behaviour_answers(run: Run, tmp_path: Path) -> None:
    """The anchored comparison has behaviour alone."""
    _, _, path = score(run, tmp_path, f"--planted={run.planted}", "--primary=anchored")
    answer = files.read_json(path)
    assert answer["comparison"] == "anchored"
    assert answer["verdicts"]["gained"] == sorted(GAINED)
    assert answer["verdicts"]["lost"] == sorted(LOST)
    assert answer["planted_found"] == 4


def test_a_permuted_planted_table_is_not_recovered(run: Run, tmp_path: Path) -> None:
    planted = pd.read_csv(run.planted)
    swap = {"gained": "lost", "lost": "gained"}
    planted["planted"] = planted["planted"].replace(swap)
    planted.to_csv(tmp_path / "planted.csv", index=False)
    _, recovery, path = score(run, tmp_path, f"--planted={tmp_path / 'planted.csv'}")
    answer = files.read_json(path)
    assert (answer["planted_found"], answer["planted_detected"]) == (0, 4)
    table = read_csv(recovery)
    verdicts = table[table["statistic"] == "verdict"]
    assert (verdicts["sign_right"] == "no").sum() == 8  # in both comparisons


def test_what_only_moved_is_detected_without_a_direction(run: Run, tmp_path: Path) -> None:
    changes = read_csv(run.root / "comparison/changes.csv")
    name = changes["label"] == GAINED[0]
    changes.loc[name, "verdict"] = "moved"
    table = score_recovery.recover(
        read_csv(run.root / "comparison/categories.csv"),
        changes,
        score_recovery.truths(score_recovery.read_planted(run.planted)),
        0.1,
    )
    row = table[(table["statistic"] == "verdict") & (table["category"] == GAINED[0])].iloc[0]
    assert row["called"]
    assert pd.isna(row["sign"])
    assert row["sign_right"] == "n/a"


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
    _, recovery, path = score(run, tmp_path, f"--planted={tmp_path / 'planted.csv'}")
    assert files.read_json(path)["planted_total"] is None
    assert len(read_csv(recovery)) == 0


def test_the_labeller_is_told(run: Run, tmp_path: Path) -> None:
    _, _, path = score(run, tmp_path, "--labeller=topics")
    answer = files.read_json(path)
    assert answer["labeller"] == "topics"
    assert "labels: topics found in the text" in answer["sentence"]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--primary=nope"], "no comparison is called nope"),
        (["--labeller=nope"], "no labels by nope"),
        (["--labeller=lexical"], "no labels by lexical"),
    ],
)
def test_mistakes_are_told(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], told: str
) -> None:
    assert score(run, tmp_path, *flags)[0] == 2
    assert told in capsys.readouterr().err


def test_text_without_any_label_is_told(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "changes.csv"
    read_csv(run.root / "comparison/changes.csv").iloc[:0].to_csv(empty, index=False)
    flags = run.recovery_flags(tmp_path / "recovery.csv", tmp_path / "answer.json")
    flags = [flag for flag in flags if not flag.startswith("--changes")]
    assert score_recovery.main([*flags, f"--changes={empty}"]) == 2
    assert "no document has a label" in capsys.readouterr().err
