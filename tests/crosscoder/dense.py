"""The dense reference of a crosscoder step: plain autograd, full products, global top-k."""

from __future__ import annotations

import torch
from torch import Tensor

from workflow_scripts.crosscoder.model import Weights


def dense_loss(x: Tensor, weights: Weights, k: int) -> Tensor:
    """Return the mean squared residual per coordinate under BatchTopK, differentiable."""
    pre = torch.addmm(weights.encoder_bias, x, weights.encoder.T).relu()
    scores = (pre * weights.norms().sum(1)).detach()
    keep = torch.zeros_like(scores, dtype=torch.bool).flatten()
    keep[scores.flatten().topk(x.shape[0] * k).indices] = True
    f = pre * keep.view_as(pre)
    return (torch.addmm(weights.decoder_bias, f, weights.decoder) - x).square().mean()


def as_leaves(weights: Weights) -> Weights:
    """Return a copy whose tensors require gradients."""
    return weights.map(lambda tensor: tensor.detach().clone().requires_grad_())


def as_double(weights: Weights) -> Weights:
    """Return a float64 copy."""
    return weights.map(Tensor.double)
