"""A published crosscoder in place of a fit: scored by the workflow as the one it was made from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import save_file

from tests.run.test_settings import put, smoke
from tests.workflow import running
from tests.workflow.running import Run
from workflow_scripts.common.cli import UserError
from workflow_scripts.crosscoder.model import Crosscoder
from workflow_scripts.run.load import load
from workflow_scripts.run.preflight import check_imports, check_pins

pytestmark = pytest.mark.workflow

FIT = "results/smoke/crosscoder/pt_it/seed0"
LATENTS = "results/smoke/latents/pt_it/seed0/latents.parquet"


def publish(crosscoder: Crosscoder, folder: Path) -> None:
    """Write a crosscoder in the layout of ``dictionary_learning``."""
    models, width, latents = len(crosscoder.models), crosscoder.width, crosscoder.latents
    encoder = crosscoder.weights.encoder.view(latents, models, width)
    tensors = {
        "encoder.weight": encoder.permute(1, 2, 0),
        "encoder.bias": crosscoder.weights.encoder_bias,
        "decoder.weight": crosscoder.w_dec.permute(1, 0, 2),
        "decoder.bias": crosscoder.b_dec,
        "code_normalization_id": torch.tensor(1),
        "k": torch.tensor(crosscoder.k),
        "threshold": torch.tensor(crosscoder.threshold, dtype=torch.float64),
        "activation_mean": crosscoder.mean,
        "activation_std": torch.ones(models, width),
        "activation_global_scale": 1 / crosscoder.scale,
    }
    folder.mkdir()
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"dict_size": latents}), encoding="utf-8")


def test_an_imported_crosscoder_is_scored_as_the_original(smoke_run: Run, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    smoke_run.copy(tree)
    publish(Crosscoder.load(tree / FIT), tree / "published")
    before = pd.read_parquet(tree / LATENTS)
    raw = put(smoke(), "fits.pt_it.imported", {"path": "published"})
    (tree / "imported.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    target = f"{FIT}/evaluation.json"
    printed = running.snakemake(
        tree, "--cores", "2", "--configfile", "imported.yaml", "-p", "--", LATENTS, target
    )
    assert "import_crosscoder" in printed
    assert "rule fit_crosscoder" not in printed
    told = json.loads((tree / FIT / "crosscoder.json").read_text(encoding="utf-8"))
    assert told["imported"] == {"dict_size": Crosscoder.load(tree / FIT).latents}
    after = pd.read_parquet(tree / LATENTS)
    assert (after["live"] == before["live"]).mean() > 0.99
    numbers = [
        "firing_rate",
        "decoder_norm_pt",
        "delta_norm_pt_it",
        "nu_r_it_vs_pt",
        "nu_e_it_vs_pt",
    ]
    live = before["live"] & after["live"]
    for name in numbers:
        same = np.isclose(before.loc[live, name], after.loc[live, name], rtol=1e-2, atol=1e-3)
        assert (same | before.loc[live, name].isna()).mean() > 0.97, name


def test_a_folder_without_weights_is_refused_at_once(smoke_run: Run, tmp_path: Path) -> None:
    raw = put(smoke(), "fits.pt_it.imported", {"path": str(tmp_path)})
    (tmp_path / "imported.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    told = running.snakemake(
        smoke_run.folder, "-n", "--configfile", str(tmp_path / "imported.yaml"), good=False
    )
    assert "no folder with a model.safetensors" in told


def test_a_crosscoder_of_other_models_is_refused_before_any_job(
    smoke_run: Run, tmp_path: Path
) -> None:
    """Found at the start, not behind the dumps."""
    crosscoder = Crosscoder.load(smoke_run.folder / FIT)
    publish(crosscoder, tmp_path / "published")
    raw = put(smoke(), "fits.pt_it.imported", {"path": str(tmp_path / "published")})
    three = put(raw, "fits.pt_it.models", ["pt", "it", "simpo"])
    with pytest.raises(UserError, match="has 3 models, its imported crosscoder 2"):
        check_imports(load(three))
    check_imports(load(raw))
    branch = put(smoke(), "fits.pt_it.imported", {"hub": "org/name", "revision": "main"})
    with pytest.raises(UserError, match=r"fits\.pt_it\.imported\.revision is main"):
        check_pins(load(branch))
