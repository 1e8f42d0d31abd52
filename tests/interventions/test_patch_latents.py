"""Patching: what moves is what was chosen, and everything together is the other model."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tests.activations.synthetic import token_shard
from tests.models.random_models import ARCHITECTURES, write_model
from workflow_scripts.crosscoder.model import Crosscoder, initial_weights
from workflow_scripts.dataset.answer_tokens import Document, pad
from workflow_scripts.dataset.shards import write_shard
from workflow_scripts.interventions import patch_latents as step
from workflow_scripts.interventions.latent_edit import Patcher, matched
from workflow_scripts.interventions.patching import layer_output, log_probabilities, patched
from workflow_scripts.models.loading import load_model

LAYER, WIDTH, LATENTS = 2, 16, 30
NAMES = ("it", "simpo")


def crosscoder() -> Crosscoder:
    """Return an unfitted crosscoder of two models, with a bias and scales of their own."""
    weights = initial_weights(LATENTS, 2, WIDTH, 0, 0.7)
    generator = torch.Generator().manual_seed(1)
    weights.decoder += 0.2 * torch.randn(weights.decoder.shape, generator=generator)
    weights.decoder_bias += 0.3 * torch.randn(weights.decoder_bias.shape, generator=generator)
    mean = 0.5 * torch.randn((2, WIDTH), generator=generator)
    return Crosscoder(list(NAMES), weights, 0.1, mean, torch.tensor([1.5, 0.8]), 5, {})


def test_all_and_error_together_are_the_target() -> None:
    patcher = Patcher(crosscoder(), torch.tensor([1e6, 1e6]))
    h = torch.randn((7, 2, WIDTH), generator=torch.Generator().manual_seed(2))
    moved = [patcher.move(h, 0, 1, kind) for kind in ("all", "error")]
    torch.testing.assert_close(moved[0] + moved[1] - h[:, 0], h[:, 1])
    every = patcher.move(h, 0, 1, torch.ones(LATENTS))
    c = patcher.crosscoder
    biases = c.mean + c.scale[:, None] * c.b_dec
    torch.testing.assert_close(moved[0], every + biases[1] - biases[0])
    assert torch.equal(patcher.move(h, 0, 1, torch.zeros(LATENTS)), h[:, 0])


def test_tokens_that_a_fit_drops_are_not_usable() -> None:
    patcher = Patcher(crosscoder(), torch.tensor([5.0, 9.0]))
    real = torch.tensor([[True, True, True], [True, True, False]])
    h = torch.ones((5, 2, WIDTH))
    h[2] = 3.0  # a norm of 12
    assert patcher.usable(h, real).tolist() == [False, True, False, False, True]
    f = patcher.activations(h, real)
    assert f[0].abs().max() == 0
    assert f[1].abs().max() > 0
    some = np.array([3, 7])
    written = (f[:, some] @ patcher.crosscoder.w_dec[some, 1]) * 0.8
    torch.testing.assert_close(patcher.written(f, 1, some), written)


def test_a_patch_of_its_own_output_changes_nothing(tmp_path: Path) -> None:
    for architecture in ARCHITECTURES:
        manifest = write_model(tmp_path / architecture, architecture)
        model = load_model(manifest, torch.float32, torch.device("cpu"))
        ids = [np.array([1, 5, 6, 7, 8]), np.array([1, 9, 4])]
        documents = [
            Document(i.astype(np.int32), np.array([False] + [True] * (len(i) - 1)), None)
            for i in ids
        ]
        ids_, mask, answer = pad(documents)
        plain = log_probabilities(model, ids_, mask, answer)
        assert plain.shape == (6, model.config.get_text_config().vocab_size)
        h = layer_output(model, LAYER, ids_, mask)
        with patched(model, LAYER, h):
            assert torch.equal(log_probabilities(model, ids_, mask, answer), plain)
        with patched(model, LAYER, 2 * h + 1):
            assert not torch.allclose(log_probabilities(model, ids_, mask, answer), plain)
        assert torch.equal(log_probabilities(model, ids_, mask, answer), plain)


def test_matched_latents_are_others_of_like_rate() -> None:
    rate = np.array([0.1, 0.5, 0.9, 0.12, 0.48, 0.95, 0.3])
    found = matched(np.array([3, 4, 5, 6]), np.array([0, 1, 2]), rate)
    assert found.tolist() == [3, 4, 5]
    assert len(matched(np.array([3]), np.array([0, 1, 2]), rate)) == 1


def test_summary_is_weighted_by_tokens_and_paired() -> None:
    rng = np.random.default_rng(0)
    sizes = [12, 3, 20, 8, 5, 9]
    documents = [
        Document(np.arange(n + 1, dtype=np.int32), np.array([False] + [True] * n), None)
        for n in sizes
    ]
    none = [rng.uniform(1, 2, n) for n in sizes]
    kl = {"none": none, "unique": [0.25 * values for values in none]}
    rows = step.summarise(kl, documents, {"none": 0, "unique": 4}, 0)
    table = {(str(row["set"]), str(row["tokens"])): row for row in rows}
    whole = np.concatenate(none)
    mean = float(whole.mean())
    every = table["none", "all"]
    assert every["kl"] == pytest.approx(mean)
    assert float(str(every["kl_low"])) < mean < float(str(every["kl_high"]))
    assert table["none", "first9"]["answer_tokens"] == sum(min(n, 9) for n in sizes)
    assert table["none", "rest"]["answer_tokens"] == sum(max(n - 9, 0) for n in sizes)
    for part in step.PARTS:  # always a quarter: the interval of a paired ratio has no width
        row = table["unique", part]
        for name in ("closed", "closed_low", "closed_high"):
            assert row[name] == pytest.approx(0.75)


def test_step_writes_every_set(tmp_path: Path) -> None:
    shard = token_shard(
        [9, 14, 11, 12, 6], splits=["verify", "verify", "score", "verify", "verify"]
    )
    write_shard(tmp_path / "shard000.h5", shard, {})
    models = [write_model(tmp_path / name, "llama", seed) for seed, name in enumerate(NAMES)]
    latents = pd.DataFrame({"latent": range(LATENTS), "live": True})
    latents["firing_rate"] = np.linspace(0.01, 0.4, LATENTS)
    selection = pd.DataFrame({"latent": range(LATENTS)})
    selection["unique_it_vs_simpo"] = selection["latent"] < 3
    selection["unique_simpo_vs_it"] = selection["latent"].between(3, 6)
    outputs = [tmp_path / f"{n}.csv" for n in range(2)]
    for output in outputs:
        with torch.no_grad():
            step.patch_latents(
                (models[0], models[1]),
                NAMES,
                Patcher(crosscoder(), torch.tensor([1e6, 1e6])),
                LAYER,
                latents,
                selection,
                [tmp_path / "shard000.h5"],
                limit=10,
                seed=0,
                dtype="float32",
                batch_tokens=30,
                output=output,
            )
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    table = pd.read_csv(outputs[0])
    assert list(table) == list(step.COLUMNS)
    text = Path(step.__file__).with_name("COLUMNS.md").read_text(encoding="utf-8")
    told = re.findall(
        r"`(\w+)`", "".join(re.findall(r"^\|([^|]*)\|", text.split("\n## ")[1], re.M))
    )
    assert told == list(step.COLUMNS)
    assert list(table["set"].unique()) == list(step.SETS)
    assert set(table["documents"]) == {4}
    sizes = table.drop_duplicates("set").set_index("set")["latents"]
    assert (sizes["unique"], sizes["shared"], sizes["random"], sizes["all"]) == (7, 7, 7, LATENTS)
    assert (table.loc[table["set"] == "none", "closed"] == 0).all()
    assert (table["kl"] >= 0).all()
