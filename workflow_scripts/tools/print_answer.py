"""Print the answer of a run and the path of its report: the last lines of a run."""

from __future__ import annotations

from pathlib import Path

from workflow_scripts.common import cli, files
from workflow_scripts.comparison.answers import sentences


def print_answer(results: Path, /) -> None:
    """Print the run's answer, a line per kind of labels, and the path of its report.

    The first line is by the labels that answer the run, the second by topics found in the text.
    Warnings about imported crosscoders come between.

    Raises
    ------
    UserError
        If the run has no answer yet.

    Parameters
    ----------
    results
        folder of the run, results/<run>
    """
    for sentence in sentences(files.read_json(results / "comparison" / "answer.json")):
        print(sentence)
    for evaluation in sorted(results.glob("crosscoder/*/*/evaluation.json")):
        if warning := files.read_json(evaluation).get("warning"):
            print(f"warning: fit {evaluation.parts[-3]}: {warning}")
    report = results / "report" / "index.html"
    if report.exists():
        print(f"report: {report}", flush=True)


main = cli.command(print_answer)


if __name__ == "__main__":
    raise SystemExit(main())
