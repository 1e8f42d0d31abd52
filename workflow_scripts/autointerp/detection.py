"""Detection scores from an LLM's answers, item by item."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workflow_scripts.autointerp.annotation_tables import GOOD
from workflow_scripts.autointerp.context_schema import STRATA
from workflow_scripts.autointerp.score_statistics import (
    Gate,
    GroupedAuroc,
    auroc_interval,
    balanced_accuracy,
    balanced_accuracy_interval,
    grouped_auroc,
)

CUT = 50
"""A context is predicted active above this score."""
LEAST_ANSWERED = 0.8
"""Share of a latent's items that must be answered for its scores to count."""
KINDS = ("score", "null", "fuzz")

_COMPACT = np.dtype("i4, u1, ?, ?, u1, i2")
_COMPACT.names = ("row", "kind", "positive", "hard", "stratum", "score")
"""An item as it is kept: there are a hundred per latent."""
_MISSING = np.iinfo("i2").min


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
    stratum: str
    score: int | None
    status: str


def score_items(frame: pd.DataFrame, items: Iterable[Item], gate: Gate) -> pd.DataFrame:
    """Return ``frame`` (indexed by latent, annotator, replicate) with detection scores.

    Unanswered items are left out; a latent with too many of them has its failure as status.
    The gate is applied per annotator and replicate, against their own permuted explanations, whose
    AUROC at as many items as the real scores have is in `null_equal`.
    """
    size = len(frame)
    compact, seen = _read_items(frame, items)
    row, positive, hard, score = (compact[name] for name in ("row", "positive", "hard", "score"))
    kind = pd.Categorical.from_codes(compact["kind"], pd.Index(KINDS))
    stratum = pd.Categorical.from_codes(compact["stratum"], pd.Index([*STRATA, ""]))
    answered = score != _MISSING
    status = _status(frame, seen)

    def auroc(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        return grouped_auroc(score[mask], positive[mask], row[mask], size).auroc

    usable = answered & np.isin(status, GOOD)[row]
    real, fuzz = usable & (kind == "score"), usable & (kind == "fuzz")
    whole = grouped_auroc(score[real], positive[real], row[real], size)
    low, high = auroc_interval(whole.auroc, whole.positives, whole.negatives)
    right_low, right_high = balanced_accuracy_interval(
        score[real] > CUT, positive[real], row[real], size
    )
    null = usable & (kind == "null")
    permuted = grouped_auroc(score[null], positive[null], row[null], size)
    equal = _equal_items(frame, permuted, whole)
    return frame.assign(
        status=status,
        balanced_accuracy=balanced_accuracy(score[real] > CUT, positive[real], row[real], size),
        balanced_accuracy_low=right_low,
        balanced_accuracy_high=right_high,
        auroc=whole.auroc,
        auroc_low=low,
        auroc_high=high,
        auroc_random=auroc(real & ~hard),
        auroc_hard=auroc(real & (hard | positive)),
        **{f"auroc_{s}": auroc(real & (~positive | (stratum == s))) for s in STRATA},
        fuzz_auroc=auroc(fuzz),
        null_auroc=permuted.auroc,
        null_equal=equal,
        positives=whole.positives,
        negatives=whole.negatives,
        gate_passed=_gate(frame, whole.auroc, low, equal, gate),
    )


def _gate(
    frame: pd.DataFrame,
    auroc: NDArray[np.float64],
    low: NDArray[np.float64],
    null: NDArray[np.float64],
    gate: Gate,
) -> NDArray[np.bool_]:
    passed = np.zeros(len(frame), np.bool_)
    for rows in _annotators(frame):
        passed[rows] = gate.passes(auroc[rows], low[rows], null[rows])
    return passed


def _annotators(frame: pd.DataFrame) -> Iterator[NDArray[np.bool_]]:
    """Yield the rows of each annotator and replicate."""
    group = frame["annotator"].astype(str) + "/" + frame["replicate"].astype(str)
    for name in group.unique():
        yield (group == name).to_numpy()


def _equal_items(
    frame: pd.DataFrame, null: GroupedAuroc, real: GroupedAuroc
) -> NDArray[np.float64]:
    equal = null.auroc.copy()
    for rows in _annotators(frame):
        few, many = (
            chance_variance(some.positives[rows], some.negatives[rows]) for some in (null, real)
        )
        equal[rows] = at_equal_items(null.auroc[rows], few, many)
    return equal


def chance_variance(
    positives: NDArray[np.int64], negatives: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the variance of an AUROC by chance, (m + n + 1) / (12 m n); NaN without items.

    Mann and Whitney 1947, Ann. Math. Statist. 18:50; an upper bound where scores are tied.
    """
    pairs = 12.0 * positives * negatives
    return np.where(pairs > 0, (positives + negatives + 1) / np.maximum(pairs, 1), np.nan)


def at_equal_items(
    null: NDArray[np.float64], few: NDArray[np.float64], many: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return ``null`` as it would spread with as many items as the real scores have.

    ``few`` and ``many`` are the variances by chance of the null's and the real AUROCs, s² and r² in
    the mean over latents. Of the null's variance V about its mean c, chance makes up s², which r²
    replaces; what is left, since explanations resemble each other, stays:
    c + (null − c) · √((max(V − s², 0) + r²) / V). Tied scores spread less than s²: the factor is at
    most 1, or r / s where the null has more items than the real scores.
    """
    known = ~np.isnan(null)
    if known.sum() < 2 or np.isnan(many).all():
        return null
    centre, variance = null[known].mean(), null[known].var(ddof=1)
    s2, r2 = few[known].mean(), np.nanmean(many)
    wanted = max(variance - s2, 0.0) + r2
    limit = max(1.0, r2 / s2)
    factor = np.sqrt(min(wanted / variance, limit) if variance > 0 else 1.0)
    equal: NDArray[np.float64] = np.clip(centre + (null - centre) * factor, 0.0, 1.0)
    return equal


def _read_items(
    frame: pd.DataFrame, items: Iterable[Item]
) -> tuple[NDArray[Any], dict[int, Counter[str]]]:
    """Return the items as `_COMPACT`, and the statuses of each row's `score` items."""
    place = {key: i for i, key in enumerate(frame.index)}
    seen: dict[int, Counter[str]] = {}

    def compact() -> Iterator[tuple[int, int, bool, bool, int, int]]:
        for item in items:
            row = place[item.latent, item.annotator, item.replicate]
            if item.kind == "score":
                seen.setdefault(row, Counter())[item.status] += 1
            score = _MISSING if item.score is None else item.score
            stratum = STRATA.index(item.stratum) if item.stratum in STRATA else len(STRATA)
            yield row, KINDS.index(item.kind), item.positive, item.hard, stratum, score

    return np.fromiter(compact(), _COMPACT), seen


def _status(frame: pd.DataFrame, seen: dict[int, Counter[str]]) -> list[str]:
    """Return, per row, ok or the commonest failure when too few items are answered."""
    status = [str(value) for value in frame["status"]]
    for place, counts in seen.items():
        good = sum(counts[name] for name in GOOD)
        bad = Counter({name: n for name, n in counts.items() if name not in GOOD})
        enough = good >= LEAST_ANSWERED * counts.total()
        status[place] = "ok" if enough else bad.most_common(1)[0][0]
    return status


def null_passed(scores: pd.DataFrame, gate: Gate) -> float | None:
    """Return the share of latents that would pass the gate with another latent's explanation.

    ``scores`` come from :func:`score_items`. None where nothing was permuted. It must be small, or
    the gate is too easy.
    """
    passed = [
        permuted_passes(
            part["null_equal"].to_numpy(np.float64)[:, None],
            part["positives"].to_numpy(np.int64),
            part["negatives"].to_numpy(np.int64),
            gate,
        )
        for part in (scores[rows] for rows in _annotators(scores))
    ]
    return share(np.concatenate(passed)) if passed else None


def permuted_passes(
    null: NDArray[np.float64],
    positives: NDArray[np.int64],
    negatives: NDArray[np.int64],
    gate: Gate,
) -> NDArray[np.bool_]:
    """Return which of the permuted explanations ``null`` [L, R] of L latents pass the gate.

    A latent's own are left out of the bar that they must beat: in it, they would raise it, and no
    more than its percentile leaves over could pass whatever the gate. NaN is dropped.
    """
    low, _ = auroc_interval(null, positives[:, None], negatives[:, None])
    return gate.passes_others(null, low)[~np.isnan(null)]


def share(flags: NDArray[np.bool_]) -> float | None:
    """Return the share that is true; None where there are no flags."""
    return float(flags.mean()) if len(flags) else None
