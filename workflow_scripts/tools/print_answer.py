"""Print what a run found, and where its report is: its last lines."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from workflow_scripts.common import cli, files


def print_answer(results: Path) -> None:
    """Print the run's sentence and, where it has one, the path of its report.

    Raises
    ------
    UserError
        If the run has no answer yet.
    """
    print(files.read_json(results / "comparison" / "answer.json")["sentence"])
    report = results / "report" / "index.html"
    if report.exists():
        print(f"report: {report}", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, help="results/<run>")
    arguments = parser.parse_args(argv)
    return cli.guarded(lambda: print_answer(arguments.results))


if __name__ == "__main__":
    raise SystemExit(main())
