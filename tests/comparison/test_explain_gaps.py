"""Which gaps in score have a counterpart among the latents."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.comparison.run_folder import CATEGORIES, GAINED, LOST, Run, make_run
from workflow_scripts.common.intervals import Interval
from workflow_scripts.common.tables import read_csv
from workflow_scripts.comparison import compare_categories, explain_gaps


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = make_run(tmp_path_factory.mktemp("run"))
    assert compare_categories.main(made.compare_flags(made.root / "categories.csv")) == 0
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


def joined(run: Run, folder: Path, *flags: str) -> pd.DataFrame:
    categories = str(run.root / "categories.csv")
    output = folder / "gaps.csv"
    assert explain_gaps.main(["--categories", categories, "--output", str(output), *flags]) == 0
    table = read_csv(output)
    assert list(table.columns) == list(explain_gaps.COLUMNS)
    return table[table["labeller"] == "true"]


def test_likelihood_gaps_of_planted_changes_have_a_counterpart(run: Run, tmp_path: Path) -> None:
    readings = joined(run, tmp_path).set_index("name")["reading"]
    assert (readings[[*LOST, *GAINED]] == explain_gaps.BOTH).all()
    assert (readings.drop([*LOST, *GAINED]) == explain_gaps.NEITHER).all()


@pytest.mark.parametrize("error", [True, False])
def test_a_leaderboard_with_and_without_errors(run: Run, tmp_path: Path, error: bool) -> None:
    board = write_board(tmp_path / "board.csv", error)
    table = joined(run, tmp_path, "--leaderboard", str(board)).set_index(["source", "name"])
    readings = table["reading"]
    assert readings["score", "safety_refusal"] == explain_gaps.BOTH
    assert readings["score", "advice"] == explain_gaps.GAP_ONLY
    assert readings["score_controlled", "advice"] == explain_gaps.NEITHER
    assert readings["score", "self_reference"] == explain_gaps.CHANGE_ONLY


def test_the_readings() -> None:
    clear, none = Interval(-1, -2, -0.5), Interval(0.1, -1, 1)
    assert explain_gaps.reading(clear, "lost", 0) == explain_gaps.BOTH
    assert explain_gaps.reading(clear, "gained", 0) == explain_gaps.OPPOSED
    assert explain_gaps.reading(clear, "changed, direction unclear", -0.1) == explain_gaps.BOTH
    assert explain_gaps.reading(clear, "unchanged", 0) == explain_gaps.GAP_ONLY
    assert explain_gaps.reading(none, "gained", 0) == explain_gaps.CHANGE_ONLY
    assert explain_gaps.reading(none, "too few latents", 0) == explain_gaps.NEITHER


def test_a_leaderboard_without_scores_is_told(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "board.csv").write_text("category,model\na,it\n")
    flags = ["--categories", str(run.root / "categories.csv"), "--output", str(tmp_path / "g.csv")]
    assert explain_gaps.main([*flags, "--leaderboard", str(tmp_path / "board.csv")]) == 2
    assert "lacks the column score" in capsys.readouterr().err
