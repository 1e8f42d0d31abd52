"""Patching: what moves is what was chosen, and everything together is the other model."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from tests.activations.synthetic import token_shard, write_normalizer
from tests.models.random_models import ARCHITECTURES, write_model
from workflow_scripts.crosscoder.model import Crosscoder, initial_weights
from workflow_scripts.dataset.answer_tokens import Document, pad
from workflow_scripts.dataset.shards import write_shard
from workflow_scripts.interventions import patch_latents as step
from workflow_scripts.interventions.block_outputs import block_output, replaced_output
from workflow_scripts.interventions.latent_editor import LatentEditor, matched
from workflow_scripts.models.likelihood import predict
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


def predicted(model: PreTrainedModel, ids: Tensor, mask: Tensor, answer: Tensor) -> Tensor:
    """Return the log-probabilities with which the chosen tokens are predicted, [n, V]."""
    return predict(model, ids, mask, answer).log_probabilities(slice(None))


def test_all_and_error_together_are_the_target() -> None:
    editor = LatentEditor(crosscoder(), torch.tensor([1e6, 1e6]), LAYER)
    h = torch.randn((7, 2, WIDTH), generator=torch.Generator().manual_seed(2))
    f = editor.encode(h)
    moved = [editor.move(h, f, 0, 1, kind) for kind in ("all", "error")]
    torch.testing.assert_close(moved[0] + moved[1] - h[:, 0], h[:, 1])
    every = editor.move(h, f, 0, 1, torch.ones(LATENTS, dtype=torch.bool))
    c = editor.crosscoder
    biases = c.mean + c.scale[:, None] * c.b_dec
    torch.testing.assert_close(moved[0], every + biases[1] - biases[0])
    nothing = torch.zeros(LATENTS, dtype=torch.bool)
    assert torch.equal(editor.move(h, f, 0, 1, nothing), h[:, 0])
    some = nothing.clone()
    some[::3] = True
    d = c.w_dec * c.scale[:, None]
    dense = c.encode(c.normalize(h)) * some
    assert dense.any()
    expected = h[:, 0] + dense @ (d[:, 1] - d[:, 0])
    torch.testing.assert_close(editor.move(h, f, 0, 1, some), expected)


def test_tokens_that_a_fit_drops_are_not_usable() -> None:
    editor = LatentEditor(crosscoder(), torch.tensor([5.0, 9.0]), LAYER)
    real = torch.tensor([[True, True, True], [True, True, False]])
    h = torch.ones((5, 2, WIDTH))
    h[2] = 3.0  # a norm of 12
    assert editor.usable(h, real).tolist() == [False, True, False, False, True]
    f = editor.usable_codes(h, real)
    assert f.per_token()[0] == 0
    assert f.per_token()[1] > 0
    some = np.array([3, 7])
    dense = editor.crosscoder.encode(editor.crosscoder.normalize(h))
    dense *= editor.usable(h, real)[:, None]
    written = (dense[:, some] @ editor.crosscoder.w_dec[some, 1]) * 0.8
    torch.testing.assert_close(editor.written(f, 1, some), written)


def test_a_patch_of_its_own_output_changes_nothing(tmp_path: Path) -> None:
    for architecture in ARCHITECTURES:
        manifest = write_model(tmp_path / architecture, architecture)
        model = load_model(manifest, torch.float32, torch.device("cpu"))
        ids = [np.array([1, 5, 6, 7, 8]), np.array([1, 9, 4])]
        documents = [
            Document(i.astype(np.int32), np.array([False] + [True] * (len(i) - 1)), None, 0)
            for i in ids
        ]
        ids_, mask, answer = pad(documents)
        plain = predicted(model, ids_, mask, answer)
        assert plain.shape == (6, model.config.get_text_config().vocab_size)
        h = block_output(model, LAYER, ids_, mask)
        with replaced_output(model, LAYER, h):
            assert torch.equal(predicted(model, ids_, mask, answer), plain)
        with replaced_output(model, LAYER, 2 * h + 1):
            assert not torch.allclose(predicted(model, ids_, mask, answer), plain)
        assert torch.equal(predicted(model, ids_, mask, answer), plain)


def test_either_model_of_a_crosscoder_may_be_the_source(tmp_path: Path) -> None:
    models = [
        load_model(write_model(tmp_path / name, "llama", seed), torch.float32, torch.device("cpu"))
        for seed, name in enumerate(NAMES)
    ]
    editor = LatentEditor(crosscoder(), torch.tensor([1e6, 1e6]), LAYER)
    ids = np.array([1, 5, 6, 7, 8], dtype=np.int32)
    document = Document(ids, np.array([False] + [True] * 4), None, 0)
    for source, target in ((0, 1), (1, 0)):
        with torch.no_grad():
            nothing = {"none": torch.zeros(LATENTS, dtype=torch.bool)}
            kl = step.divergences(models, editor, nothing, [document], 99, source, target)
            inputs = pad([document])
            own = predicted(models[target], *inputs)
            h = block_output(models[source], LAYER, *inputs[:2])
            with replaced_output(models[target], LAYER, h):
                other = predicted(models[target], *inputs)
        expected = (own.exp() * (own - other)).sum(1)
        np.testing.assert_allclose(kl["none"][0], expected.numpy(), rtol=1e-4, atol=1e-7)


def test_matched_latents_are_others_of_like_rate() -> None:
    rate = np.array([0.1, 0.5, 0.9, 0.12, 0.48, 0.95, 0.3])
    found = matched(np.array([3, 4, 5, 6]), np.array([0, 1, 2]), rate)
    assert found.tolist() == [3, 4, 5]
    assert len(matched(np.array([3]), np.array([0, 1, 2]), rate)) == 1


def test_summary_is_weighted_by_tokens_and_paired() -> None:
    rng = np.random.default_rng(0)
    sizes = [12, 3, 20, 8, 5, 9]
    documents = [
        Document(np.arange(n + 1, dtype=np.int32), np.array([False] + [True] * n), None, 0)
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
    models = {n: write_model(tmp_path / n, "llama", seed) for seed, n in enumerate(NAMES)}
    latents = pd.DataFrame({"latent": range(LATENTS), "live": True})
    latents["firing_rate"] = np.linspace(0.01, 0.4, LATENTS)
    selection = pd.DataFrame({"latent": range(LATENTS)})
    selection["unique_it_vs_simpo"] = selection["latent"] < 3
    selection["unique_simpo_vs_it"] = selection["latent"].between(3, 6)
    latents.to_parquet(tmp_path / "latents.parquet")
    selection.to_parquet(tmp_path / "selection.parquet")
    crosscoder().save(tmp_path / "fit")
    normalizers = {n: write_normalizer(tmp_path / f"{n}.h5", np.zeros(WIDTH)) for n in NAMES}
    outputs = [tmp_path / f"{n}.csv" for n in range(2)]
    for output in outputs:
        flags = [
            f"--models={json.dumps(models, default=str)}",
            *("--pair", *NAMES, f"--crosscoder={tmp_path / 'fit'}", f"--layer={LAYER}"),
            f"--normalizers={json.dumps(normalizers, default=str)}",
            *(f"--{n}={tmp_path / n}.parquet" for n in ("latents", "selection")),
            f"--tokens={tmp_path / 'shard000.h5'}",
            *("--documents=10", "--seed=0", "--batch-tokens=30", "--threads=1", "--device=cpu"),
        ]
        assert step.main([*flags, f"--output={output}"]) == 0
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
