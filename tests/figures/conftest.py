"""A made-up run with its comparison tables, shared by the tests of figures and report."""

from __future__ import annotations

import pytest

from tests.comparison.run_folder import Run, make_run
from workflow_scripts.comparison import (
    compare_categories,
    explain_gaps,
    score_recovery,
    vary_decisions,
)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a run folder with categories, recovery and answer."""
    made = make_run(tmp_path_factory.mktemp("figures"), seeds=(0, 1))
    compared(made)
    return made


def compared(made: Run) -> None:
    """Write the comparison's tables of a run folder."""
    folder = made.root / "comparison"
    assert compare_categories.main(made.compare_flags(folder / "categories.csv")) == 0
    flags = [
        *("--categories", str(folder / "categories.csv")),
        *("--planted", str(made.planted)),
        *("--recovery", str(folder / "recovery.csv")),
        *("--answer", str(folder / "answer.json")),
    ]
    assert score_recovery.main(flags) == 0
    flags = ["--categories", str(folder / "categories.csv"), "--output", str(folder / "gaps.csv")]
    assert explain_gaps.main(flags) == 0
    assert vary_decisions.main(made.compare_flags(folder / "sensitivity.csv")) == 0
