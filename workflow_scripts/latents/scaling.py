"""Latent scaling: how much of a latent one model needs to explain another [Minder et al. 2025].

For latent j, own model m, target model t and the own direction d_j = d_j^m::

    β_j^t = Σ_i f_ij ⟨y_i^t, d_j⟩ / (Σ_i f_ij² ‖d_j‖²)          ν_j = β_j^other / β_j^own

with y^t the reconstruction (ν^r) or the error plus the latent's own part (ν^ε)::

    y^t = e^t + f_j d_j^t, e^t = x^t − x̂^t
    ⇒  β_j^t = Σ_i f_ij ⟨e_i^t, d_j⟩ / (Σ_i f_ij² ‖d_j‖²) + ⟨d_j^t, d_j⟩ / ‖d_j‖²

Sums are kept per group of documents, so that the delete-one-group jackknife costs nothing.
Shapes: G groups, F latents, M models (own, then target).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from workflow_scripts.crosscoder.codes import Codes

Array = NDArray[np.float64]


class ScalingSums:
    """Accumulates the numerators and denominators of latent scaling over document groups."""

    def __init__(self, w_dec: Tensor, groups: int) -> None:
        latents, models, _ = w_dec.shape
        self.w_dec = w_dec
        self.directions = [d.contiguous() for d in w_dec.unbind(1)]
        shape = (groups, latents, models, models)
        self.reconstruction = torch.zeros(shape, dtype=torch.float64)
        self.error = torch.zeros(shape, dtype=torch.float64)
        self.square = torch.zeros((groups, latents), dtype=torch.float64)

    def add(self, group: int, f: Codes, x: Tensor, reconstruction: Tensor) -> None:
        """Add a batch of one group, x and reconstruction [B, M, D], on the device of ``w_dec``."""
        latent, values = f.active.columns.cpu(), f.values.double()
        for sums, y in (
            (self.reconstruction, reconstruction),
            (self.error, x - reconstruction),
        ):
            for target, of_model in enumerate(y.unbind(1)):
                one = of_model.contiguous()
                for own, directions in enumerate(self.directions):
                    product = values * f.sampled(one, directions).double()
                    sums[group, :, own, target].index_add_(0, latent, product.cpu())
        self.square[group].index_add_(0, latent, values.square().cpu())


@dataclass(frozen=True)
class Ratio:
    """A ratio per latent with its jackknife: value, standard error, degrees of freedom, all [F]."""

    value: Array
    error: Array
    own: Array  # β^own, the denominator
    freedom: Array

    def p_below(self, bound: float) -> Array:
        """Return one-sided p-values for H0 «ratio ≥ bound» from Student's t, [F]."""
        with np.errstate(divide="ignore", invalid="ignore"):
            statistic = (self.value - bound) / self.error
        p: Array = np.asarray(stats.t.cdf(statistic, np.maximum(self.freedom, 1)))
        return p


def latent_scaling(sums: ScalingSums, own: int, other: int) -> tuple[Ratio, Ratio]:
    """Return ν^r and ν^ε of every latent for the claim «unique to ``own``, not in ``other``»."""
    d = sums.w_dec.cpu().double().numpy()
    norm = (d[:, own] * d[:, own]).sum(1)
    alignment = (d[:, other] * d[:, own]).sum(1)
    square = sums.square.numpy()
    reconstruction, error = sums.reconstruction.numpy(), sums.error.numpy()
    nu_r = _ratio(
        reconstruction[:, :, own, other], reconstruction[:, :, own, own], square * norm, square
    )
    nu_e = _ratio(
        error[:, :, own, other] + square * alignment,
        error[:, :, own, own] + square * norm,
        square * norm,
        square,
    )
    return nu_r, nu_e


def _ratio(numerator: Array, denominator: Array, scale: Array, square: Array) -> Ratio:
    """Jackknife numerator/denominator [G, F] over the groups in which a latent fires at all."""
    groups = (square > 0).sum(0).astype(np.float64)
    n, d = numerator.sum(0), denominator.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = n / d
        left_out = np.where(square > 0, (n - numerator) / (d - denominator), np.nan)
        spread = np.nansum(np.square(left_out - np.nansum(left_out, 0) / groups), 0)
        error = np.sqrt((groups - 1) / groups * spread)
        own = d / scale.sum(0)
    error = np.where(groups >= 2, error, np.nan)
    return Ratio(value, error, own, groups - 1)
