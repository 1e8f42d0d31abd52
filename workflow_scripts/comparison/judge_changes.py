"""Judge which labels' text two models predict and represent differently: ``changes.csv``.

A row per comparison, seed, labeller and label: both effects with intervals and tests, the measures
that stand beside them, and the verdict. ``axes.py`` holds the tests, ``verdicts.py`` the rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from workflow_scripts.common import cli, files
from workflow_scripts.common.settings import Settings
from workflow_scripts.common.tables import write_csv
from workflow_scripts.comparison.axes import judge_behaviour, judge_representation
from workflow_scripts.comparison.behaviour import document_divergences, document_gaps
from workflow_scripts.comparison.label_sample import sample_labels
from workflow_scripts.comparison.label_text import (
    BESIDE,
    DIVERGENCE,
    LabelText,
    Measure,
    measure_label,
)
from workflow_scripts.comparison.settings import Judgement, LabelSample
from workflow_scripts.comparison.verdicts import verdict
from workflow_scripts.dataset.labels import by_labeller, read_labels

EFFECTS = ("behaviour", "representation")
COLUMNS = (
    *("comparison", "baseline", "candidate", "seed", "labeller", "label", "documents", "tokens"),
    *(f"{axis}{end}" for axis in EFFECTS for end in ("", "_low", "_high", "_q", "_least")),
    *(f"{measure}{end}" for measure in BESIDE for end in ("", "_low", "_high")),
    "verdict",
)
"""Columns of ``changes.csv``; ``COLUMNS.md`` says what each means."""


class JudgedPair(Settings):
    """Two models that are compared, and their weighed documents."""

    baseline: str
    """model before"""
    candidate: str
    """model after"""
    documents: dict[int, Path]
    """weighed documents by the crosscoder's seed; none where no crosscoder holds both models"""


def label_texts(
    labels: pd.Series[str], gaps: pd.DataFrame, weights: pd.DataFrame | None, confidence: float
) -> dict[str, LabelText]:
    """Return what two models make of each label's text, by label in alphabetic order.

    ``labels`` are by document; ``gaps`` and ``weights`` are indexed by document.
    """
    gaps_of = dict(list(gaps.groupby(labels.reindex(gaps.index))))
    weights_of = (
        {} if weights is None else dict(list(weights.groupby(labels.reindex(weights.index))))
    )
    names = sorted({str(name) for name in (*gaps_of, *weights_of)})
    none = None if weights is None else weights.iloc[:0]
    return {
        name: measure_label(
            name, gaps_of.get(name, gaps.iloc[:0]), weights_of.get(name, none), confidence
        )
        for name in names
    }


def rows_of(texts: Mapping[str, LabelText], rule: Judgement) -> Iterator[dict[str, object]]:
    """Yield each label's effects, measures and verdict."""
    behaviour = judge_behaviour(texts, rule)
    representation = judge_representation(texts, behaviour, rule)
    for label, text in texts.items():
        row: dict[str, object] = {
            "label": label,
            "documents": text.documents,
            "tokens": text.tokens,
        }
        effects = (behaviour[label], representation[label])
        for axis, effect in zip(EFFECTS, effects, strict=True):
            row |= effect.interval.columns(axis)
            row |= {f"{axis}_q": effect.q, f"{axis}_least": effect.least}
        for name in BESIDE:
            row |= text.ratios.get(name, Measure()).interval.columns(name)
        yield row | {"verdict": verdict(*effects)}


def change_table(
    pairs: Mapping[str, JudgedPair],
    labels: Mapping[str, pd.Series[str]],
    losses: pd.DataFrame,
    divergences: pd.DataFrame,
    rule: Judgement,
) -> pd.DataFrame:
    """Return the table of all comparisons."""
    rows = []
    for name, pair in pairs.items():
        models = (pair.baseline, pair.candidate)
        gaps = document_gaps(losses, *models)
        gaps[DIVERGENCE] = document_divergences(divergences, *models)
        documents: Mapping[int, Path | None] = pair.documents or {0: None}
        for seed, path in documents.items():
            weights = read_weights(path) if path else None
            for labeller, of_document in labels.items():
                key = {
                    "comparison": name,
                    "baseline": pair.baseline,
                    "candidate": pair.candidate,
                    "seed": seed,
                    "labeller": labeller,
                }
                texts = label_texts(of_document, gaps, weights, rule.confidence)
                rows += [key | row for row in rows_of(texts, rule)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def read_weights(path: Path) -> pd.DataFrame:
    """Return weighed documents, indexed by document."""
    return files.read_parquet(path).set_index("document")


def judge_changes(
    pairs: dict[str, JudgedPair],
    labels: list[Path],
    losses: Path,
    divergences: Path,
    sample: LabelSample,
    seed: int,
    rule: Judgement,
    output: Path,
) -> None:
    """Write which labels' text two models predict and represent differently.

    Parameters
    ----------
    pairs
        models and weighed documents of each comparison (JSON)
    labels
        tables of labels of the documents (Parquet)
    losses
        losses of each model on documents (Parquet)
    divergences
        how far apart the predictions of two models are on them (Parquet)
    seed
        seed of the choice of documents
    output
        table to write, a row per comparison, seed, labeller and label (CSV)
    """
    measured = files.read_parquet(losses)
    documents = np.unique(measured["document"].to_numpy(np.int64))
    known = sample_labels(read_labels(labels), documents, sample.documents_per_label, seed)
    apart = files.read_parquet(divergences)
    write_csv(output, change_table(pairs, by_labeller(known), measured, apart, rule))


main = cli.command(judge_changes)


if __name__ == "__main__":
    raise SystemExit(main())
