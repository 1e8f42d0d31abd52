"""How do two models' answers differ, by label? ``answers/<comparison>.csv``.

Lengths and distances have a percentile bootstrap over documents; shares of answers that a built-in
test recognises, the interval of Agresti & Min (Statistics in Medicine 24, 2005) for paired shares.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64
from scipy import stats

from workflow_scripts.common import cli, files
from workflow_scripts.common.detectors import TEXT_DETECTORS
from workflow_scripts.common.intervals import Interval, percentile_interval, resample
from workflow_scripts.common.tables import write_csv
from workflow_scripts.comparison.label_sample import sample_labels
from workflow_scripts.comparison.settings import AnswerSample, Intervals
from workflow_scripts.dataset.labels import read_labels

DRAWS = 2000
COLUMNS = (
    *("labeller", "label", "documents", "measure"),
    *("baseline", "candidate", "difference", "low", "high"),
)
"""Columns of the table; ``COLUMNS.md`` says what each means."""


def compare_answers(
    answers: Path,
    labels: list[Path],
    sample: AnswerSample,
    intervals: Intervals,
    seed: int,
    output: Path,
) -> None:
    """Write how two models' answers differ.

    Parameters
    ----------
    answers
        both models' answers (Parquet)
    labels
        tables of labels of the documents (Parquet)
    seed
        seed of the choice of documents, and of the bootstrap
    output
        table to write, a row per labeller, label and measure (CSV)
    """
    table = files.read_parquet(answers)
    documents = table["document"].to_numpy(dtype=np.int64)
    known = sample_labels(read_labels(labels), documents, sample.answer_documents, seed)
    for side in ("baseline", "candidate"):
        for name, detects in TEXT_DETECTORS.items():
            table[f"{name}_{side}"] = [detects(text) for text in table[side]]
    rows = (
        {"labeller": labeller, "label": label, "documents": len(own), **row}
        for (labeller, label), own in known.merge(table, on="document").groupby(
            ["labeller", "label"], sort=True
        )
        for row in measures(own, intervals.confidence, seed)
    )
    write_csv(output, rows, COLUMNS)


def measures(own: pd.DataFrame, confidence: float, seed: int) -> Iterator[dict[str, object]]:
    """Yield the measures of one label's answers."""
    draws = resample(len(own), DRAWS, [seed, 23]) / len(own)

    def mean(values: Float64[np.ndarray, " n"]) -> Interval:
        return percentile_interval(float(values.mean()), draws @ values, confidence)

    yield row_of("distance", math.nan, math.nan, mean(own["distance"].to_numpy(np.float64)))
    before, after = (own[f"tokens_{side}"].to_numpy(np.float64) for side in SIDES)
    yield row_of("tokens", before.mean(), after.mean(), mean(after - before))
    for name in ("ended", *TEXT_DETECTORS):
        b, c = (own[f"{name}_{side}"].to_numpy(np.bool_) for side in SIDES)
        yield row_of(name, b.mean(), c.mean(), paired_shares(b, c, confidence))


SIDES = ("baseline", "candidate")


def row_of(measure: str, before: float, after: float, change: Interval) -> dict[str, object]:
    """Return the columns of a measure."""
    sides = {"measure": measure, "baseline": float(before), "candidate": float(after)}
    return {**sides, "difference": change.estimate, "low": change.low, "high": change.high}


def paired_shares(
    before: Bool[np.ndarray, " n"], after: Bool[np.ndarray, " n"], confidence: float
) -> Interval:
    """Return the difference of two shares of the same documents, with its interval."""
    gained, lost = float((after & ~before).sum()), float((before & ~after).sum())
    n, count = len(before), len(before) + 2
    centre = (gained - lost) / count
    error = math.sqrt(gained + lost + 1 - (gained - lost) ** 2 / count) / count
    reach = float(stats.norm.isf((1 - confidence) / 2)) * error
    return Interval((gained - lost) / n, max(centre - reach, -1.0), min(centre + reach, 1.0))


main = cli.command(compare_answers)


if __name__ == "__main__":
    raise SystemExit(main())
