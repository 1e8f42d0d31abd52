"""Collect an LLM's labels of documents, and measure how far its annotators agree.

A document gets the category that more than half of its raters gave, an annotator's replicates each
being one; of two raters both. Else it stays unlabelled: most called it unassigned, an answer is
missing, or they disagree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from workflow_scripts.autointerp.agreement import RELIABLE
from workflow_scripts.autointerp.llm.replies import CategoryChoice
from workflow_scripts.autointerp.llm.requests import read_header
from workflow_scripts.autointerp.llm.responses import Parsed, read_outcomes
from workflow_scripts.autointerp.rater_agreement import describe_agreement, is_reliable
from workflow_scripts.common import cli, files
from workflow_scripts.common.labellers import LLM
from workflow_scripts.common.taxonomy import UNASSIGNED
from workflow_scripts.dataset.labels import COLUMNS

ANSWERS = {
    "document": "int64",
    "annotator": "str",
    "replicate": "int64",
    "status": "str",
    "label": "str",
    "confidence": "float64",
}


def answer_row(parsed: Parsed) -> dict[str, object]:
    """Return a request's row of the table of answers; the label of a failed one is empty."""
    request, answer = parsed.request, parsed.outcome.answer
    choice = answer if isinstance(answer, CategoryChoice) else None
    return {
        "document": request.subject,
        "annotator": request.annotator,
        "replicate": request.replicate,
        "status": parsed.outcome.status,
        "label": choice.category if choice else "",
        "confidence": choice.confidence / 100 if choice else float("nan"),
    }


def majority(answers: Sequence[str]) -> str:
    """Return what more than half of the answers say, failed ones counted; empty if nothing."""
    answer, count = Counter(answers).most_common(1)[0]
    return answer if 2 * count > len(answers) else ""


def collect_document_labels(
    requests: Path,
    responses: Path,
    seed: int,
    answers: Path,
    labels: Path,
    summary: Path,
) -> None:
    """Write every answer, the labels that annotators agree on, and how far they agree.

    Parameters
    ----------
    requests
        requests about documents (JSON lines)
    responses
        how they were answered (JSON lines)
    seed
        seed of the bootstrap
    answers
        table to write, a row per document, annotator and replicate (Parquet)
    labels
        table of labels to write (Parquet)
    summary
        counts and agreement to write (JSON)

    Raises
    ------
    UserError
        If the two files do not belong together.
    """
    rows = map(answer_row, read_outcomes(read_header(requests), requests, responses))
    table = pd.DataFrame(list(rows), columns=list(ANSWERS)).astype(ANSWERS)
    table = table.sort_values(["document", "annotator", "replicate"], ignore_index=True)
    given = table.groupby("document")["label"].agg(list)
    agreed, failed = given.map(majority), given.map(lambda answers: "" in answers)
    labelled = agreed[~agreed.isin(["", UNASSIGNED])]
    frame = pd.DataFrame({"document": labelled.index, "labeller": LLM, "label": labelled.array})
    files.write_parquet(answers, table)
    files.write_parquet(labels, frame.astype(COLUMNS))
    group = describe_agreement(table, "document", seed)
    without = {
        "unassigned": int((agreed == UNASSIGNED).sum()),
        "disagreed": int(((agreed == "") & ~failed).sum()),
        "unanswered": int(((agreed == "") & failed).sum()),
    }
    files.write_json(
        summary,
        {
            "documents": len(given),
            "labelled": len(labelled),
            **without,
            "labels": {str(k): int(n) for k, n in sorted(labelled.value_counts().items())},
            "statuses": {str(k): int(n) for k, n in sorted(table["status"].value_counts().items())},
            "reliable_from": RELIABLE,
            "reliable": is_reliable(group),
            "agreement": group,
        },
    )
    cli.log(f"{len(labelled)} of {len(given)} documents are labelled; {without}")


main = cli.command(collect_document_labels)


if __name__ == "__main__":
    raise SystemExit(main())
