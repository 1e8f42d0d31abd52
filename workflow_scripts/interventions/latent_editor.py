"""Change a model's activations by what some of a crosscoder's latents write, in raw space.

Shapes: B documents of T tokens, N of them real, M models, D width, F latents; σ and μ are the
normaliser's scale and mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from workflow_scripts.activations.store import Normalizer
from workflow_scripts.common.settings import Count, Settings
from workflow_scripts.crosscoder.codes import Codes, decode, encode
from workflow_scripts.crosscoder.model import Crosscoder


@dataclass(frozen=True)
class LatentEditor:
    """A crosscoder that adds and takes away what its latents write into a layer."""

    crosscoder: Crosscoder
    bounds: Float[Tensor, " M"]  # norm above which a token is dropped
    layer: int

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.bounds.device

    def usable(self, h: Float[Tensor, "N M D"], real: Bool[Tensor, "B T"]) -> Bool[Tensor, " N"]:
        """Return which tokens the fit would use: neither at position 0 nor above a bound.

        ``h`` are the raw activations of the tokens that ``real`` marks, in order.
        """
        first = torch.zeros_like(real)
        first[:, 0] = True
        usable: Tensor = (h.norm(dim=2) <= self.bounds).all(1) & ~first[real]
        return usable

    def encode(self, h: Float[Tensor, "N M D"]) -> Codes:
        """Return the latent activations of raw activations."""
        return encode(self.crosscoder, self.crosscoder.normalize(h))

    def move(
        self,
        h: Float[Tensor, "N M D"],
        f: Codes,
        source: int,
        target: int,
        chosen: Bool[Tensor, " F"] | str,
    ) -> Float[Tensor, "N D"]:
        """Return the source's activations moved towards the target's.

        h_source + Σ_{j∈S} f_j (σ_t d_j^t − σ_s d_j^s) [Minder et al. 2025]. ``h`` is raw, f its
        latent activations; ``chosen`` marks the latents; or is ``all``, which moves biases and
        means too; or ``error``, which moves what the crosscoder does not reconstruct. ``all`` and
        ``error`` together give the target's own activations.
        """
        c = self.crosscoder
        if isinstance(chosen, Tensor):
            shift = self._written(f.of(chosen))
        else:
            shift = decode(c, f) * c.scale[:, None] + c.mean
            if chosen == "error":
                shift = h - shift
        return h[:, source] + shift[:, target] - shift[:, source]

    def usable_codes(self, h: Float[Tensor, "N M D"], real: Bool[Tensor, "B T"]) -> Codes:
        """Return latent activations, none on tokens that the fit would not use."""
        return self.encode(h).on(self.usable(h, real))

    def written(self, f: Codes, model: int, latents: NDArray[np.int64]) -> Float[Tensor, "N D"]:
        """Return what some latents write into a model: Σ_j f_j σ d_j."""
        mask = torch.zeros(self.crosscoder.latents, dtype=torch.bool, device=self.device)
        mask[torch.tensor(latents, device=self.device)] = True
        return self._written(f.of(mask))[:, model]

    def _written(self, f: Codes) -> Float[Tensor, "N M D"]:
        """Return what latents write into each model, in raw space."""
        c = self.crosscoder
        written = f.times(c.weights.decoder).view(-1, len(c.models), c.width)
        return written * c.scale[:, None]


class EditorInputs(Settings):
    """The crosscoder whose latents are edited, and where it reads."""

    crosscoder: Path
    """folder of the fit"""
    normalizers: dict[str, Path]
    """normaliser of each model"""
    layer: Count
    """layer: output of that decoder block, counted from 1"""

    def open(self, device: torch.device) -> LatentEditor:
        """Read the files, onto the device on which models run.

        Raises
        ------
        UserError
            If files are missing.
        """
        crosscoder = Crosscoder.load(self.crosscoder)
        bounds = [Normalizer.read(self.normalizers[m]).norm_bound for m in crosscoder.models]
        return LatentEditor(crosscoder.to(device), torch.tensor(bounds, device=device), self.layer)


def matched(
    pool: NDArray[np.int64], wanted: NDArray[np.int64], rate: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return, for each latent of ``wanted``, another of ``pool`` of like firing rate.

    ``rate`` is [F]. Each is taken once, the most frequent latents choose first; the result is
    shorter where the pool is smaller.
    """
    left = list(pool[np.argsort(rate[pool], kind="stable")])
    taken = []
    for latent in sorted(wanted.tolist(), key=lambda j: (-rate[j], j))[: len(left)]:
        place = int(np.searchsorted(rate[left], rate[latent]))
        near = min(
            (i for i in (place - 1, place) if 0 <= i < len(left)),
            key=lambda i: abs(rate[left[i]] - rate[latent]),
        )
        taken.append(int(left.pop(near)))
    return np.array(sorted(taken), dtype=np.int64)
