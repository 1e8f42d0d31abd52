"""Sums over predicted tokens, by label: which tokens two models predict differently, and how their
activations differ.

With p^b, p^c the predictions of baseline and candidate, the divergence of a token splits over the
vocabulary v::

    KL(c ‖ b) = Σ_v p_v^c (log p_v^c − log p_v^b)     KL(b ‖ c) = Σ_v p_v^b (log p_v^b − log p_v^c)

Large terms of the first are tokens that the candidate predicts more, of the second less: not those
whose logits differ most, which nobody would ever see. All documents of a label count equally.

Shapes: L labels, N documents, n predicted tokens, V vocabulary, D width.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from workflow_scripts.common.intervals import Interval, percentile_interval, resample
from workflow_scripts.models.likelihood import Predictions, parts

DRAWS = 1000


class PredictionSums:
    """What two models make of documents, added up batch by batch."""

    def __init__(
        self,
        members: Bool[np.ndarray, "L N"],
        tokens: Int[np.ndarray, " N"],
        vocabulary: int,
        width: int,
    ) -> None:
        """``members`` says which documents have a label, ``tokens`` how many are predicted."""
        self.members = torch.from_numpy(members / np.maximum(tokens, 1)).float()
        self.count = torch.from_numpy(members.sum(1)).float()
        labels, documents = members.shape
        self.vocabulary = vocabulary
        self._more, self._less = (torch.zeros(labels, vocabulary) for _ in range(2))
        self._divergence = torch.zeros(documents)
        self._moved = torch.zeros(documents, width)
        self._energy, self._places = torch.zeros(documents), torch.zeros(documents)
        self._tokens = torch.from_numpy(tokens)

    def add_predictions(
        self, owner: Int[Tensor, " n"], before: Predictions, after: Predictions
    ) -> Float[Tensor, " n"]:
        """Add tokens of the documents ``owner``; return each one's KL(c ‖ b), in nats."""
        divergences = []
        for part in parts(len(owner)):
            b, c = (side.log_probabilities(part) for side in (before, after))
            weights = self.members[:, owner[part]].to(c.device)
            more, less = c.exp() * (c - b), b.exp() * (b - c)
            self._more += (weights @ more[:, : self.vocabulary]).cpu()
            self._less += (weights @ less[:, : self.vocabulary]).cpu()
            divergences.append(more.sum(1).cpu())
        every = torch.cat(divergences)
        self._divergence.index_add_(0, owner, every)
        return every

    def add_activations(
        self, owner: Int[Tensor, " m"], before: Float[Tensor, "m D"], after: Float[Tensor, "m D"]
    ) -> None:
        """Add the activations of tokens of the documents ``owner``."""
        energy = (before.square().sum(1) + after.square().sum(1)) / 2
        self._moved.index_add_(0, owner, (after - before).cpu())
        self._energy.index_add_(0, owner, energy.cpu())
        self._places.index_add_(0, owner, torch.ones(len(owner)))

    @property
    def more(self) -> Float[Tensor, "L V"]:
        """By how much each token is predicted more, in nats per token."""
        return self._more / self.count[:, None]

    @property
    def less(self) -> Float[Tensor, "L V"]:
        """By how much each token is predicted less, in nats per token."""
        return self._less / self.count[:, None]

    @property
    def divergence(self) -> Float64[np.ndarray, " N"]:
        """Mean KL(c ‖ b) per token of each document."""
        return (self._divergence / self._tokens.clamp(min=1)).double().numpy()

    @property
    def moved(self) -> Float64[np.ndarray, "N D"]:
        """Mean difference of activations of each document, NaN without any."""
        return (self._moved / self._places[:, None]).double().numpy()

    @property
    def energy(self) -> Float64[np.ndarray, " N"]:
        """Mean squared norm of activations of each document, NaN without any."""
        return (self._energy / self._places).double().numpy()


def mean_divergence(
    divergence: Float64[np.ndarray, " n"], confidence: float, seed: int
) -> Interval:
    """Return the mean over documents, with its bootstrap interval."""
    if not len(divergence):
        return percentile_interval(np.nan, [])
    draws = resample(len(divergence), DRAWS, [seed, 22]) @ divergence / len(divergence)
    return percentile_interval(float(divergence.mean()), draws, confidence)


def consistent_shift(
    moved: Float64[np.ndarray, "n D"],
    energy: Float64[np.ndarray, " n"],
    confidence: float,
    seed: int,
) -> Interval:
    """Return ‖mean difference‖² over the mean energy, with an interval over documents.

    Without the bias that the scatter of documents gives a squared mean: products of two different
    documents alone count, so that it is 0 on average where documents move in random directions.
    """
    count = len(moved)
    if count < 2:
        return percentile_interval(np.nan, [])
    products = moved @ moved.T
    draws = np.vstack([np.ones((1, count)), resample(count, DRAWS, [seed, 21])]).astype(np.float64)
    pairs = ((draws @ products) * draws).sum(1) - np.square(draws) @ np.diagonal(products)
    with np.errstate(divide="ignore", invalid="ignore"):
        square = pairs / (count**2 - np.square(draws).sum(1))
        ratio = square / (draws @ energy / count)
    return percentile_interval(float(ratio[0]), ratio[1:], confidence)
