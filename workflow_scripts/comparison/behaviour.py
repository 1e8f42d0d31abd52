"""The likelihood gap: how much better one model predicts a label's text than the other.

Both models read the same documents, so that gaps are taken document by document: how hard a text
is falls out, and intervals are over documents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workflow_scripts.common import files
from workflow_scripts.common.intervals import Interval, percentile_interval, resample
from workflow_scripts.common.labellers import TRUE
from workflow_scripts.comparison.counts import Level
from workflow_scripts.dataset.labels import by_labeller, read_labels

COLUMNS = ("document", "model", "tokens", "nll")
"""Columns of ``losses.parquet``; ``COLUMNS.md`` says what each means."""
DRAWS = 2000


@dataclass(frozen=True)
class Behaviour:
    """How well models predict documents, and what these are."""

    losses: pd.DataFrame
    labels: dict[str, pd.Series[str]]
    """Each labeller's labels by document."""

    def gaps(
        self, labeller: str, baseline: str, candidate: str, confidence: float
    ) -> dict[str, Interval]:
        """Return the likelihood gap of each of a labeller's labels; empty where none is known."""
        if labeller not in self.labels:
            return {}
        gaps = document_gaps(self.losses, baseline, candidate)
        return label_gaps(gaps, self.labels[labeller], confidence)


def read_behaviour(losses: Path | None, labels: Path | None) -> Behaviour:
    """Return losses and labels of documents; without files, empty ones.

    Raises
    ------
    UserError
        If a table is missing.
    """
    if losses is None or labels is None:
        return Behaviour(pd.DataFrame(columns=list(COLUMNS)), {})
    return Behaviour(
        files.read_parquet(losses, columns=list(COLUMNS)), by_labeller(read_labels(labels))
    )


def document_gaps(losses: pd.DataFrame, baseline: str, candidate: str) -> pd.Series[float]:
    """Return the baseline's minus the candidate's nats per answer token, by document.

    Positive: the candidate predicts the text better.
    """
    before, after = (
        losses[losses["model"] == model].set_index("document")["nll"]
        for model in (baseline, candidate)
    )
    gaps: pd.Series[float] = (before - after).dropna()
    return gaps


def label_gaps(
    gaps: pd.Series[float], labels: pd.Series[str], confidence: float
) -> dict[str, Interval]:
    """Return the mean gap over each label's documents, with a bootstrap interval over them.

    Of a single document there is no interval.
    """
    named = gaps[gaps.index.isin(labels.index)]
    return {
        str(label): mean_of_documents(np.asarray(of_label, dtype=np.float64), confidence)
        for label, of_label in named.groupby(labels[named.index].to_numpy())
    }


def mean_of_documents(values: NDArray[np.float64], confidence: float) -> Interval:
    """Return a mean with its percentile bootstrap interval over documents."""
    count = len(values)
    samples: NDArray[np.float64] = _drawn(count) @ values / count if count > 1 else np.zeros(0)
    return percentile_interval(float(values.mean()), samples, confidence)


@lru_cache(maxsize=8)
def _drawn(documents: int) -> NDArray[np.int64]:
    """Return how often each document is drawn in each sample: labels of one size share it."""
    return resample(documents, DRAWS, documents)


def likelihood_gaps(
    behaviour: Behaviour,
    baseline: str,
    candidate: str,
    level: Level,
    class_of: Callable[[str], str],
    confidence: float,
) -> dict[str, Interval]:
    """Return the likelihood gap of each true category or class, relative to the median gap.

    The median over names is taken off, since a fine-tune shifts the likelihood of everything; the
    intervals take it as known.
    """
    labels = dict(behaviour.labels)
    if TRUE in labels and level == "class":
        labels[TRUE] = labels[TRUE].map(class_of)
    gaps = Behaviour(behaviour.losses, labels).gaps(TRUE, baseline, candidate, confidence)
    if not gaps:
        return {}
    median = float(np.median([gap.estimate for gap in gaps.values()]))
    return {name: gap.map(1.0, -median) for name, gap in gaps.items()}
