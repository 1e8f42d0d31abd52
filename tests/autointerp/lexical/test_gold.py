"""The shipped lexicon's precision and recall on hand-written contexts of known category."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from numpy.typing import NDArray

from tests.autointerp.fixtures import Document, chat_document, plain_document, random_documents
from tests.common.test_taxonomy import SHIPPED
from workflow_scripts.autointerp.lexical import lexicon
from workflow_scripts.autointerp.windows import merge_words, read_windows
from workflow_scripts.common.taxonomy import Taxonomy, load_taxonomy

GOLD = SHIPPED.with_name("taxonomy_gold.yaml")
LATENT_ONLY = {"dialogue_structure", "morphology", "punctuation_and_layout", "names_and_places"}
"""Categories that show in where a latent fires, not in what a text says."""


def read_gold(path: Path = GOLD) -> tuple[list[Document], list[str]]:
    """Return the gold contexts and their categories."""
    documents, categories = [], []
    for entry in yaml.safe_load(path.read_text(encoding="utf-8"))["contexts"]:
        category = entry["category"]
        if "text" in entry:
            documents.append(plain_document(category, entry["text"]))
        else:
            documents.append(chat_document(category, entry["user"], entry["answer"]))
        categories.append(category)
    return documents, categories


def judge(documents: list[Document], taxonomy: Taxonomy) -> NDArray[np.float64]:
    """Return the evidence [documents, categories] with common words as background."""
    background = random_documents(100, {"none": ["thing"]})
    every = [*background, *documents]
    table = pa.table(
        {
            "pieces": [d.pieces for d in every],
            "template": [d.template for d in every],
            "role": [d.role for d in every],
        }
    )
    windows = read_windows(table)
    words = merge_words(windows)
    chosen = np.ones(len(every), np.bool_)
    matches = lexicon.match(windows, words, taxonomy, chosen)
    evidence = lexicon.window_evidence(matches, len(taxonomy.categories), len(background))
    return evidence[len(background) :]


@pytest.fixture(scope="module")
def judged() -> tuple[list[str], list[str]]:
    taxonomy = load_taxonomy(SHIPPED)
    documents, truth = read_gold()
    best = judge(documents, taxonomy).argmax(axis=1)
    return truth, [taxonomy.ids[i] for i in best]


def test_gold_covers_every_category_that_text_can_show() -> None:
    _, truth = read_gold()
    wanted = set(load_taxonomy(SHIPPED).ids) - LATENT_ONLY
    assert set(truth) == wanted
    assert min(Counter(truth).values()) >= 2


def test_precision_and_recall(judged: tuple[list[str], list[str]]) -> None:
    truth, named = judged
    hits = Counter(t for t, n in zip(truth, named, strict=True) if t == n)
    recall = {c: hits[c] / n for c, n in Counter(truth).items()}
    precision = {c: hits[c] / n for c, n in Counter(named).items()}
    wrong = [(t, n) for t, n in zip(truth, named, strict=True) if t != n]
    assert sum(hits.values()) / len(truth) >= 0.9, wrong
    assert sum(recall.values()) / len(recall) >= 0.85, wrong
    assert sum(precision.values()) / len(precision) >= 0.85, wrong
    assert min(recall.values()) > 0, wrong
