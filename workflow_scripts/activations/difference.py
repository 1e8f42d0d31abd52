"""The difference of two models' activations, which simple baselines explain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workflow_scripts.activations.store import ActivationStore
from workflow_scripts.common.cli import UserError

ROWS = 200_000  # at most, on which mean and covariance are estimated
BATCH = 4096


class DifferenceStore(ActivationStore):
    """A store with one "model", x^b − x^a in normalised space, itself normalised like a model.

    Raises
    ------
    UserError
        If the store lacks one of the two models.
    """

    def __init__(
        self,
        files: Mapping[str, Sequence[Path]],
        layer: int,
        normalizers: Mapping[str, Path],
        pair: Sequence[str],
    ) -> None:
        super().__init__(files, layer, normalizers)
        for name in pair:
            if name not in self.stored:
                raise UserError(f"the fit has no model {name}: choose two of {self.stored}")
        self.pair = (self.stored.index(pair[0]), self.stored.index(pair[1]))
        self.models = [f"{pair[1]}-{pair[0]}"]

    def differences(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return x^b − x^a of sorted global tokens, [n, D]."""
        values = self.gathered(self.held(rows), slice(None))
        differences: NDArray[np.float32] = self._differences(values, rows).numpy()
        return differences

    def _differences(self, values: Tensor, rows: NDArray[np.int64]) -> Tensor:
        x = super().normalized(values, rows)
        return x[:, self.pair[1]] - x[:, self.pair[0]]

    def normalized(self, values: Tensor, rows: NDArray[np.int64]) -> Tensor:
        """Return the normalised differences of some tokens, [n, 1, D]."""
        mean, scale = self._statistics_on(values.device)
        return self._differences(values, rows).sub_(mean).div_(scale)[:, None]

    def _statistics_on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if device not in self._own:
            mean, scale = self._statistics
            own = (torch.from_numpy(mean).float(), torch.tensor(scale).float())
            self._own[device] = (own[0].to(device), own[1].to(device))
        return self._own[device]

    @cached_property
    def _own(self) -> dict[torch.device, tuple[Tensor, Tensor]]:
        return {}

    @cached_property
    def _statistics(self) -> tuple[NDArray[np.float64], float]:
        """Mean [D] and scale, as of a model's normaliser."""
        mean, covariance = moments(self)
        return mean, float(np.sqrt(np.trace(covariance) / len(mean)))

    def normalization(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the mean [1, D] and the scale [1] of the difference of normalised activations."""
        mean, scale = self._statistics
        return mean[None], np.array([scale])


def moments(store: DifferenceStore) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean [D] and covariance [D, D] of the differences on the calibration split.

    Raises
    ------
    UserError
        If the two models do not differ there.
    """
    rows = store.rows("calibration")[:ROWS]
    total, square = np.zeros(store.width), np.zeros((store.width, store.width))
    for first in range(0, len(rows), BATCH):
        x = store.differences(rows[first : first + BATCH]).astype(np.float64)
        total += x.sum(0)
        square += x.T @ x
    mean = total / max(1, len(rows))
    covariance = square / max(1, len(rows)) - np.outer(mean, mean)
    if not np.trace(covariance) > 0:
        raise UserError(
            f"the activations of {store.models[0]} do not differ: compare other models, or set "
            "comparison.difference_tokens to 0"
        )
    return mean, covariance
