"""CSV tables: written in one form, and read back with names as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from workflow_scripts.common.cli import UserError
from workflow_scripts.common.files import atomic_path

MISSING = "n/a"
TEXT = (
    *("comparison", "kind", "baseline", "candidate", "labeller", "level", "name", "class"),
    *("category", "model", "label", "verdict"),
)
"""Columns that are text whatever they hold: a column of ``true`` must not turn into booleans."""


def write_csv(
    path: Path,
    rows: pd.DataFrame | Iterable[Mapping[str, object]],
    columns: Sequence[str] | None = None,
    missing: str = MISSING,
) -> None:
    """Write rows as CSV, atomically; floats get six digits, undefined values read ``missing``."""
    names = None if columns is None else list(columns)
    table = pd.DataFrame(rows if isinstance(rows, pd.DataFrame) else list(rows), columns=names)
    with atomic_path(path) as temporary:
        table.to_csv(
            temporary, index=False, na_rep=missing, float_format="%.6g", lineterminator="\n"
        )


def read_csv(
    path: Path, columns: Sequence[str] = (), missing: Sequence[str] = (MISSING,)
) -> pd.DataFrame:
    """Return a CSV table; ``missing`` values are NaN in columns of numbers.

    Raises
    ------
    UserError
        If the file is missing, is empty, or lacks one of ``columns``.
    """
    try:
        names = pd.read_csv(path, nrows=0).columns
        absent = {name: list(missing) for name in names if name != "label"}  # a label may be n/a
        table = pd.read_csv(
            path, keep_default_na=False, na_values=absent, dtype=dict.fromkeys(TEXT, str)
        )
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: run the step that makes it") from None
    except pd.errors.EmptyDataError:
        raise UserError(f"{path} is empty: run the step that makes it, or fill it") from None
    lacking = [name for name in columns if name not in table.columns]
    if lacking:
        raise UserError(f"{path} lacks the column {lacking[0]}: add it, or make the file again")
    return table
