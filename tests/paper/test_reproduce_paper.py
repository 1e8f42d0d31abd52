"""`reproduce_paper` executed at small size, to the table and the report; values that are wrong or
missing are called so.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.paper.substitutes import FOLDER, write_substitutes
from tests.workflow import running
from workflow_scripts.common.provenance import ROOT
from workflow_scripts.paper.published import read_study

pytestmark = pytest.mark.workflow

STUDY = read_study(ROOT / "config/published/beyond_the_leaderboard.yaml")
CONFIG = ("--configfile", "config/paper_smoke.yaml")
RESULTS = Path("results/paper_smoke")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree in which reproduce_paper has run."""
    folder = running.copy_tree(tmp_path_factory.mktemp("paper"))
    write_substitutes(folder / FOLDER)
    printed = running.snakemake(folder, "--cores", "2", *CONFIG, "reproduce_paper")
    assert f"published and measured: {RESULTS}/paper/published.md" in printed
    return folder


def verdicts(tree: Path) -> pd.DataFrame:
    """Return the table of published and measured quantities, by id."""
    return pd.read_csv(tree / RESULTS / "paper/published.csv").set_index("id")


def test_every_published_quantity_has_its_row(tree: Path) -> None:
    table = verdicts(tree)
    assert list(table.index) == [row.id for row in STUDY.rows]
    assert set(table["verdict"]) <= {"OK", "close", "differs", "NOT RUN"}
    assert table["measured"].to_dict()["unique_it"] > 0
    text = (tree / RESULTS / "paper/published.md").read_text(encoding="utf-8")
    assert text.count("\n| ") == len(STUDY.rows) + 1  # and the header
    assert "crosscoder pt_it of pt and it: layer 1, 256 latents, k = 8, seed 0, fitted on" in text
    report = (tree / RESULTS / "report/index.html").read_text(encoding="utf-8")
    assert "Does it agree with the publication?" in report
    assert all(row.quantity in report for row in STUDY.rows)


def test_wrong_value_differs_and_missing_one_is_not_run(tree: Path) -> None:
    path = tree / RESULTS / "comparison/categories.csv"
    before = path.read_text(encoding="utf-8")
    table = pd.read_csv(path, keep_default_na=False)
    anchored = table[(table["comparison"] == "anchored") & (table["level"] == "category")].iloc[0]
    rows = [
        {"name": "safety_refusal", "percent_change": 32.8, "low": 10, "high": 60},
        {"name": "multilingual", "percent_change": 900, "low": 400, "high": 1500},
        {"name": "self_reference", "percent_change": -70, "low": -90, "high": 5},
    ]
    kept = table[table["comparison"] != "anchored"]
    made = pd.DataFrame([{**anchored, **row} for row in rows])
    pd.concat([kept, made]).to_csv(path, index=False)
    target = f"{RESULTS}/paper/published.md"
    running.snakemake(tree, "--cores", "1", *CONFIG, "--", target)
    found = verdicts(tree)
    told = found["verdict"].to_dict()
    assert told["change_safety"] == "OK"
    assert told["change_multilingual"] == "differs"
    assert told["change_self_reference"] == "close"
    assert told["change_instruction_following"] == "NOT RUN"
    assert list(found.index) == [row.id for row in STUDY.rows]
    inside = found["published_in_interval"]
    assert [inside["change_safety"], inside["change_multilingual"]] == ["yes", "no"]
    assert found.loc["change_multilingual", "differs_from_no_change"] == "yes"
    assert found.loc["change_self_reference", "differs_from_no_change"] == "no"
    path.write_text(before, encoding="utf-8")
