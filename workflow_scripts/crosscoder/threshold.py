"""The inference threshold: solved on the calibration split, so that the mean L0 equals k."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from workflow_scripts.cli import UserError
from workflow_scripts.crosscoder.model import Weights


def solve_threshold(weights: Weights, batches: Iterator[Tensor], models: int, k: int) -> float:
    """Return θ such that on average k scores per token exceed it, over batches [B, M, D].

    Exact, as long as no batch has more than 4·k scores per token above θ: each batch hands on its
    4·k·B largest scores, and θ is the (k·N)-th largest of all. Falls back to 0 when fewer than k
    scores per token are positive.
    """
    total_norm = weights.norms(models).sum(1)
    kept: list[Tensor] = []
    tokens = 0
    for x in batches:
        pre = torch.addmm(weights.encoder_bias, x.flatten(1), weights.encoder.T)
        scores = (pre * total_norm).flatten()
        kept.append(scores.topk(min(4 * k * x.shape[0], scores.numel())).values)
        tokens += x.shape[0]
    if not tokens:
        raise UserError(
            "the calibration split holds no usable token: raise text.tokens or "
            "text.splits.calibration"
        )
    scores = torch.cat(kept)
    if scores.numel() <= k * tokens:
        return 0.0
    return max(0.0, float(torch.kthvalue(scores, scores.numel() - k * tokens).values))
