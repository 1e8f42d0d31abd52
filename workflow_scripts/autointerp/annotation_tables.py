"""The three tables that every annotator leaves: their columns, the gate, and how they are written.

`explanations`, `labels`, `scores`: a row per latent, annotator and replicate, even where an
answer failed; `status` says how it ended. A failed row holds an empty explanation and category.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workflow_scripts.common import files
from workflow_scripts.common.taxonomy import UNASSIGNED, UNINTERPRETABLE, Taxonomy

Status = Literal[
    "ok",
    "repaired",
    "reasked",
    "refused",
    "truncated",
    "empty",
    "filtered",
    "invalid",
    "transport_failed",
    "not_run",
]
GOOD: tuple[Status, ...] = ("ok", "repaired", "reasked")
OK, INSUFFICIENT, NOT_RUN = "ok", "insufficient_examples", "not_run"
"""Statuses: there are enough contexts; there are too few; no annotator has judged it."""
ROW = ["latent", "annotator", "replicate"]
"""Columns that name a row."""
KEY = {
    "latent": "int64",
    "annotator": "str",
    "annotator_kind": "str",
    "llm_used": "bool",
    "replicate": "int64",
    "status": "str",
}
EXPLANATIONS = {**KEY, "explanation": "str", "terms": "str"}
LABELS = {
    **KEY,
    "category": "str",
    "class": "str",
    "category_ungated": "str",
    "score": "float64",
    "margin": "float64",
    "gate_passed": "bool",
}
SCORES = {
    **KEY,
    "balanced_accuracy": "float64",
    "balanced_accuracy_low": "float64",
    "balanced_accuracy_high": "float64",
    "auroc": "float64",
    "auroc_low": "float64",
    "auroc_high": "float64",
    "auroc_random": "float64",
    "auroc_hard": "float64",
    "auroc_top": "float64",
    "auroc_quantile": "float64",
    "fuzz_auroc": "float64",
    "token_precision": "float64",
    "token_recall": "float64",
    "token_f1": "float64",
    "simulation_r": "float64",
    "null_auroc": "float64",
    "positives": "int64",
    "negatives": "int64",
    "gate_passed": "bool",
}
TABLES = {"explanations": EXPLANATIONS, "labels": LABELS, "scores": SCORES}


def gate_labels(
    labels: pd.DataFrame, passed: NDArray[np.bool_], taxonomy: Taxonomy
) -> pd.DataFrame:
    """Return labels with the gate applied: where it is not ``passed``, `unassigned`.

    The answer itself stays in `category_ungated`. A failed answer stays empty, and
    `uninterpretable` is an answer about the latent, which no gate can spoil.
    """
    answer = labels["category_ungated"].astype(str)
    category = answer.mask(~answer.isin(["", UNINTERPRETABLE]) & ~passed, UNASSIGNED)
    classes = [taxonomy.class_of(name) if name else "" for name in category]
    return labels.assign(gate_passed=passed, category=category, **{"class": classes})


def write_tables(folder: Path, tables: Mapping[str, pd.DataFrame]) -> None:
    """Write tables, by name, into a folder."""
    for name, table in tables.items():
        write_table(folder / f"{name}.parquet", table, name)


def write_table(path: Path, table: pd.DataFrame, name: str) -> None:
    """Write a table with exactly the columns of ``name``, ordered by what names a row."""
    columns = TABLES[name]
    shaped = table.reset_index(drop=True).reindex(columns=list(columns)).astype(columns)
    files.write_parquet(path, shaped.sort_values(ROW, kind="stable").reset_index(drop=True))
