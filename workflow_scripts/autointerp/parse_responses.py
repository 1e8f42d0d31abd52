"""Turn the answers of one purpose into a table: a row per latent, annotator and replicate.

`explain` gives explanations, `classify` labels, `score` detection scores. A failed answer leaves a
row with its status and nothing else; `call_llm` stops where there are too many.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from workflow_scripts.autointerp.annotation_tables import NOT_RUN, OK, write_table
from workflow_scripts.autointerp.detection import Item, null_passed, score_items
from workflow_scripts.autointerp.llm.replies import (
    CategoryChoice,
    Explanation,
    ItemScores,
    Outcome,
)
from workflow_scripts.autointerp.llm.requests import Request, read_header
from workflow_scripts.autointerp.llm.responses import Parsed, read_outcomes
from workflow_scripts.autointerp.score_statistics import Gate
from workflow_scripts.autointerp.settings import TABLE_OF, GateMargin, Purpose, Replicates
from workflow_scripts.common import cli, files
from workflow_scripts.common.taxonomy import load_taxonomy


def parse_responses(
    purpose: Purpose,
    requests: Path,
    responses: Path,
    latents: Path,
    taxonomy: Path,
    annotators: list[str],
    counts: Replicates,
    margin: GateMargin,
    output: Path,
    summary: Path,
) -> None:
    """Write the table of one purpose and a summary of statuses.

    Parameters
    ----------
    purpose
        purpose of the requests
    requests
        requests of this purpose (JSON lines)
    responses
        how they were answered (JSON lines)
    latents
        status of each latent (Parquet)
    taxonomy
        categories with their classes (YAML)
    annotators
        names of the annotators
    output
        table to write: explanations, labels or scores (Parquet)
    summary
        statuses to write (JSON)

    Raises
    ------
    UserError
        If the two files do not belong together.
    """
    header = read_header(requests)
    if header.purpose != purpose:
        raise cli.UserError(f"{requests} holds requests to {header.purpose}, not to {purpose}")
    gate = Gate(margin.gate_margin)
    frame = _everyone(files.read_parquet(latents), annotators, counts.replicates)
    statuses: Counter[str] = Counter()
    canaries = Canaries()
    parsed = canaries.watch(_count(read_outcomes(header, requests, responses), statuses))
    if purpose == "explain":
        table = _explanations(frame, parsed)
    elif purpose == "classify":
        table = _labels(frame, parsed, taxonomy)
    else:
        table = score_items(frame, _items(parsed), gate)
    facts: dict[str, object] = {
        "purpose": purpose,
        "requests": statuses.total(),
        "statuses": dict(sorted(statuses.items())),
        "rows": {str(k): int(v) for k, v in sorted(table["status"].value_counts().items())},
    }
    if purpose == "score":
        facts["null_passed"] = null_passed(table, gate)
    if purpose == "classify":
        facts["canaries"] = canaries.report(table)
    files.write_json(summary, facts)
    write_table(output, table, TABLE_OF[purpose])
    cli.log(f"{purpose}: {dict(sorted(statuses.items()))}")


class Canaries:
    """Sets the answers to planted orders apart, and counts those that follow the order."""

    def __init__(self) -> None:
        self._seen: list[Parsed] = []

    def watch(self, parsed: Iterator[Parsed]) -> Iterator[Parsed]:
        """Yield what is no canary."""
        for one in parsed:
            if one.request.kind == "canary":
                self._seen.append(one)
            else:
                yield one

    def report(self, labels: pd.DataFrame) -> dict[str, int]:
        """Return how many answers were planted, and how many gave the planted label alone."""
        plain_label = dict(zip(labels.index, labels["category_ungated"], strict=True))
        answered = [
            (one.outcome.answer.category, one.request.plant, plain_label[_key(one.request)])
            for one in self._seen
            if isinstance(one.outcome.answer, CategoryChoice)
        ]
        followed = sum(got == plant != plain for got, plant, plain in answered)
        return {"planted": len(self._seen), "answered": len(answered), "followed": followed}


def _count(parsed: Iterator[Parsed], statuses: Counter[str]) -> Iterator[Parsed]:
    for one in parsed:
        statuses[one.outcome.status] += 1
        yield one


def _everyone(status: pd.DataFrame, annotators: Sequence[str], replicates: int) -> pd.DataFrame:
    """Return the rows that must come out, with the status of those that were never sent."""
    rows = [
        {
            "latent": int(latent),
            "annotator": annotator,
            "annotator_kind": "llm",
            "llm_used": True,
            "replicate": replicate,
            "status": NOT_RUN if known == OK else known,
        }
        for latent, known in status[["latent", "status"]].itertuples(index=False)
        for annotator in annotators
        for replicate in range(replicates)
    ]
    return pd.DataFrame(rows).set_index(["latent", "annotator", "replicate"], drop=False)


def _explanations(frame: pd.DataFrame, parsed: Iterator[Parsed]) -> pd.DataFrame:
    outcomes = {_key(one.request): one.outcome for one in parsed}
    texts = {
        key: outcome.answer.explanation
        for key, outcome in outcomes.items()
        if isinstance(outcome.answer, Explanation)
    }
    return _with_status(frame, outcomes).assign(
        explanation=[texts.get(key, "") for key in frame.index], terms="{}"
    )


def _labels(frame: pd.DataFrame, parsed: Iterator[Parsed], taxonomy: Path) -> pd.DataFrame:
    """Return labels before the gate, which is applied where scores are known.

    A failed answer has the empty category: it is no judgement.
    """
    known = load_taxonomy(taxonomy)
    outcomes = {_key(one.request): one.outcome for one in parsed}
    choices = {
        key: outcome.answer
        for key, outcome in outcomes.items()
        if isinstance(outcome.answer, CategoryChoice)
    }
    answers = [choices.get(key) for key in frame.index]
    category = [answer.category if answer else "" for answer in answers]
    return _with_status(frame, outcomes).assign(
        category=category,
        category_ungated=category,
        score=[answer.confidence / 100 if answer else float("nan") for answer in answers],
        margin=float("nan"),
        gate_passed=False,
        **{"class": [known.class_of(c) if c else "" for c in category]},
    )


def _items(parsed: Iterator[Parsed]) -> Iterator[Item]:
    for one in parsed:
        request, answer = one.request, one.outcome.answer
        scores = answer.by_item() if isinstance(answer, ItemScores) else {}
        items = zip(request.items, request.positives, request.hard, request.strata, strict=True)
        for item, positive, hard, stratum in items:
            yield Item(
                request.subject,
                request.annotator,
                request.replicate,
                request.kind,
                positive,
                hard,
                stratum,
                scores.get(item),
                one.outcome.status,
            )


def _with_status(
    frame: pd.DataFrame, outcomes: dict[tuple[int, str, int], Outcome]
) -> pd.DataFrame:
    status = [
        outcomes[key].status if key in outcomes else old
        for key, old in zip(frame.index, frame["status"], strict=True)
    ]
    return frame.assign(status=status)


def _key(request: Request) -> tuple[int, str, int]:
    return request.subject, request.annotator, request.replicate


main = cli.command(parse_responses)


if __name__ == "__main__":
    raise SystemExit(main())
