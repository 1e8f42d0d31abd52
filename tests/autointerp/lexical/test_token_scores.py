"""Explanations are scored by which tokens their terms name."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse as sp

from tests.autointerp import fixtures
from tests.autointerp.test_explain_lexical import (
    CONCEPTS,
    MANY,
    annotate,
    explain_contexts,
    make_many,
)
from workflow_scripts.autointerp import annotation_tables
from workflow_scripts.autointerp.collect_document_labels import ANSWERS
from workflow_scripts.autointerp.lexical.features import build_channels
from workflow_scripts.autointerp.lexical.terms import Design, LexicalResult
from workflow_scripts.autointerp.lexical.token_scores import score_tokens
from workflow_scripts.autointerp.llm.outputs import LEDGER
from workflow_scripts.autointerp.score_statistics import grouped_pearson
from workflow_scripts.autointerp.windows import merge_words, read_windows
from workflow_scripts.dataset.labels import COLUMNS

TOKENS = ["token_precision", "token_recall", "token_f1", "simulation_r"]


def test_planted_words_are_named_token_by_token_and_topics_are_not(tmp_path: Path) -> None:
    documents = fixtures.random_documents(1500, CONCEPTS)
    latents = [
        fixtures.on_words("one word", "anchor"),
        fixtures.on_words("four words", *CONCEPTS["sea"]),
        fixtures.on_suffix("suffix", "ing"),
        fixtures.on_category("topic", "sea"),
        fixtures.on_words("nowhere", "zebra"),
    ]
    annotate(tmp_path, *fixtures.make_examples(documents, latents, tmp_path))
    scores = pd.read_parquet(tmp_path / "lexical/scores.parquet").set_index("latent")
    assert (scores.loc[[0, 1], TOKENS].to_numpy() > 0.98).all()
    # Beside the suffix it names forms that also stand in other words.
    assert (scores.loc[[2], TOKENS].to_numpy() > 0.8).all()
    # Its text is recognised by its words, on which it seldom fires.
    assert scores["auroc"][3] > 0.95
    assert (scores.loc[[3], TOKENS].to_numpy() < 0.2).all()
    assert np.isnan(scores.loc[[4], TOKENS].to_numpy()).all()
    summary = json.loads((tmp_path / "lexical/summary.json").read_text())
    known = scores["token_f1"].dropna()
    assert summary["token_f1_median"] == pytest.approx(known.median())


def test_the_terms_of_another_latent_name_no_active_token(tmp_path: Path) -> None:
    examples, background = make_many(tmp_path)
    annotate(tmp_path, examples, background)
    own = pd.read_parquet(tmp_path / "lexical/scores.parquet")
    assert (own[TOKENS].to_numpy() > 0.95).all()
    contexts = pd.read_parquet(tmp_path / "contexts.parquet")
    train = contexts["part"] == "train"
    contexts.loc[train, "latent"] = (contexts.loc[train, "latent"] + 1) % len(MANY)
    contexts.to_parquet(tmp_path / "contexts.parquet", index=False)
    explain_contexts(tmp_path, background)
    other = pd.read_parquet(tmp_path / "lexical/scores.parquet")
    assert other["token_f1"].max() < 0.05
    assert other["simulation_r"].abs().max() < 0.05


def _windows(*contexts: list[tuple[str, float]]) -> pa.Table:
    return pa.table(
        {
            "pieces": [[piece for piece, _ in context] for context in contexts],
            "activations": [[value for _, value in context] for context in contexts],
        }
    )


@pytest.mark.parametrize("channel", ["word", "context"])
def test_scores_by_hand(channel: str) -> None:
    """Two latents: one fires on the second piece of a word, the explanation of one is empty."""
    tell = [("the", 0.0), (" har", 0.0), ("bour", 1.0), (" and", 0.2), (" sea", 0.5)]
    silent = [("the", 0.0), (" har", 0.0), ("bour", 0.0), (" wall", 0.0)]
    contexts = _windows(tell, tell, tell, silent, tell, silent)
    windows = read_windows(contexts)
    words = merge_words(windows)
    design = Design(
        latent=np.array([0, 0, 0, 0, 1, 1]),
        positive=np.array([True, True, True, False, True, False]),
        hard=np.zeros(6, np.bool_),
        train=np.arange(6) < 2,
        fold=np.zeros(6, np.int64),
        stratum=np.full(6, "none"),
        latents=2,
    )
    channels = build_channels(words, 6, 0)
    names = channels[channel].names
    z = np.zeros((2, len(names)))
    z[0, [names.index("harbour"), names.index("wall")]] = 3.0, 1.0
    result = LexicalResult(
        [channel] * 2, [[], []], np.zeros((2, 3)), {channel: sp.csr_array(z)}, channels
    )
    found = score_tokens(windows, words, design, result)
    # Hit: har, bour, har, bour, wall; active: bour, sea; both: bour.
    assert found.precision[0] == pytest.approx(1 / 5)
    assert found.recall[0] == pytest.approx(1 / 2)
    assert found.f1[0] == pytest.approx(2 / 7)
    predicted, real = [0, 3, 3, 0, 0, 0, 3, 3, 1], [0, 0, 1, 0.2, 0.5, 0, 0, 0, 0]
    assert found.simulation[0] == pytest.approx(np.corrcoef(predicted, real)[0, 1], abs=1e-6)
    # No term: nothing is hit, what is active is missed, and a constant predicts nothing.
    assert np.isnan(found.precision[1])
    assert (found.recall[1], found.f1[1]) == (0.0, 0.0)
    assert np.isnan(found.simulation[1])


def test_grouped_pearson_equals_numpy_and_is_undefined_where_constant() -> None:
    rng = np.random.default_rng(0)
    group = rng.integers(0, 5, 400)
    x, y = rng.random(400) + group, rng.random(400)
    y += 0.3 * x
    x[group == 3], y[group == 4] = 0.1, 0.7
    found = grouped_pearson(x, y, group, 6)
    for g in range(3):
        assert found[g] == pytest.approx(np.corrcoef(x[group == g], y[group == g])[0, 1])
    assert np.isnan(found[3:]).all()


def test_columns_are_documented() -> None:
    text = Path(annotation_tables.__file__).with_name("COLUMNS.md").read_text(encoding="utf-8")
    documented = [re.findall(r"^\| `(\w+)` \|", part, re.M) for part in text.split("## ")[1:]]
    own = [
        [name for name in columns if name not in annotation_tables.KEY]
        for columns in (
            annotation_tables.EXPLANATIONS,
            annotation_tables.LABELS,
            annotation_tables.SCORES,
        )
    ]
    documents = [list(ANSWERS), list(COLUMNS)]
    assert documented == [list(annotation_tables.KEY), *own, *documents, LEDGER]
