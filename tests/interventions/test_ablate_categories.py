"""Ablation: a category's text suffers where its latents are taken away, and only there."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tests.models.random_models import VOCABULARY, write_model
from workflow_scripts.common.artifacts import LabelledLatents
from workflow_scripts.crosscoder.model import Crosscoder, initial_weights
from workflow_scripts.dataset.answer_tokens import Document
from workflow_scripts.interventions import ablate_categories as step
from workflow_scripts.interventions.block_outputs import replaced_output
from workflow_scripts.interventions.latent_editor import LatentEditor
from workflow_scripts.models.loading import load_model

WIDTH, LATENTS, LAYER = 16, 12, 2
NAMES = ("it", "simpo")


def labelled() -> LabelledLatents:
    """Return latents: 0–1 are unique to ``it``, 2 to ``simpo``, named by parity."""
    frame = pd.DataFrame({"latent": range(LATENTS), "firing_rate": np.linspace(0.1, 0.9, LATENTS)})
    frame["category"] = ["news", "advice"] * (LATENTS // 2)
    frame.loc[LATENTS - 1, "category"] = "none"
    frame["unique_it_vs_simpo"] = frame["latent"] < 2
    frame["unique_simpo_vs_it"] = frame["latent"] == 2
    return LabelledLatents(NAMES, frame)


def documents() -> list[Document]:
    """Return four documents of each of two categories."""
    rng = np.random.default_rng(3)
    return [
        Document(
            np.concatenate([[1], rng.integers(3, VOCABULARY, 7)]).astype(np.int32),
            np.array([False] + [True] * 7),
            category,
            0,
        )
        for category in ("advice", "news")
        for _ in range(4)
    ]


def test_ablations_are_the_unique_latents_and_as_many_shared_ones() -> None:
    found = list(step.ablations(labelled(), NAMES))
    told = [(a.model, a.category, a.latents_are, a.latents.tolist()) for a in found]
    assert told == [
        ("it", "advice", "unique", [1]),
        ("it", "advice", "shared", [3]),
        ("it", "news", "unique", [0]),
        ("it", "news", "shared", [4]),
        ("simpo", "news", "unique", [2]),
        ("simpo", "news", "shared", [4]),
    ]


def test_rise_is_that_of_a_model_whose_latents_are_taken_away(tmp_path: Path) -> None:
    models = {
        name: load_model(
            write_model(tmp_path / name, "gemma2", seed), torch.float32, torch.device("cpu")
        )
        for seed, name in enumerate(NAMES)
    }
    weights = initial_weights(LATENTS, 2, WIDTH, 0, 0.7)
    crosscoder = Crosscoder(
        list(NAMES), weights, 0.1, torch.zeros(2, WIDTH), torch.tensor([2.0, 3.0]), 5, {}
    )
    editor = LatentEditor(crosscoder, torch.tensor([1e6, 1e6]), LAYER)
    wanted = list(step.ablations(labelled(), NAMES))
    texts = documents()
    with torch.no_grad():
        rise = step.rises(list(models.values()), editor, wanted, texts, 20)
        assert rise.shape == (len(wanted), len(texts))
        untested = np.isnan(rise)
        assert untested[0].tolist() == [False] * 4 + [False, False, True, True]
        # By hand: the first document, the first ablation.
        ids = torch.from_numpy(texts[0].ids.astype(np.int64))[None]
        states = [
            m(ids, output_hidden_states=True).hidden_states[LAYER][0] for m in models.values()
        ]
        f = crosscoder.encode(torch.stack(states, 1) / crosscoder.scale[:, None])[:, 1]
        f[0] = 0
        model = models["it"]
        changed = states[0] - f[:, None] * crosscoder.w_dec[1, 0] * 2.0
        losses = [float(model(ids, labels=ids).loss)]
        with replaced_output(model, LAYER, changed[None]):
            losses.append(float(model(ids, labels=ids).loss))
    assert rise[0, 0] == pytest.approx(losses[1] - losses[0], abs=1e-5)
    assert abs(rise[0, 0]) > 1e-3
    rows = list(step.rows_of("direct", "true", wanted, rise, texts, 0.95))
    assert [row["own_documents"] for row in rows] == [4] * 6
    assert [row["other_documents"] for row in rows] == [2] * 6
    assert float(str(rows[0]["own_rise"])) == pytest.approx(rise[0, :4].mean(), rel=1e-4)


def test_columns_are_those_documented() -> None:
    text = Path(step.__file__).with_name("COLUMNS.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", text.split("\n## ")[2], re.M) == list(step.COLUMNS)


def test_a_category_without_documents_gives_no_row() -> None:
    texts = documents()[:5]  # one document of news is too few
    wanted = list(step.ablations(labelled(), NAMES))
    rise = np.zeros((len(wanted), 5))
    rows = list(step.rows_of("direct", "true", wanted, rise, texts, 0.95))
    assert rows == []
