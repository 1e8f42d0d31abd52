"""Latent activations of a batch as the entries that are not zero.

A token activates k of F latents, some dozens of many thousand: all that is summed over a corpus
costs O(K) for K entries, not O(B·F). Shapes: B tokens, F latents, M models, width D.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from workflow_scripts.crosscoder.model import Crosscoder
from workflow_scripts.crosscoder.products import SparseProducts
from workflow_scripts.crosscoder.sparsity import Active, positions_above

# Candidates lie above the threshold less rounding; the exact test is made among them.
SLACK = 1 - 1e-5


@dataclass(frozen=True)
class Codes:
    """Positive activations of a [B, F] matrix, in row-major order."""

    active: Active
    values: Tensor  # [K]
    shape: tuple[int, int]

    def to(self, device: torch.device | str) -> Codes:
        """Return the same entries on ``device``."""
        active = Active(self.active.rows.to(device), self.active.columns.to(device))
        return replace(self, active=active, values=self.values.to(device))

    def per_token(self) -> Tensor:
        """Return how many latents each token activates, its L0, int64 [B]."""
        return torch.bincount(self.active.rows, minlength=self.shape[0])

    def per_latent(self) -> Tensor:
        """Return on how many tokens each latent fires, int64 [F]."""
        return torch.bincount(self.active.columns, minlength=self.shape[1])

    def of(self, latents: Tensor) -> Codes:
        """Return the entries of the latents that a mask [F] marks."""
        kept = latents[self.active.columns]
        active = Active(self.active.rows[kept], self.active.columns[kept])
        return replace(self, active=active, values=self.values[kept])

    def times(self, right: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return f @ right + bias, [B, C], for right [F, C]."""
        zero = right.new_zeros(()) if bias is None else bias
        return self._products.matmul(self.values, right, zero.expand(right.shape[1]))

    def sampled(self, left: Tensor, right: Tensor) -> Tensor:
        """Return ⟨left_i, right_j⟩ of each entry (i, j), [K], for left [B, C] and right [F, C]."""
        return self._products.sampled(left, right)

    @cached_property
    def _products(self) -> SparseProducts:
        # Entry by entry, so that equal columns of ``right`` give equal sums to the last bit.
        return SparseProducts(self.active, self.shape)


def encode(crosscoder: Crosscoder, x: Tensor) -> Codes:
    """Return the latent activations of normalised activations x [B, M, D], in threshold mode.

    The entries are those of :meth:`Crosscoder.encode` that are not zero.
    """
    return codes_of(crosscoder, crosscoder.pre_activations(x))


def codes_of(crosscoder: Crosscoder, pre: Tensor) -> Codes:
    """Return the activations that the threshold leaves of pre-activations [B, F]."""
    scales = crosscoder.score_scales()
    bound = (crosscoder.threshold * SLACK / scales).clamp_min_(0.0)
    columns, shape = pre.shape[1], (pre.shape[0], pre.shape[1])
    positions = positions_above(pre, torch.nan_to_num(bound, nan=torch.inf))
    latent = positions % columns
    values = pre.flatten()[positions]
    kept = values * scales[latent] > crosscoder.threshold
    active = Active((positions // columns)[kept], latent[kept])
    return Codes(active, values[kept], shape)


def decode(crosscoder: Crosscoder, codes: Codes) -> Tensor:
    """Return the reconstruction [B, M, D]."""
    flat = codes.times(crosscoder.weights.decoder, crosscoder.weights.decoder_bias)
    return flat.view(-1, len(crosscoder.models), crosscoder.width)
