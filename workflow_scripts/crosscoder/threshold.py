"""The inference threshold: solved on the calibration split, so that the mean L0 equals k."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from workflow_scripts.common.cli import UserError
from workflow_scripts.crosscoder.model import Weights, score_scales
from workflow_scripts.crosscoder.parallel import ALONE, Processes


def solve_threshold(
    weights: Weights,
    batches: Iterator[Float[Tensor, "_ M D"]],
    k: int,
    costs: Float[Tensor, " F"] | None = None,
    processes: Processes = ALONE,
) -> float:
    """Return θ such that on average k scores per token exceed it.

    Where latents cost less than 1 each (``costs``), scores are divided by them, and those above
    θ cost k per token.

    Exact, as long as no batch has more than 4·k scores per token above θ (with costs: nor spends
    more than 2·k): each batch contributes that many of its largest scores, and θ is the (k·N)-th
    largest of all. Falls back to 0 when fewer than k scores per token are positive. Each of several
    processes has its own latents, and the same batches.
    """
    scale = score_scales(weights.norms(), costs)
    most = 4 * k
    if costs is not None:
        most = max(most, round(2 * k / float(processes.gather(costs)[0].min())))
    kept: list[Tensor] = []
    spent: list[Tensor] = []
    tokens = 0
    for x in batches:
        pre = weights.pre_activations(x.flatten(1).to(weights.device))
        scores = (pre * scale).flatten()
        own = scores.topk(min(most * x.shape[0], scores.numel()))
        every, _ = processes.gather(own.values)
        top = every.topk(min(most * x.shape[0], every.numel()))
        kept.append(top.values)
        if costs is not None:
            spent.append(processes.gather(costs[own.indices % len(costs)])[0][top.indices])
        tokens += x.shape[0]
    if not tokens:
        raise UserError(
            "the calibration split holds no usable token: raise text.tokens or "
            "text.splits.calibration"
        )
    scores = torch.cat(kept)
    if costs is not None:
        return _dearest(scores, torch.cat(spent), k * tokens)
    if scores.numel() <= k * tokens:
        return 0.0
    return max(0.0, float(torch.kthvalue(scores, scores.numel() - k * tokens).values))


def _dearest(scores: Float[Tensor, " K"], costs: Float[Tensor, " K"], budget: int) -> float:
    """Return the largest score that the budget does not pay for, at least 0."""
    order = torch.argsort(scores, descending=True)
    paid = int((costs[order].double().cumsum(0) <= budget).sum())
    return max(0.0, float(scores[order[paid]])) if paid < len(order) else 0.0
