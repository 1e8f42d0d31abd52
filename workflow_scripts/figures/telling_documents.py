"""The most telling documents of each label: those on which the two models are furthest apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from workflow_scripts.common import files
from workflow_scripts.comparison.behaviour import document_gaps
from workflow_scripts.dataset.documents import read_contents
from workflow_scripts.dataset.labels import read_labels

SHOWN = 3
"""Documents of a label that the page shows."""
LONGEST = 300
"""Characters of a document that the page shows."""


def telling_documents(
    labels: pd.DataFrame, weights: pd.DataFrame, gaps: pd.Series[float]
) -> pd.DataFrame:
    """Return each label's most telling documents: ``label``, ``document``, ``distance``, ``gap``.

    ``labels`` are those of one labeller. ``distance`` is relative; ``gaps``, by document, are in
    nats per token. Documents rank by both, by the gap in the direction of their label's mean; those
    whose likelihood was not measured, by the distance alone, behind the others.
    """
    frame = labels[["document", "label"]].merge(weights, on="document")
    frame["distance"] = frame["difference"] / frame["energy"]
    frame["gap"] = frame["document"].map(gaps)
    by_label = frame.groupby("label", sort=False)
    frame["along"] = frame["gap"] * np.sign(by_label["gap"].transform("mean"))
    frame["rank"] = by_label["along"].rank(pct=True).fillna(-1)
    frame["rank"] += by_label["distance"].rank(pct=True)
    ordered = frame.sort_values(["label", "rank", "document"], ascending=[True, False, True])
    first = ordered.groupby("label", sort=False).head(SHOWN)
    return first[["label", "document", "distance", "gap"]].reset_index(drop=True)


def with_excerpts(telling: pd.DataFrame, documents: Sequence[Path]) -> pd.DataFrame:
    """Return the table with each document's beginning as ``excerpt``."""
    contents = read_contents(documents, telling["document"].tolist())
    texts = [excerpt(contents.get(int(number), "")) for number in telling["document"]]
    return telling.assign(excerpt=texts)


def excerpt(text: str) -> str:
    """Return the beginning of a text, white space as single blanks."""
    words = " ".join(text.split())
    return words if len(words) <= LONGEST else f"{words[: LONGEST - 1]}…"


def read_telling(
    labels: Sequence[Path],
    labeller: str,
    weights: Path,
    losses: Path,
    documents: Sequence[Path],
    models: tuple[str, str],
) -> pd.DataFrame:
    """Return the most telling documents of a labeller's labels, with excerpts.

    Raises
    ------
    UserError
        If a table is missing.
    """
    known = read_labels(labels)
    telling = telling_documents(
        known[known["labeller"] == labeller],
        files.read_parquet(weights, ["document", "difference", "energy"]),
        document_gaps(files.read_parquet(losses), *models)["gap"],
    )
    return with_excerpts(telling, documents)
