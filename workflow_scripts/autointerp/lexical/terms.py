"""The offline annotator: terms over-represented where a latent fires.

Weighted log-odds with an informative Dirichlet prior (Monroe, Colaresi and Quinn 2008, eq. 16-22):
with y_w the activation-weighted count of term w in the latent's windows (n in all), b_w its count
in the background (B in all) and prior a_w = a0 p_w,

    delta_w = ln[(y_w + a_w) / (n + a0 - y_w - a_w)] - ln[(b_w + a_w) / (B + a0 - b_w - a_w)]
    z_w = delta_w / sqrt(1 / (y_w + a_w) + 1 / (b_w + a_w)).

All latents of a batch and all folds are computed together. Shapes: L latents, W windows (the first
ones background), F features of a channel, G = 5 L groups (four leave-one-fold-out, then all).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from workflow_scripts.autointerp.lexical.features import CHANNELS, Channel, build_channels
from workflow_scripts.autointerp.score_statistics import grouped_auroc
from workflow_scripts.autointerp.windows import Words
from workflow_scripts.common.characters import hidden

FOLDS = 4
GROUPS = FOLDS + 1
PRIOR_STRENGTH = 50.0
MIN_SUPPORT = 2
SHOWN_TERMS = 8
TIE = 0.02
"""Another channel than the token's must lead by more than this."""
PREFIX = "[lexical, no LLM] fires on: "


@dataclass(frozen=True)
class Design:
    """Which window belongs to which latent, and what it is for. All arrays are [W]."""

    latent: NDArray[np.int64]
    """Index 0..L-1, or -1 for a background window."""
    positive: NDArray[np.bool_]
    hard: NDArray[np.bool_]
    train: NDArray[np.bool_]
    fold: NDArray[np.int64]
    stratum: NDArray[np.str_]
    latents: int


@dataclass(frozen=True)
class Term:
    """One term shown for a latent, with its z and the number of train windows that hold it."""

    name: str
    z: float
    support: int


@dataclass(frozen=True)
class LexicalResult:
    """Explanations of L latents in their best channels."""

    channel: list[str]
    terms: list[list[Term]]
    train_auroc: NDArray[np.float64]
    """[L, channels] mean over folds, NaN where undefined."""
    shown: dict[str, sp.csr_array]
    """Per channel [L, F]: z of the shown terms for latents explained in this channel."""
    channels: dict[str, Channel]


def explain(words: Words, design: Design, background_windows: int) -> LexicalResult:
    """Explain every latent from its train windows alone."""
    channels = build_channels(words, len(design.latent), background_windows)
    tables = {name: term_table(channel, design) for name, channel in channels.items()}
    auroc = np.stack([_fold_auroc(channels[n], tables[n][0], design) for n in CHANNELS], axis=1)
    # Ties and undefined values go to the token channel, which comes first.
    lead = np.where(np.isnan(auroc), -1.0, auroc)
    lead[:, 1:] -= TIE
    best = lead.argmax(axis=1)
    terms: list[list[Term]] = [[] for _ in range(design.latents)]
    shown: dict[str, sp.csr_array] = {}
    for column, name in enumerate(CHANNELS):
        z, support = tables[name]
        explained = (best == column).astype(np.float64)
        final = z[np.arange(design.latents) * GROUPS + FOLDS]
        shown[name] = sp.csr_array(sp.diags_array(explained) @ final)
        shown[name].eliminate_zeros()
        final_support = support[np.arange(design.latents) * GROUPS + FOLDS]
        for latent in np.flatnonzero(explained):
            terms[latent] = _terms(final, final_support, int(latent), channels[name].names)
    return LexicalResult([CHANNELS[b] for b in best], terms, auroc, shown, channels)


def term_table(channel: Channel, design: Design) -> tuple[sp.csr_array, sp.csr_array]:
    """Return z and support of the best terms per group, both [G, F] with the same cells."""
    groups = GROUPS * design.latents
    positive = _membership(design, design.positive & design.train)
    hard = _membership(design, design.hard & design.train)
    size = channel.weight.shape[1]
    y = sp.csr_array(positive @ channel.weight)
    y.eliminate_zeros()
    row = np.repeat(np.arange(groups), np.diff(y.indptr))
    column = y.indices.astype(np.int64)
    fired = sp.csr_array(
        (
            (channel.weight.data > 0).astype(np.float64),
            channel.weight.indices,
            channel.weight.indptr,
        ),
        shape=channel.weight.shape,
    )
    support = cells_of(positive @ fired, row, column)
    rate = cells_of(positive @ channel.presence, row, column) / _count(positive)[row]
    hard_count = np.maximum(_count(hard), 1.0)[row]
    hard_rate = cells_of(hard @ channel.presence, row, column) / hard_count
    n = np.asarray(y.sum(axis=1), np.float64).ravel()[row]
    z = log_odds_z(
        y.data.astype(np.float64), n, channel.background[column], float(channel.background.sum())
    )
    keep = (support >= MIN_SUPPORT) & (z > 0) & (rate > hard_rate)
    keep[keep] = _first_per_row(row[keep], z[keep], SHOWN_TERMS)
    shape = (groups, size)
    cells = (row[keep], column[keep])
    return (
        sp.csr_array((z[keep], cells), shape=shape),
        sp.csr_array((support[keep], cells), shape=shape),
    )


def log_odds_z(
    y: NDArray[np.float64],
    n: NDArray[np.float64],
    b: NDArray[np.float64],
    total: float,
    strength: float = PRIOR_STRENGTH,
) -> NDArray[np.float64]:
    """Return z of the weighted log-odds of counts ``y`` of ``n`` against ``b`` of ``total``.

    The prior of a term is its share of background and latent together, so that a term unseen in
    the background keeps a finite odds.
    """
    prior = strength * (b + y) / np.maximum(total + n, 1e-9)
    top, bottom = y + prior, b + prior
    rest_top = np.maximum(n + strength - top, 1e-9)
    rest_bottom = np.maximum(total + strength - bottom, 1e-9)
    delta = np.log(top / rest_top) - np.log(bottom / rest_bottom)
    z: NDArray[np.float64] = delta / np.sqrt(1.0 / top + 1.0 / bottom)
    return z


def window_scores(
    channel: Channel, terms: sp.csr_array, row: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return [W] the summed z of the terms of row ``row[w]`` that occur in window w."""
    chosen = terms[np.maximum(row, 0)]
    score = np.asarray(channel.presence.multiply(chosen).sum(axis=1)).ravel()
    scores: NDArray[np.float64] = np.where(row >= 0, score, 0.0)
    return scores


def render(channel: str, terms: list[Term]) -> str:
    """Return the explanation's text; it names terms and never claims a meaning."""
    if not terms:
        return PREFIX + "(no term stands out)"
    lead = {"word": "", "context": "text that contains ", "form": "forms "}[channel]
    return PREFIX + lead + ", ".join(f'"{_short(term.name)}"' for term in terms)


def _short(name: str) -> str:
    clean = hidden().sub("�", name)
    return clean if len(clean) <= 40 else clean[:39] + "…"


def _fold_auroc(channel: Channel, z: sp.csr_array, design: Design) -> NDArray[np.float64]:
    train = np.flatnonzero(design.train)
    row = design.latent[train] * GROUPS + design.fold[train]
    part = Channel(
        channel.names, channel.presence[train], channel.weight[train], channel.background
    )
    score = window_scores(part, z, row)
    group = design.latent[train] * FOLDS + design.fold[train]
    auroc = grouped_auroc(score, design.positive[train], group, design.latents * FOLDS).auroc
    by_fold = auroc.reshape(design.latents, FOLDS)
    defined = ~np.isnan(by_fold)
    count = defined.sum(axis=1)
    total = np.where(defined, by_fold, 0.0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _membership(design: Design, chosen: NDArray[np.bool_]) -> sp.csr_array:
    """Return [G, W]: window w counts for group (latent, f) unless it lies in fold f."""
    window = np.flatnonzero(chosen)
    base = design.latent[window] * GROUPS
    rows, columns = [], []
    for group in range(GROUPS):
        inside = design.fold[window] != group
        rows.append(base[inside] + group)
        columns.append(window[inside])
    row, column = np.concatenate(rows), np.concatenate(columns)
    shape = (GROUPS * design.latents, len(design.latent))
    return sp.csr_array((np.ones(len(row)), (row, column)), shape=shape)


def _count(membership: sp.csr_array) -> NDArray[np.float64]:
    return np.diff(membership.indptr).astype(np.float64)


def cells_of(
    matrix: sp.csr_array, row: NDArray[np.int64], column: NDArray[np.integer[Any]]
) -> NDArray[np.float64]:
    """Return the matrix's values at the given cells, zero where it holds none."""
    table = sp.csr_array(matrix)
    size = table.shape[1]
    table.sort_indices()
    rows = np.repeat(np.arange(table.shape[0]), np.diff(table.indptr))
    have = rows * size + table.indices.astype(np.int64)
    want = row * size + column.astype(np.int64)
    if not len(have):
        return np.zeros(len(want))
    place = np.minimum(np.searchsorted(have, want), len(have) - 1)
    values: NDArray[np.float64] = np.where(have[place] == want, table.data[place], 0.0)
    return values


def _first_per_row(
    row: NDArray[np.int64], value: NDArray[np.float64], count: int
) -> NDArray[np.bool_]:
    order = np.lexsort((-value, row))
    sorted_row = row[order]
    first = np.searchsorted(sorted_row, sorted_row)
    keep = np.zeros(len(row), np.bool_)
    keep[order] = (np.arange(len(row)) - first) < count
    return keep


def _terms(z: sp.csr_array, support: sp.csr_array, latent: int, names: list[str]) -> list[Term]:
    cell = slice(z.indptr[latent], z.indptr[latent + 1])
    terms = [
        Term(names[i], float(value), int(count))
        for i, value, count in zip(z.indices[cell], z.data[cell], support.data[cell], strict=True)
    ]
    return sorted(terms, key=lambda term: (-term.z, term.name))
