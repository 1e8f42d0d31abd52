"""A token that a model was made to predict on one label's text is named there, and nowhere else."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.activations.synthetic import token_shard, write_tokens
from tests.models.random_models import VOCABULARY, write_model
from workflow_scripts.common.tables import read_csv
from workflow_scripts.comparison import compare_predictions as step
from workflow_scripts.comparison.token_shifts import consistent_shift
from workflow_scripts.dataset.shards import TokenShard
from workflow_scripts.models.likelihood import compare, predict
from workflow_scripts.models.loading import load_model

LAYER, TOKEN, DOCUMENTS = 2, 7, 8
CODE = np.arange(25, VOCABULARY)
"""Tokens that only text labelled code has; the candidate writes TOKEN's direction on them."""
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two models without blocks that differ in the embedding of the tokens of code."""
    folder = tmp_path_factory.mktemp("models")
    models = [write_model(folder / name, "llama") for name in ("it", "simpo")]
    for place, manifest in enumerate(models):
        file = manifest.parent / "weights" / "model.safetensors"
        tensors = load_file(file)
        for name, tensor in tensors.items():
            if "o_proj" in name or "down_proj" in name:
                tensor.zero_()
        written = tensors["lm_head.weight"][TOKEN] * tensors["model.norm.weight"]
        tensors["model.embed_tokens.weight"][CODE] += 4 * place * written
        save_file(tensors, file, metadata={"format": "pt"})
    return models[0], models[1]


@pytest.fixture(scope="module")
def folder(models: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The step's tables, and its inputs."""
    folder = tmp_path_factory.mktemp("predictions")
    shard = token_shard([9, 12, 7, 10] * (DOCUMENTS // 2), splits=["score"] * 2 * DOCUMENTS)
    rng = np.random.default_rng(1)
    for document in range(2 * DOCUMENTS):
        part = shard.row(document)
        words = CODE if document % 2 else np.arange(8, 25)
        shard.ids[part][1:] = rng.choice(words, part.stop - part.start - 1)
    write_tokens(folder / "shard000.h5", shard)
    names = ["code" if n % 2 else "prose" for n in range(2 * DOCUMENTS)]
    labels = pd.DataFrame({"document": range(len(names)), "labeller": "true", "label": names})
    labels.to_parquet(folder / "labels.parquet")
    run(models, folder)
    return folder


def run(models: tuple[Path, Path], folder: Path, suffix: str = "") -> None:
    """Run the step."""
    flags = [
        *(f"--{side}={m}" for side, m in zip(("baseline", "candidate"), models, strict=True)),
        *(f"--layer={LAYER}", f"--tokens={folder / 'shard000.h5'}", "--seed=0"),
        *(f"--labels={folder / 'labels.parquet'}", f"--tokenizer={models[0]}"),
        *("--prediction-tokens=3", "--batch-tokens=40", "--threads=1", "--device=cpu"),
        f"--by-label={folder / f'labels{suffix}.csv'}",
        f"--by-token={folder / f'tokens{suffix}.parquet'}",
        f"--rows={folder / f'rows{suffix}.parquet'}",
    ]
    assert step.main(flags) == 0


def tokens_of(folder: Path, label: str, read: str, side: str) -> list[str]:
    """Return the tokens named."""
    table = pd.read_parquet(folder / "tokens.parquet")
    assert list(table) == list(step.TOKEN_COLUMNS)
    row = table[(table["label"] == label) & (table["read"] == read) & (table["side"] == side)]
    return [token.strip() for token in row["tokens"].iloc[0]]


@pytest.mark.parametrize("read", [step.PREDICTION, step.ACTIVATION])
def test_the_planted_token_is_named(folder: Path, read: str) -> None:
    assert tokens_of(folder, "code", read, "promoted")[0] == f"w{TOKEN}"
    assert f"w{TOKEN}" not in tokens_of(folder, "code", read, "suppressed")


def test_the_label_that_differs_is_apart(folder: Path) -> None:
    table = read_csv(folder / "labels.csv").set_index("label")
    assert list(table.reset_index()[list(step.LABEL_COLUMNS)]) == list(step.LABEL_COLUMNS)
    assert table["documents"].to_dict() == {"code": DOCUMENTS, "prose": DOCUMENTS}
    assert table.loc["prose", "divergence"] == pytest.approx(0, abs=1e-6)
    assert table["divergence_low"].to_dict()["code"] > 0.1
    assert table["shift_low"].to_dict()["code"] > 0.1


def test_divergences_are_those_of_each_token(folder: Path, models: tuple[Path, Path]) -> None:
    rows = pd.read_parquet(folder / "rows.parquet")
    assert list(rows) == list(step.ROW_COLUMNS)
    loaded = [load_model(m, torch.float32, CPU) for m in models]
    shard = TokenShard.read(folder / "shard000.h5")
    document = int(rows["document"].iloc[3])
    ids = torch.from_numpy(shard.ids[shard.row(document)].astype(np.int64))[None]
    mask, chosen = torch.ones_like(ids), torch.ones_like(ids, dtype=torch.bool)
    before, after = (predict(model, ids, mask, chosen) for model in loaded)
    expected = compare(after, [before])[1][0].numpy()
    np.testing.assert_allclose(rows["divergences"].iloc[3][1:], expected, atol=1e-4)
    assert rows["divergences"].iloc[3][0] == 0
    assert rows["divergence"].iloc[3] == pytest.approx(expected.mean(), rel=1e-3)
    assert rows["pieces"].iloc[3][2].strip() == f"w{int(ids[0, 2])}"


def test_equal_bytes_again(folder: Path, models: tuple[Path, Path]) -> None:
    run(models, folder, "_again")
    for name, ending in (("labels", "csv"), ("tokens", "parquet"), ("rows", "parquet")):
        first, second = (folder / f"{name}{again}.{ending}" for again in ("", "_again"))
        assert first.read_bytes() == second.read_bytes()


def test_random_directions_are_no_shift() -> None:
    rng = np.random.default_rng(0)
    moved, energy = rng.standard_normal((60, 40)), np.full(60, 40.0)
    chance = consistent_shift(moved, energy, 0.95, 0)
    assert chance.low < 0 < chance.high
    moved += 0.5
    common = consistent_shift(moved, energy, 0.95, 0)
    assert common.estimate == pytest.approx(0.25, rel=0.15)
    assert common.low > 0.15


def test_columns_are_described() -> None:
    text = Path(step.__file__).with_name("COLUMNS.md").read_text(encoding="utf-8")
    sections = {part.splitlines()[0]: part for part in text.split("\n## ")[1:]}
    for ending, columns in (
        (".csv", step.LABEL_COLUMNS),
        ("_tokens.parquet", step.TOKEN_COLUMNS),
        ("_rows.parquet", step.ROW_COLUMNS),
    ):
        section = sections[f"`predictions/<comparison>{ending}`"]
        first = "".join(re.findall(r"^\|([^|]*)\|", section, re.M))
        assert re.findall(r"`(\w+)`", first) == list(columns)
