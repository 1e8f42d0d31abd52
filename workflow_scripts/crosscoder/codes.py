"""Latent activations of a batch as the entries that are not zero.

A token activates k of F latents, some dozens of many thousands: sums over a corpus cost O(K) for K
entries, not O(B·F). Shapes: B tokens, F latents, M models, D width, K entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workflow_scripts.crosscoder.model import Crosscoder
from workflow_scripts.crosscoder.products import SparseProducts
from workflow_scripts.crosscoder.sparsity import Active, positions_above

# Candidates lie above the threshold less rounding; the exact test is made among them.
SLACK = 1 - 1e-5
HELD = 1 << 26  # pre-activations that are held at once


@dataclass(frozen=True)
class Codes:
    """Positive activations of a [B, F] matrix, in row-major order."""

    active: Active
    values: Float[Tensor, " K"]
    shape: tuple[int, int]

    def to(self, device: torch.device | str) -> Codes:
        """Return the same entries on ``device``."""
        active = Active(self.active.rows.to(device), self.active.columns.to(device))
        return replace(self, active=active, values=self.values.to(device))

    def per_token(self) -> Int[Tensor, " B"]:
        """Return how many latents each token activates, its L0."""
        return torch.bincount(self.active.rows, minlength=self.shape[0])

    def per_latent(self) -> Int[Tensor, " F"]:
        """Return on how many tokens each latent fires."""
        return torch.bincount(self.active.columns, minlength=self.shape[1])

    def of(self, latents: Bool[Tensor, " F"]) -> Codes:
        """Return the entries of the latents that a mask marks."""
        return self.where(latents[self.active.columns])

    def on(self, tokens: Bool[Tensor, " B"]) -> Codes:
        """Return the entries of the tokens that a mask marks."""
        return self.where(tokens[self.active.rows])

    def where(self, kept: Bool[Tensor, " K"]) -> Codes:
        """Return the entries that a mask marks; a GPU is waited for once, not for each part."""
        places = kept.nonzero().squeeze(1)
        active = Active(self.active.rows[places], self.active.columns[places])
        return replace(self, active=active, values=self.values[places])

    def times(
        self, right: Float[Tensor, "F C"], bias: Float[Tensor, " C"] | None = None
    ) -> Float[Tensor, "B C"]:
        """Return f @ right + bias."""
        zero = right.new_zeros(()) if bias is None else bias
        return self._products.matmul(self.values, right, zero.expand(right.shape[1]))

    def sampled(
        self, left: Float[Tensor, "B C"], right: Float[Tensor, "F C"]
    ) -> Float[Tensor, " K"]:
        """Return ⟨left_i, right_j⟩ of each entry (i, j)."""
        return self._products.sampled(left, right)

    @cached_property
    def _products(self) -> SparseProducts:
        # Entry by entry, so that equal columns of ``right`` give equal sums to the last bit.
        return SparseProducts(self.active, self.shape)


def encode(crosscoder: Crosscoder, x: Float[Tensor, "B M D"]) -> Codes:
    """Return the latent activations of normalised activations x, in threshold mode.

    The entries are those of :meth:`Crosscoder.encode` that are not zero.
    """
    parts = x.split(max(1, HELD // max(1, crosscoder.latents)))
    return stacked([codes_of(crosscoder, crosscoder.pre_activations(part)) for part in parts])


def stacked(parts: Sequence[Codes]) -> Codes:
    """Return the activations of batches as those of one."""
    if len(parts) == 1:
        return parts[0]
    counts = [part.shape[0] for part in parts]
    starts = accumulate(counts, initial=0)
    rows = torch.cat([part.active.rows + start for part, start in zip(parts, starts, strict=False)])
    columns = torch.cat([part.active.columns for part in parts])
    values = torch.cat([part.values for part in parts])
    return Codes(Active(rows, columns), values, (sum(counts), parts[0].shape[1]))


def codes_of(crosscoder: Crosscoder, pre: Float[Tensor, "B F"]) -> Codes:
    """Return the activations that the threshold leaves of pre-activations."""
    scales = crosscoder.score_scales()
    bound = (crosscoder.threshold * SLACK / scales).clamp_min_(0.0)
    columns, shape = pre.shape[1], (pre.shape[0], pre.shape[1])
    positions = positions_above(pre, torch.nan_to_num(bound, nan=torch.inf))
    latent = positions % columns
    values = pre.flatten()[positions]
    codes = Codes(Active(positions // columns, latent), values, shape)
    return codes.where(values * scales[latent] > crosscoder.threshold)


def decode(crosscoder: Crosscoder, codes: Codes) -> Float[Tensor, "B M D"]:
    """Return the reconstruction."""
    flat = codes.times(crosscoder.weights.decoder, crosscoder.weights.decoder_bias)
    return flat.view(-1, len(crosscoder.models), crosscoder.width)
