"""How a label's text differs between two models, on each of two axes.

*Behaviour* is the likelihood gap: the baseline's minus the candidate's nats per token, so that +
means that the candidate predicts the text better. *Representation* is the relative distance
Σ‖x^c − x^b‖² / ½ Σ(‖x^b‖² + ‖x^c‖²) of the activations of the label's documents, against that of
labels whose behaviour did not change.

Chance has two parts. Which documents were drawn is seen in the bootstrap over documents. How
training went is not: two fine-tunes on the same documents in another order differ by more than
document noise. On text that both know equally well such differences go either way from token to
token, so that their mean is a small part of their mean size, while text that one model knows is
predicted better nearly throughout. The second part is therefore taken as a share of the mean
absolute gap per token; besides, a shift that a cluster of labels has in common is no change of any
one of them. Neither needs a fixed scale or most labels to be unchanged (docs/validation.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from workflow_scripts.common.intervals import UNDEFINED, Interval
from workflow_scripts.common.statistics import adjust
from workflow_scripts.comparison.label_text import LabelText
from workflow_scripts.comparison.settings import Judgement

PRIOR_FREEDOM = 1.0  # degrees of freedom behind the usual scatter of reference labels


@dataclass(frozen=True)
class Effect:
    """An effect on one axis: interval over documents, test, and whether it counts as a change.

    ``least`` is the least effect that this test calls when it stands alone; all is NaN where the
    axis was not measured or has too few documents. ``excluded`` says that a relevant effect can be
    ruled out.
    """

    interval: Interval = UNDEFINED
    q: float = math.nan
    least: float = math.nan
    called: bool = False
    excluded: bool = False


@dataclass(frozen=True)
class Background:
    """What a cluster of labels near 0 has in common: their shift, and how far they scatter."""

    shift: float = 0.0
    scatter: float = 0.0


def background(gaps: NDArray[np.float64], rule: Judgement) -> Background:
    """Return the shift that a cluster of labels shares, or none.

    A fine-tune may move the likelihood of all text a little, as forgetting does. The cluster is the
    narrowest window that holds a quarter of the labels and at least three of four or more. All of
    it must be a small part (``shared_shift``) of the largest gap, for where all gaps are alike they
    are the change; and it must be no wider than a side effect, for labels far apart share nothing.
    """
    count = max(3, math.ceil(len(gaps) / 4))
    if len(gaps) <= count:
        return Background()
    ordered = np.sort(gaps)
    windows = np.lib.stride_tricks.sliding_window_view(ordered, count)
    largest, widths = np.abs(gaps).max(), windows[:, -1] - windows[:, 0]
    small = np.abs(windows).max(axis=1) <= rule.shared_shift * largest
    small &= widths <= rule.side_effect * largest
    if not small.any():
        return Background()
    window = windows[int(np.argmin(np.where(small, widths, np.inf)))]
    return Background(float(np.median(window)), float(np.std(window, ddof=1)))


def judge_behaviour(texts: Mapping[str, LabelText], rule: Judgement) -> dict[str, Effect]:
    """Return the likelihood gap of each label, less the shift that all share, and its test.

    H0: the gap is within ``behaviour_floor``, and within ``side_effect`` of the largest gap. Normal
    p of the excess, with the variance of documents (bootstrap), of training (``training_noise`` of
    the mean absolute gap per token) and of the background; Benjamini-Hochberg over labels. Excluded
    is a gap of ``relevant_gap``, or of ``shared_shift`` of the largest if that is more, where it
    would have been called; yet not where documents alone would call what there is, and only chance
    in training may explain it.
    """
    known = {n: t.gap for n, t in texts.items() if t.gap.documents >= rule.least_documents}
    effects = dict.fromkeys(texts, Effect())
    if not known:
        return effects
    gaps = np.array([gap.interval.estimate for gap in known.values()])
    documents = np.array([gap.error for gap in known.values()])
    training = rule.training_noise * np.array([texts[name].spread for name in known])
    common = background(gaps, rule)
    errors = np.sqrt(documents**2 + training**2 + common.scatter**2)
    sizes = np.abs(gaps - common.shift)
    floor = max(rule.behaviour_floor, rule.side_effect * float(sizes.max()))
    certain = np.where(sizes > floor, np.inf, -np.inf)  # a model against itself has no scatter
    p = stats.norm.sf(np.divide(sizes - floor, errors, out=certain, where=errors != 0))
    least = floor + stats.norm.isf(rule.fdr) * errors
    relevant = max(rule.relevant_gap, rule.shared_shift * float(sizes.max()))
    for (name, gap), q, smallest in zip(known.items(), adjust(p), least, strict=True):
        shifted = gap.interval.map(1.0, -common.shift)
        called = bool(q <= rule.fdr)
        beyond_documents = max(shifted.low, -shifted.high) > floor
        excluded = bool(smallest <= relevant) and not (called or beyond_documents)
        effects[name] = Effect(shifted, float(q), float(smallest), called, excluded)
    return effects


@dataclass(frozen=True)
class Reference:
    """Distances of text whose behaviour did not change: geometric mean, and scatter of logarithms.

    ``labels`` is how many there are; without any, ``mean`` is the floor.
    """

    mean: float
    scatter: float
    labels: int

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the scatter: the prior's and those of the labels."""
        return PRIOR_FREEDOM + max(self.labels - 1, 0)

    def p(self, distance: float, error: float) -> float:
        """Return the one-sided p of a distance no larger than another of such text.

        Student's t of a new observation; ``error`` is the standard error of its logarithm.
        """
        return float(stats.t.sf(self._excess(distance, error), self.freedom))

    def below(self, ratio: float, distance: float, error: float) -> float:
        """Return the one-sided p of a distance that is ``ratio`` times the reference or more."""
        return float(stats.t.cdf(self._excess(distance / ratio, error), self.freedom))

    def least(self, error: float, chance: float) -> float:
        """Return the least excess over ``mean`` whose p is at most ``chance``."""
        reach = float(stats.t.isf(chance, self.freedom)) * self._width(error)
        return self.mean * math.expm1(reach)

    def _excess(self, distance: float, error: float) -> float:
        return math.log(distance / self.mean) / self._width(error) if distance > 0 else -math.inf

    def _width(self, error: float) -> float:
        return math.hypot(error, self.scatter * math.sqrt(1 + 1 / max(self.labels, 1)))


def reference(distances: Sequence[float], rule: Judgement) -> Reference:
    """Return the reference that unchanged labels give, never below the floor."""
    usual = rule.usual_scatter
    if not distances:
        return Reference(rule.distance_floor, usual, 0)
    logs = np.log(np.maximum(distances, rule.distance_floor))
    squares = float(np.square(logs - logs.mean()).sum())
    variance = (PRIOR_FREEDOM * usual**2 + squares) / (PRIOR_FREEDOM + len(logs) - 1)
    return Reference(math.exp(float(logs.mean())), math.sqrt(variance), len(logs))


def judge_representation(
    texts: Mapping[str, LabelText], behaviour: Mapping[str, Effect], rule: Judgement
) -> dict[str, Effect]:
    """Return by how much each label's distance exceeds that of unchanged text, with its test.

    The reference are the other labels whose behaviour did not change. Labels whose behaviour did
    are tested at ``fdr`` each, since the first axis has chosen them (a gatekeeper). For the others
    q is Benjamini-Hochberg's, and a distance must be ``moved_ratio`` times the reference too.
    Excluded is a distance of ``same_ratio`` times the reference, in a test at ``fdr``.
    """
    known = {
        name: text.distance
        for name, text in texts.items()
        if text.distance.documents >= rule.least_documents
    }
    quiet = [name for name in known if not behaviour[name].called]
    references = {
        name: reference([known[n].interval.estimate for n in quiet if n != name], rule)
        for name in known
    }
    p = {name: references[name].p(d.interval.estimate, d.relative) for name, d in known.items()}
    q = p | dict(zip(quiet, adjust([p[name] for name in quiet]).tolist(), strict=True))
    effects = dict.fromkeys(texts, Effect())
    for name, distance in known.items():
        beside = references[name]
        ratio = 1.0 if behaviour[name].called else rule.moved_ratio
        # Without another unchanged label there is nothing that an unchanged one could have left.
        measured = behaviour[name].called or beside.labels > 0
        far = measured and distance.interval.estimate >= ratio * beside.mean
        effects[name] = Effect(
            distance.interval.map(1.0, -beside.mean),
            q[name],
            max(beside.least(distance.relative, rule.fdr), (ratio - 1) * beside.mean),
            q[name] <= rule.fdr and far,
            beside.below(rule.same_ratio, distance.interval.estimate, distance.relative)
            <= rule.fdr,
        )
    return effects
