"""AuxK: dead latents learn to reconstruct what the live ones leave over.

A latent is dead when it has not fired for a set number of tokens; only optimiser steps count. The
``k_aux`` dead latents with the largest pre-activations of a token reconstruct the detached
residual; the loss is divided by the residual's variance, so that its weight means the same
throughout a fit [Gao et al. 2024, Bussmann et al. 2024].
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workflow_scripts.crosscoder import step
from workflow_scripts.crosscoder.model import Weights
from workflow_scripts.crosscoder.parallel import Processes
from workflow_scripts.crosscoder.sparsity import Active, TopK


class DeadLatents:
    """Counts, for every latent, the tokens since it last fired."""

    def __init__(
        self,
        latents: int,
        patience: int,
        device: torch.device | None = None,
    ) -> None:
        self.silent_tokens = torch.zeros(latents, dtype=torch.int64, device=device)
        self.patience = patience

    def update(self, active: Active, tokens: int, counts: Bool[Tensor, ""] | bool = True) -> None:
        """Count one optimiser step over ``tokens`` tokens in which ``active`` fired, if it counts.

        Whether it does may be known to the device alone.
        """
        fired = torch.zeros_like(self.silent_tokens, dtype=torch.bool)
        fired.index_fill_(0, active.columns, True)
        self.silent_tokens += tokens * counts
        self.silent_tokens.masked_fill_(fired & counts, 0)

    def dead(self) -> Int[Tensor, " dead"]:
        """Return the indices of the dead latents; on a GPU this waits for the device."""
        return torch.nonzero(self.silent_tokens >= self.patience).squeeze(1)


@dataclass
class AuxK:
    """The auxiliary loss: ``weight`` times the dead latents' share of unexplained variance."""

    k: int
    weight: float
    processes: Processes = field(default_factory=Processes)

    def add_gradients(
        self,
        x: Float[Tensor, "B MD"],
        pre: Float[Tensor, "B F"],
        residual: Float[Tensor, "B MD"],
        dead: Int[Tensor, " dead"],
        weights: Weights,
        to: Weights,
    ) -> Float[Tensor, ""]:
        """Add the loss's gradients to ``to`` in place and return the weighted loss, a scalar.

        ``residual`` is the reconstruction minus the input, ``dead`` holds latent indices.
        Pre-activations enter without the rectifier: a latent whose pre-activation is negative
        everywhere would otherwise stay dead for ever.
        """
        if not sum(self.processes.numbers(dead.numel())):
            return residual.new_zeros(())
        decoder = weights.decoder[dead]
        part = Weights(
            encoder=decoder,  # not read: the pre-activations are there
            encoder_bias=weights.encoder_bias[dead],
            decoder=decoder,
            decoder_bias=torch.zeros_like(weights.decoder_bias),
            models=weights.models,
        )
        candidates = pre.index_select(1, dead)
        active = TopK(positive=False, processes=self.processes).select(candidates, self.k)
        forward = step.decode(-residual, candidates, active, part, processes=self.processes)
        variance = (residual - residual.mean(0)).square().mean()
        scale = self.weight / variance
        loss = scale * step.reconstruction_loss(forward)
        forward.residual *= scale
        gradients = step.gradients(x, forward, part)
        to.decoder.index_add_(0, dead, gradients.decoder)
        to.encoder.index_add_(0, dead, gradients.encoder)
        to.encoder_bias.index_add_(0, dead, gradients.encoder_bias)
        return loss
