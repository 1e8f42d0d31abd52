"""Scores of a whole crosscoder on activations whose truth is known, and their contract."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from workflow_scripts.crosscoder.model import Crosscoder, Weights
from workflow_scripts.latents.ownership import owned_by, owners
from workflow_scripts.latents.score_latents import latent_scores, true_categories
from workflow_scripts.latents.select_latents import count_clauses, decide
from workflow_scripts.latents.settings import Scoring, Selection
from workflow_scripts.latents.token_context import TokenContext

DOCUMENTS, LENGTH, D = 200, 10, 8
COLUMNS = Path("workflow_scripts/latents/COLUMNS.md")


@dataclass
class MemoryStore:
    """The part of an activation store that scoring needs."""

    x: NDArray[np.float32]

    def rows(self, split: str) -> NDArray[np.int64]:
        return np.arange(len(self.x)) if split == "score" else np.zeros(0, dtype=np.int64)

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return self.x[rows]

    def contiguous(
        self, split: str, batch: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        rows = self.rows(split)
        for first in range(0, len(rows), batch):
            yield rows[first : first + batch], self.x[rows[first : first + batch]]


def planted() -> tuple[MemoryStore, Crosscoder, TokenContext]:
    """Latents: 0 shared, 1 only in a, 2 only in b, 3 three times as strong in b, 4 dead."""
    rng = np.random.default_rng(0)
    tokens = DOCUMENTS * LENGTH
    f = rng.gamma(2.0, 1.0, (tokens, 4)) * (rng.random((tokens, 4)) < 0.25)
    directions = np.eye(D)[:4]
    strength = np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 3.0]])
    x = np.einsum("nj,jm,jd->nmd", f, strength, directions)
    x += 0.02 * rng.standard_normal(x.shape)
    decoder = np.zeros((5, 2, D), dtype=np.float32)
    decoder[:4] = np.einsum("jm,jd->jmd", strength, directions)
    decoder[4, :, 7] = 1.0
    encoder = np.zeros((5, 2, D), dtype=np.float32)
    own = [0, 0, 1, 0]
    encoder[np.arange(4), own] = directions
    weights = Weights(
        torch.from_numpy(encoder).flatten(1),
        torch.tensor([0.0, 0.0, 0.0, 0.0, -1.0]),
        torch.from_numpy(decoder).flatten(1),
        torch.zeros(2 * D),
        models=2,
    )
    crosscoder = Crosscoder(["a", "b"], weights, 0.2, torch.zeros(2, D), torch.ones(2), 1, {})
    category = (np.arange(tokens) // LENGTH % 2).astype(np.int16)
    context = TokenContext(
        ids=np.zeros(tokens, dtype=np.int32),
        document=np.repeat(np.arange(DOCUMENTS), LENGTH).astype(np.int32),
        position=np.tile(np.arange(LENGTH), DOCUMENTS).astype(np.int32),
        role=np.zeros(tokens, dtype=np.uint8),
        template=np.zeros(tokens, dtype=bool),
        category=category,
        row_starts=np.arange(0, tokens + 1, LENGTH),
        categories=["even", "odd"],
    )
    return MemoryStore(x.astype(np.float32)), crosscoder, context


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    store, crosscoder, context = planted()
    sources = {number: "web" if number % 4 else "chat" for number in range(DOCUMENTS)}
    return latent_scores(
        store,  # type: ignore[arg-type]
        crosscoder,
        context,
        Scoring(groups=20),
        sources=sources,
    )


def test_planted_ratios_come_back(table: pd.DataFrame) -> None:
    nu = table["nu_e_a_vs_b"].to_numpy()
    np.testing.assert_allclose(nu[[0, 1]], [1.0, 0.0], atol=0.02)
    np.testing.assert_allclose(nu[3], 3.0, atol=0.05)
    np.testing.assert_allclose(table["nu_e_b_vs_a"].to_numpy()[[0, 2, 3]], [1, 0, 1 / 3], atol=0.02)


def test_only_exclusive_latents_are_unique(table: pd.DataFrame) -> None:
    """The rescaled latent is shared, though its norms differ by three."""
    rule = Selection()
    chosen = decide(table, ["a", "b"], rule)
    assert chosen["unique_to"].tolist() == ["", "a", "b", ""]
    counts = count_clauses(table, ["a", "b"], rule)
    assert counts["a_vs_b"]["live"] == 4
    assert counts["a_vs_b"]["fdr"] == 1
    strict = decide(table, ["a", "b"], Selection(delta_norm=0.9))
    assert strict["unique_to"].tolist() == ["", "a", "b", ""]


def test_a_latent_of_both_in_other_directions_names_both() -> None:
    claims = pd.DataFrame({"unique_a_vs_b": [0, 1, 0, 1], "unique_b_vs_a": [0, 0, 1, 1]})
    unique_to = owners(claims, ["a", "b"])
    assert unique_to.tolist() == ["", "a", "b", "a+b"]
    assert owned_by(unique_to, "a").tolist() == [False, True, False, True]
    assert owned_by(unique_to, "b").tolist() == [False, False, True, True]


def test_of_three_models_one_must_differ_from_all_others() -> None:
    pairs = ["a_vs_b", "a_vs_c", "b_vs_a", "b_vs_c", "c_vs_a", "c_vs_b"]
    claims = pd.DataFrame(False, index=range(3), columns=[f"unique_{pair}" for pair in pairs])
    claims.loc[0, ["unique_a_vs_b"]] = True
    claims.loc[1, ["unique_a_vs_b", "unique_a_vs_c"]] = True
    claims.loc[2, ["unique_a_vs_b", "unique_a_vs_c", "unique_c_vs_a", "unique_c_vs_b"]] = True
    assert owners(claims, ["a", "b", "c"]).tolist() == ["", "a", "a+c"]


def test_a_name_within_a_name_is_another() -> None:
    unique_to = pd.Series(["it", "it_placebo", "it_placebo+pt", ""])
    assert owned_by(unique_to, "it").tolist() == [True, False, False, False]
    assert owned_by(unique_to, "pt").tolist() == [False, False, True, False]


def test_undefined_stays_undefined(table: pd.DataFrame) -> None:
    """A dead latent, and one whose own direction is zero, have a status and no number."""
    assert table["status_a_vs_b"].tolist()[4] == "dead"
    assert np.isnan(table["nu_e_a_vs_b"][4])
    assert table["status_a_vs_b"][2] == "undefined_beta"
    assert np.isnan(table["p_a_vs_b"][2])


def test_true_category_needs_half_of_the_normalised_mass() -> None:
    mass = np.array([[9.0, 1.0, 0.0], [5.0, 5.0, 5.0], [0.0, 0.0, 0.0]])
    names, shares = true_categories(mass, np.array([100, 10, 10]), ["x", "y"])
    assert names == ["y", "none", "none"]
    np.testing.assert_allclose(shares[:2], [0.1 / 0.19, 0.5 / 1.05], rtol=1e-9)
    names, _ = true_categories(mass, np.array([10, 10, 1000]), ["x", "y"])
    assert names == ["x", "none", "none"]


def test_mass_is_shared_out_by_place_and_source(table: pd.DataFrame) -> None:
    store, crosscoder, context = planted()
    f = crosscoder.encode(torch.from_numpy(store.x)).double().numpy()
    total = f.sum(0)
    live = total > 0
    masks = {
        "position_share_1_8": (context.position > 0) & (context.position < 9),
        "position_share_9_64": (context.position >= 9) & (context.position < 65),
        "source_share_chat": context.document % 4 == 0,
        "source_share_web": context.document % 4 > 0,
    }
    for name, mask in masks.items():
        usable = mask | (context.position == 0) if name.endswith("1_8") else mask
        expected = f[usable].sum(0)[live] / total[live]
        np.testing.assert_allclose(table.loc[live, name], expected, rtol=1e-6, err_msg=name)
    web_and_chat = table["source_share_chat"] + table["source_share_web"]
    np.testing.assert_allclose(web_and_chat[live], 1)


def test_columns_are_documented(table: pd.DataFrame) -> None:
    """Every column of the table stands in COLUMNS.md, and every column there exists."""
    told = {
        name
        for line in COLUMNS.read_text(encoding="utf-8").split("\n# ")[0].splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`([^`]+)`", line.split("|")[1])
    }
    generic = {
        re.sub(r"_(a|b)_vs_(a|b)", "_<own>_vs_<other>", column).replace("_a_b", "_<a>_<b>")
        for column in table.columns
    }
    generic = {re.sub(r"^source_share_.*$", "source_share_<source>", name) for name in generic}
    generic = {re.sub(r"^decoder_norm_[ab]$", "decoder_norm_<m>", name) for name in generic}
    assert told == generic
