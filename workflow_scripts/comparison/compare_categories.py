"""Compare what two models gained and lost, category by category.

Leaves ``categories.csv``, a row per comparison, seed, labeller, level and name; ``COLUMNS.md``
beside this file states every column.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from workflow_scripts.common import cli
from workflow_scripts.common.tables import write_csv
from workflow_scripts.comparison.job import Job, add_flags, read_job
from workflow_scripts.comparison.judgement import compare


def compare_categories(job: Job, output: Path) -> None:
    """Write ``categories.csv``."""
    write_csv(output, compare(job.pairs, job.behaviour, job.class_of, job.settings))


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_flags(parser)
    parser.add_argument("--output", type=Path, required=True)
    a = parser.parse_args(argv)
    return cli.guarded(lambda: compare_categories(read_job(a), a.output))


if __name__ == "__main__":
    raise SystemExit(main())
