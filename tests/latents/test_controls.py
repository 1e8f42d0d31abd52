"""Controls: nothing is unique in a model's own noisy copy; swapped labels make nothing lopsided."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tests.activations.synthetic import token_shard, write_dump, write_normalizer
from workflow_scripts.activations.controls import Control, ControlStore, StoreInputs
from workflow_scripts.activations.store import ActivationStore
from workflow_scripts.crosscoder import fit_crosscoder
from workflow_scripts.crosscoder.model import Crosscoder
from workflow_scripts.crosscoder.settings import Training
from workflow_scripts.dataset.shards import write_shard
from workflow_scripts.latents.score_latents import latent_scores
from workflow_scripts.latents.select_latents import decide
from workflow_scripts.latents.settings import Scoring, Selection
from workflow_scripts.latents.token_context import read_context

D, DOCUMENTS, LENGTH, FEATURES = 16, 240, 26, 24
MODELS = ("it", "simpo")
RULE = Selection()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dumps of two models whose features differ in a third of the dictionary."""
    folder = tmp_path_factory.mktemp("controls")
    splits = [("fit", "score", "calibration")[n % 5 // 2] for n in range(DOCUMENTS)]
    shard = token_shard([LENGTH] * DOCUMENTS, splits=splits)
    write_shard(folder / "tokens.h5", shard, {})
    rng = np.random.default_rng(0)
    f = rng.gamma(3.0, 1.0, (shard.tokens, FEATURES)) * (rng.random((shard.tokens, FEATURES)) < 0.1)
    directions = rng.standard_normal((FEATURES, D)) / np.sqrt(D)
    for number, model in enumerate(MODELS):
        strength = np.ones(FEATURES)
        strength[4 * number : 4 * number + 4] = 0
        h = (f * strength) @ directions + 0.01 * rng.standard_normal((shard.tokens, D))
        write_dump(folder / f"{model}.h5", shard, h.astype(np.float32))
        write_normalizer(folder / f"{model}_n.h5", h.mean(0), float(h.std()) * np.sqrt(D))
    return folder


@pytest.fixture(autouse=True)
def float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let fits be the same on processors that multiply bfloat16 and on others."""
    monkeypatch.setattr(fit_crosscoder, "rounds_factors", lambda: False)


def opened(files: Path, control: Control | None, seed: int = 0) -> ActivationStore:
    """Open the store as a step does."""
    return StoreInputs(
        activations={model: [files / f"{model}.h5"] for model in MODELS},
        normalizers={model: files / f"{model}_n.h5" for model in MODELS},
        layer=2,
        control=control,
        control_seed=seed,
    ).open()


def test_swap_exchanges_whole_documents(files: Path) -> None:
    plain, swapped = opened(files, None), opened(files, "swap")
    rows = plain.rows("fit")
    x, y = plain.read(rows), swapped.read(rows)
    same = (x == y).all(axis=(1, 2))
    assert np.array_equal(y[~same], x[~same][:, ::-1])
    documents = rows // LENGTH
    for document in np.unique(documents):
        assert len(set(same[documents == document].tolist())) == 1
    assert 0.3 < same.mean() < 0.7
    some = rows[5::7]  # whatever is read together
    assert np.array_equal(swapped.read(some), y[5::7])
    assert not np.array_equal(opened(files, "swap", seed=1).read(rows), y)


def test_noise_is_that_of_rounding(files: Path) -> None:
    plain, noisy = opened(files, None), opened(files, "noise")
    assert isinstance(noisy, ControlStore)
    rows = plain.rows("score")
    x, y = plain.read(rows), noisy.read(rows)
    assert np.array_equal(y[:, 0], x[:, 0])
    error = np.abs(y[:, 1] / x[:, 0] - 1)
    assert 2.0**-10 < error.max() <= 2.0**-9 + 1e-6
    assert np.array_equal(noisy.read(rows[3::4]), y[3::4])


def scored(store: ActivationStore, files: Path, folder: Path) -> tuple[Crosscoder, dict[str, int]]:
    """Fit and score; return the crosscoder and the number of latents unique to each model."""
    training = Training(
        dictionary_size=48,
        k=4,
        tokens=900 * 256,
        batch=256,
        learning_rate=2e-3,
        dead_tokens=20_000,
        k_aux=8,
        calibration_rows=4096,
    )
    with torch.no_grad():
        fit_crosscoder.fit_store(store, training, 0, folder, folder / "c.safetensors")
    crosscoder = Crosscoder.load(folder)
    context = read_context([files / "tokens.h5"])
    with torch.no_grad():
        table = latent_scores(store, crosscoder, context, Scoring(groups=20))
    table.to_parquet(folder / "latents.parquet")
    counts = decide(table, MODELS, RULE)["unique_to"].value_counts()
    return crosscoder, {name: int(counts.get(name, 0)) for name in MODELS}


def test_nothing_is_unique_in_a_noisy_copy(files: Path, tmp_path: Path) -> None:
    _, unique = scored(opened(files, "noise"), files, tmp_path)
    assert unique == {"it": 0, "simpo": 0}
    table = pd.read_parquet(tmp_path / "latents.parquet")
    known = table[table["status_it_vs_simpo"] == "ok"]
    assert len(known) > 15
    for column in ("nu_r_it_vs_simpo", "nu_e_it_vs_simpo", "nu_r_simpo_vs_it", "nu_e_simpo_vs_it"):
        assert (known[column] - 1).abs().max() < 0.02
    assert (known["delta_norm_it_simpo"] - 0.5).abs().max() < 1e-3


def test_real_differences_are_unique_and_swapped_ones_belong_to_both(
    files: Path, tmp_path: Path
) -> None:
    _, plain = scored(opened(files, None), files, tmp_path / "plain")
    assert min(plain.values()) >= 3
    _, swapped = scored(opened(files, "swap"), files, tmp_path / "swap")
    assert abs(swapped["it"] - swapped["simpo"]) <= 2
