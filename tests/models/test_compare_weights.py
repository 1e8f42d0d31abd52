"""Changes of weights are found where they were planted, with their rank, and through adapters."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.models.random_models import write_model
from tests.models.test_adapters import write_adapter
from workflow_scripts.common.tables import read_csv
from workflow_scripts.figures import plot_weights
from workflow_scripts.models import compare_weights as step
from workflow_scripts.models import resolve_model
from workflow_scripts.models.weight_changes import COLUMNS, half_way, place_of

CHANGED = "model.layers.1.self_attn.q_proj.weight"


def compared(output: Path, models: Sequence[Path], *flags: str) -> pd.DataFrame:
    """Return the table of two models."""
    sides = [f"--baseline={models[0]}", f"--candidate={models[1]}"]
    assert step.main([*sides, *flags, "--device=cpu", "--threads=1", f"--output={output}"]) == 0
    return read_csv(output).set_index("tensor")


def test_a_planted_change_of_rank_one(tmp_path: Path) -> None:
    models = [write_model(tmp_path / name, "llama") for name in ("it", "simpo")]
    file = tmp_path / "simpo" / "weights" / "model.safetensors"
    tensors = load_file(file)
    before = tensors[CHANGED].clone()
    left, right = torch.randn(before.shape[0]), torch.randn(before.shape[1])
    tensors[CHANGED] = before + torch.outer(left, right)
    save_file(tensors, file, metadata={"format": "pt"})
    table = compared(tmp_path / "weights.csv", models)
    row = table.loc[CHANGED]
    assert (row["layer"], row["module"]) == (2, "self_attn.q_proj")
    assert row["change"] == pytest.approx(float(left.norm() * right.norm()), rel=1e-4)
    assert row["relative"] == pytest.approx(row["change"] / float(before.norm()), rel=1e-4)
    assert row["effective_rank"] == pytest.approx(1, abs=1e-3)
    assert row["leading_share"] == pytest.approx(1, abs=1e-3)
    assert (table.drop(CHANGED)["change"] == 0).all()
    assert half_way(zip(table["layer"], table["change"], strict=True)) == 2
    norms = compared(tmp_path / "weights.csv", models, "--weight-changes=norms")
    assert norms["effective_rank"].isna().all()
    assert norms.loc[CHANGED, "relative"] == row["relative"]
    assert norms.columns.tolist() == [name for name in COLUMNS if name != "tensor"]


def test_the_spectrum_is_that_of_a_decomposition() -> None:
    delta = torch.randn((9, 14), generator=torch.Generator().manual_seed(0))
    squares = torch.linalg.svdvals(delta).square()
    for matrix in (delta, delta.T):
        rank, leading = step.effective_rank(matrix)
        assert rank == pytest.approx(float(squares.sum() ** 2 / squares.square().sum()), rel=1e-4)
        assert leading == pytest.approx(float(squares.max() / squares.sum()), rel=1e-2)


def test_an_adapter_counts_as_merged(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", "llama")
    adapter = write_adapter(tmp_path / "adapter", tmp_path / "base" / "weights")
    path = tmp_path / "tuned.json"
    flags = [f"--path={tmp_path / 'base' / 'weights'}", f"--adapter={adapter}"]
    assert resolve_model.main(["--name=tuned", *flags, f"--output={path}"]) == 0
    table = compared(tmp_path / "weights.csv", [base, path])
    changed = table[table["change"] > 0]
    assert set(changed["module"]) == {"self_attn.q_proj", "mlp.down_proj"}
    assert (changed["effective_rank"] <= 4.001).all()  # the adapter's rank


def test_models_without_a_common_tensor(tmp_path: Path) -> None:
    models = [write_model(tmp_path / name, name) for name in ("llama", "gpt2")]
    assert compared(tmp_path / "weights.csv", models).empty
    png, pdf = tmp_path / "f.png", tmp_path / "f.pdf"
    flags = [f"--weights={tmp_path / 'weights.csv'}", f"--png={png}", f"--pdf={pdf}"]
    assert plot_weights.main(flags) == 0
    assert png.stat().st_size > 1000


def test_half_of_the_change() -> None:
    assert half_way([(0, 9.0), (1, 1.0), (2, 1.0), (3, 1.0)]) == 2
    assert half_way([(1, 0.0), (2, 0.0)]) is None
    assert place_of("transformer.h.11.attn.c_attn.weight") == (12, "attn.c_attn")
    assert place_of("model.embed_tokens.weight") == (0, "embed_tokens")


def test_columns_are_described() -> None:
    text = Path(step.__file__).with_name("COLUMNS.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", text, re.M) == list(COLUMNS)
