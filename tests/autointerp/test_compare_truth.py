"""Agreement with true categories, counted by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from workflow_scripts.autointerp import compare_truth

TRUE = ["news", "news", "news", "advice", "none", "none"]
SAID = ["news", "advice", "unassigned", "advice", "news", "unassigned"]


def _write(folder: Path, **columns: object) -> list[str]:
    key = {"latent": range(6), "annotator": "lexical", "replicate": 0}
    labels = pd.DataFrame({**key, "annotator_kind": "lexical", "llm_used": False, "category": SAID})
    scores = pd.DataFrame({**key, "auroc": 0.9, "auroc_hard": 0.8})
    labels.to_parquet(folder / "labels.parquet")
    scores.to_parquet(folder / "scores.parquet")
    pd.DataFrame({"latent": range(6), **columns}).to_parquet(folder / "latents.parquet")
    flags = []
    for name in ("labels", "scores", "latents"):
        flags += [f"--{name}", str(folder / f"{name}.parquet")]
    return [*flags, "--output", str(folder / "t.json"), "--confusion", str(folder / "c.csv")]


def test_counts(tmp_path: Path) -> None:
    assert compare_truth.main(_write(tmp_path, true_category=TRUE)) == 0
    lexical = json.loads((tmp_path / "t.json").read_text())["annotators"]["lexical"]
    assert (lexical["coverage"]["count"], lexical["coverage"]["of"]) == (3, 4)
    assert (lexical["accuracy"]["count"], lexical["accuracy"]["of"]) == (2, 3)
    assert lexical["accuracy"]["low"] < 2 / 3 < lexical["accuracy"]["high"]
    assert lexical["assigned_without_true_category"]["count"] == 1
    news = lexical["categories"]["news"]
    assert (news["recall"]["count"], news["recall"]["of"]) == (1, 3)
    assert (news["precision"]["count"], news["precision"]["of"]) == (1, 2)
    assert news["auroc_median"] == pytest.approx(0.9)
    confusion = pd.read_csv(tmp_path / "c.csv")
    assert confusion["latents"].sum() == 6


def test_text_without_true_categories_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare_truth.main(_write(tmp_path, live=True)) == 2
    assert "no true categories" in capsys.readouterr().err
