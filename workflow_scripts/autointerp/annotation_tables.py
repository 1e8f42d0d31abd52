"""The three tables that every annotator leaves, and how they are put together.

`explanations`, `labels`, `scores`: a row per latent, annotator and replicate, whatever happened;
`status` says what. A failed row holds an empty explanation and an empty category.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pandas as pd

from workflow_scripts.common import files

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


def write_table(path: Path, table: pd.DataFrame, columns: dict[str, str]) -> None:
    """Write ``table`` with exactly ``columns``, sorted by latent, annotator and replicate."""
    shaped = table.reset_index(drop=True).reindex(columns=list(columns)).astype(columns)
    ordered = shaped.sort_values(["latent", "annotator", "replicate"], kind="stable")
    files.write_parquet(path, ordered.reset_index(drop=True))
