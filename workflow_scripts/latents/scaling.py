"""Latent scaling: how much of a latent one model needs to explain another [Minder et al. 2025].

For latent j, own model m, target model t and the own direction d_j = d_j^m::

    β_j^t = Σ_i f_ij ⟨y_i^t, d_j⟩ / (Σ_i f_ij² ‖d_j‖²)          ν_j = β_j^other / β_j^own

with y^t the reconstruction (ν^r) or the error plus the latent's own part (ν^ε)::

    y^t = e^t + f_j d_j^t, e^t = x^t − x̂^t
    ⇒  β_j^t = Σ_i f_ij ⟨e_i^t, d_j⟩ / (Σ_i f_ij² ‖d_j‖²) + ⟨d_j^t, d_j⟩ / ‖d_j‖²

Sums are kept per group of documents, so that the delete-one-group jackknife costs nothing.
Of two axes M, the first is the own model, the second the target.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from scipy import stats
from torch import Tensor

from workflow_scripts.crosscoder.codes import Codes


class ScalingSums:
    """Accumulates the numerators and denominators of latent scaling over document groups."""

    def __init__(self, decoder: Float[Tensor, "F M D"], groups: int) -> None:
        latents, models, _ = decoder.shape
        self.decoder = decoder
        shape = (groups, latents, models, models)
        self.reconstruction: Float64[Tensor, "G F M M"] = torch.zeros(shape, dtype=torch.float64)
        self.error: Float64[Tensor, "G F M M"] = torch.zeros(shape, dtype=torch.float64)
        self.square: Float64[Tensor, "G F"] = torch.zeros((groups, latents), dtype=torch.float64)

    def add(
        self,
        group: int,
        f: Codes,
        x: Float[Tensor, "B M D"],
        reconstruction: Float[Tensor, "B M D"],
    ) -> None:
        """Add a batch of one group; tensors lie on the decoder's device."""
        latent, values = f.active.columns.cpu(), f.values.double()
        targets = (
            (self.reconstruction, reconstruction.transpose(0, 1).contiguous()),
            (self.error, (x - reconstruction).transpose(0, 1).contiguous()),
        )
        for own in range(self.decoder.shape[1]):
            d = self.decoder[:, own].contiguous()
            for sums, y in targets:
                for target, of_target in enumerate(y):
                    products = values * f.sampled(of_target, d).double()
                    sums[group, :, own, target].index_add_(0, latent, products.cpu())
            del d  # before the next model's
        self.square[group].index_add_(0, latent, values.square().cpu())


@dataclass(frozen=True)
class Ratio:
    """A ratio per latent with its jackknife: value, standard error, degrees of freedom."""

    value: Float64[np.ndarray, " F"]
    error: Float64[np.ndarray, " F"]
    own: Float64[np.ndarray, " F"]  # β^own, the denominator
    freedom: Float64[np.ndarray, " F"]

    def p_below(self, bound: float) -> Float64[np.ndarray, " F"]:
        """Return one-sided p-values for H0 «ratio ≥ bound» from Student's t."""
        with np.errstate(divide="ignore", invalid="ignore"):
            statistic = (self.value - bound) / self.error
        p: Float64[np.ndarray, " F"] = np.asarray(
            stats.t.cdf(statistic, np.maximum(self.freedom, 1))
        )
        return p


def latent_scaling(
    sums: ScalingSums, products: Float64[np.ndarray, "F M M"], own: int, other: int
) -> tuple[Ratio, Ratio]:
    """Return ν^r and ν^ε of every latent for the claim «unique to ``own``, not in ``other``».

    ``products`` are the inner products of each latent's directions.
    """
    norm, alignment = products[:, own, own], products[:, other, own]
    square = sums.square.numpy()
    reconstruction = sums.reconstruction.numpy()[:, :, own]
    error = sums.error.numpy()[:, :, own]
    scale = square * norm
    nu_r = _ratio(reconstruction[..., other], reconstruction[..., own], scale, square)
    nu_e = _ratio(
        error[..., other] + square * alignment,
        error[..., own] + scale,
        scale,
        square,
    )
    return nu_r, nu_e


def _ratio(
    numerator: Float64[np.ndarray, "G F"],
    denominator: Float64[np.ndarray, "G F"],
    scale: Float64[np.ndarray, "G F"],
    square: Float64[np.ndarray, "G F"],
) -> Ratio:
    """Return the ratio, with the jackknife over the groups in which a latent fires at all."""
    groups = (square > 0).sum(0).astype(np.float64)  # of each latent
    n, d = numerator.sum(0), denominator.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = n / d
        left_out = (n - numerator) / (d - denominator)
        left_out = np.where(square > 0, left_out, np.nan)
        mean = np.nansum(left_out, 0) / groups
        spread = np.nansum(np.square(left_out - mean), 0)
        error = np.sqrt((groups - 1) / groups * spread)
        own = d / scale.sum(0)
    error = np.where(groups >= 2, error, np.nan)
    return Ratio(value, error, own, groups - 1)
