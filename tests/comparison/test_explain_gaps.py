"""Which gaps in score go with a change of the same text."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.comparison.run_folder import CATEGORIES, Run, make_run
from workflow_scripts.common.intervals import Interval
from workflow_scripts.common.tables import read_csv
from workflow_scripts.comparison import explain_gaps, judge_changes
from workflow_scripts.comparison.verdicts import CANNOT_TELL, GAINED, LOST, MOVED, UNCHANGED, USED


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = make_run(tmp_path_factory.mktemp("run"))
    assert judge_changes.main(made.judge_flags(made.root / "changes.csv")) == 0
    return made


def write_board(path: Path, error: bool) -> Path:
    """Write a leaderboard on which simpo is better at safety and, by style alone, at advice."""
    rows = []
    for i, name in enumerate(CATEGORIES):
        better = 30 * (name == "safety_refusal") + 20 * (name == "advice")
        style = 20 * (name == "advice")
        for model, lead in (("it", 0), ("simpo", better + i % 3 - 1)):
            controlled = lead - (style if model == "simpo" else 0)
            rows.append((name, model, 1000 + lead, 1000 + controlled, 2))
    columns = ["category", "model", "score", "score_controlled", "error"]
    table = pd.DataFrame(rows, columns=columns)
    table[columns if error else columns[:-1]].to_csv(path, index=False)
    return path


def explain(run: Run, board: Path, output: Path) -> int:
    """Run the step."""
    changes = f"--changes={run.root / 'changes.csv'}"
    return explain_gaps.main([changes, f"--leaderboard={board}", f"--output={output}"])


@pytest.mark.parametrize("error", [True, False])
def test_a_leaderboard_with_and_without_errors(run: Run, tmp_path: Path, error: bool) -> None:
    board, output = write_board(tmp_path / "board.csv", error), tmp_path / "gaps.csv"
    assert explain(run, board, output) == 0
    table = read_csv(output)
    assert tuple(table.columns) == explain_gaps.COLUMNS
    assert set(table["labeller"]) == {"true"}  # no topic is called like a category
    assert set(table["source"]) == {"score", "score_controlled"}
    readings = table.set_index(["comparison", "source", "label"])["reading"]["direct"]
    assert readings["score", "safety_refusal"] == explain_gaps.BOTH
    assert readings["score", "advice"] == explain_gaps.GAP_ONLY
    assert readings["score_controlled", "advice"] == explain_gaps.NEITHER
    assert readings["score", "self_reference"] == explain_gaps.CHANGE_ONLY
    assert readings["score", "narrative"] == explain_gaps.NEITHER


def test_gaps_and_effects_are_those_of_the_tables(run: Run, tmp_path: Path) -> None:
    board, output = write_board(tmp_path / "board.csv", error=True), tmp_path / "gaps.csv"
    assert explain(run, board, output) == 0
    rows = read_csv(output).set_index(["comparison", "labeller", "label"])
    rows = rows[rows["source"] == "score"]
    changes = read_csv(run.root / "changes.csv").set_index(["comparison", "labeller", "label"])
    beside = changes.loc[rows.index]
    for name in ("behaviour", "behaviour_low", "behaviour_high", "verdict"):
        assert (rows[name] == beside[name]).all()
    row = rows.xs("direct").xs("true").xs("safety_refusal")
    place = CATEGORIES.index("safety_refusal")
    assert row["gap"] == 30 + place % 3 - 1
    assert row["gap_high"] - row["gap"] == pytest.approx(1.96 * 8**0.5, rel=1e-3)


def test_the_readings() -> None:
    clear, none = Interval(-1, -2, -0.5), Interval(0.1, -1, 1)
    assert explain_gaps.reading(clear, LOST, -0.3) == explain_gaps.BOTH
    assert explain_gaps.reading(clear, USED, -0.1) == explain_gaps.BOTH
    assert explain_gaps.reading(clear, GAINED, 0.3) == explain_gaps.OPPOSED
    assert explain_gaps.reading(clear, UNCHANGED, 0) == explain_gaps.GAP_ONLY
    assert explain_gaps.reading(clear, CANNOT_TELL, float("nan")) == explain_gaps.GAP_ONLY
    assert explain_gaps.reading(none, GAINED, 0.3) == explain_gaps.CHANGE_ONLY
    assert explain_gaps.reading(none, CANNOT_TELL, 0.1) == explain_gaps.NEITHER


def test_what_moved_without_behaviour_has_no_direction_to_oppose() -> None:
    clear = Interval(-1, -2, -0.5)
    assert explain_gaps.reading(clear, MOVED, 0.01) == explain_gaps.BOTH
    assert explain_gaps.reading(clear, MOVED, -0.01) == explain_gaps.BOTH


def test_names_that_match_nothing_are_told(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_board(tmp_path / "board.csv", error=False)
    table = pd.read_csv(path).replace({"category": {"advice": "chess"}})
    table.to_csv(path, index=False)
    assert explain(run, path, tmp_path / "gaps.csv") == 0
    assert "no label is called: chess" in capsys.readouterr().err
    assert "chess" not in set(read_csv(tmp_path / "gaps.csv")["label"])


def test_models_that_the_leaderboard_lacks_give_no_row(run: Run, tmp_path: Path) -> None:
    path = write_board(tmp_path / "board.csv", error=False)
    table = pd.read_csv(path)
    table[table["model"] == "it"].to_csv(path, index=False)
    assert explain(run, path, tmp_path / "gaps.csv") == 0
    gaps = read_csv(tmp_path / "gaps.csv")
    assert gaps.empty
    assert tuple(gaps.columns) == explain_gaps.COLUMNS


def test_a_leaderboard_without_scores_is_told(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "board.csv").write_text("category,model\na,it\n")
    assert explain(run, tmp_path / "board.csv", tmp_path / "g.csv") == 2
    assert "lacks the column score" in capsys.readouterr().err


def test_a_category_that_is_scored_twice_is_refused(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "board.csv").write_text("category,model,score\na,it,1\na,it,2\n")
    assert explain(run, tmp_path / "board.csv", tmp_path / "g.csv") == 2
    assert "scores 'a' of 'it' twice: keep one row" in capsys.readouterr().err
