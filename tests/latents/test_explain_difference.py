"""Baselines on a difference that is known: two directions, one of which a crosscoder holds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from tests.crosscoder.memory_store import MemoryStore, fit_settings
from workflow_scripts.activations import difference as differences
from workflow_scripts.activations.difference import DifferenceStore, moments
from workflow_scripts.activations.layout import Stored
from workflow_scripts.activations.store import ActivationStore
from workflow_scripts.common.cli import UserError
from workflow_scripts.crosscoder.fit_crosscoder import fit_store
from workflow_scripts.crosscoder.model import Crosscoder, Weights
from workflow_scripts.latents import explain_difference as step
from workflow_scripts.latents.explain_difference import (
    explained_shares,
    sizes,
    unique_latents,
)
from workflow_scripts.latents.token_context import TokenContext

WIDTH, TOKENS = 16, 3000
NAMES = ("it", "simpo")
SCALE = np.array([3.0, 1.0])


class Known(DifferenceStore):
    """Activations in memory: b is a and two sparse features more, along the first two axes."""

    def __init__(self, apart: float = 1.0) -> None:
        rng = np.random.default_rng(0)
        self.f = rng.random((TOKENS, 2)).astype(np.float32) * (rng.random((TOKENS, 2)) < 0.2)
        a = rng.standard_normal((TOKENS, WIDTH)).astype(np.float32)
        b = a.copy()
        b[:, :2] += apart * SCALE.astype(np.float32) * self.f
        self.x = np.stack([a, b], axis=1)
        self.stored, self.models, self.width = list(NAMES), ["simpo-it"], WIDTH
        self.pair = (0, 1)
        self._encoding = "float32"
        self._normalization = np.zeros((2, WIDTH)), np.ones(2)

    def rows(self, split: str) -> NDArray[np.int64]:
        return np.arange(TOKENS)

    def held(self, rows: NDArray[np.int64], room: Stored | None = None) -> Stored:
        return self.x[rows].transpose(1, 0, 2)


class Pair(MemoryStore):
    """The same activations, of both models."""

    def __init__(self, known: Known) -> None:
        self.x = known.x


class Differences(MemoryStore):
    """Their normalised difference, as its autoencoder reads it."""

    def __init__(self, known: Known) -> None:
        self.models, self.x = ("simpo-it",), known.read(np.arange(TOKENS))
        self.known = known

    def normalization(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return self.known.normalization()


def holder(axis: int) -> Crosscoder:
    """Return a crosscoder with one latent, which reads b − a along an axis and writes it into b."""
    encoder, decoder = torch.zeros(1, 2 * WIDTH), torch.zeros(1, 2 * WIDTH)
    encoder[0, axis], encoder[0, WIDTH + axis] = -1.0, 1.0
    decoder[0, WIDTH + axis] = 1.0
    weights = Weights(encoder, torch.zeros(1), decoder, torch.zeros(2 * WIDTH), 2)
    return Crosscoder(list(NAMES), weights, 1e-3, torch.zeros(2, WIDTH), torch.ones(2), 2, {})


def exact(known: Known) -> Crosscoder:
    """Return an autoencoder of the normalised difference that is the identity."""
    mean, scale = known.normalization()
    both = torch.cat([torch.eye(WIDTH), -torch.eye(WIDTH)])
    weights = Weights(both, torch.zeros(2 * WIDTH), both, torch.zeros(WIDTH), 1)
    statistics = torch.from_numpy(mean).float(), torch.from_numpy(scale).float()
    return Crosscoder(["simpo-it"], weights, 0.0, *statistics, 2, {})


def context(categories: NDArray[np.int16]) -> TokenContext:
    zeros = np.zeros(TOKENS, dtype=np.int32)
    masks = np.zeros(TOKENS, dtype=np.uint8), np.zeros(TOKENS, dtype=np.bool_)
    starts = np.array([0, TOKENS], dtype=np.int64)
    return TokenContext(zeros, zeros, zeros, *masks, categories, starts, ["code", "prose"])


def told(known: Known, crosscoder: Crosscoder, unique: list[int]) -> pd.DataFrame:
    first = known.f[:, 0] > 0
    categories = np.where(first, 0, np.where(np.arange(TOKENS) % 2, 1, -1)).astype(np.int16)
    with torch.no_grad():
        rows = explained_shares(
            cast(ActivationStore, Pair(known)),
            known,
            exact(known),
            crosscoder,
            np.array(unique, dtype=np.int64),
            context(categories),
            "score",
            512,
            NAMES,
        )
    return pd.DataFrame(rows)


def explained(table: pd.DataFrame, method: str, group: str = "all") -> float:
    chosen = table[(table["method"] == method) & (table["group"] == group)]
    assert len(chosen) == 1
    return float(chosen["explained"].iloc[0])


def test_components_and_latents_explain_what_they_hold() -> None:
    known = Known()
    delta = known.f * SCALE.astype(np.float32)
    variance = delta.var(0)
    table = told(known, holder(0), [0])
    pca = table[(table["method"] == "pca") & (table["group"] == "all")].set_index("size")
    assert list(pca.index) == [1, 2, 4, 8, 16]
    assert pca["explained"][1] == pytest.approx(variance[0] / variance.sum(), abs=0.01)
    assert pca["explained"][2] == pytest.approx(1, abs=1e-5)
    assert explained(table, "sae") == pytest.approx(1, abs=1e-5)
    left = np.square(delta[:, 1]).sum() / np.square(delta - delta.mean(0)).sum()
    for method in ("crosscoder", "unique"):
        assert explained(table, method) == pytest.approx(1 - left, abs=1e-4)
    nothing = 1 - np.square(delta).sum() / np.square(delta - delta.mean(0)).sum()
    assert explained(table, "shared") == pytest.approx(nothing, abs=1e-4)
    by_group = table[table["method"] == "crosscoder"].set_index("group")
    assert list(by_group.index) == ["all", "code", "prose"]
    assert by_group["tokens"]["all"] == TOKENS
    assert by_group["mean_square"]["code"] > 3 > 1 > by_group["mean_square"]["prose"]
    assert list(table) == list(step.COLUMNS)
    text = Path(step.__file__).with_name("COLUMNS.md").read_text(encoding="utf-8")
    section = next(part for part in text.split("\n# ") if part.startswith("`difference/"))
    described = re.findall(r"`(\w+)`", "".join(re.findall(r"^\|([^|]*)\|", section, re.M)))
    assert described == list(step.COLUMNS)
    assert by_group["size"]["all"] == pytest.approx((known.f[:, 0] > 0).mean(), abs=0.01)


def test_sizes_hold_k_and_the_width() -> None:
    assert sizes(24, 128) == [1, 2, 4, 8, 16, 24, 32, 64, 128]
    assert sizes(100, 48) == [1, 2, 4, 8, 16, 32, 48]


def test_latents_unique_to_either() -> None:
    selection = pd.DataFrame(
        {
            "latent": [3, 5, 8],
            "unique_it_vs_simpo": [True, False, False],
            "unique_simpo_vs_it": [False, False, True],
        }
    )
    assert unique_latents(selection, NAMES).tolist() == [3, 8]


def test_models_that_do_not_differ_are_told() -> None:
    with pytest.raises(UserError, match="do not differ"):
        moments(Known(apart=0.0))


def test_moments_are_those_of_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(differences, "BATCH", 700)
    known = Known()
    mean, covariance = moments(known)
    delta = known.differences(known.rows("calibration")).astype(np.float64)
    assert np.allclose(mean, delta.mean(0), atol=1e-12)
    assert np.allclose(covariance, np.cov(delta.T, bias=True), atol=1e-10)
    x = known.read(np.arange(TOKENS))
    assert x.shape == (TOKENS, 1, WIDTH)
    assert np.allclose(x.mean(0), 0, atol=1e-5)
    assert np.square(x).mean() == pytest.approx(1, abs=1e-4)


def test_an_autoencoder_is_fitted_on_the_difference(tmp_path: Path) -> None:
    known = Known()
    memory = Differences(known)
    settings = fit_settings(learning_rate=0.01, dictionary_size=24)
    with torch.no_grad():
        fit_store(cast(ActivationStore, memory), settings, 0, tmp_path, tmp_path / "c")
    sae = Crosscoder.load(tmp_path)
    assert sae.models == ["simpo-it"]
    x = torch.from_numpy(memory.x)
    left = (sae.decode(sae.encode(x)) - x).square().sum() / x.square().sum()
    assert float(left) < 0.3
