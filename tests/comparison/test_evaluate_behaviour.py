"""Losses of documents against a direct computation."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from workflow_scripts.common import files
from workflow_scripts.common.manifest import Manifest
from workflow_scripts.comparison.behaviour import DIVERGENCE_COLUMNS, LOSS_COLUMNS, document_gaps
from workflow_scripts.comparison.evaluate_behaviour import main
from workflow_scripts.dataset.answered_rows import answer_mask
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


def shard_of(documents: list[tuple[str, str, str, str]], seed: int, first: int = 0) -> TokenShard:
    """Return a shard of random ids."""
    lengths = [len(roles) for _, _, roles, _ in documents]
    starts = np.cumsum([0, *lengths]).astype(np.int64)
    numbers = [CATEGORIES.index(name) if name else -1 for name, _, _, _ in documents]
    rng = np.random.default_rng(seed)
    return TokenShard(
        ids=rng.integers(3, VOCABULARY, starts[-1]).astype(np.int32),
        row_starts=starts,
        row_document=np.arange(first, first + len(documents), dtype=np.int32),
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
def direct(folder: Path, shards: list[TokenShard]) -> dict[int, list[float]]:
    """Return −log p of the answer tokens of each document that has any."""
    model = LlamaForCausalLM.from_pretrained(folder).eval()
    losses = {}
    for shard in shards:
        for index in np.flatnonzero(shard.row_split == SPLITS.index("score")):
            part = shard.row(int(index))
            ids = torch.from_numpy(shard.ids[part].astype(np.int64))
            chances = model(input_ids=ids[None]).logits[0].double().log_softmax(-1)
            nll = [
                -float(chances[t - 1, ids[t]])
                for t in range(1, len(ids))
                if not shard.template[part][t]
                and ROLES[shard.role[part][t]] in ("plain", "assistant")
            ]
            if nll:
                losses[int(shard.row_document[index])] = nll
    return losses


def true_labels(shards: list[TokenShard]) -> pd.DataFrame:
    """Return the known categories of all documents as labels."""
    rows = [
        (int(number), "true", CATEGORIES[category])
        for shard in shards
        for number, category in zip(
            shard.row_document, shard.category[shard.row_starts[:-1]], strict=True
        )
        if category >= 0
    ]
    return pd.DataFrame(rows, columns=["document", "labeller", "label"])


def evaluate(
    folder: Path,
    models: list[Path],
    shards: list[TokenShard],
    labels: pd.DataFrame,
    *more: str,
    seed: int = 0,
) -> pd.DataFrame:
    """Run the step and return its table."""
    manifests = json.dumps({path.parent.name: str(path) for path in models})
    paths = [folder / f"shard{index:03d}.h5" for index in range(len(shards))]
    for path, shard in zip(paths, shards, strict=True):
        write_shard(path, shard, {})
    files.write_parquet(folder / "labels.parquet", labels)
    outputs = [folder / "losses.parquet", folder / "divergences.parquet"]
    names = [path.parent.name for path in models]
    pairs = [name for pair in pairwise([*names, names[0]]) for name in pair]
    flags = ["--models", manifests, "--pairs", *pairs, "--tokens", *map(str, paths)]
    flags += [f"--{path.stem}={path}" for path in outputs]
    flags += ["--labels", str(folder / "labels.parquet"), f"--seed={seed}", "--threads=1"]
    assert main([*flags, "--device=cpu", "--batch-tokens=20", *more]) == 0
    table, divergences = (files.read_parquet(path) for path in outputs)
    assert tuple(table.columns) == LOSS_COLUMNS
    assert tuple(divergences.columns) == DIVERGENCE_COLUMNS
    return table


def test_the_table_equals_a_direct_computation(tmp_path: Path) -> None:
    shards = [shard_of(DOCUMENTS[:5], 0), shard_of(DOCUMENTS[5:], 1, first=5)]
    models = [save_model(tmp_path / name, seed) for seed, name in enumerate(("it", "simpo"))]
    table = evaluate(tmp_path, models, shards, true_labels(shards))
    assert table["model"].tolist() == ["it"] * 6 + ["simpo"] * 6
    for manifest in models:
        wanted = direct(manifest.parent, shards)
        rows = table[table["model"] == manifest.parent.name]
        assert rows["document"].tolist() == sorted(set(wanted) - {7})  # it has no label
        for number, tokens, values in zip(
            rows["document"], rows["tokens"], rows["losses"], strict=True
        ):
            assert values.tolist() == pytest.approx(wanted[number], rel=1e-5)
            assert values.dtype == np.float32
            assert tokens == len(values)
    gaps = document_gaps(table, "it", "simpo")
    assert gaps["gap"].abs().min() > 1e-3


def test_divergences_are_those_of_the_whole_logits(tmp_path: Path) -> None:
    shards = [shard_of(DOCUMENTS, 0)]
    models = [save_model(tmp_path / name, seed) for seed, name in enumerate(("it", "simpo"))]
    evaluate(tmp_path, models, shards, true_labels(shards))
    table = files.read_parquet(tmp_path / "divergences.parquet")
    pairs = table[["baseline", "candidate"]].drop_duplicates().to_numpy().tolist()
    assert pairs == [["it", "simpo"], ["simpo", "it"]]
    before, after = (LlamaForCausalLM.from_pretrained(path.parent).eval() for path in models)
    for row in table[table["baseline"] == "it"].itertuples():
        place = int(np.flatnonzero(shards[0].row_document == row.document)[0])
        part = shards[0].row(place)
        ids = torch.from_numpy(shards[0].ids[part].astype(np.int64))[None]
        with torch.no_grad():
            q, p = (m(input_ids=ids).logits[0].double().log_softmax(-1) for m in (before, after))
        chosen = np.flatnonzero(answer_mask(shards[0], part)) - 1
        expected = (p.exp() * (p - q)).sum(-1)[chosen].mean()
        assert row.divergence == pytest.approx(float(expected), rel=1e-4)


def test_every_label_of_every_labeller_has_documents_up_to_the_limit(tmp_path: Path) -> None:
    shard = shard_of([("news", "score", "ppp", "t..")] * 60, 0)
    rows = [(number, "true", "news") for number in range(60)]
    rows += [(number, "topics", "xyz"[number % 3]) for number in range(50)]
    rows += [(number, "source", "rare") for number in (58, 59)]
    labels = pd.DataFrame(rows, columns=["document", "labeller", "label"])
    models = [save_model(tmp_path / "it", 0)]
    limit = "--documents-per-label=5"
    table = evaluate(tmp_path, models, [shard], labels, limit)
    read = labels.merge(table, on="document").groupby(["labeller", "label"]).size()
    assert (read >= 5).drop(("source", "rare")).all()
    assert read["source", "rare"] == 2
    assert len(table) < 5 + 3 * 5 + 2  # labellers share documents
    assert not np.array_equal(table["document"], np.arange(len(table)))
    pd.testing.assert_frame_equal(table, evaluate(tmp_path, models, [shard], labels, limit))
    other = evaluate(tmp_path, models, [shard], labels, limit, seed=1)
    assert set(other["document"]) != set(table["document"])


def test_text_without_labels_gives_an_empty_table(tmp_path: Path) -> None:
    shard = shard_of([("", "score", "pppp", "t...")], 0)
    table = evaluate(tmp_path, [save_model(tmp_path / "it", 0)], [shard], true_labels([shard]))
    assert table.empty
    assert document_gaps(table, "it", "simpo").empty


def test_a_missing_shard_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifests = json.dumps({"it": str(tmp_path / "model.json")})
    files.write_parquet(tmp_path / "labels.parquet", true_labels([shard_of(DOCUMENTS, 0)]))
    flags = ["--models", manifests, "--tokens", str(tmp_path / "none.h5"), "--seed=0"]
    flags += ["--labels", str(tmp_path / "labels.parquet"), "--pairs", "it", "it"]
    flags += [f"--losses={tmp_path / 'losses.parquet'}"]
    assert main([*flags, "--threads=1", f"--divergences={tmp_path / 'divergences.parquet'}"]) == 2
    assert "none.h5 does not exist: run the step" in capsys.readouterr().err
    assert not (tmp_path / "losses.parquet").exists()
