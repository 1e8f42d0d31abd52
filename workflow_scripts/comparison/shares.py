"""The direct share: the share of a category's latents that the two models do not share."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import pandas as pd
from scipy import stats

from workflow_scripts.common import statistics
from workflow_scripts.common.intervals import Interval
from workflow_scripts.common.taxonomy import WITHOUT_CATEGORY
from workflow_scripts.comparison.counts import Level
from workflow_scripts.comparison.settings import CategoryTest


@dataclass(frozen=True)
class LatentTally:
    """Latents of a category as labelled, and the live latents for which they stand."""

    unique: int
    others: int
    live: float
    sampling: float = 1.0
    """The weight where no other is labelled: that of the other names' latents."""

    @property
    def size(self) -> int:
        """Labelled latents."""
        return self.unique + self.others

    @property
    def share(self) -> float:
        """Share of the live latents that is unique to either model."""
        return self.unique / self.live if self.live else math.nan

    @property
    def weight(self) -> float:
        """Live latents for which each labelled one that is not unique stands."""
        return (self.live - self.unique) / self.others if self.others else self.sampling


@dataclass(frozen=True)
class DirectShare:
    """A category's direct share with its reference and its test."""

    labelled: int
    live: float
    unique: int
    share: Interval
    reference_live: float
    reference_share: float
    p: float
    detectable: float
    weight: float  # live latents for which each labelled one that is not unique stands


def shares(
    frame: pd.DataFrame, unique: pd.Series[bool], level: Level, test: CategoryTest
) -> dict[str, DirectShare]:
    """Return the share unique to either model for each name of ``level``."""
    table = pd.DataFrame(
        {"name": frame[level], "unique": unique.to_numpy(), "weight": frame["weight"].to_numpy()}
    )
    others = table.loc[~table["unique"], "weight"]
    sampling = float(others.mean()) if len(others) else 1.0
    tallies = {str(name): _tally(rows, sampling) for name, rows in table.groupby("name")}
    kept = reference_names(tallies, test)
    return {name: _share(name, tallies, kept, test) for name in tallies}


def reference_names(tallies: Mapping[str, LatentTally], test: CategoryTest) -> set[str]:
    """Return the names whose latents form the reference; a name is never its own reference.

    They are the categories that are not called themselves, so that many changes do not hide each
    other, but at least half of them. Latents without a category fire on changed and unchanged text
    alike, so they are no reference.
    """
    categories = [name for name in tallies if name not in WITHOUT_CATEGORY]
    kept = set(categories)
    out: list[str] = []
    for _ in categories:
        more = [name for name in called_names(tallies, kept, test) if name not in out]
        if not more:
            break
        out = [*out, *more][: len(categories) // 2]
        kept = set(categories) - set(out)
    return kept


def called_names(
    tallies: Mapping[str, LatentTally], kept: Collection[str], test: CategoryTest
) -> list[str]:
    """Return the categories that the test calls, the clearest first."""
    tested = [
        name
        for name, tally in tallies.items()
        if name not in WITHOUT_CATEGORY and tally.size >= test.least_latents
    ]
    p = [
        detection_p(tallies[name], _reference(name, tallies, kept), test.margin) for name in tested
    ]
    q = statistics.adjust(p)
    called = [(p[i], name) for i, name in enumerate(tested) if q[i] <= test.fdr]
    return [name for _, name in sorted(called)]


def detection_p(own: LatentTally, reference: LatentTally, margin: float) -> float:
    """Return the one-sided p of «the share is no more than the reference's plus the margin».

    The larger of two exact tests (intersection-union, Berger 1982): Fisher's against the reference,
    which knows that the reference is itself an estimate; and the binomial one against the
    reference's share plus the margin, which takes that share as known (so it errs more often than
    its level where the reference has fewer than some 150 latents). Where shared latents are a
    sample, both compare odds among the labelled latents; Fisher's does not depend on the sampling
    rate, and the bound of the other is carried over to it.
    """
    if min(own.size, reference.size) == 0:
        return math.nan
    fisher = statistics.fisher(own.unique, own.size, reference.unique, reference.size, "greater")
    if margin == 0:
        return fisher
    bound = min(reference.share + margin, 1.0)
    labelled = bound / (bound + (1 - bound) / own.weight) if bound < 1 else 1.0
    return max(fisher, float(stats.binom.sf(own.unique - 1, own.size, labelled)))


def detectable_share(own: LatentTally, call: Callable[[LatentTally], bool]) -> float:
    """Return the least share at which ``call`` holds, given the labelled latents; NaN if none."""

    def at(unique: int) -> LatentTally:
        live = unique + own.weight * (own.size - unique)
        return LatentTally(unique, own.size - unique, live, own.weight)

    least = statistics.first(lambda unique: call(at(unique)), own.size + 1)
    return math.nan if least is None else at(least).share


def _share(
    name: str, tallies: Mapping[str, LatentTally], kept: Collection[str], test: CategoryTest
) -> DirectShare:
    own, reference = tallies[name], _reference(name, tallies, kept)
    alpha = 1 - test.confidence
    return DirectShare(
        own.size,
        own.live,
        own.unique,
        statistics.sampled_share(own.unique, own.others, own.weight, test.confidence),
        reference.live,
        reference.share,
        detection_p(own, reference, test.margin),
        detectable_share(own, lambda t: detection_p(t, reference, test.margin) <= alpha),
        own.weight,
    )


def _reference(name: str, tallies: Mapping[str, LatentTally], kept: Collection[str]) -> LatentTally:
    return _total(tally for other, tally in tallies.items() if other in kept and other != name)


def _tally(rows: pd.DataFrame, sampling: float) -> LatentTally:
    unique = rows["unique"].to_numpy(dtype=bool)
    live = float(rows["weight"].sum())
    return LatentTally(int(unique.sum()), int((~unique).sum()), live, sampling)


def _total(tallies: Iterable[LatentTally]) -> LatentTally:
    parts = list(tallies)
    return LatentTally(
        sum(t.unique for t in parts), sum(t.others for t in parts), sum(t.live for t in parts)
    )
