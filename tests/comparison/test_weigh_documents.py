"""Weighed documents and carriers against a slow, dense reference in float64."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, permutations
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from tests.activations.synthetic import token_shard, write_dump, write_normalizer, write_tokens
from workflow_scripts.activations.store import ActivationStore
from workflow_scripts.common import files
from workflow_scripts.comparison import carriers, document_weights
from workflow_scripts.comparison.document_weights import ComparedLatents, compared_latents
from workflow_scripts.comparison.weigh_documents import main, weigh
from workflow_scripts.crosscoder.model import Crosscoder, Weights
from workflow_scripts.latents.ownership import owners
from workflow_scripts.latents.token_context import TokenContext

MODELS = ("one", "two", "three")
PAIR = ("three", "one")  # not in the crosscoder's order, and not all of its models
D, F, LENGTH = 6, 40, 9
NUMBERS = np.array([7, 3, 12, 5, 40, 8, 1, 30])  # of the documents, in the order of their rows
WITHOUT = 12  # the document of which no token can be used
NO_DIRECTION, SILENT = 4, 9  # a latent that neither model of the pair has; one that never fires


@dataclass
class Store:
    """The part of an activation store that weighing needs."""

    x: NDArray[np.float32]
    usable: NDArray[np.int64]

    def rows(self, split: str) -> NDArray[np.int64]:
        assert split == "score"
        return self.usable

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return self.x[rows]


@dataclass
class Case:
    """Activations, a crosscoder and the labels of documents."""

    store: Store
    crosscoder: Crosscoder
    context: TokenContext
    latents: pd.DataFrame
    selection: pd.DataFrame
    labels: pd.DataFrame

    def pair(self) -> ComparedLatents:
        return compared_latents(self.crosscoder, self.latents, self.selection, *PAIR)

    def weigh(self, batch: int = 4096) -> tuple[pd.DataFrame, pd.DataFrame]:
        store, pair = cast(ActivationStore, self.store), self.pair()
        with torch.no_grad():
            return weigh(store, self.crosscoder, self.context, pair, PAIR, self.labels, batch)


def fitted(rng: np.random.Generator) -> Crosscoder:
    """Return a crosscoder of random directions."""
    decoder = rng.standard_normal((F, len(MODELS), D)).astype(np.float32)
    decoder[NO_DIRECTION, [0, 2]] = 0
    decoder[5] = decoder[5, :1]  # the same in all models: it carries nothing
    bias = np.zeros(F, dtype=np.float32)
    bias[SILENT] = -1e3
    weights = Weights(
        torch.from_numpy(rng.standard_normal((F, len(MODELS) * D)).astype(np.float32)),
        torch.from_numpy(bias),
        torch.from_numpy(decoder).flatten(1),
        torch.zeros(len(MODELS) * D),
        models=len(MODELS),
    )
    shape = (len(MODELS), D)
    return Crosscoder(list(MODELS), weights, 20.0, torch.zeros(shape), torch.ones(3), 8, {})


def tables(crosscoder: Crosscoder, rng: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return scores of latents and a random selection among those that are live."""
    norms = np.linalg.norm(crosscoder.w_dec.double().numpy(), axis=2)
    latents = pd.DataFrame({"latent": np.arange(F)})
    with np.errstate(invalid="ignore"):
        for a, b in combinations(range(len(MODELS)), 2):
            larger = np.maximum(norms[:, a], norms[:, b])
            shift = (norms[:, b] - norms[:, a]) / larger
            latents[f"delta_norm_{MODELS[a]}_{MODELS[b]}"] = 0.5 * (1 + shift)
    selection = pd.DataFrame({"latent": np.delete(np.arange(F), SILENT)})
    for own, other in permutations(MODELS, 2):
        selection[f"unique_{own}_vs_{other}"] = rng.random(len(selection)) < 0.3
    selection["unique_to"] = owners(selection, MODELS)
    return latents, selection


@pytest.fixture(scope="module")
def case() -> Case:
    rng = np.random.default_rng(0)
    tokens = len(NUMBERS) * LENGTH
    document = np.repeat(NUMBERS, LENGTH).astype(np.int32)
    x = rng.standard_normal((tokens, len(MODELS), D)).astype(np.float32)
    usable = np.flatnonzero((np.arange(tokens) % LENGTH > 0) & (document != WITHOUT))
    context = TokenContext(
        ids=np.zeros(tokens, dtype=np.int32),
        document=document,
        position=np.tile(np.arange(LENGTH), len(NUMBERS)).astype(np.int32),
        role=np.zeros(tokens, dtype=np.uint8),
        template=np.zeros(tokens, dtype=bool),
        category=np.full(tokens, -1, dtype=np.int16),
        row_starts=np.arange(0, tokens + 1, LENGTH),
        categories=[],
    )
    labels = pd.DataFrame(
        [
            *((number, "kind", "odd" if number % 2 else "even") for number in NUMBERS),
            *((number, "topics", "x") for number in (3, 40)),
            (7, "topics", "y"),
            (WITHOUT, "topics", "z"),  # of which nothing is known
            (999, "topics", "x"),  # of another split
        ],
        columns=["document", "labeller", "label"],
    )
    crosscoder = fitted(rng)
    return Case(Store(x, usable), crosscoder, context, *tables(crosscoder, rng), labels)


def codes(case: Case) -> NDArray[np.float64]:
    """Return the activations of all tokens, dense."""
    f: NDArray[np.float64] = case.crosscoder.encode(torch.from_numpy(case.store.x)).double().numpy()
    return f


def of_documents(case: Case, documents: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the usable tokens of some documents."""
    usable = case.store.usable
    return usable[np.isin(case.context.document[usable], documents)]


def expected(case: Case) -> Iterator[dict[str, float]]:
    """Yield the row of each document by the formulas, token by token and latent by latent."""
    x, f = case.store.x.astype(np.float64), codes(case)
    d = case.crosscoder.w_dec.double().numpy()
    base, cand = (MODELS.index(name) for name in PAIR)
    live = case.selection.set_index("latent")
    unique = {
        name: set(live.index[live[f"unique_{name}_vs_{other}"]])
        for name, other in permutations(PAIR)
    }
    for number in sorted(set(NUMBERS) - {WITHOUT}):
        row = dict.fromkeys(document_weights.COLUMNS, 0.0) | {"document": number}
        weight = 0.0
        for t in of_documents(case, np.array([number])):
            row["tokens"] += 1
            row["difference"] += ((x[t, cand] - x[t, base]) ** 2).sum()
            row["energy"] += ((x[t, cand] ** 2).sum() + (x[t, base] ** 2).sum()) / 2
            row["signed"] += (x[t, cand] ** 2).sum() - (x[t, base] ** 2).sum()
            for j in np.flatnonzero(f[t]):
                own, other = (f[t, j] ** 2 * (d[j, m] ** 2).sum() for m in (base, cand))
                row["unique_baseline"] += own * (j in unique[PAIR[0]])
                row["unique_candidate"] += other * (j in unique[PAIR[1]])
                row["total"] += (own + other) / 2
                if j != NO_DIRECTION:
                    norms = [float(np.linalg.norm(d[j, m])) for m in (base, cand)]
                    shift = 0.5 * (1 + (norms[1] - norms[0]) / max(norms))
                    row["delta_norm"] += f[t, j] * shift
                    weight += f[t, j]
        row["delta_norm"] /= weight
        yield row


@pytest.mark.parametrize("batch", [1, 20, 4096])
def test_documents_equal_the_dense_sums(case: Case, batch: int) -> None:
    table, _ = case.weigh(batch)
    assert tuple(table.columns) == document_weights.COLUMNS
    wanted = pd.DataFrame(list(expected(case))).astype({"document": int, "tokens": int})
    pd.testing.assert_frame_equal(table, wanted, rtol=1e-6, atol=1e-5)
    assert WITHOUT not in set(table["document"])
    assert (table[["unique_baseline", "unique_candidate", "total"]] > 0).all(axis=None)


def test_an_activation_counts_that_neither_model_has_a_direction_for(case: Case) -> None:
    assert codes(case)[:, NO_DIRECTION].any()
    assert np.isnan(case.pair().delta_norm[NO_DIRECTION])
    assert case.weigh()[0].notna().all(axis=None)


@pytest.mark.parametrize("held", [1, 200, 1 << 22])
def test_carriers_equal_the_dense_sums(
    case: Case, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carriers, "HELD", held)
    _, table = case.weigh(20)
    assert tuple(table.columns) == carriers.COLUMNS
    d, f = case.crosscoder.w_dec.double().numpy(), codes(case)
    base, cand = (MODELS.index(name) for name in PAIR)
    apart = ((d[:, cand] - d[:, base]) ** 2).sum(1)
    keys = [("kind", "even"), ("kind", "odd"), ("topics", "x"), ("topics", "y")]
    assert list(table[["labeller", "label"]].drop_duplicates().itertuples(index=False)) == keys
    parts, density = {}, {}
    for labeller, label in keys:
        named = case.labels[(case.labels["labeller"] == labeller) & (case.labels["label"] == label)]
        tokens = of_documents(case, named["document"].to_numpy())
        parts[labeller, label] = (f[tokens] ** 2).sum(0) * apart
        density[labeller, label] = parts[labeller, label] / len(tokens)
    for labeller, label in keys:
        rows = table[(table["labeller"] == labeller) & (table["label"] == label)]
        part = parts[labeller, label]
        total = sum(density[key] for key in keys if key[0] == labeller)
        own = density[labeller, label] / np.where(total > 0, total, 1)
        order = np.argsort(-part * own, kind="stable")[: carriers.SHOWN]
        order = order[part[order] > 0]
        assert rows["latent"].tolist() == order.tolist()
        assert rows["rank"].tolist() == list(range(1, len(order) + 1))
        np.testing.assert_allclose(rows["part"], part[order], rtol=1e-6)
        np.testing.assert_allclose(rows["share"], part[order] / part.sum(), rtol=1e-6)
        np.testing.assert_allclose(rows["own"], own[order], rtol=1e-6)
        np.testing.assert_array_equal(rows["delta_norm"], case.pair().delta_norm[order])
    assert not {NO_DIRECTION, SILENT, 5} & set(table["latent"])


def test_text_without_labels_is_not_read(case: Case) -> None:
    drawn = case.labels["document"].isin([5, 8, 40])
    some, whole = Case(**{**vars(case), "labels": case.labels[drawn]}).weigh()[0], case.weigh()[0]
    expected = whole[whole["document"].isin([5, 8, 40])].reset_index(drop=True)
    assert len(expected) == 3
    pd.testing.assert_frame_equal(some, expected)
    documents, table = Case(**{**vars(case), "labels": case.labels[:0]}).weigh()
    assert documents.empty
    assert table.empty
    assert tuple(table.columns) == carriers.COLUMNS


def test_without_usable_tokens_the_tables_are_empty(case: Case) -> None:
    empty = Case(**{**vars(case), "store": Store(case.store.x, np.zeros(0, dtype=np.int64))})
    documents, table = empty.weigh()
    assert documents.empty
    assert tuple(documents.columns) == document_weights.COLUMNS
    assert table.empty
    assert tuple(table.columns) == carriers.COLUMNS


def test_the_step_numbers_documents_as_the_labels_do(case: Case, tmp_path: Path) -> None:
    lengths, splits = [5, 8, 4, 7], ["score", "fit", "score", "score"]
    rng, activations, normalizers, tokens = np.random.default_rng(1), {}, {}, []
    shards = [token_shard(lengths, first, splits) for first in (20, 4)]
    for model in MODELS:
        normalizers[model] = str(write_normalizer(tmp_path / f"{model}.h5", np.zeros(D)))
        paths = [
            write_dump(
                tmp_path / f"{model}{number}.h5",
                shard,
                rng.standard_normal((shard.tokens, D)).astype(np.float32),
            )
            for number, shard in enumerate(shards)
        ]
        activations[model] = [str(path) for path in paths]
    tokens = [str(write_tokens(tmp_path / f"t{n}.h5", shard)) for n, shard in enumerate(shards)]
    case.crosscoder.save(tmp_path)
    for name in ("latents", "selection", "labels"):
        files.write_parquet(tmp_path / f"{name}.parquet", getattr(case, name))
    labels = pd.DataFrame({"document": [20, 4, 6, 22, 23, 7], "labeller": "kind"})
    labels["label"] = ["a", "b", "b", "b", "b", "a"]
    files.write_parquet(tmp_path / "labels.parquet", labels)
    outputs = []
    for run in ("first", "second"):
        flags = {
            "activations": json.dumps(activations),
            "normalizers": json.dumps(normalizers),
            "layer": "2",
            "crosscoder": str(tmp_path),
            "latents": str(tmp_path / "latents.parquet"),
            "selection": str(tmp_path / "selection.parquet"),
            "labels": str(tmp_path / "labels.parquet"),
            "baseline": PAIR[0],
            "candidate": PAIR[1],
            "documents": str(tmp_path / run / "documents.parquet"),
            "carriers": str(tmp_path / run / "carriers.parquet"),
        }
        words = [word for name, value in flags.items() for word in (f"--{name}", value)]
        words += ["--tokens", *tokens, "--documents-per-label=2", "--seed=0"]
        assert main([*words, "--threads=1", "--device=cpu"]) == 0
        outputs.append([path.read_bytes() for path in sorted((tmp_path / run).iterdir())])
    assert outputs[0] == outputs[1]
    weighed = files.read_parquet(tmp_path / "first/documents.parquet")
    assert weighed["document"].tolist() == [6, 7, 20, 23]  # two of each label
    assert weighed["tokens"].tolist() == [3, 6, 4, 6]
    assert set(files.read_parquet(tmp_path / "first/carriers.parquet")["label"]) == {"a", "b"}
