"""The stage's CSV tables: their columns in order, and how they are written and read."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from workflow_scripts.common import files
from workflow_scripts.common.cli import UserError

MISSING = "n/a"
COLUMNS = (
    "comparison",
    "kind",
    "baseline",
    "candidate",
    "seed",
    "labeller",
    "level",
    "name",
    "class",
    "tested",
    "n_baseline",
    "N_baseline",
    "n_candidate",
    "N_candidate",
    "share_baseline",
    "share_candidate",
    "percent_change",
    "low",
    "high",
    "p",
    "q",
    "count_sign",
    "detectable_down",
    "detectable_up",
    "labelled",
    "live",
    "unique",
    "unique_share",
    "unique_share_low",
    "unique_share_high",
    "reference_live",
    "reference_share",
    "detection_p",
    "detection_q",
    "others_p",
    "others_q",
    "detectable_share",
    "placebo_live",
    "placebo_unique",
    "placebo_share",
    "placebo_p",
    "placebo_change",
    "delta_norm",
    "delta_norm_low",
    "delta_norm_high",
    "anchored_change",
    "anchored_change_low",
    "anchored_change_high",
    "anchored_sign",
    "likelihood_gap",
    "likelihood_gap_low",
    "likelihood_gap_high",
    "direction",
    "votes",
    "verdict",
    "seeds",
    "seed_effect",
    "seed_low",
    "seed_high",
    "robust",
)
"""Columns of ``categories.csv``; ``COLUMNS.md`` says what each means."""


TEXT = ("comparison", "kind", "baseline", "candidate", "labeller", "level", "name", "class")
"""Columns that are text whatever they hold: a column of ``true`` must not turn into booleans."""


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, atomically; what is undefined is written as ``n/a``."""
    with files.atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, na_rep=MISSING, float_format="%.6g")


def read_csv(path: Path) -> pd.DataFrame:
    """Read a table of :func:`write_csv`; ``n/a`` is NaN in columns of numbers.

    Raises
    ------
    UserError
        If the file is missing or empty.
    """
    try:
        kinds = dict.fromkeys(TEXT, str)
        return pd.read_csv(path, keep_default_na=False, na_values=[MISSING], dtype=kinds)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: run the step that makes it") from None
    except pd.errors.EmptyDataError:
        raise UserError(f"{path} is empty: make it anew") from None


def change_text(change: float, n_baseline: int, n_candidate: int) -> str:
    """Return a percent change as shown to people; from zero there is no percentage."""
    if n_baseline == 0 or math.isnan(change):
        return f"n/a ({n_baseline} → {n_candidate})"
    return f"{change:+.1f} %"
