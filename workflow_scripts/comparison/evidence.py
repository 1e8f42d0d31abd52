"""What the latents say of every category of a comparison."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from workflow_scripts.common import statistics
from workflow_scripts.common.intervals import UNDEFINED, Interval
from workflow_scripts.common.taxonomy import WITHOUT_CATEGORY
from workflow_scripts.comparison import counts
from workflow_scripts.comparison.counts import Counts, Level
from workflow_scripts.comparison.pairs import ComparedPair
from workflow_scripts.comparison.settings import CategoryTest
from workflow_scripts.comparison.shares import DirectShare, shares
from workflow_scripts.latents.ownership import is_unique, own_norm_share

LEVELS: tuple[Level, ...] = ("category", "class")


@dataclass(frozen=True)
class Evidence:
    """All that is known about one category; the statistics of a direct share only where direct."""

    counts: Counts
    share: DirectShare | None
    norm: Interval


def gather(
    pair: ComparedPair, labeller: str, level: Level, test: CategoryTest
) -> dict[str, Evidence]:
    """Return the evidence on every name that a latent of the pair carries."""
    before, after = pair.baseline[labeller], pair.candidate[labeller]
    base, cand = pair.comparison.baseline.model, pair.comparison.candidate.model
    direct = pair.comparison.is_direct
    lost, gained = (
        is_unique(side.frame, model, other)
        for side, model, other in zip(
            (before, after), (base, cand), pair.comparison.others, strict=True
        )
    )
    direct_shares: dict[str, DirectShare] = {}
    norms: dict[str, Interval] = {}
    if direct:
        frame = before.frame
        toward = own_norm_share(frame, cand, base, before.models)
        direct_shares = shares(frame, lost | gained, level, test)
        norms = counts.norm_shift(frame, level, toward, test.confidence)
    old, new = before.frame.loc[lost, level], after.frame.loc[gained, level]
    names = sorted(set(before.frame[level]) | set(after.frame[level]))
    return {
        name: Evidence(
            counts.count(old, new, name, test.confidence),
            direct_shares.get(name),
            norms.get(name, UNDEFINED),
        )
        for name in names
    }


Cells = Mapping[tuple[str, int, str, Level], Mapping[str, Evidence]]


def evidence_rows(
    pair: ComparedPair,
    labeller: str,
    level: Level,
    cells: Cells,
    class_of: Callable[[str], str],
) -> Iterator[dict[str, object]]:
    """Yield a row per name, without q."""
    comparison = pair.comparison
    anchored = cells.get((comparison.anchored or "", pair.place, labeller, level), {})
    placebo = cells.get((comparison.placebo or "", pair.place, labeller, level), {})
    for name, evidence in cells[pair.name, pair.place, labeller, level].items():
        companion = anchored[name].counts if name in anchored else None
        yield {
            "comparison": pair.name,
            "kind": "direct" if evidence.share else "anchored",
            "baseline": comparison.baseline.model,
            "candidate": comparison.candidate.model,
            "seed": pair.seed,
            "labeller": labeller,
            "level": level,
            "name": name,
            "class": class_of(name) if level == "category" else name,
            "tested": name not in WITHOUT_CATEGORY,
            **_count_columns(evidence.counts),
            **_share_columns(evidence.share),
            **_placebo_columns(evidence, placebo.get(name)),
            **evidence.norm.columns("delta_norm"),
            **(companion.change if companion else UNDEFINED).columns("anchored_change"),
            "anchored_sign": companion.sign if companion else math.nan,
        }


def _count_columns(c: Counts) -> dict[str, object]:
    return {
        "n_baseline": c.n_baseline,
        "N_baseline": c.N_baseline,
        "n_candidate": c.n_candidate,
        "N_candidate": c.N_candidate,
        "share_baseline": c.n_baseline / c.N_baseline if c.N_baseline else math.nan,
        "share_candidate": c.n_candidate / c.N_candidate if c.N_candidate else math.nan,
        "percent_change": c.change.estimate,
        "low": c.change.low,
        "high": c.change.high,
        "p": c.p,
        "count_sign": c.sign,
        "detectable_down": c.detectable[0],
        "detectable_up": c.detectable[1],
    }


def _share_columns(share: DirectShare | None) -> dict[str, object]:
    return {
        "labelled": share.labelled if share else math.nan,
        "live": share.live if share else math.nan,
        "unique": share.unique if share else math.nan,
        **(share.share if share else UNDEFINED).columns("unique_share"),
        "reference_live": share.reference_live if share else math.nan,
        "reference_share": share.reference_share if share else math.nan,
        "detection_p": share.p if share else math.nan,
        "detectable_share": share.detectable if share else math.nan,
    }


def _placebo_columns(evidence: Evidence, placebo: Evidence | None) -> dict[str, object]:
    own, null = evidence.share, placebo.share if placebo else None
    p = math.nan
    if own and null and min(own.labelled, null.labelled) > 0:
        p = statistics.weighted_fisher(
            (own.unique, own.labelled, own.weight), (null.unique, null.labelled, null.weight)
        )
    return {
        "placebo_live": null.live if null else math.nan,
        "placebo_unique": null.unique if null else math.nan,
        "placebo_share": null.share.estimate if null else math.nan,
        "placebo_p": p,
        "placebo_change": placebo.counts.change.estimate if placebo else math.nan,
    }
