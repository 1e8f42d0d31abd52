"""Loss and gradients of one crosscoder step, from active latents only.

Written out instead of left to autograd: after the encoder's matrix product every term needs only
the K = B·k active entries. Tests compare each gradient with autograd's.

Loss: ``mean over tokens of Σ_m ‖x^m − x̂^m‖²``, divided by M·D so that it starts near 1.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from workflow_scripts.crosscoder.model import Weights
from workflow_scripts.crosscoder.sparsity import Active

warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
warnings.filterwarnings("ignore", message="Sparse invariant checks are implicitly disabled")


@dataclass
class Forward:
    """What the forward pass leaves for the gradients."""

    active: Active
    codes: Tensor  # [K] activations of the active entries
    residual: Tensor  # [B, M·D] reconstruction minus input


def encode(x: Tensor, weights: Weights) -> Tensor:
    """Return pre-activations [B, F] of x [B, M·D]."""
    return torch.addmm(weights.encoder_bias, x, weights.encoder.T)


def decode(x: Tensor, pre: Tensor, active: Active, weights: Weights) -> Forward:
    """Decode the active entries of ``pre`` [B, F] and compare with x [B, M·D]."""
    codes = pre[active.rows, active.columns]
    sparse = _csr(active.rows, active.columns, codes, pre.shape)
    reconstruction = torch.addmm(weights.decoder_bias.expand_as(x), sparse, weights.decoder)
    return Forward(active, codes, reconstruction - x)


def reconstruction_loss(forward: Forward) -> Tensor:
    """Return the loss, a scalar: mean squared residual per coordinate."""
    return forward.residual.square().mean()


def activity_price(forward: Forward, norms: Tensor) -> Tensor:
    """Return Σ_ij f_ij Σ_m ‖d_j^m‖ per coordinate of the residual; ``norms`` are [F, M]."""
    return (forward.codes * norms.sum(1)[forward.active.columns]).sum() / forward.residual.numel()


def gradients(
    x: Tensor, forward: Forward, weights: Weights, price: float = 0.0, norms: Tensor | None = None
) -> Weights:
    """Return the gradients of the loss, in dense buffers shaped as the weights.

    The loss is :func:`reconstruction_loss`, plus ``price`` times :func:`activity_price`, for which
    the decoder norms [F, M] are asked.

    With g = ∂loss/∂x̂ [B, M·D] and S the sparse [B, F] matrix of active codes::

        ∂decoder = Sᵀ g      ∂decoder_bias = Σ_i g_i      ∂code_ij = ⟨g_i, d_j⟩ (active entries)
        ∂encoder = ∂codeᵀ x  ∂encoder_bias = Σ_i ∂code_ij
    """
    active, shape = forward.active, (x.shape[0], weights.decoder.shape[0])
    g = forward.residual * (2.0 / forward.residual.numel())
    code_gradient = sampled_products(g, weights.decoder, active)
    if norms is not None and price:
        code_gradient += price / forward.residual.numel() * norms.sum(1)[active.columns]
    transposed = _Transposed(active, shape)
    decoder = transposed.matmul(forward.codes, g)
    if norms is not None and price:
        _add_norm_gradients(decoder, forward, weights, price, norms)
    return Weights(
        encoder=transposed.matmul(code_gradient, x),
        encoder_bias=torch.zeros_like(weights.encoder_bias).index_add_(
            0, active.columns, code_gradient
        ),
        decoder=decoder,
        decoder_bias=g.sum(0),
    )


def _add_norm_gradients(
    decoder: Tensor, forward: Forward, weights: Weights, price: float, norms: Tensor
) -> None:
    """Add what the price of activity asks of the decoder: Σ_i f_ij d_j^m / ‖d_j^m‖."""
    mass = torch.zeros(len(decoder), dtype=decoder.dtype)
    mass.index_add_(0, forward.active.columns, forward.codes)
    models = norms.shape[1]
    units = weights.decoder.view(len(decoder), models, -1) / norms.clamp_min(1e-12)[:, :, None]
    decoder += price / forward.residual.numel() * mass[:, None] * units.flatten(1)


def sampled_products(left: Tensor, right: Tensor, active: Active) -> Tensor:
    """Return ⟨left_i, right_j⟩ for the active (i, j), [K], of left [B, C] and right [F, C]."""
    shape = (left.shape[0], right.shape[0])
    pattern = _csr(active.rows, active.columns, left.new_zeros(active.rows.numel()), shape)
    products: Tensor = torch.sparse.sampled_addmm(pattern, left, right.T, beta=0.0).values()
    return products


class _Transposed:
    """The active pattern by columns, so that one sort serves both weight gradients."""

    def __init__(self, active: Active, shape: tuple[int, int]) -> None:
        order = torch.argsort(active.columns, stable=True)
        self.order = order
        self.rows = active.columns[order]
        self.columns = active.rows[order]
        self.shape = (shape[1], shape[0])

    def matmul(self, values: Tensor, right: Tensor) -> Tensor:
        """Return Sᵀ @ right, [F, C], for the entries ``values`` [K] and right [B, C]."""
        sparse = _csr(self.rows, self.columns, values[self.order], self.shape)
        return torch.mm(sparse, right)


def _csr(rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    counts = torch.bincount(rows, minlength=shape[0])
    pointers = torch.zeros(shape[0] + 1, dtype=torch.int64)
    torch.cumsum(counts, 0, out=pointers[1:])
    return torch.sparse_csr_tensor(
        pointers, columns, values, size=(shape[0], shape[1]), check_invariants=False
    )
