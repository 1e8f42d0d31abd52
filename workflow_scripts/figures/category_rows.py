"""Rows of ``categories.csv`` that a figure shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from workflow_scripts.common.cli import UserError
from workflow_scripts.common.labellers import usual
from workflow_scripts.common.settings import Natural
from workflow_scripts.common.tables import read_csv
from workflow_scripts.comparison.settings import Labelling


class ShownRows(Labelling):
    """Which rows of a comparison a figure shows."""

    level: Literal["category", "class"] = "category"
    """categories, or the classes that they roll up into"""
    seed: Natural | None = None
    """seed of the crosscoders; none: the first"""


@dataclass(frozen=True)
class ShownPair:
    """Who labelled the rows shown, and the two models compared."""

    labeller: str
    baseline: str
    candidate: str


@dataclass(frozen=True)
class Row:
    """One row of a table, with typed access."""

    values: Mapping[object, object]

    def number(self, name: str) -> float:
        """Return a number, NaN where it is undefined."""
        return float(str(self.values[name]))

    def count(self, name: str) -> int:
        """Return a whole number."""
        return round(self.number(name))

    def text(self, name: str) -> str:
        """Return a text."""
        return str(self.values[name])


def rows_of(table: pd.DataFrame) -> list[Row]:
    """Return the rows of a table, in order."""
    return [Row(values) for values in table.to_dict("records")]


def choose(categories: Path, comparison: str, shown: ShownRows) -> tuple[pd.DataFrame, ShownPair]:
    """Return the tested rows of a comparison that are shown, maybe none, and what was chosen.

    Labels of documents that no latent has, as topics, give way to the usual labels of latents.

    Raises
    ------
    UserError
        If the table is missing, or has no row for the choice.
    """
    table = read_csv(categories)
    rows = table[table["comparison"] == comparison]
    known = list(rows["labeller"].unique())
    labeller = shown.labeller if shown.labeller in known else usual(known)
    rows = rows[(rows["labeller"] == labeller) & (rows["level"] == shown.level)]
    if labeller is None or rows.empty:
        raise UserError(f"{categories} has no row of {comparison}: check `comparisons`")
    seed = int(rows["seed"].iloc[0]) if shown.seed is None else shown.seed
    choice = ShownPair(labeller, str(rows["baseline"].iloc[0]), str(rows["candidate"].iloc[0]))
    rows = rows[(rows["seed"] == seed) & rows["tested"].astype(bool)]
    return rows.reset_index(drop=True), choice
