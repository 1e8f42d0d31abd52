"""Score lexical explanations token by token on held-out contexts.

A shown term hits the tokens of the words that carry it, in every channel: "text that contains
sailor" does not say where in the text a latent fires, so only the word itself counts as named.
Words are whole: where a latent fires on one piece of a word, the others count as false hits.

Shapes: L latents, W windows, T tokens of the held-out windows, O occurrences of words.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workflow_scripts.autointerp.lexical.features import feature_pairs
from workflow_scripts.autointerp.lexical.terms import Design, LexicalResult, cells_of
from workflow_scripts.autointerp.score_statistics import grouped_pearson
from workflow_scripts.autointerp.windows import TokenWindows, Words, largest_by_window

ACTIVE_SHARE = 0.3
"""A token is active above this share of the latent's largest activation."""


@dataclass(frozen=True)
class TokenScores:
    """How well the shown terms tell on which tokens L latents fire. All [L]."""

    precision: NDArray[np.float64]
    """Share of the hit tokens that are active; NaN where none is hit."""
    recall: NDArray[np.float64]
    """Share of the active tokens that are hit; NaN where none is active."""
    f1: NDArray[np.float64]
    """2 true hits / (hit + active tokens); NaN where there is neither."""
    simulation: NDArray[np.float64]
    """Pearson's r of the summed z of the terms that hit with the activation; NaN where constant."""


def score_tokens(
    windows: TokenWindows, words: Words, design: Design, result: LexicalResult
) -> TokenScores:
    """Score each latent on the tokens of all its held-out contexts together.

    The largest activation is that of the latent's contexts of both parts.
    """
    size = design.latents
    held = ~design.train & (design.latent >= 0)
    kept = held[windows.window_of_token]
    latent = design.latent[windows.window_of_token[kept]]
    activation = windows.activation[kept].astype(np.float64)
    predicted = _predicted(words, design, held, result, len(kept))[kept]
    active = activation > (ACTIVE_SHARE * _largest(windows, design))[latent]
    hit = predicted > 0
    both, hits, actives = (
        np.bincount(latent[mask], minlength=size) for mask in (hit & active, hit, active)
    )
    return TokenScores(
        precision=_ratio(both, hits),
        recall=_ratio(both, actives),
        f1=_ratio(2 * both, hits + actives),
        simulation=grouped_pearson(predicted, activation, latent, size),
    )


def _largest(windows: TokenWindows, design: Design) -> NDArray[np.float64]:
    """Return [L] the largest activation in all of a latent's contexts."""
    peak = largest_by_window(windows.window_of_token, windows.activation, len(windows))
    owned = design.latent >= 0
    largest = np.zeros(design.latents)
    np.maximum.at(largest, design.latent[owned], peak[owned])
    return largest


def _predicted(
    words: Words,
    design: Design,
    held: NDArray[np.bool_],
    result: LexicalResult,
    tokens: int,
) -> NDArray[np.float64]:
    """Return the summed z of the terms that hit each of all ``tokens``, 0 unless ``held`` [W]."""
    predicted = np.zeros(tokens)
    channel = np.array(result.channel)[design.latent]
    for name, terms in result.shown.items():
        # The terms' words are looked for only where they are the explanation.
        part = words.within(held & (channel == name))
        occurrence, feature = feature_pairs(part, name)
        z = cells_of(terms, design.latent[part.window[occurrence]], feature)
        total = np.bincount(occurrence, z, len(part.word))
        inside = np.repeat(total, part.tokens)
        first = np.repeat(part.first_token - np.cumsum(part.tokens) + part.tokens, part.tokens)
        predicted[first + np.arange(len(inside))] = inside
    return predicted


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)
