"""Which latents are active: one small class per sparsity rule.

A rule maps scores [B, F] to the active entries and may put a price on activity. To add one, write a
class with the attributes of :class:`SparsityRule` and name it in :func:`sparsity_rule`.

Latents may cost less than 1 each (:mod:`.tying`); then the entries with the largest score per cost
are taken, until their costs have used up k per token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from workflow_scripts.crosscoder.parallel import Processes

# A new threshold is first sought at this share of the last one; a miss costs one more pass.
MARGIN = 0.85
# Costs are added up in float32.
ROUNDING = 1e-4


@dataclass
class Active:
    """Active entries of a [B, F] matrix in row-major order."""

    rows: Int[Tensor, " K"]
    columns: Int[Tensor, " K"]


def positions_above(
    values: Float[Tensor, "*B F"], bound: Float[Tensor, " F"] | float
) -> Int[Tensor, " K"]:
    """Return the flat positions of the entries of ``values`` above ``bound``.

    ``bound`` is a number or one per column. One core of numpy finds few among many as fast as
    five of torch do.
    """
    if values.device.type == "cpu" and torch.get_num_threads() <= 4:
        limit = bound.numpy() if isinstance(bound, Tensor) else bound
        return torch.from_numpy(np.flatnonzero(values.numpy() > limit))
    return torch.nonzero((values > bound).flatten()).squeeze(1)


class SparsityRule(Protocol):
    """What a fit needs of a rule."""

    solved: bool
    """Whether inference uses a threshold solved for k; else every positive score is active."""
    price: float
    """Weight μ of Σ_j f_j Σ_m ‖d_j^m‖ in the loss."""

    def select(self, scores: Float[Tensor, "B F"], k: float) -> Active:
        """Return the active entries."""


def sparsity_rule(
    variant: str,
    price: float,
    costs: Float[Tensor, " F"] | None = None,
    processes: Processes | None = None,
) -> SparsityRule:
    """Return the rule of a variant.

    ``price`` is that of L1, ``costs`` are what each latent counts (none: 1), ``processes``
    those that share a batch (none: this one alone).
    """
    if variant == "l1":
        return L1(price)
    return TopK(costs) if variant == "topk" else BatchTopK(costs, processes)


class TopK:
    """Keep the k largest scores of every token [Gao et al. 2024]; only positive ones, if wanted."""

    solved, price = True, 0.0

    def __init__(self, costs: Float[Tensor, " F"] | None = None, positive: bool = True) -> None:
        self.costs = costs
        self.positive = positive

    def select(self, scores: Float[Tensor, "B F"], k: float) -> Active:
        """Return the active entries, by token; ``k`` is rounded."""
        costs, most = self.costs, round(k)
        # One core of numpy partitions as fast as two of torch do.
        if costs is None and scores.device.type == "cpu" and torch.get_num_threads() == 1:
            entries = _largest(scores.numpy(), min(most, scores.shape[1]), positive=self.positive)
            if entries is not None:
                return Active(*(torch.from_numpy(part) for part in entries))
        if costs is not None:
            scores, most = scores / costs, round(most / float(costs.min()))
        # Only costs that add up need the entries in order.
        top = scores.topk(min(most, scores.shape[1]), dim=1, sorted=costs is not None)
        kept = torch.ones_like(top.values, dtype=torch.bool)
        if self.positive:
            kept &= top.values > 0
        if costs is not None:
            kept &= costs[top.indices].cumsum(1) <= round(k) + ROUNDING
        columns, order = top.indices.sort(dim=1)
        rows = torch.arange(len(scores), device=scores.device)[:, None].expand_as(columns)
        kept = kept.gather(1, order)
        return Active(rows[kept], columns[kept])


def _largest(
    scores: NDArray[np.float32], k: int, *, positive: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Return (rows, columns) of the k largest scores of every row; None where some tie."""
    if k == 0:
        return None
    least = np.partition(scores, scores.shape[1] - k, axis=1)[:, -k, None]
    places = np.flatnonzero(scores >= least)
    if len(places) != k * len(scores):
        return None
    rows, columns = np.divmod(places, scores.shape[1])
    if not positive:
        return rows, columns
    kept = scores[rows, columns] > 0
    return rows[kept], columns[kept]


class L1:
    """Keep every positive score and pay for it: μ Σ_j f_j Σ_m ‖d_j^m‖ [Lindsey et al. 2024].

    The known-bad baseline: it shrinks a latent out of one model and splits latents that both hold
    [Minder et al. 2025].
    """

    solved = False

    def __init__(self, price: float) -> None:
        self.price = price

    def select(self, scores: Float[Tensor, "B F"], k: float) -> Active:
        """Return all positive entries, whatever ``k`` is."""
        positions = positions_above(scores, 0.0)
        return Active(positions // scores.shape[1], positions % scores.shape[1])


class BatchTopK:
    """Keep the B·k largest positive scores of a batch [Bussmann et al. 2024].

    Exact without sorting B·F scores.

    The threshold of the step before gives candidates; the exact selection is made among them.
    Where there are fewer than B·k candidates, the bound is lowered and the search repeated, so the
    result never depends on what was carried over.
    """

    solved, price = True, 0.0

    def __init__(
        self, costs: Float[Tensor, " F"] | None = None, processes: Processes | None = None
    ) -> None:
        self.costs = costs
        self.processes = processes or Processes()
        self.last_threshold = 0.0

    def select(self, scores: Float[Tensor, "B F"], k: float) -> Active:
        """Return the active entries for a mean of ``k`` latents per token.

        Ties at the threshold are broken by position. Entries that are not positive are never
        active, so fewer than B·k may be returned. With several processes the batch is that of all.
        """
        wanted = round(scores.shape[0] * self.processes.count * k)
        flat = (scores if self.costs is None else scores / self.costs).flatten()
        latents = scores.shape[1]
        candidates = self._candidates(flat, wanted, latents)
        values, first = self.processes.gather(flat[candidates])
        kept = self._affordable(values, candidates % latents, wanted)
        self.last_threshold = 0.0 if kept is None else float(values[kept].min())
        if kept is not None:
            candidates = candidates[kept[first : first + candidates.numel()]]
        return Active(candidates // latents, candidates % latents)

    def _candidates(
        self, flat: Float[Tensor, " BF"], wanted: int, latents: int
    ) -> Int[Tensor, " K"]:
        """Return the positions of enough of the largest values, or of all positive ones."""
        bound = self.last_threshold * MARGIN
        candidates = positions_above(flat, bound)
        while bound > 0 and self._spent(candidates % latents) < wanted:
            bound = bound / 2 if bound > 1e-6 * self.last_threshold else 0.0
            candidates = positions_above(flat, bound)
        return candidates

    def _spent(self, columns: Int[Tensor, " K"]) -> float:
        """Return what entries cost, over all processes."""
        count = columns.numel() if self.costs is None else float(self.costs[columns].sum())
        if self.processes.count == 1:
            return count
        total = torch.tensor(float(count), dtype=torch.float64, device=columns.device)
        return float(self.processes.sum(total))

    def _affordable(
        self, values: Float[Tensor, " all"], columns: Int[Tensor, " K"], wanted: int
    ) -> Bool[Tensor, " all"] | None:
        """Return which of all processes' values are kept; None where all are."""
        if self.costs is None:
            if values.numel() <= wanted:
                return None
            threshold = torch.kthvalue(values, values.numel() - wanted + 1).values
            return _first(values, threshold, wanted)
        costs, _ = self.processes.gather(self.costs[columns])
        order = torch.argsort(values, descending=True, stable=True)
        kept = torch.zeros_like(values, dtype=torch.bool)
        kept[order] = costs[order].double().cumsum(0) <= wanted + ROUNDING
        return None if bool(kept.all()) else kept


def _first(
    values: Float[Tensor, " K"], threshold: Float[Tensor, ""], wanted: int
) -> Bool[Tensor, " K"]:
    """Return the mask of the ``wanted`` largest values; the first of those that tie."""
    keep = values >= threshold
    surplus = int(keep.sum()) - wanted
    if surplus:
        ties = torch.nonzero(values == threshold).squeeze(1)
        keep[ties[-surplus:]] = False
    return keep
