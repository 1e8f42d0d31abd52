"""Print the answer of a run and the path of its report: the last lines of a run."""

from __future__ import annotations

from pathlib import Path

from workflow_scripts.common import cli, files


def print_answer(results: Path, /) -> None:
    """Print the run's sentence and, where it has one, the path of its report.

    Raises
    ------
    UserError
        If the run has no answer yet.

    Parameters
    ----------
    results
        folder of the run, results/<run>
    """
    print(files.read_json(results / "comparison" / "answer.json")["sentence"])
    report = results / "report" / "index.html"
    if report.exists():
        print(f"report: {report}", flush=True)


main = cli.command(print_answer)


if __name__ == "__main__":
    raise SystemExit(main())
