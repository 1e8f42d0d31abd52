"""Loss and gradients of one crosscoder step, from active latents only.

Written out instead of left to autograd: after the encoder's matrix product every term needs only
the K = B·k active entries. Tests compare each gradient with autograd's.

Loss: ``mean over tokens of Σ_m ‖x^m − x̂^m‖²``, divided by M·D so that it starts near 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from workflow_scripts.crosscoder.model import Weights
from workflow_scripts.crosscoder.parallel import ALONE, Processes
from workflow_scripts.crosscoder.products import Products, products
from workflow_scripts.crosscoder.sparsity import Active


@dataclass
class Forward:
    """What the forward pass leaves for the gradients."""

    active: Active
    codes: Float[Tensor, " K"]  # activations of the active entries
    residual: Float[Tensor, "B MD"]  # reconstruction minus input
    products: Products


@dataclass
class ActivityPrice:
    """What activity costs under L1: weight · Σ_ij c_j f_ij Σ_m ‖d_j^m‖, per coordinate."""

    weight: float
    norms: Float[Tensor, "F M"]
    costs: Float[Tensor, " F"] | None = None  # c; none: 1

    def of(self, forward: Forward) -> Float[Tensor, ""]:
        """Return the price of a batch, a scalar."""
        paid = (forward.codes * self._each()[forward.active.columns]).sum()
        return self.weight * paid / forward.residual.numel()

    def add_to_codes(self, gradient: Float[Tensor, " K"], forward: Forward) -> None:
        """Add the price's gradient to that of the codes, in place."""
        rate = self.weight / forward.residual.numel()
        gradient += rate * self._each()[forward.active.columns]

    def add_to_decoder(
        self, gradient: Float[Tensor, "F MD"], forward: Forward, weights: Weights
    ) -> None:
        """Add its gradient to that of the decoder, in place: Σ_i c_j f_ij d_j^m / ‖d_j^m‖."""
        mass = forward.codes.new_zeros(len(gradient))
        mass.index_add_(0, forward.active.columns, forward.codes)
        if self.costs is not None:
            mass *= self.costs
        units = weights.directions / self.norms.clamp_min(1e-12)[:, :, None]
        gradient += self.weight / forward.residual.numel() * mass[:, None] * units.flatten(1)

    def _each(self) -> Float[Tensor, " F"]:
        total = self.norms.sum(1)
        return total if self.costs is None else total * self.costs


def decode(
    x: Float[Tensor, "B MD"],
    pre: Float[Tensor, "B F"],
    active: Active,
    weights: Weights,
    rounded: bool = False,
    processes: Processes = ALONE,
) -> Forward:
    """Decode the active entries of the pre-activations ``pre`` and compare with x.

    Where ``pre`` is ``rounded``, the active codes are computed again: it only chose them. Each of
    several processes decodes its own latents.
    """
    by_entry = products(active, (pre.shape[0], pre.shape[1]))
    if rounded:
        exact = by_entry.sampled(x, weights.encoder) + weights.encoder_bias[active.columns]
        codes = exact.clamp_min_(0.0)
    else:
        codes = pre[active.rows, active.columns]
    bias = torch.zeros_like(weights.decoder_bias) if processes.rank else weights.decoder_bias
    reconstruction = processes.sum(by_entry.matmul(codes, weights.decoder, bias))
    return Forward(active, codes, reconstruction - x, by_entry)


def reconstruction_loss(forward: Forward) -> Float[Tensor, ""]:
    """Return the loss, a scalar: mean squared residual per coordinate."""
    return forward.residual.square().mean()


def gradients(
    x: Float[Tensor, "B MD"],
    forward: Forward,
    weights: Weights,
    price: ActivityPrice | None = None,
) -> Weights:
    """Return the gradients of the loss, in dense buffers shaped as the weights.

    The loss is :func:`reconstruction_loss`, plus the price of activity where there is one.

    With g = ∂loss/∂x̂ [B, M·D] and S the sparse [B, F] matrix of active codes::

        ∂decoder = Sᵀ g      ∂decoder_bias = Σ_i g_i      ∂code_ij = ⟨g_i, d_j⟩ (active entries)
        ∂encoder = ∂codeᵀ x  ∂encoder_bias = Σ_i ∂code_ij
    """
    g = forward.residual * (2.0 / forward.residual.numel())
    code_gradient = forward.products.sampled(g, weights.decoder)
    decoder = forward.products.transposed(forward.codes, g)
    if price is not None:
        price.add_to_codes(code_gradient, forward)
        price.add_to_decoder(decoder, forward, weights)
    return Weights(
        encoder=forward.products.transposed(code_gradient, x),
        encoder_bias=torch.zeros_like(weights.encoder_bias).index_add_(
            0, forward.active.columns, code_gradient
        ),
        decoder=decoder,
        decoder_bias=g.sum(0),
        models=weights.models,
    )
