"""Which latents are active: exact BatchTopK without sorting B·F scores.

A rule maps scores [B, F] to the active entries. BatchTopK keeps the B·k largest positive scores
of the whole batch [Bussmann et al. 2024].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# A new threshold is first sought at this share of the last one; a miss costs one more pass.
MARGIN = 0.85


@dataclass
class Active:
    """Active entries of a [B, F] matrix in row-major order."""

    rows: Tensor  # int64 [K]
    columns: Tensor  # int64 [K]


class BatchTopK:
    """Keep the B·k largest positive scores of a batch.

    The threshold of the step before gives candidates; the exact selection is made among them.
    When fewer than B·k candidates are found, the bound is lowered and the search repeated, so the
    result never depends on what was carried over.
    """

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
