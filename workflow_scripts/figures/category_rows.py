"""Rows of ``categories.csv`` that a figure shows."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from workflow_scripts.common.cli import UserError
from workflow_scripts.common.labels import usual


@dataclass(frozen=True)
class Choice:
    """Which rows are shown."""

    comparison: str
    labeller: str
    level: str
    seed: int
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


TEXT = ("comparison", "kind", "baseline", "candidate", "labeller", "level", "name", "class")


def read_table(path: Path) -> pd.DataFrame:
    """Read a table of the comparison; ``n/a`` is NaN, names are text.

    Raises
    ------
    UserError
        If it is missing.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist: run the step that makes it")
    kinds = dict.fromkeys(TEXT, str)
    return pd.read_csv(path, keep_default_na=False, na_values=["n/a"], dtype=kinds)


def add_choice(parser: argparse.ArgumentParser) -> None:
    """Add the flags that choose rows."""
    parser.add_argument("--comparison", required=True)
    add_rows(parser)


def add_rows(parser: argparse.ArgumentParser) -> None:
    """Add the flags that choose rows of any comparison."""
    parser.add_argument("--categories", type=Path, required=True)
    parser.add_argument("--labeller", default=None, help="default: true, an LLM's, lexical")
    parser.add_argument("--level", choices=("category", "class"), default="category")
    parser.add_argument("--seed", type=int, default=None, help="default: the first")
    parser.add_argument("--fdr", type=float, default=0.1)


def choose(arguments: argparse.Namespace) -> tuple[pd.DataFrame, Choice]:
    """Return the tested rows that the flags choose, maybe none, and what was chosen.

    Raises
    ------
    UserError
        If the table is missing, or has no row for the choice.
    """
    table = read_table(arguments.categories)
    rows = table[table["comparison"] == arguments.comparison]
    labeller = arguments.labeller or usual(list(rows["labeller"].unique())) or "anybody"
    rows = rows[(rows["labeller"] == labeller) & (rows["level"] == arguments.level)]
    if rows.empty:
        raise UserError(
            f"{arguments.categories} has no row of {arguments.comparison} labelled by {labeller}"
        )
    seed = int(rows["seed"].iloc[0]) if arguments.seed is None else arguments.seed
    sides = str(rows["baseline"].iloc[0]), str(rows["candidate"].iloc[0])
    choice = Choice(arguments.comparison, str(labeller), arguments.level, seed, *sides)
    rows = rows[(rows["seed"] == seed) & rows["tested"].astype(bool)]
    return rows.reset_index(drop=True), choice
