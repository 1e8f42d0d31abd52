"""The lexical annotator finds planted concepts, says what it is, and fails the null."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.autointerp import fixtures
from tests.common.test_taxonomy import SHIPPED
from workflow_scripts.autointerp import explain_lexical, select_contexts
from workflow_scripts.autointerp.annotation_tables import EXPLANATIONS, LABELS, SCORES
from workflow_scripts.autointerp.lexical.terms import PREFIX, log_odds_z

_VERBS = (
    "walk sing jump read paint draw cook sail climb teach mourn drift gleam howl knit launch mend "
    "nod open paddle rest shout turn wait yell answer boil crawl dream float grow hang invent join "
    "kick lean melt plant roast sweep"
)
VERBS = _VERBS.split()
CONCEPTS: dict[str, Sequence[str]] = {
    "sea": ("anchor", "harbour", "sailor", "whale"),
    "code": ("return", "def", "import", "lambda"),
    "verbs": [f"{stem}ing" for stem in VERBS],
    "refuse": ("illegal", "harmful", "unsafe", "dangerous"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lexical")
    documents = fixtures.random_documents(1500, CONCEPTS)
    latents = [
        fixtures.on_words("one word", "anchor"),
        fixtures.on_words("four words", *CONCEPTS["sea"]),
        fixtures.on_suffix("suffix", "ing"),
        fixtures.on_words("code", *CONCEPTS["code"]),
        fixtures.Planted("everywhere", lambda _, i: float(i == 5)),
        fixtures.on_words("nowhere", "zebra"),
        fixtures.on_words("another word", "whale"),
        fixtures.on_words("refuse", *CONCEPTS["refuse"]),
    ]
    examples, background = fixtures.make_examples(documents, latents, folder)
    annotate(folder, examples, background)
    return folder


def annotate(folder: Path, examples: Path, background: Path, *flags: str) -> None:
    """Run both steps as Snakemake does."""
    code = select_contexts.main(
        [
            *("--examples", str(examples), "--seed", "0"),
            *("--contexts", str(folder / "contexts.parquet")),
            *("--latents", str(folder / "latents.parquet")),
        ]
    )
    assert code == 0
    explain_contexts(folder, background, *flags)


def explain_contexts(folder: Path, background: Path, *flags: str) -> None:
    """Run the second step alone."""
    code = explain_lexical.main(
        [
            *("--contexts", str(folder / "contexts.parquet")),
            *("--latents", str(folder / "latents.parquet")),
            *("--background", str(background), "--taxonomy", str(SHIPPED)),
            *("--seed", "0", "--output", str(folder / "lexical"), *flags),
        ]
    )
    assert code == 0


MANY = {f"concept {i}": (f"{stem}or", f"{stem}ax") for i, stem in enumerate(VERBS[:20])}
"""Concepts without a word in common."""


def make_many(folder: Path) -> tuple[Path, Path]:
    """Write the examples of a latent for each of `MANY`, and a background."""
    documents = fixtures.random_documents(1600, MANY, words=24)
    latents = [fixtures.on_words(name, *words) for name, words in MANY.items()]
    return fixtures.make_examples(documents, latents, folder)


def _table(run: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(run / "lexical" / f"{name}.parquet").set_index("latent")


def test_every_latent_has_one_row_that_says_lexical(run: Path) -> None:
    for name, columns in (("explanations", EXPLANATIONS), ("labels", LABELS), ("scores", SCORES)):
        table = pd.read_parquet(run / "lexical" / f"{name}.parquet")
        assert list(table.columns) == list(columns)
        assert table["latent"].tolist() == list(range(8))
        assert (table["annotator_kind"] == "lexical").all()
        assert not table["llm_used"].any()


def test_explanations_name_the_planted_words(run: Path) -> None:
    text = _table(run, "explanations")["explanation"]
    assert text[0] == PREFIX + '"anchor"'
    for word in CONCEPTS["sea"]:
        assert f'"{word}"' in text[1]
    assert '"-ing"' in text[2]


def test_planted_concepts_are_detected_and_pass_the_gate(run: Path) -> None:
    scores = _table(run, "scores")
    assert (scores.loc[[0, 1, 2, 3, 6, 7], "auroc"] > 0.95).all()
    assert scores.loc[[0, 1, 2, 3, 6, 7], "gate_passed"].all()
    assert (scores["auroc_low"].dropna() <= scores["auroc"].dropna()).all()
    assert abs(scores["null_auroc"].mean() - 0.5) < 0.1


def test_a_latent_without_examples_has_a_status_and_nothing_else(run: Path) -> None:
    scores, labels = _table(run, "scores"), _table(run, "labels")
    explanations = _table(run, "explanations")
    for latent in (4, 5):
        # One fires in every document (no negatives), the other in none (no positives).
        assert labels.loc[latent, "status"] == "insufficient_examples"
        assert labels.loc[latent, "category"] == "unassigned"
        assert explanations.loc[latent, "explanation"] == ""
        assert np.isnan(scores["auroc"][latent])


def test_categories_come_from_the_lexicon(run: Path) -> None:
    labels = _table(run, "labels")
    assert labels.loc[3, "category"] == "source_code"
    assert labels.loc[3, "class"] == "technical"
    assert labels.loc[2, "category"] == "morphology"
    assert labels.loc[0, "category"] == "unassigned"
    # The register matters: these words refuse in a chat only.
    assert labels.loc[7, "category"] == "unassigned"


def test_summary_says_that_no_llm_was_used(run: Path) -> None:
    summary = json.loads((run / "lexical" / "summary.json").read_text())
    assert summary["llm_used"] is False
    assert summary["statuses"] == {"ok": 6, "insufficient_examples": 2}
    assert summary["null_passed"] <= 0.1


def test_permuted_explanations_rarely_pass_the_gate(tmp_path: Path) -> None:
    examples, background = make_many(tmp_path)
    annotate(tmp_path, examples, background)
    own = _table(tmp_path, "scores")
    # Each latent learns from another one's training contexts, and is scored on its own.
    contexts = pd.read_parquet(tmp_path / "contexts.parquet")
    train = contexts["part"] == "train"
    contexts.loc[train, "latent"] = (contexts.loc[train, "latent"] + 1) % len(MANY)
    contexts.to_parquet(tmp_path / "contexts.parquet", index=False)
    explain_contexts(tmp_path, background)
    permuted = _table(tmp_path, "scores")
    assert len(permuted) == len(MANY)
    assert own["gate_passed"].mean() >= 0.9
    assert permuted["gate_passed"].mean() <= 0.1
    summary = json.loads((tmp_path / "lexical" / "summary.json").read_text())
    assert summary["null_passed"] <= 0.1


def test_same_seed_same_bytes(run: Path, tmp_path: Path) -> None:
    annotate(tmp_path, run / "examples.parquet", run / "background.parquet")
    for name in ("explanations", "labels", "scores"):
        first = (run / "lexical" / f"{name}.parquet").read_bytes()
        assert first == (tmp_path / "lexical" / f"{name}.parquet").read_bytes()


def test_log_odds_by_hand() -> None:
    # y = 3 of 10 against b = 5 of 1000; prior 50 * 8 / 1010.
    prior = 50 * 8 / 1010
    top, bottom = 3 + prior, 5 + prior
    delta = math.log(top / (60 - top)) - math.log(bottom / (1050 - bottom))
    expected = delta / math.sqrt(1 / top + 1 / bottom)
    one = np.array([3.0]), np.array([10.0]), np.array([5.0])
    assert log_odds_z(*one, 1000.0)[0] == pytest.approx(expected)


def test_latents_without_enough_contexts_leave_their_status_alone(tmp_path: Path) -> None:
    texts = fixtures.random_documents(200, CONCEPTS)
    planted = [fixtures.on_words("sea", *CONCEPTS["sea"])]
    examples, background = fixtures.make_examples(texts, planted, tmp_path, background=50)
    contexts, latents = tmp_path / "contexts.parquet", tmp_path / "latents.parquet"
    files = ["--contexts", str(contexts), "--latents", str(latents), "--seed", "0"]
    assert select_contexts.main([*files, "--examples", str(examples)]) == 0
    pd.read_parquet(latents).assign(status="insufficient_examples").to_parquet(latents)
    more = ["--background", str(background), "--taxonomy", str(SHIPPED), "--output", str(tmp_path)]
    assert explain_lexical.main([*files, *more]) == 0
    scores = pd.read_parquet(tmp_path / "scores.parquet")
    assert scores["status"].tolist() == ["insufficient_examples"]
    assert scores[["auroc", "auroc_hard", "token_f1"]].isna().all(axis=None)
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert summary["auroc_hard_median"] is None
