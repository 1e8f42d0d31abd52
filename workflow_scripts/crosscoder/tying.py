"""Designated shared latents: one decoder direction for all models, and cheaper to use.

Latents that are reserved for what the models share relieve the others of it, so that the
others differ only for a reason [Anthropic 2025, crosscoder-diffing update]. They cost a fraction of
what others do: of k under BatchTopK and TopK, of μ under L1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from workflow_scripts.crosscoder.model import Weights


@dataclass(frozen=True)
class SharedLatents:
    """The first ``count`` latents are shared and cost ``cost`` each, where others cost 1.

    Of the latents at hand the first one is number ``first``.
    """

    count: int
    cost: float
    first: int = 0

    @property
    def at_hand(self) -> int:
        """How many of the latents at hand are shared, unless these are fewer."""
        return max(0, self.count - self.first)

    def costs(self, latents: int, device: torch.device | None = None) -> Float[Tensor, " F"] | None:
        """Return the cost of so many latents at hand, or None where all cost the same."""
        if not self.count:
            return None
        costs = torch.ones(latents, device=device)
        costs[: self.at_hand] = self.cost
        return costs

    def tie(self, gradients: Weights) -> None:
        """Give a shared latent's directions the same gradient, in place: the sum over models.

        Directions that start equal then stay equal to the last bit.
        """
        if self.at_hand:
            own = gradients.directions[: self.at_hand]
            own.copy_(own.sum(1, keepdim=True).expand_as(own))
