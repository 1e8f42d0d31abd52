"""Set the published changes beside the measured ones: OK, differs or NOT RUN.

OK: the measured interval holds the published value; differs: it does not; NOT RUN: the run has no
such row, or no interval. Layer, dictionary, k, tokens, thresholds and annotator of the publication
are not known to us, so that «differs» says nothing against it.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from workflow_scripts import cli, files

COLUMNS = ("level", "name", "published", "unit", "source", "statement")
MEASURED = ("percent_change", "low", "high", "q")
OK, DIFFERS, NOT_RUN = "OK", "differs", "NOT RUN"


def read_published(path: Path) -> pd.DataFrame:
    """Return the published values.

    Raises
    ------
    UserError
        If the table is missing or lacks a column.
    """
    if not path.exists():
        raise cli.UserError(f"{path} does not exist: check the setting paper.published")
    table = pd.read_csv(path)
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise cli.UserError(f"{path} lacks the column {missing[0]}: it needs {', '.join(COLUMNS)}")
    return table[list(COLUMNS)]


def judge(published: float, low: float, high: float) -> str:
    """Return whether the interval holds the published value."""
    if math.isnan(low) or math.isnan(high):
        return NOT_RUN
    return OK if low <= published <= high else DIFFERS


def compare(published: pd.DataFrame, measured: pd.DataFrame) -> pd.DataFrame:
    """Return the published rows with what was measured, and the verdict."""
    joined = published.merge(
        measured[["level", "name", *MEASURED]], on=["level", "name"], how="left"
    )
    verdicts = [
        judge(*values)
        for values in joined[["published", "low", "high"]].itertuples(index=False, name=None)
    ]
    return joined.assign(verdict=verdicts)


def compare_published(
    categories: Path, published: Path, comparison: str, labeller: str, output: Path
) -> None:
    """Write the table of published and measured changes."""
    table = pd.read_csv(categories, na_values=["n/a"])
    chosen = (table["comparison"] == comparison) & (table["labeller"] == labeller)
    rows = table[chosen].drop_duplicates(["level", "name"])
    result = compare(read_published(published), rows)
    files.write_text(output, result.to_csv(index=False, na_rep="n/a", lineterminator="\n"))
    cli.log(f"published changes: {result['verdict'].value_counts().to_dict()}")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--categories", type=Path, required=True)
    parser.add_argument("--published", type=Path, required=True)
    parser.add_argument("--comparison", required=True, help="the anchored comparison")
    parser.add_argument("--labeller", default="lexical")
    parser.add_argument("--output", type=Path, required=True)
    a = parser.parse_args(argv)
    return cli.guarded(
        lambda: compare_published(a.categories, a.published, a.comparison, a.labeller, a.output)
    )


if __name__ == "__main__":
    raise SystemExit(main())
