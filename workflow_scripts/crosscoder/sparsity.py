"""Which latents are active: one small class per sparsity rule.

A rule maps scores [B, F] to the active entries and may put a price on activity. To add one, write a
class with the attributes of :class:`SparsityRule` and name it in :func:`sparsity_rule`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

# A new threshold is first sought at this share of the last one; a miss costs one more pass.
MARGIN = 0.85


@dataclass
class Active:
    """Active entries of a [B, F] matrix in row-major order."""

    rows: Tensor  # int64 [K]
    columns: Tensor  # int64 [K]


Variant = Literal["batch_topk", "topk", "l1"]


class SparsityRule(Protocol):
    """What a fit needs of a rule."""

    last_threshold: float
    """State that is carried from step to step and kept in checkpoints; results must not depend
    on it."""
    solved: bool
    """Whether inference uses a threshold solved for k; else every positive score is active."""
    price: float
    """Weight μ of Σ_j f_j Σ_m ‖d_j^m‖ in the loss."""

    def select(self, scores: Tensor, k: float) -> Active:
        """Return the active entries for ``scores`` [B, F]."""


def sparsity_rule(variant: str, price: float) -> SparsityRule:
    """Return the rule of a variant; ``price`` is that of L1."""
    if variant == "l1":
        return L1(price)
    return TopK() if variant == "topk" else BatchTopK()


class TopK:
    """Keep the k largest scores of every token [Gao et al. 2024]; only positive ones, if wanted."""

    last_threshold, solved, price = 0.0, True, 0.0

    def __init__(self, positive: bool = True) -> None:
        self.positive = positive

    def select(self, scores: Tensor, k: float) -> Active:
        """Return the active entries, by token; ``k`` is rounded."""
        top = scores.topk(min(round(k), scores.shape[1]), dim=1, sorted=False)
        columns, order = top.indices.sort(dim=1)
        rows = torch.arange(len(scores))[:, None].expand_as(columns)
        if not self.positive:
            return Active(rows.flatten(), columns.flatten())
        kept = top.values.gather(1, order) > 0
        return Active(rows[kept], columns[kept])


class L1:
    """Keep every positive score and pay for it: μ Σ_j f_j Σ_m ‖d_j^m‖ [Lindsey et al. 2024].

    The known-bad baseline: it shrinks a latent out of one model and splits latents that both hold
    [Minder et al. 2025].
    """

    last_threshold, solved = 0.0, False

    def __init__(self, price: float) -> None:
        self.price = price

    def select(self, scores: Tensor, k: float) -> Active:
        """Return all positive entries, whatever ``k`` is."""
        rows, columns = torch.nonzero(scores > 0, as_tuple=True)
        return Active(rows, columns)


class BatchTopK:
    """Keep the B·k largest positive scores of a batch [Bussmann et al. 2024].

    Exact without sorting B·F scores.

    The threshold of the step before gives candidates; the exact selection is made among them.
    When fewer than B·k candidates are found, the bound is lowered and the search repeated, so the
    result never depends on what was carried over.
    """

    solved, price = True, 0.0

    def __init__(self) -> None:
        self.last_threshold = 0.0

    def select(self, scores: Tensor, k: float) -> Active:
        """Return the active entries for ``scores`` [B, F] and a mean of ``k`` latents per token.

        Ties at the threshold are broken by position. Entries that are not positive are never
        active, so fewer than B·k may be returned.
        """
        wanted = round(scores.shape[0] * k)
        flat = scores.flatten()
        bound = self.last_threshold * MARGIN
        candidates = torch.nonzero(flat > bound).squeeze(1)
        while candidates.numel() < wanted and bound > 0:
            bound = bound / 2 if bound > 1e-6 * self.last_threshold else 0.0
            candidates = torch.nonzero(flat > bound).squeeze(1)
        if candidates.numel() > wanted:
            values = flat[candidates]
            threshold = torch.kthvalue(values, values.numel() - wanted + 1).values
            candidates = candidates[_first(values, threshold, wanted)]
            self.last_threshold = float(threshold)
        else:
            self.last_threshold = 0.0
        latents = scores.shape[1]
        return Active(candidates // latents, candidates % latents)


def _first(values: Tensor, threshold: Tensor, wanted: int) -> Tensor:
    """Return the mask of the ``wanted`` largest values; the first of those that tie."""
    keep = values >= threshold
    surplus = int(keep.sum()) - wanted
    if surplus:
        ties = torch.nonzero(values == threshold).squeeze(1)
        keep[ties[-surplus:]] = False
    return keep
