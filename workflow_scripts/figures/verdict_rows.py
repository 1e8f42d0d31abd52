"""Rows of ``changes.csv``: both effects and the verdict of each label, as the page shows them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from workflow_scripts.common.tables import read_csv
from workflow_scripts.comparison.verdicts import CANNOT_TELL, UNCHANGED, VERDICTS

COLUMNS = (
    *("comparison", "baseline", "candidate", "seed", "labeller", "label", "documents", "verdict"),
    *("behaviour", "behaviour_low", "behaviour_high", "behaviour_q", "behaviour_least"),
    *("representation", "representation_low", "representation_high", "representation_q"),
    "representation_least",
)
"""Columns that the page and its first figure read."""
ORDER = {verdict: place for place, verdict in enumerate(VERDICTS)}
QUIET = (UNCHANGED, CANNOT_TELL)
"""Verdicts that call no change."""


def read_changes(path: Path) -> pd.DataFrame:
    """Return the table of changes.

    Raises
    ------
    UserError
        If it is missing or lacks a column.
    """
    return read_csv(path, COLUMNS)


def answering(changes: pd.DataFrame, comparison: str, labeller: str) -> pd.DataFrame:
    """Return the rows that one comparison shows, maybe none: the first seed, changes first.

    They are those of ``labeller``, or of the comparison's first one where it has none.
    """
    rows = changes[changes["comparison"] == comparison]
    if rows.empty:
        return rows
    own = rows["labeller"] == labeller
    rows = rows[own if own.any() else rows["labeller"] == rows["labeller"].iloc[0]]
    rows = rows[rows["seed"] == rows["seed"].iloc[0]]
    keys = pd.DataFrame(
        {
            "verdict": rows["verdict"].map(ORDER),
            "size": -rows["behaviour"].astype(float).abs().fillna(0),
            "label": rows["label"],
        }
    ).sort_values(["verdict", "size", "label"])
    ordered: pd.DataFrame = rows.loc[keys.index]
    return ordered
