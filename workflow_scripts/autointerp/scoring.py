"""Detection scores from an LLM's answers, item by item."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workflow_scripts.autointerp.answers import GOOD
from workflow_scripts.autointerp.statistics import (
    Gate,
    auroc_interval,
    balanced_accuracy,
    grouped_auroc,
)

CUT = 50
"""A context is predicted active above this score."""
LEAST_ANSWERED = 0.8
"""Share of a latent's items that must be answered for its scores to count."""


@dataclass(frozen=True)
class Item:
    """One context judged under one explanation; ``score`` is None where the answer failed."""

    latent: int
    annotator: str
    replicate: int
    kind: str
    """`score`, `null` (another latent's explanation) or `fuzz` (are the marks right?)."""
    positive: bool
    hard: bool
    score: int | None
    status: str


def score_items(frame: pd.DataFrame, items: Sequence[Item], gate: Gate) -> pd.DataFrame:
    """Return ``frame`` (indexed by latent, annotator, replicate) with detection scores.

    Unanswered items are left out; a latent with too many of them has its failure as status.
    The gate is applied per annotator and replicate, against their own permuted explanations.
    """
    place = {key: i for i, key in enumerate(frame.index)}
    size = len(frame)
    row = np.array([place[i.latent, i.annotator, i.replicate] for i in items], np.int64)
    positive = np.array([i.positive for i in items], np.bool_)
    hard = np.array([i.hard for i in items], np.bool_)
    kind = np.array([i.kind for i in items], np.str_)
    answered = np.array([i.score is not None for i in items], np.bool_)
    score = np.array([-1 if i.score is None else i.score for i in items], np.float64)
    status = _status(frame, items, row)

    def auroc(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        return grouped_auroc(score[mask], positive[mask], row[mask], size).auroc

    usable = answered & np.array([status[r] in GOOD for r in row], np.bool_)
    real, fuzz = usable & (kind == "score"), usable & (kind == "fuzz")
    whole = grouped_auroc(score[real], positive[real], row[real], size)
    low, high = auroc_interval(whole.auroc, whole.positives, whole.negatives)
    permuted = auroc(usable & (kind == "null"))
    return frame.assign(
        status=status,
        balanced_accuracy=balanced_accuracy(score[real] > CUT, positive[real], row[real], size),
        auroc=whole.auroc,
        auroc_low=low,
        auroc_high=high,
        auroc_random=auroc(real & ~hard),
        auroc_hard=auroc(real & (hard | positive)),
        fuzz_auroc=auroc(fuzz),
        null_auroc=permuted,
        positives=whole.positives,
        negatives=whole.negatives,
        gate_passed=_gate(frame, whole.auroc, low, permuted, gate),
    )


def _gate(
    frame: pd.DataFrame,
    auroc: NDArray[np.float64],
    low: NDArray[np.float64],
    null: NDArray[np.float64],
    gate: Gate,
) -> NDArray[np.bool_]:
    passed = np.zeros(len(frame), np.bool_)
    group = frame["annotator"].astype(str) + "/" + frame["replicate"].astype(str)
    for name in group.unique():
        mine = (group == name).to_numpy()
        passed[mine] = gate.passes(auroc[mine], low[mine], null[mine])
    return passed


def _status(frame: pd.DataFrame, items: Sequence[Item], row: NDArray[np.int64]) -> list[str]:
    """Return, per row, ok or the commonest failure when too few items are answered."""
    seen: dict[int, Counter[str]] = {}
    for place, item in zip(row, items, strict=True):
        if item.kind == "score":
            seen.setdefault(int(place), Counter())[item.status] += 1
    status = [str(value) for value in frame["status"]]
    for place, counts in seen.items():
        good = sum(counts[name] for name in GOOD)
        bad = Counter({name: n for name, n in counts.items() if name not in GOOD})
        enough = good >= LEAST_ANSWERED * counts.total()
        status[place] = "ok" if enough else bad.most_common(1)[0][0]
    return status


def null_passed(scores: pd.DataFrame, items: Sequence[Item], gate: Gate) -> float | None:
    """Return the share of latents that would pass the gate with another latent's explanation.

    None where nothing was permuted. It must be small, or the gate is too easy.
    """
    counts = Counter(
        ((i.latent, i.annotator, i.replicate), i.positive)
        for i in items
        if i.kind == "null" and i.score is not None
    )
    null = scores["null_auroc"].to_numpy(np.float64)
    positives = np.array([counts[key, True] for key in scores.index], np.int64)
    negatives = np.array([counts[key, False] for key in scores.index], np.int64)
    known = ~np.isnan(null)
    if not known.any():
        return None
    low, _ = auroc_interval(null, positives, negatives)
    return float(_gate(scores, null, low, null, gate)[known].mean())
