"""Which latents are active: one small class per sparsity rule.

A rule maps scores [B, F] to the active entries and may put a price on activity. To add one, write a
class with the attributes of :class:`SparsityRule` and name it in :func:`sparsity_rule`.

Latents may cost less than 1 each (:mod:`.tying`); then the entries with the largest score per cost
are taken, until their costs have used up k per token.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from workflow_scripts.crosscoder.parallel import ALONE, Processes

# A new threshold is sought at these shares of the last one; a miss costs one more pass.
MARGINS = (0.85, 0.4, 0.1)
SAMPLE = 1 << 16  # scores from which the first one is guessed
# Costs are added up in float32.
ROUNDING = 1e-4


@dataclass
class Active:
    """Active entries of a [B, F] matrix in row-major order."""

    rows: Int[Tensor, " K"]
    columns: Int[Tensor, " K"]


def positions_above(values: Float[Tensor, "*B F"], bound: Tensor | float) -> Int[Tensor, " K"]:
    """Return the flat positions of the entries of ``values`` above ``bound``.

    ``bound`` is a number or one per column. One core of numpy finds few among many as fast as
    five of torch do. On a GPU this waits for the device.
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
    processes: Processes = ALONE,
) -> SparsityRule:
    """Return the rule of a variant.

    ``price`` is that of L1, ``costs`` are what each latent counts (none: 1), ``processes``
    those that share the latents (none: this one alone).
    """
    if variant == "l1":
        return L1(price)
    if variant == "topk":
        return TopK(costs, processes=processes)
    return BatchTopK(costs, processes)


class TopK:
    """Keep the k largest scores of every token [Gao et al. 2024]; only positive ones, if wanted."""

    solved, price = True, 0.0

    def __init__(
        self,
        costs: Float[Tensor, " F"] | None = None,
        positive: bool = True,
        processes: Processes = ALONE,
    ) -> None:
        self.costs = costs
        self.cheapest = 1.0
        if costs is not None:
            self.cheapest = float(processes.gather(costs)[0].min())
        self.positive = positive
        self.processes = processes

    def select(self, scores: Float[Tensor, "B F"], k: float) -> Active:
        """Return the active entries, by token; ``k`` is rounded."""
        costs, most, alone = self.costs, round(k), self.processes.count == 1
        on_cpu = scores.device.type == "cpu"
        # One core of numpy partitions as fast as two of torch do.
        if costs is None and alone and on_cpu and torch.get_num_threads() == 1:
            entries = _largest(scores.numpy(), min(most, scores.shape[1]), positive=self.positive)
            if entries is not None:
                return Active(*(torch.from_numpy(part) for part in entries))
        if costs is not None:
            scores, most = scores / costs, round(most / self.cheapest)
        # Only costs that add up need the entries in order.
        top = scores.topk(min(most, scores.shape[1]), dim=1, sorted=costs is not None)
        columns, order = top.indices.sort(dim=1)
        rows = torch.arange(len(scores), device=scores.device)[:, None].expand_as(columns)
        active = Active(rows.flatten(), columns.flatten())
        if not self.positive and costs is None and alone:
            return active
        kept = self._kept(top.values, None if costs is None else costs[top.indices], most, k)
        places = kept.gather(1, order).flatten().nonzero().squeeze(1)
        return Active(active.rows[places], active.columns[places])

    def _kept(
        self, values: Float[Tensor, "B n"], costs: Float[Tensor, "B n"] | None, most: int, k: float
    ) -> Bool[Tensor, "B n"]:
        """Return which of this process's largest values are among those that all keep."""
        every, own = self.processes.beside(values, most, -torch.inf)
        kept = every > 0 if self.positive else every > -torch.inf
        order = every.topk(min(most, every.shape[1]), dim=1).indices
        paid = torch.ones_like(order, dtype=torch.bool)
        if costs is not None:
            spent = self.processes.beside(costs, most, 0.0)[0].gather(1, order).cumsum(1)
            paid = spent <= round(k) + ROUNDING
        return (kept & torch.zeros_like(kept).scatter_(1, order, paid))[:, own]


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

    The threshold of the step before gives candidates, at the first step a sample; the exact
    selection is made among them. Where there are fewer than B·k candidates, the bound is lowered
    and the search repeated, so the result never depends on what was carried over.
    """

    solved, price = True, 0.0

    def __init__(
        self, costs: Float[Tensor, " F"] | None = None, processes: Processes = ALONE
    ) -> None:
        self.costs = costs
        self.processes = processes
        self.last_threshold: Float[Tensor, ""] | None = None  # none: unknown

    def select(self, scores: Float[Tensor, "B F"], k: float) -> Active:
        """Return the active entries for a mean of ``k`` latents per token.

        Ties at the threshold are broken by position. Entries that are not positive are never
        active, so fewer than B·k may be returned. With several processes F is all their latents.
        """
        wanted = round(scores.shape[0] * k)
        flat = (scores if self.costs is None else scores / self.costs).flatten()
        latents = scores.shape[1]
        choose = self._largest if self.costs is None else self._affordable
        for bound in self._bounds(flat, wanted):
            candidates = positions_above(flat, bound)
            values, first = self.processes.gather(flat[candidates])
            kept, count, spent = choose(values, candidates % latents, wanted)
            if spent >= wanted:
                break
        self.last_threshold = None
        if kept is not None:
            self.last_threshold = torch.where(kept, values, torch.inf).min()
            own = kept[first : first + candidates.numel()]
            alone = self.processes.count == 1
            places = own.nonzero_static(size=count) if alone else own.nonzero()
            candidates = candidates[places.squeeze(1)]
        return Active(candidates // latents, candidates % latents)

    def _bounds(self, flat: Float[Tensor, " BF"], wanted: int) -> Iterator[Tensor | float]:
        """Yield bounds above which to look for candidates, the last of which is 0."""
        if self.last_threshold is not None:
            for share in MARGINS:
                yield self.last_threshold * share
        stride = flat.numel() // SAMPLE | 1  # odd: of every latent, whatever power of two F is
        sample, _ = self.processes.gather(flat[::stride])
        total = sum(self.processes.numbers(flat.numel()))
        likely = 2 * wanted * sample.numel() // max(1, total)
        if 0 < likely < sample.numel() < total:
            yield kth_largest(sample, likely).clamp_min(0.0)
        yield 0.0

    def _largest(
        self, values: Float[Tensor, " all"], columns: Int[Tensor, " K"], wanted: int
    ) -> tuple[Bool[Tensor, " all"] | None, int, float]:
        """Return which of all processes' values are kept (None: all), how many, and how many are.

        Of values that tie at the threshold the first are kept.
        """
        count = values.numel()
        if count <= wanted:
            return None, count, count
        threshold = kth_largest(values, wanted)
        above, ties = values > threshold, values == threshold
        kept = above | (ties & (ties.cumsum(0) <= wanted - above.sum()))
        return kept, wanted, count

    def _affordable(
        self, values: Float[Tensor, " all"], columns: Int[Tensor, " K"], wanted: int
    ) -> tuple[Bool[Tensor, " all"] | None, int, float]:
        """Return which of all processes' values are kept (None: all), how many, what all cost."""
        assert self.costs is not None
        costs, _ = self.processes.gather(self.costs[columns])
        order = torch.argsort(values, descending=True, stable=True)
        spent = costs[order].double().cumsum(0)
        paid = spent <= wanted + ROUNDING
        total, count = torch.stack([costs.double().sum(), paid.sum()]).tolist()
        if count == values.numel():
            return None, int(count), total
        return torch.zeros_like(paid).scatter_(0, order, paid), int(count), total


def kth_largest(values: Float[Tensor, " n"], k: int) -> Float[Tensor, ""]:
    """Return the k-th largest value, without a wait for the device."""
    if values.device.type == "cpu":
        return torch.kthvalue(values, values.numel() - k + 1).values
    return values.topk(k, sorted=False).values.min()  # many blocks of threads, where kthvalue has 1
