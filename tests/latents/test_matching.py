"""Latents that are the same under another number are matched, others are not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from tests.latents.test_score_latents import MemoryStore
from workflow_scripts.activations.controls import StoreInputs
from workflow_scripts.activations.store import ActivationStore
from workflow_scripts.common.device import Compute
from workflow_scripts.crosscoder.model import Crosscoder, Weights, initial_weights
from workflow_scripts.latents import match_latents, pair_mirrors
from workflow_scripts.latents.activity import CPU, activity, correlations, mutual_best, sample_rows
from workflow_scripts.latents.settings import Matching

LATENTS, WIDTH, TOKENS = 40, 96, 3000


def permuted(crosscoder: Crosscoder, order: np.ndarray, strangers: int) -> Crosscoder:
    """Return the same crosscoder with its latents in another order, the first replaced."""
    new = initial_weights(LATENTS, 2, WIDTH, 99, 0.5)
    tensors = {}
    for name, tensor in crosscoder.weights.tensors().items():
        if name != "decoder_bias":
            tensor = tensor[order].clone()
            tensor[:strangers] = new.tensors()[name][:strangers]
        tensors[name] = tensor
    normalised = 0.1, crosscoder.mean, crosscoder.scale
    return Crosscoder(["a", "b"], Weights(**tensors, models=2), *normalised, 4, {})


@pytest.fixture(scope="module")
def pair() -> tuple[Crosscoder, Crosscoder, np.ndarray, ActivationStore]:
    weights = initial_weights(LATENTS, 2, WIDTH, 0, 0.5)
    one = Crosscoder(["a", "b"], weights, 0.1, torch.zeros(2, WIDTH), torch.ones(2), 4, {})
    order = np.random.default_rng(1).permutation(LATENTS)
    other = permuted(one, order, strangers=10)
    x = np.random.default_rng(2).standard_normal((TOKENS, 1, WIDTH)).repeat(2, axis=1)
    store = cast(ActivationStore, MemoryStore((x * 1.2).astype(np.float32)))
    return one, other, order, store


def test_correlations_are_pearsons() -> None:
    rng = np.random.default_rng(0)
    f = rng.random((500, 6)) * (rng.random((500, 6)) < 0.3)
    g = np.hstack([f[:, :3] * 2, rng.random((500, 3)) * (rng.random((500, 3)) < 0.5)])
    g[:, 5] = 0
    i, j = (grid.ravel() for grid in np.meshgrid(np.arange(6), np.arange(6)))
    found = correlations(sparse.csc_array(f), sparse.csc_array(g), i, j)
    for a, b, r in zip(i, j, found, strict=True):
        if b == 5:
            assert np.isnan(r)
        else:
            assert r == pytest.approx(np.corrcoef(f[:, a], g[:, b])[0, 1])


def test_mutual_best_is_mutual_and_high_enough() -> None:
    i = np.array([0, 0, 1, 1, 2, 2])
    j = np.array([0, 1, 0, 1, 2, 0])
    similarity = np.array([0.9, 0.8, 0.95, 0.2, 0.4, np.nan])
    assert mutual_best(i, j, similarity, 0.5).tolist() == [2]
    assert mutual_best(i, j, similarity, 0.3).tolist() == [2, 4]
    assert mutual_best(i[:0], j[:0], similarity[:0], 0.3).tolist() == []


def test_a_renumbered_crosscoder_is_matched_latent_by_latent(
    pair: tuple[Crosscoder, Crosscoder, np.ndarray, ActivationStore], tmp_path: Path
) -> None:
    one, other, order, store = pair
    rows = sample_rows(store, "score", TOKENS, 0)
    everything = np.arange(LATENTS)
    f, g = (activity(store, c, rows) for c in (one, other))
    np.testing.assert_allclose(
        f.todense(), one.encode(torch.from_numpy(store.read(rows))).double(), rtol=1e-6
    )
    for name, crosscoder in (("one", one), ("other", other)):
        crosscoder.save(tmp_path / name)
    first, second = (
        match_latents.live_directions(tmp_path / name, everything, CPU) for name in ("one", "other")
    )
    found = match_latents.match(first, second, f, g, (everything, everything), 0.5)
    partner = dict(zip(found["latent_b"], found["latent_a"], strict=True))
    assert {b: partner.get(b) for b in range(10, LATENTS)} == {
        b: order[b] for b in range(10, LATENTS)
    }
    assert not set(partner) & set(range(10))
    assert found["similarity"].min() > 0.999


def test_stability_counts_seeds_and_owners() -> None:
    selections = {
        s: pd.DataFrame({"latent": [0, 1, 2], "unique_to": ["a", "", "b"]}) for s in (0, 1, 2)
    }
    selections[2]["unique_to"] = ["a", "", ""]
    columns = ["seed_a", "latent_a", "seed_b", "latent_b"]
    pairs = [(0, 0, 1, 0), (0, 0, 2, 0), (1, 0, 2, 0), (0, 2, 2, 2), (0, 1, 1, 1)]
    table = match_latents.recurrences(selections, pd.DataFrame(pairs, columns=columns))
    assert list(table) == list(match_latents.STABILITY)
    known = table.set_index(["seed", "latent"])
    assert known["recurrence"].to_dict() == {
        (0, 0): 1, (0, 1): 0.5, (0, 2): 0.5, (1, 0): 1, (1, 1): 0.5, (1, 2): 0,
        (2, 0): 1, (2, 1): 0, (2, 2): 0.5,
    }  # fmt: skip
    assert known.loc[(0, 2), "recurrence_unique"] == 0
    assert known.loc[(0, 0), "recurrence_unique"] == 1
    assert known.loc[(1, 2), "group"] == -1
    groups = {known.loc[at, "group"] for at in ((0, 0), (1, 0), (2, 0))}
    assert len(groups) == 1
    agreed = match_latents.agreed_groups(table, 3)
    assert agreed[["unique_to", "seeds", "latents"]].values.tolist() == [["a", 3, "0:0 1:0 2:0"]]


def test_mirrors_are_found_where_two_latents_fire_together() -> None:
    rng = np.random.default_rng(0)
    base = rng.random((800, 3)) * (rng.random((800, 3)) < 0.2)
    noise = rng.random((800, 2)) * (rng.random((800, 2)) < 0.2)
    fires = sparse.csc_array(np.hstack([base, 2 * base[:, :2] + 0.1 * noise, noise]))
    crosscoder = Crosscoder(
        ["a", "b"], initial_weights(7, 2, 8, 0, 1.0), 0.1, torch.zeros(2, 8), torch.ones(2), 2, {}
    )
    selection = pd.DataFrame({"latent": range(7)})
    selection["unique_a_vs_b"] = selection["latent"] < 3
    selection["unique_b_vs_a"] = selection["latent"] >= 3
    found = pair_mirrors.mirrors(crosscoder, fires, selection, 0.5)
    assert list(found) == list(pair_mirrors.COLUMNS)
    assert found[["latent_a", "latent_b"]].values.tolist() == [[0, 3], [1, 4]]
    assert (found["correlation"] > 0.9).all()


def test_files_are_as_documented(
    tmp_path: Path,
    pair: tuple[Crosscoder, Crosscoder, np.ndarray, ActivationStore],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, other, _, store = pair
    selection = pd.DataFrame({"latent": np.arange(LATENTS), "unique_to": "a"})
    selection.to_parquet(tmp_path / "selection.parquet")
    for seed, crosscoder in enumerate((one, other)):
        crosscoder.save(tmp_path / f"seed{seed}")
    folders = {seed: tmp_path / f"seed{seed}" for seed in (0, 1)}
    selections = dict.fromkeys((0, 1), tmp_path / "selection.parquet")
    monkeypatch.setattr(StoreInputs, "open", lambda self: store)
    match_latents.match_latents(
        StoreInputs(activations={}, normalizers={}, layer=1),
        folders,
        selections,
        Matching(match_tokens=2000),
        seed=0,
        compute=Compute(device="cpu"),
        matches=tmp_path / "matches.parquet",
        stability=tmp_path / "stability.parquet",
        consensus=tmp_path / "consensus.csv",
    )
    text = Path(match_latents.__file__).with_name("COLUMNS.md").read_text(encoding="utf-8")
    parts = {part.split(".parquet")[0].rsplit("/", 1)[-1]: part for part in text.split("\n# ")}
    for name, columns in (
        ("matches", match_latents.MATCHES),
        ("stability", match_latents.STABILITY),
        ("mirrors", pair_mirrors.COLUMNS),
    ):
        told = re.findall(r"`(\w+)`", "".join(re.findall(r"^\|([^|]*)\|", parts[name], re.M)))
        assert set(told) == set(columns)
    assert list(pd.read_parquet(tmp_path / "matches.parquet")) == list(match_latents.MATCHES)
    assert len(pd.read_csv(tmp_path / "consensus.csv")) == 30
