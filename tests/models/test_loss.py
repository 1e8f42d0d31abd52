"""The chunked loss against torch's own."""

from __future__ import annotations

import torch
from torch.nn import functional

from workflow_scripts.models.likelihood import CHUNK
from workflow_scripts.models.loss import next_token_loss


def test_loss_and_gradients_equal_torchs() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(9, CHUNK // 4, 8, generator=generator, dtype=torch.float64)
    weight = torch.randn(50, 8, generator=generator, dtype=torch.float64)
    ids = torch.randint(0, 50, hidden.shape[:2], generator=generator)
    ours = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
    theirs = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
    loss = next_token_loss(ours[0], ours[1], ids)
    logits = (theirs[0] @ theirs[1].T)[:, :-1]
    expected = functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    torch.testing.assert_close(loss, expected)
    (3 * loss).backward()
    (3 * expected).backward()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad)
