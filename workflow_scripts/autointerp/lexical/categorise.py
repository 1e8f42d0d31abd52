"""Assign a category to a latent from lexicon matches of its contexts.

Shapes: W windows (the first ones background), C categories, L latents.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workflow_scripts.autointerp.lexical.features import word_forms
from workflow_scripts.autointerp.lexical.terms import Design, LexicalResult
from workflow_scripts.autointerp.settings import CategoryRule
from workflow_scripts.autointerp.windows import Words
from workflow_scripts.common.detectors import LATENT_DETECTORS
from workflow_scripts.common.taxonomy import Taxonomy


@dataclass(frozen=True)
class CategoryScores:
    """The best category per latent, before and after the rule."""

    best: NDArray[np.int64]
    score: NDArray[np.float64]
    """[L] excess of evidence over the background's, in 0..1."""
    margin: NDArray[np.float64]
    """[L] lead of the best category over the second."""
    clear: NDArray[np.bool_]
    """[L] score and margin both reach the rule's bounds."""


def score_categories(
    evidence: NDArray[np.float64],
    peak: NDArray[np.float64],
    design: Design,
    latent_evidence: NDArray[np.float64],
    rule: CategoryRule,
) -> CategoryScores:
    """Score every category for every latent.

    The score is (p - b) / (1 - b), floored at 0: p the activation-weighted mean ``evidence``
    [W, C] in the latent's positive training windows, b the mean in the background. It is the
    share of windows that the category explains beyond chance. ``latent_evidence`` [L, C] holds
    what is known of the latent as a whole; the larger of the two counts.
    """
    chosen = np.flatnonzero(design.positive & design.train)
    latent, weight = design.latent[chosen], peak[chosen]
    total = np.bincount(latent, weight, design.latents)
    share = np.zeros((design.latents, evidence.shape[1]))
    np.add.at(share, latent, evidence[chosen] * weight[:, None])
    share /= np.maximum(total, 1e-12)[:, None]
    background = design.latent < 0
    base = evidence[background].mean(axis=0) if background.any() else np.zeros(evidence.shape[1])
    excess = np.maximum(share - base, 0.0) / np.maximum(1.0 - base, 1e-6)
    score = np.maximum(excess, latent_evidence)
    order = np.argsort(-score, axis=1, kind="stable")
    rows = np.arange(design.latents)
    best, second = order[:, 0], order[:, 1]
    top = score[rows, best]
    margin = top - score[rows, second]
    clear = (top >= rule.least_score) & (margin >= rule.least_margin)
    return CategoryScores(best, top, margin, clear)


def latent_evidence(
    words: Words, design: Design, result: LexicalResult, taxonomy: Taxonomy
) -> NDArray[np.float64]:
    """Return [L, C] evidence from the latent as a whole, for the latent detectors.

    `peaks_on_template`: twice the share of activation on template tokens beyond one half.
    `explained_by_affix`, `explained_by_shape`: twice the share of activation, beyond one half, on
    words of the one form that explains best, where the form channel explains best; an affix counts
    only if no single word holds half of the activation.
    """
    mass = _Mass(words, design)
    known = {name: np.zeros(design.latents) for name in LATENT_DETECTORS}
    template = mass.share(words.template)
    known["peaks_on_template"] = np.maximum(2.0 * template - 1.0, 0.0)
    for latent, (channel, terms) in enumerate(zip(result.channel, result.terms, strict=True)):
        if channel == "form" and terms:
            kind = _form_kind(terms[0].name)
            if kind is not None:
                known[kind][latent] = mass.of_form(latent, terms[0].name)
    table = np.zeros((design.latents, len(taxonomy.categories)))
    for column, category in enumerate(taxonomy.categories):
        for name in category.lexicon.detectors:
            if name in known:
                table[:, column] = np.maximum(table[:, column], known[name])
    return table


def _form_kind(name: str) -> str | None:
    if name.startswith("-") or name.endswith("-"):
        return "explained_by_affix"
    if name.startswith(("sign ", "punctuation", "line break", "capital", "word in cap")):
        return "explained_by_shape"
    return None


class _Mass:
    """Where the activation of each latent lies, over its positive training windows."""

    def __init__(self, words: Words, design: Design) -> None:
        learned = (design.positive & design.train)[words.window] & (words.activation > 0)
        order = np.flatnonzero(learned)
        latent = design.latent[words.window[order]]
        order = order[np.argsort(latent, kind="stable")]
        self.order = order
        self.latent = design.latent[words.window[order]]
        self.bounds = np.searchsorted(self.latent, np.arange(design.latents + 1))
        self.words = words
        self.latents = design.latents

    def share(self, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return [L] the share of activation on the occurrences of ``mask``."""
        weight = self.words.activation[self.order].astype(np.float64)
        total = np.bincount(self.latent, weight, self.latents)
        inside = np.bincount(self.latent, weight * mask[self.order], self.latents)
        share: NDArray[np.float64] = inside / np.maximum(total, 1e-12)
        return share

    def of_form(self, latent: int, form: str) -> float:
        """Return evidence in 0..1 that ``latent`` is about one form and not about one word."""
        occurrences = self.order[self.bounds[latent] : self.bounds[latent + 1]]
        by_word: dict[str, float] = {}
        for occurrence in occurrences:
            word = self.words.surface[self.words.word[occurrence]]
            by_word[word] = by_word.get(word, 0.0) + float(self.words.activation[occurrence])
        total = sum(by_word.values())
        if not total or (max(by_word.values()) > total / 2 and "-" in form):
            return 0.0
        share = sum(v for w, v in by_word.items() if form in word_forms(w)) / total
        return max(2.0 * share - 1.0, 0.0)
