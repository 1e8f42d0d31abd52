"""Paired gaps of likelihood, document by document."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from workflow_scripts.comparison.behaviour import document_gaps

DOCUMENTS = 300


@pytest.fixture(scope="module")
def better() -> list[np.ndarray]:
    """By how much the candidate predicts each answer token better, document by document."""
    rng = np.random.default_rng(0)
    return [
        rng.normal(0.3 * (i % 2), 0.2, length)
        for i, length in enumerate(rng.integers(1, 40, DOCUMENTS))
    ]


@pytest.fixture(scope="module")
def losses(better: list[np.ndarray]) -> pd.DataFrame:
    """Losses whose hardness differs far more than what either model makes of it."""
    rng = np.random.default_rng(1)
    parts = []
    for number, gain in enumerate(better):
        hardness = rng.normal(4, 2, len(gain)) + rng.normal(3, 1)
        for model, own in (("it", hardness), ("simpo", hardness - gain)):
            values = own.astype(np.float32)
            parts.append((3 * number, model, len(gain), values))
    table = pd.DataFrame(parts, columns=["document", "model", "tokens", "losses"])
    return table.sample(frac=1, random_state=0)


def test_gaps_are_taken_token_by_token(losses: pd.DataFrame, better: list[np.ndarray]) -> None:
    gaps = document_gaps(losses, "it", "simpo").sort_index()
    assert gaps.index.tolist() == [3 * i for i in range(DOCUMENTS)]
    assert gaps["tokens"].tolist() == [len(gain) for gain in better]
    assert gaps["gap"].to_numpy() == pytest.approx([gain.mean() for gain in better], abs=1e-5)
    spread = [np.abs(gain).mean() for gain in better]
    assert gaps["spread"].to_numpy() == pytest.approx(spread, abs=1e-5)


def test_the_other_way_round_the_sign_turns(losses: pd.DataFrame) -> None:
    gaps, turned = document_gaps(losses, "it", "simpo"), document_gaps(losses, "simpo", "it")
    both = gaps.join(turned, rsuffix="_turned")
    assert (both["gap"] == -both["gap_turned"]).all()
    assert (both["spread"] == both["spread_turned"]).all()


def test_only_common_documents_count(losses: pd.DataFrame) -> None:
    half = losses[(losses["model"] == "it") | (losses["document"] < 90)]
    assert sorted(document_gaps(half, "it", "simpo").index) == list(range(0, 90, 3))
    assert document_gaps(losses, "it", "absent").empty
    assert list(document_gaps(losses, "it", "absent").columns) == ["tokens", "gap", "spread"]


def test_a_model_against_itself_has_no_gap(losses: pd.DataFrame) -> None:
    gaps = document_gaps(losses, "it", "it")
    assert (gaps[["gap", "spread"]] == 0).all(axis=None)
