"""The evidence on every category of a comparison, before any verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from workflow_scripts.common import cli, statistics
from workflow_scripts.common.artifacts import FitFiles, LabelledLatents, read_labelled_latents
from workflow_scripts.common.statistics import UNDEFINED, Interval
from workflow_scripts.common.taxonomy import WITHOUT_CATEGORY
from workflow_scripts.comparison import counts
from workflow_scripts.comparison.behaviour import likelihood_gaps
from workflow_scripts.comparison.counts import Counts, Level
from workflow_scripts.comparison.inputs import Comparison
from workflow_scripts.comparison.shares import Reference, Share, ShareTest, shares
from workflow_scripts.latents.ownership import is_unique

LEVELS: tuple[Level, ...] = ("category", "class")


@dataclass(frozen=True)
class Settings:
    """How comparisons are tested."""

    confidence: float = 0.95
    fdr: float = 0.1
    reference: Reference = ShareTest.reference
    margin: float = ShareTest.margin
    least_latents: int = ShareTest.least_latents

    @property
    def share_test(self) -> ShareTest:
        """Return the test of direct shares."""
        return ShareTest(self.reference, self.margin, self.fdr, self.least_latents, self.confidence)


@dataclass(frozen=True)
class Pair:
    """One comparison at one seed: the labelled latents of both sides, by labeller."""

    name: str
    comparison: Comparison
    seed: int
    place: int
    """Of the seed among the fit's: companions are those in the same place."""
    baseline: Mapping[str, LabelledLatents]
    candidate: Mapping[str, LabelledLatents]

    @property
    def labellers(self) -> list[str]:
        """Labellers that named the latents of both sides."""
        return [name for name in self.baseline if name in self.candidate]


@dataclass(frozen=True)
class Evidence:
    """All that is known about one category; the statistics of a direct share only where direct."""

    counts: Counts
    share: Share | None
    norm: Interval


def read_pairs(
    fits: Mapping[str, FitFiles],
    comparisons: Mapping[str, Comparison],
    class_of: Callable[[str], str],
) -> list[Pair]:
    """Return every comparison at every seed: the first seeds of both fits together, and so on.

    Raises
    ------
    UserError
        If a comparison names an unknown fit, model or comparison.
    """
    cache: dict[tuple[str, int], dict[str, LabelledLatents]] = {}

    def labelled(fit: str, seed: int) -> dict[str, LabelledLatents]:
        if (fit, seed) not in cache:
            cache[fit, seed] = read_labelled_latents(
                fits[fit].models, fits[fit].seeds[seed], class_of
            )
        return cache[fit, seed]

    pairs = []
    for name, comparison in comparisons.items():
        _check(name, comparison, fits, comparisons)
        base, cand = comparison.baseline.fit, comparison.candidate.fit
        seeds = zip(fits[base].seeds, fits[cand].seeds, strict=False)
        for place, (one, other) in enumerate(seeds):
            sides = (labelled(base, one), labelled(cand, other))
            pairs.append(Pair(name, comparison, one, place, *sides))
    return pairs


def _check(
    name: str,
    comparison: Comparison,
    fits: Mapping[str, FitFiles],
    comparisons: Mapping[str, Comparison],
) -> None:
    for side in (comparison.baseline, comparison.candidate):
        if side.fit not in fits:
            raise cli.UserError(f"comparisons.{name} names the unknown fit {side.fit}")
        for model in (side.model, comparison.against or side.model):
            if model not in fits[side.fit].models:
                raise cli.UserError(
                    f"comparisons.{name} names the model {model}, which {side.fit} does not hold"
                )
    for key, companion in (("anchored", comparison.anchored), ("placebo", comparison.placebo)):
        if companion is not None and companion not in comparisons:
            raise cli.UserError(
                f"comparisons.{name}.{key} names the unknown comparison {companion}"
            )


def weigh(pair: Pair, labeller: str, level: Level, settings: Settings) -> dict[str, Evidence]:
    """Return the evidence on every name that a latent of the pair carries."""
    before, after = pair.baseline[labeller], pair.candidate[labeller]
    base, cand = pair.comparison.baseline.model, pair.comparison.candidate.model
    direct = pair.comparison.direct
    lost, gained = (
        is_unique(side.frame, model, other)
        for side, model, other in zip(
            (before, after), (base, cand), pair.comparison.others, strict=True
        )
    )
    found: dict[str, Share] = {}
    norms: dict[str, Interval] = {}
    if direct:
        frame, toward = before.frame, candidate_norm(before, base, cand)
        found = shares(frame, lost | gained, level, settings.share_test)
        norms = counts.norm_shift(frame, level, toward, settings.confidence)
    old, new = before.frame.loc[lost, level], after.frame.loc[gained, level]
    names = sorted(set(before.frame[level]) | set(after.frame[level]))
    return {
        name: Evidence(
            counts.count(old, new, name, settings.confidence),
            found.get(name),
            norms.get(name, UNDEFINED),
        )
        for name in names
    }


def candidate_norm(side: LabelledLatents, baseline: str, candidate: str) -> np.ndarray:
    """Return Δnorm turned so that 1 = only the candidate."""
    first, second = sorted((baseline, candidate), key=side.models.index)
    delta = side.frame[f"delta_norm_{first}_{second}"].to_numpy(dtype=np.float64)
    return delta if second == candidate else 1 - delta


Cells = Mapping[tuple[str, int, str, Level], Mapping[str, Evidence]]


def evidence_rows(
    pair: Pair,
    labeller: str,
    level: Level,
    cells: Cells,
    behaviour: pd.DataFrame,
    class_of: Callable[[str], str],
    settings: Settings,
) -> Iterator[dict[str, object]]:
    """Yield a row per name, without q, direction and verdict."""
    comparison = pair.comparison
    gaps = likelihood_gaps(
        behaviour,
        comparison.baseline.model,
        comparison.candidate.model,
        level,
        class_of,
        settings.confidence,
    )
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
            **_interval_columns("delta_norm", evidence.norm),
            **_interval_columns("anchored_change", companion.change if companion else UNDEFINED),
            "anchored_sign": companion.sign if companion else math.nan,
            **_interval_columns("likelihood_gap", gaps.get(name, UNDEFINED)),
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


def _share_columns(share: Share | None) -> dict[str, object]:
    return {
        "labelled": share.labelled if share else math.nan,
        "live": share.live if share else math.nan,
        "unique": share.unique if share else math.nan,
        **_interval_columns("unique_share", share.share if share else UNDEFINED),
        "reference_live": share.reference_live if share else math.nan,
        "reference_share": share.reference_share if share else math.nan,
        "detection_p": share.p if share else math.nan,
        "others_p": share.p_others if share else math.nan,
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


def _interval_columns(name: str, interval: Interval) -> dict[str, object]:
    return {
        name: interval.estimate,
        f"{name}_low": interval.low,
        f"{name}_high": interval.high,
    }
