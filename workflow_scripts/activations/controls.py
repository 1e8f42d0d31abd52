"""Stores for control fits, in which the models do not really differ, and their flags.

``noise``: every model reads the first one's activations, the others with the rounding error of a
bfloat16 on top. Nothing is unique: a pipeline that says otherwise is broken.

``swap``: the labels of two models are exchanged in half of the documents. A difference of the pair
becomes one latent for either label, so nothing can be *more* of one model than of the other; there
may be more unique latents than without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workflow_scripts.activations.difference import DifferenceStore
from workflow_scripts.activations.store import ActivationStore
from workflow_scripts.common.settings import Count, Natural, Settings

Control = Literal["noise", "swap"]
ROUNDING = 2.0**-9  # largest relative error of a bfloat16
TABLE = 4096  # rows of noise, used over and over


class ControlStore(ActivationStore):
    """A store whose models are those of a control."""

    def __init__(
        self,
        files: Mapping[str, Sequence[Path]],
        layer: int,
        normalizers: Mapping[str, Path],
        control: Control,
        seed: int,
    ) -> None:
        super().__init__(files, layer, normalizers)
        self.control, self.seed = control, seed

    def normalized(self, values: Tensor, rows: NDArray[np.int64]) -> Tensor:
        """Return the control's activations of some tokens, [n, M, D]."""
        x = super().normalized(values, rows)
        if self.control == "swap":
            swapped = torch.from_numpy(self._swapped(rows)).to(x.device)
            return torch.where(swapped[:, None, None], x.flip(1), x)
        noise = torch.from_numpy(self._noise[rows % TABLE]).to(x.device)
        x[:, 1:] = (x[:, 0] * (1 + noise))[:, None]
        return x

    @cached_property
    def _noise(self) -> NDArray[np.float32]:
        rng = np.random.default_rng([self.seed, 8])
        return rng.uniform(-ROUNDING, ROUNDING, (TABLE, self.width)).astype(np.float32)

    def _swapped(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        documents = self.document
        rng = np.random.default_rng([self.seed, 9])
        swapped: NDArray[np.bool_] = rng.random(int(documents.max()) + 1) < 0.5
        return swapped[documents[rows]]


class StoreInputs(Settings):
    """The activations that a fit reads."""

    activations: dict[str, list[Path]]
    """dump files of each model, in order"""
    normalizers: dict[str, Path]
    """normaliser of each model"""
    layer: Count
    """layer: output of that decoder block, counted from 1"""
    difference: tuple[str, str] | None = None
    """two models: the second one's activations minus the first one's, in place of all"""
    control: Control | None = None
    """null in place of the models' own activations"""
    control_seed: Natural = 0
    """seed of the control"""

    def open(self) -> ActivationStore:
        """Open the store.

        Raises
        ------
        UserError
            If the files do not fit together.
        """
        if self.difference is not None:
            return DifferenceStore(
                self.activations, self.layer, self.normalizers, list(self.difference)
            )
        if self.control is not None:
            return ControlStore(
                self.activations, self.layer, self.normalizers, self.control, self.control_seed
            )
        return ActivationStore(self.activations, self.layer, self.normalizers)
