"""The three tables that every annotator leaves, and how they are put together.

`explanations`, `labels`, `scores`: a row per latent, annotator and replicate, whatever happened;
`status` says what. A failed row holds an empty explanation and an empty category.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workflow_scripts.common import files
from workflow_scripts.common.taxonomy import UNASSIGNED, Taxonomy

Status = Literal[
    "ok",
    "repaired",
    "reasked",
    "refused",
    "truncated",
    "filtered",
    "invalid",
    "transport_failed",
    "not_run",
]
GOOD: tuple[Status, ...] = ("ok", "repaired", "reasked")
STRATA = ("top", "quantile")
"""Where a latent fires most strongly, and evenly over the quantiles of where else it does."""
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


def write_table(path: Path, table: pd.DataFrame, name: str) -> None:
    """Write ``table`` with exactly the columns of ``name``, sorted by its key."""
    columns = TABLES[name]
    shaped = table.reset_index(drop=True).reindex(columns=list(columns)).astype(columns)
    ordered = shaped.sort_values(["latent", "annotator", "replicate"], kind="stable")
    files.write_parquet(path, ordered.reset_index(drop=True))


def write_tables(folder: Path, tables: Mapping[str, pd.DataFrame]) -> None:
    """Write all three tables into a folder."""
    for name in TABLES:
        write_table(folder / f"{name}.parquet", tables[name], name)


def gated(labels: pd.DataFrame, passed: NDArray[np.bool_], taxonomy: Taxonomy) -> pd.DataFrame:
    """Return labels with the gate applied: where it is not passed, a category is `unassigned`.

    The answer itself stays in `category_ungated`; a failed answer stays empty, and
    `uninterpretable` is an answer about the latent, which no gate can spoil.
    """
    answer = labels["category_ungated"].astype(str)
    stays = passed | answer.isin(["", "uninterpretable"])
    category = answer.where(stays, UNASSIGNED)
    classes = [taxonomy.class_of(name) if name else "" for name in category]
    return labels.assign(category=category, gate_passed=passed, **{"class": classes})
