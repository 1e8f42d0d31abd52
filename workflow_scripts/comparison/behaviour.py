"""The likelihood gap: how much better one model predicts a category's text than the other."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from workflow_scripts.common import statistics
from workflow_scripts.common.intervals import Interval
from workflow_scripts.common.tables import MISSING, read_csv
from workflow_scripts.comparison.counts import Level

COLUMNS = ("model", "category", "documents", "tokens", "nll", "nll_se")


def read_behaviour(path: Path | None) -> pd.DataFrame:
    """Return the table of likelihoods; without a file, an empty one.

    Raises
    ------
    UserError
        If a table is missing or lacks a column.
    """
    if path is None:
        return pd.DataFrame(columns=list(COLUMNS))
    return read_csv(path, COLUMNS, missing=("", MISSING))


def likelihood_gaps(
    behaviour: pd.DataFrame,
    baseline: str,
    candidate: str,
    level: Level,
    class_of: Callable[[str], str],
    confidence: float,
) -> dict[str, Interval]:
    """Return the baseline's minus the candidate's nats per token, relative to the median gap.

    Positive: the candidate predicts the text better. The median over categories is taken off,
    since a fine-tune shifts the likelihood of everything. The interval takes the two models'
    errors as independent; both read the same documents, so it is wider than it need be.
    """
    if behaviour.empty:
        return {}
    rows = behaviour.assign(name=behaviour["category"])
    if level == "class":
        rows["name"] = rows["category"].map(class_of)
    before = _pooled(rows[rows["model"] == baseline])
    after = _pooled(rows[rows["model"] == candidate])
    both = before.join(after, lsuffix="_before", rsuffix="_after", how="inner")
    if both.empty:
        return {}
    gap = both["nll_before"] - both["nll_after"]
    error = np.hypot(both["nll_se_before"], both["nll_se_after"])
    relative = gap - float(gap.median())
    return {
        str(name): statistics.normal_interval(float(relative[name]), float(error[name]), confidence)
        for name in both.index
        if not math.isnan(float(relative[name]))
    }


def _pooled(rows: pd.DataFrame) -> pd.DataFrame:
    """Return mean and standard error per name, over documents of all its categories."""
    share = rows["documents"] / rows.groupby("name")["documents"].transform("sum")
    parts = pd.DataFrame(
        {
            "name": rows["name"],
            "nll": share * rows["nll"],
            "variance": (share * rows["nll_se"]) ** 2,
        }
    )
    sums = parts.groupby("name")[["nll", "variance"]].sum(min_count=1)
    return pd.DataFrame({"nll": sums["nll"], "nll_se": np.sqrt(sums["variance"])})
