"""The whole chain on config/smoke.yaml, and what makes which step run again."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import pytest

from tests.workflow import running
from tests.workflow.running import Run

pytestmark = pytest.mark.workflow


@pytest.fixture
def tree(smoke_run: Run, tmp_path: Path) -> Path:
    """A copy of the finished run that a test may change."""
    folder = tmp_path / "tree"
    smoke_run.copy(folder)
    return folder


def test_run_ends_with_answer_and_report(smoke_run: Run) -> None:
    results = smoke_run.folder / "results" / "smoke"
    answer = json.loads((results / "comparison" / "answer.json").read_text(encoding="utf-8"))
    assert answer["sentence"] in smoke_run.output
    assert "report: results/smoke/report/index.html" in smoke_run.output
    assert (results / "report" / "index.html").stat().st_size > 10_000


def test_report_has_no_external_address(smoke_run: Run) -> None:
    html = (smoke_run.folder / "results/smoke/report/index.html").read_text(encoding="utf-8")
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", html)


def test_snakemakes_own_report_shows_every_figure(smoke_run: Run, tmp_path: Path) -> None:
    path = tmp_path / "report.zip"
    running.smoke(smoke_run.folder, "--report", str(path))
    with zipfile.ZipFile(path) as archive:
        page = archive.read("report/report.html").decode()
        names = archive.namelist()
    shown, categories = (
        json.JSONDecoder().raw_decode(
            page, page.index(f'var {name} = {{"') + len(f"var {name} = ")
        )[0]
        for name in ("results", "categories")
    )
    figures = sorted((smoke_run.folder / "results/smoke/figures").glob("*.png"))
    assert len(figures) > 10
    for figure in figures:
        told = shown[f"results/smoke/figures/{figure.name}"]
        assert len(told["caption"].removeprefix("<p>")) > 20, figure
        assert told["labels"]["figure"], figure
        assert any(name.endswith(figure.name) for name in names), figure
    assert {"Answer", "Categories", "Cause", "Latents", "Planted truth", "Training"} <= set(
        categories
    )
    listed = {name for groups in categories.values() for names in groups.values() for name in names}
    assert listed == set(shown)


def test_shared_artifacts_are_linked(smoke_run: Run) -> None:
    results = smoke_run.folder / "results" / "smoke"
    for name in (
        "dataset/documents/shard000.parquet",
        "dataset/tokens/shard000.h5",
        "models/pt/model.json",
    ):
        assert (results / name).is_symlink()
        assert (results / name).stat().st_size > 0


def test_second_run_does_nothing(smoke_run: Run) -> None:
    assert running.NOTHING in running.smoke(smoke_run.folder)


def test_touching_every_source_reruns_nothing(tree: Path) -> None:
    for part in running.PARTS:
        for path in [tree / part, *(tree / part).rglob("*")]:
            path.touch()
    assert running.NOTHING in running.smoke(tree, "-n")


def test_comment_reruns_nothing(tree: Path) -> None:
    for path in (tree / "workflow_scripts").rglob("*.py"):
        path.write_text(path.read_text(encoding="utf-8") + "\n# a remark\n", encoding="utf-8")
    assert running.NOTHING in running.smoke(tree, "-n")


def test_other_run_shares_the_store(tree: Path) -> None:
    config = tree / "config" / "smoke.yaml"
    text = config.read_text(encoding="utf-8").replace("run: smoke", "run: other")
    config.write_text(text, encoding="utf-8")
    rules = running.planned(running.smoke(tree, "-n"))
    shared = {"sample_documents", "tokenize_documents", "train_organism", "dump_activations"}
    assert not shared & rules
    assert "fit_crosscoder" in rules
