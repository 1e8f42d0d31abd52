"""Next-token cross-entropy of tied or untied output weights, a few rows of logits at a time.

The logits of a whole batch are by far the largest tensor of a small model. Here loss and gradients
are computed chunk by chunk in the forward pass, so that no chunk leaves the processor's cache.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from workflow_scripts.models.likelihood import parts


class ChunkedCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of hidden [N, D] against targets [N] under output weights [V, D]."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss, a scalar, and keep its gradients."""
        gradient_hidden = torch.empty_like(hidden)
        gradient_weight = torch.zeros_like(weight)
        total = hidden.new_zeros(())
        for part in parts(len(hidden)):
            h, target = hidden[part], targets[part][:, None]
            logits = h @ weight.T
            normalizer = logits.logsumexp(1, keepdim=True)
            total += (normalizer - logits.gather(1, target)).sum()
            p = logits.sub_(normalizer).exp_()
            p.scatter_add_(1, target, p.new_full(target.shape, -1.0))
            torch.mm(p, weight, out=gradient_hidden[part])
            gradient_weight.addmm_(p.T, h)
        ctx.save_for_backward(gradient_hidden, gradient_weight)
        return total / len(hidden)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        """Return the gradients of hidden and weight."""
        hidden, weight = ctx.saved_tensors
        scale = gradients[0] / len(hidden)
        return hidden * scale, weight * scale, None


def next_token_loss(hidden: Tensor, weight: Tensor, ids: Tensor) -> Tensor:
    """Return the mean next-token loss of hidden [B, T, D] for ids [B, T], a scalar."""
    flat = hidden[:, :-1].reshape(-1, hidden.shape[-1])
    loss: Tensor = ChunkedCrossEntropy.apply(flat, weight, ids[:, 1:].reshape(-1))
    return loss
