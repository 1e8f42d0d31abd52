"""The second statistic: the share of a category's latents that the two models do not share."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import pandas as pd
from scipy import stats

from workflow_scripts.common import statistics
from workflow_scripts.common.statistics import Interval
from workflow_scripts.common.taxonomy import WITHOUT_CATEGORY
from workflow_scripts.comparison.counts import Level

Reference = Literal["unchanged", "others", "lower_half"]
REFERENCES: tuple[Reference, ...] = ("unchanged", "others", "lower_half")


@dataclass(frozen=True)
class ShareTest:
    """Against what a direct share is tested.

    ``reference``: ``others``, all other live latents, those without category among them;
    ``unchanged``, the latents of the other categories without those that are themselves called, so
    that many changes do not hide each other (at most half of the categories are left out; latents
    without a category fire on changed and unchanged text alike, so they are no reference);
    ``lower_half``, the half of the categories with the lowest shares. ``margin``: by how much a
    share must exceed the reference's, because unchanged categories differ among themselves by more
    than chance.
    """

    reference: Reference = "unchanged"
    margin: float = 0.15
    fdr: float = 0.1
    least_latents: int = 5
    confidence: float = 0.95


@dataclass(frozen=True)
class Tally:
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
class Share:
    """A category's direct share with its reference and its test."""

    labelled: int
    live: float
    unique: int
    share: Interval
    reference_live: float
    reference_share: float
    p: float
    p_others: float  # Fisher's exact test, one-sided, against all other live latents
    detectable: float
    weight: float  # live latents for which each labelled one that is not unique stands


def shares(
    frame: pd.DataFrame, unique: pd.Series[bool], level: Level, test: ShareTest
) -> dict[str, Share]:
    """Return the share unique to either model for each name of ``level``."""
    table = pd.DataFrame(
        {"name": frame[level], "unique": unique.to_numpy(), "weight": frame["weight"].to_numpy()}
    )
    others = table.loc[~table["unique"], "weight"]
    sampling = float(others.mean()) if len(others) else 1.0
    tallies = {str(name): _tally(rows, sampling) for name, rows in table.groupby("name")}
    kept = reference_names(tallies, test)
    return {name: _share(name, tallies, kept, test) for name in tallies}


def reference_names(tallies: Mapping[str, Tally], test: ShareTest) -> set[str]:
    """Return the names whose latents form the reference; a name is never its own reference."""
    categories = [name for name in tallies if name not in WITHOUT_CATEGORY]
    if test.reference == "lower_half":
        ranked = sorted(categories, key=lambda name: tallies[name].share)
        return set(ranked[: max(len(ranked) // 2, 1)])
    if test.reference == "others":
        return set(tallies)
    kept = set(categories)
    out: list[str] = []
    for _ in categories:
        found = [name for name in called_names(tallies, kept, test) if name not in out]
        if not found:
            break
        out = [*out, *found][: len(categories) // 2]
        kept = set(categories) - set(out)
    return kept


def called_names(tallies: Mapping[str, Tally], kept: Collection[str], test: ShareTest) -> list[str]:
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


def detection_p(own: Tally, reference: Tally, margin: float) -> float:
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


def detectable_share(own: Tally, call: Callable[[Tally], bool]) -> float:
    """Return the least share at which ``call`` holds, given the labelled latents; NaN if none."""

    def at(unique: int) -> Tally:
        live = unique + own.weight * (own.size - unique)
        return Tally(unique, own.size - unique, live, own.weight)

    found = statistics.first(lambda unique: call(at(unique)), own.size + 1)
    return math.nan if found is None else at(found).share


def _share(
    name: str, tallies: Mapping[str, Tally], kept: Collection[str], test: ShareTest
) -> Share:
    own, reference = tallies[name], _reference(name, tallies, kept)
    everything = _reference(name, tallies, set(tallies))
    alpha = 1 - test.confidence
    return Share(
        own.size,
        own.live,
        own.unique,
        statistics.sampled_share(own.unique, own.others, own.weight, test.confidence),
        reference.live,
        reference.share,
        detection_p(own, reference, test.margin),
        detection_p(own, everything, 0.0),
        detectable_share(own, lambda t: detection_p(t, reference, test.margin) <= alpha),
        own.weight,
    )


def _reference(name: str, tallies: Mapping[str, Tally], kept: Collection[str]) -> Tally:
    return _total(tally for other, tally in tallies.items() if other in kept and other != name)


def _tally(rows: pd.DataFrame, sampling: float) -> Tally:
    unique = rows["unique"].to_numpy(dtype=bool)
    live = float(rows["weight"].sum())
    return Tally(int(unique.sum()), int((~unique).sum()), live, sampling)


def _total(tallies: Iterable[Tally]) -> Tally:
    parts = list(tallies)
    return Tally(
        sum(t.unique for t in parts), sum(t.others for t in parts), sum(t.live for t in parts)
    )
