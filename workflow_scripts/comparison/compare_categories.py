"""Compare the latents of two models, category by category.

Leaves ``categories.csv``, a row per comparison, seed, labeller, level and name; ``COLUMNS.md``
beside this file states every column.
"""

from __future__ import annotations

from pathlib import Path

from workflow_scripts.common import cli
from workflow_scripts.common.tables import write_csv
from workflow_scripts.comparison.category_table import category_table
from workflow_scripts.comparison.pairs import ComparisonInputs
from workflow_scripts.comparison.settings import CategoryTest


def compare_categories(inputs: ComparisonInputs, test: CategoryTest, output: Path) -> None:
    """Write how the latents of two models differ, category by category.

    Parameters
    ----------
    output
        table to write, a row per comparison, seed, labeller, level and name (CSV)
    """
    write_csv(output, category_table(inputs.read_pairs(), inputs.class_of, test))


main = cli.command(compare_categories)


if __name__ == "__main__":
    raise SystemExit(main())
