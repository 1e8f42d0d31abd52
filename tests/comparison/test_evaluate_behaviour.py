"""Behaviour per category against a direct computation, document by document."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from workflow_scripts.common.manifest import Manifest
from workflow_scripts.comparison.behaviour import COLUMNS, read_behaviour
from workflow_scripts.comparison.evaluate_behaviour import main
from workflow_scripts.dataset.shards import ROLES, SPLITS, TokenShard, write_shard

VOCABULARY = 30
CATEGORIES = ("news", "advice", "arithmetic")
# (category, split, roles, template mask) of each document; t marks template tokens.
DOCUMENTS = [
    ("news", "score", "pppppp", "t....."),
    ("advice", "score", "uuuuaaaa", "t.t.t..t"),
    ("news", "score", "ppppppppppp", "t.........."),
    ("news", "fit", "pppp", "t..."),
    ("advice", "score", "usuaaaaaauuaaa", "t..tt....tt..t"),
    ("advice", "verify", "uuaa", "t.t."),
    ("arithmetic", "score", "ppp", "t.."),
    ("", "score", "ppppp", "t...."),
    ("advice", "score", "uuuu", "t.tt"),
    ("news", "score", "pp", "t."),
]
LETTERS = {role[0]: index for index, role in enumerate(ROLES)}


def shard_of(documents: list[tuple[str, str, str, str]], seed: int) -> TokenShard:
    """Return a shard of random ids."""
    lengths = [len(roles) for _, _, roles, _ in documents]
    starts = np.cumsum([0, *lengths]).astype(np.int64)
    numbers = [CATEGORIES.index(name) if name else -1 for name, _, _, _ in documents]
    rng = np.random.default_rng(seed)
    return TokenShard(
        ids=rng.integers(3, VOCABULARY, starts[-1]).astype(np.int32),
        row_starts=starts,
        row_document=np.arange(len(documents), dtype=np.int32),
        row_split=np.array([SPLITS.index(split) for _, split, _, _ in documents], np.uint8),
        role=np.array([LETTERS[c] for _, _, roles, _ in documents for c in roles], np.uint8),
        template=np.array([c == "t" for *_, mask in documents for c in mask], np.bool_),
        category=np.repeat(np.array(numbers, np.int16), lengths),
        categories=CATEGORIES,
    )


def save_model(folder: Path, seed: int) -> Path:
    """Save a tiny model; return its manifest."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
        initializer_range=0.4,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    Manifest(folder.name, "folder", ".", "LlamaForCausalLM", 8, 2, VOCABULARY).write(
        folder / "model.json"
    )
    return folder / "model.json"


@torch.no_grad()
def direct(folder: Path, shards: list[TokenShard]) -> dict[str, list[tuple[float, int]]]:
    """Return (mean negative log-likelihood, tokens) of each document, by category."""
    model = LlamaForCausalLM.from_pretrained(folder).eval()
    found: dict[str, list[tuple[float, int]]] = {}
    for shard in shards:
        for index in range(shard.rows):
            part = shard.row(index)
            name = CATEGORIES[shard.category[part][0]] if shard.category[part][0] >= 0 else ""
            ids = torch.from_numpy(shard.ids[part].astype(np.int64))
            chances = model(input_ids=ids[None]).logits[0].double().log_softmax(-1)
            losses = [
                -float(chances[t - 1, ids[t]])
                for t in range(1, len(ids))
                if not shard.template[part][t]
                and ROLES[shard.role[part][t]] in ("plain", "assistant")
            ]
            if name and losses and SPLITS[shard.row_split[index]] == "score":
                found.setdefault(name, []).append((float(np.mean(losses)), len(losses)))
    return found


def evaluate(
    folder: Path, models: list[Path], shards: list[TokenShard], *more: str
) -> pd.DataFrame:
    """Run the step and return its table."""
    manifests = json.dumps({path.parent.name: str(path) for path in models})
    paths = [folder / f"shard{index:03d}.h5" for index in range(len(shards))]
    for path, shard in zip(paths, shards, strict=True):
        write_shard(path, shard, {})
    output = folder / "behaviour.csv"
    flags = ["--models", manifests, "--tokens", *map(str, paths), "--output", str(output)]
    assert main([*flags, "--threads=1", "--device=cpu", "--batch-tokens=20", *more]) == 0
    return read_behaviour(output)


def test_the_table_equals_a_direct_computation(tmp_path: Path) -> None:
    shards = [shard_of(DOCUMENTS[:5], 0), shard_of(DOCUMENTS[5:], 1)]
    models = [save_model(tmp_path / name, seed) for seed, name in enumerate(("it", "simpo"))]
    table = evaluate(tmp_path, models, shards)
    assert tuple(table.columns) == COLUMNS
    assert len(table) == 6
    for manifest in models:
        wanted = direct(manifest.parent, shards)
        mine = table[table["model"] == manifest.parent.name].set_index("category")
        assert sorted(mine.index) == sorted(wanted) == sorted(CATEGORIES)
        for category, documents in wanted.items():
            row, losses = mine.loc[category], np.array([loss for loss, _ in documents])
            assert row["documents"] == len(documents)
            assert row["tokens"] == sum(count for _, count in documents)
            assert row["nll"] == pytest.approx(losses.mean(), rel=1e-5)
            if len(losses) > 1:
                error = losses.std(ddof=1) / np.sqrt(len(losses))
                assert row["nll_se"] == pytest.approx(error, rel=1e-4)
            else:
                assert np.isnan(row["nll_se"])
    apart = table.pivot_table(index="category", columns="model", values="nll")
    assert (apart["it"] - apart["simpo"]).abs().min() > 1e-3


def test_the_limit_takes_the_first_documents_of_each_category(tmp_path: Path) -> None:
    shard = shard_of(DOCUMENTS, 0)
    models = [save_model(tmp_path / "it", 0)]
    table = evaluate(tmp_path, models, [shard], "--behaviour-documents=2").set_index("category")
    wanted = direct(tmp_path / "it", [shard])
    assert table["documents"].to_dict() == {"advice": 2, "arithmetic": 1, "news": 2}
    for category, documents in wanted.items():
        first = [loss for loss, _ in documents[:2]]
        assert table.loc[category, "nll"] == pytest.approx(np.mean(first), rel=1e-5)


def test_text_of_unknown_category_gives_an_empty_table(tmp_path: Path) -> None:
    shard = shard_of([("", "score", "pppp", "t...")], 0)
    table = evaluate(tmp_path, [save_model(tmp_path / "it", 0)], [shard])
    assert table.empty
    assert tuple(table.columns) == COLUMNS


def test_a_missing_shard_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifests = json.dumps({"it": str(tmp_path / "model.json")})
    flags = ["--models", manifests, "--tokens", str(tmp_path / "none.h5")]
    assert main([*flags, "--threads=1", "--output", str(tmp_path / "behaviour.csv")]) == 2
    assert "none.h5 does not exist: run the step" in capsys.readouterr().err
    assert not (tmp_path / "behaviour.csv").exists()
