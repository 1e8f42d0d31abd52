"""AuxK: dead latents learn to reconstruct what the live ones leave over.

A latent is dead when it has not fired for a set number of tokens; only optimiser steps count. The
``k_aux`` dead latents with the largest pre-activations of a token reconstruct the detached
residual; the loss is divided by the residual's variance, so that its weight means the same
throughout a fit [Gao et al. 2024, Bussmann et al. 2024].
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from workflow_scripts.crosscoder.model import Weights
from workflow_scripts.crosscoder.parallel import Processes
from workflow_scripts.crosscoder.sparsity import Active


class DeadLatents:
    """Counts, for every latent, the tokens since it last fired."""

    def __init__(
        self,
        latents: int,
        patience: int,
        processes: Processes | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.silent_tokens = torch.zeros(latents, dtype=torch.int64, device=device)
        self.patience = patience
        self.processes = processes or Processes()

    def update(self, active: Active, tokens: int) -> None:
        """Count one optimiser step over ``tokens`` tokens in which ``active`` fired."""
        fired = torch.zeros_like(self.silent_tokens, dtype=torch.bool)
        fired[active.columns] = True
        self.silent_tokens += tokens
        self.silent_tokens[self.processes.any(fired)] = 0

    def dead(self) -> Tensor:
        """Return the indices of the dead latents, int64."""
        return torch.nonzero(self.silent_tokens >= self.patience).squeeze(1)


@dataclass
class AuxK:
    """The auxiliary loss: ``weight`` times the dead latents' share of unexplained variance."""

    k: int
    weight: float
    processes: Processes = field(default_factory=Processes)

    def add_gradients(
        self, x: Tensor, pre: Tensor, residual: Tensor, dead: Tensor, weights: Weights, to: Weights
    ) -> Tensor:
        """Add the loss's gradients to ``to`` in place and return the weighted loss, a scalar.

        ``x`` and ``residual`` (reconstruction minus input) are [B, M·D], ``pre`` is [B, F] and
        ``dead`` holds latent indices. Pre-activations enter without the rectifier: a latent whose
        pre-activation is negative everywhere would otherwise stay dead for ever.
        """
        if not dead.numel():
            return residual.new_zeros(())
        k = min(self.k, dead.numel())
        top = pre[:, dead].topk(k, dim=1)
        codes = top.values.new_zeros(x.shape[0], dead.numel()).scatter_(1, top.indices, top.values)
        decoder = weights.decoder[dead]
        target = -residual
        error = codes @ decoder - target
        mean = self.processes.mean(target.mean(0))
        variance = self.processes.mean((target - mean).square().mean())
        loss = self.weight * error.square().mean() / variance
        g = error * (2.0 * self.weight / (error.numel() * variance))
        code_gradient = (g @ decoder.T) * (codes != 0)
        to.decoder.index_add_(0, dead, codes.T @ g)
        to.encoder.index_add_(0, dead, code_gradient.T @ x)
        to.encoder_bias.index_add_(0, dead, code_gradient.sum(0))
        return loss
