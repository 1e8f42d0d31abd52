"""Which documents the page shows, and how much of them."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from workflow_scripts.common import files
from workflow_scripts.figures import telling_documents as telling


def weights(distances: dict[int, float]) -> pd.DataFrame:
    """Return weighed documents of given relative distances."""
    table = pd.DataFrame(list(distances.items()), columns=["document", "difference"])
    return table.assign(energy=1.0)


def test_documents_rank_by_distance_and_by_the_gap_of_their_label() -> None:
    labels = pd.DataFrame({"document": [1, 2, 3, 4, 5, 9], "label": ["a"] * 5 + ["b"]})
    distances = weights({1: 0.9, 2: 0.8, 3: 0.7, 4: 0.95, 5: 0.1, 9: 0.2})
    gaps = pd.Series({1: -2.0, 2: -3.0, 3: 0.5, 5: -1.0})  # 4 and 9 were not measured
    table = telling.telling_documents(labels, distances, gaps)
    assert table.loc[table["label"] == "a", "document"].tolist() == [2, 1, 5]
    assert table.loc[table["label"] == "b", "document"].tolist() == [9]
    assert table["gap"].isna().tolist() == [False, False, False, True]


@pytest.mark.parametrize("chat", [False, True])
def test_an_excerpt_is_the_beginning_on_one_line(tmp_path: Path, chat: bool) -> None:
    text = "Sorry,\n  no. " + "word " * 100
    messages = json.dumps([{"role": "user", "content": text}]) if chat else ""
    row = {"document": 7, "text": "" if chat else text, "messages": messages}
    files.write_parquet(tmp_path / "documents.parquet", pd.DataFrame([row]))
    chosen = pd.DataFrame({"document": [7], "label": ["a"]})
    table = telling.with_excerpts(chosen, [tmp_path / "documents.parquet"])
    (excerpt,) = table["excerpt"]
    assert len(excerpt) == telling.LONGEST
    assert excerpt.startswith(("user: " if chat else "") + "Sorry, no. word word")
    assert excerpt.endswith("…")
