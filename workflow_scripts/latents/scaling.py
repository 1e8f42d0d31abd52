"""Latent scaling: how much of a latent one model needs to explain another [Minder et al. 2025].

For latent j, own model m, target model t and the own direction d_j = d_j^m::

    β_j^t = Σ_i f_ij ⟨y_i^t, d_j⟩ / (Σ_i f_ij² ‖d_j‖²)          ν_j = β_j^other / β_j^own

with y^t the reconstruction (ν^r) or the error plus the latent's own part (ν^ε)::

    y^t = e^t + f_j d_j^t, e^t = x^t − x̂^t
    ⇒  β_j^t = Σ_i f_ij ⟨e_i^t, d_j⟩ / (Σ_i f_ij² ‖d_j‖²) + ⟨d_j^t, d_j⟩ / ‖d_j‖²

Sums are kept per group of documents, so that the delete-one-group jackknife costs nothing.
Shapes: B tokens of a batch, D width, F latents, G groups of documents, M models (own, then target).
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

    def __init__(self, decoder_FMD: Tensor, groups: int) -> None:
        latents, models, _ = decoder_FMD.shape
        self.decoder_FMD = decoder_FMD
        self.directions_FD = [d_FD.contiguous() for d_FD in decoder_FMD.unbind(1)]  # by model
        shape = (groups, latents, models, models)
        self.reconstruction_GFMM = torch.zeros(shape, dtype=torch.float64)
        self.error_GFMM = torch.zeros(shape, dtype=torch.float64)
        self.square_GF = torch.zeros((groups, latents), dtype=torch.float64)

    def add(self, group: int, f: Codes, x_BMD: Tensor, reconstruction_BMD: Tensor) -> None:
        """Add a batch of one group; tensors lie on the decoder's device."""
        latent, values = f.active.columns.cpu(), f.values.double()
        for sums_GFMM, y_BMD in (
            (self.reconstruction_GFMM, reconstruction_BMD),
            (self.error_GFMM, x_BMD - reconstruction_BMD),
        ):
            for target, of_target_BD in enumerate(y_BMD.unbind(1)):
                y_BD = of_target_BD.contiguous()
                for own, d_FD in enumerate(self.directions_FD):
                    products = values * f.sampled(y_BD, d_FD).double()
                    sums_GFMM[group, :, own, target].index_add_(0, latent, products.cpu())
        self.square_GF[group].index_add_(0, latent, values.square().cpu())


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
    d_FMD = sums.decoder_FMD.cpu().double().numpy()
    norm_F = (d_FMD[:, own] * d_FMD[:, own]).sum(1)
    alignment_F = (d_FMD[:, other] * d_FMD[:, own]).sum(1)
    square_GF = sums.square_GF.numpy()
    reconstruction_GFM = sums.reconstruction_GFMM.numpy()[:, :, own]
    error_GFM = sums.error_GFMM.numpy()[:, :, own]
    scale_GF = square_GF * norm_F
    nu_r = _ratio(reconstruction_GFM[..., other], reconstruction_GFM[..., own], scale_GF, square_GF)
    nu_e = _ratio(
        error_GFM[..., other] + square_GF * alignment_F,
        error_GFM[..., own] + scale_GF,
        scale_GF,
        square_GF,
    )
    return nu_r, nu_e


def _ratio(numerator_GF: Array, denominator_GF: Array, scale_GF: Array, square_GF: Array) -> Ratio:
    """Return the ratio, with the jackknife over the groups in which a latent fires at all."""
    groups_F = (square_GF > 0).sum(0).astype(np.float64)
    n_F, d_F = numerator_GF.sum(0), denominator_GF.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        value_F = n_F / d_F
        left_out_GF = (n_F - numerator_GF) / (d_F - denominator_GF)
        left_out_GF = np.where(square_GF > 0, left_out_GF, np.nan)
        mean_F = np.nansum(left_out_GF, 0) / groups_F
        spread_F = np.nansum(np.square(left_out_GF - mean_F), 0)
        error_F = np.sqrt((groups_F - 1) / groups_F * spread_F)
        own_F = d_F / scale_GF.sum(0)
    error_F = np.where(groups_F >= 2, error_F, np.nan)
    return Ratio(value_F, error_F, own_F, groups_F - 1)
