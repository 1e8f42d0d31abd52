"""Labels of documents, as later steps read them: each labeller has its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from workflow_scripts.common import files

COLUMNS = {"document": "int64", "labeller": "str", "label": "str"}


def read_labels(paths: Sequence[Path]) -> pd.DataFrame:
    """Return the labels of all tables: ``document``, ``labeller``, ``label``, a row per label.

    Raises
    ------
    UserError
        If a file is missing or no Parquet file.
    """
    tables = [files.read_parquet(path, columns=list(COLUMNS)) for path in paths]
    return pd.concat(tables, ignore_index=True)


def by_labeller(table: pd.DataFrame) -> dict[str, pd.Series[str]]:
    """Return each labeller's labels, by number of document; documents without one are left out."""
    return {
        str(labeller): rows.set_index("document")["label"]
        for labeller, rows in table.groupby("labeller", sort=True)
    }
