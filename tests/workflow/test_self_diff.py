"""A model against itself: nothing is unique, and the checker says that nothing was found."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.run.test_settings import put, smoke
from tests.workflow import check_run, running

pytestmark = [pytest.mark.workflow, pytest.mark.slow]


def test_pt_against_pt(tmp_path: Path) -> None:
    folder = running.copy_tree(tmp_path / "tree")
    models = smoke()["models"]
    assert isinstance(models, dict)
    raw = put(smoke(), "models", {"pt": models["pt"], "twin": models["pt"]})
    raw = put(raw, "fits", {"pt_twin": {"models": ["pt", "twin"], "layer": 1}})
    sides = [{"fit": "pt_twin", "model": model} for model in ("pt", "twin")]
    raw = put(raw, "comparisons", {"direct": {"baseline": sides[0], "candidate": sides[1]}})
    raw = put(raw, "comparison.difference_tokens", 0)  # there is no difference to fit
    (folder / "twin.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    running.snakemake(folder, "--cores", "2", "--configfile", "twin.yaml")
    results = folder / "results" / "smoke"
    latents = pd.read_parquet(results / "latents" / "pt_twin" / "seed0" / "latents.parquet")
    known = latents["nu_r_pt_vs_twin"].dropna()
    assert len(known)
    assert (known - 1).abs().max() < 1e-4
    assert (latents["delta_norm_pt_twin"].dropna() - 0.5).abs().max() < 1e-6
    selection = pd.read_parquet(results / "latents" / "pt_twin" / "seed0" / "selection.parquet")
    assert (selection["unique_to"] == "").all()
    assert check_run.main([str(results)]) == 1
