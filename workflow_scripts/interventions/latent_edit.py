"""Move a model's activations by some of a crosscoder's latents, in raw space.

Shapes: N tokens, M models, D width, F latents; σ and μ are the normaliser's scale and mean.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workflow_scripts.activations.store import Normalizer
from workflow_scripts.common import cli
from workflow_scripts.common.device import choose_device
from workflow_scripts.crosscoder.model import Crosscoder


def add_patching_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that name a crosscoder and where it looks."""
    parser.add_argument("--crosscoder", type=Path, required=True)
    parser.add_argument("--normalizers", type=cli.json_argument, required=True)
    parser.add_argument("--layer", type=int, required=True)


@dataclass(frozen=True)
class Patcher:
    """A crosscoder as a tool that adds and takes away what its latents write."""

    crosscoder: Crosscoder
    bounds: Tensor  # norm above which a token is dropped, [M]

    @classmethod
    def open(cls, a: argparse.Namespace) -> Patcher:
        """Read what the flags name, onto the device on which models run.

        Raises
        ------
        UserError
            If files are missing or there is no such device.
        """
        device = choose_device(a.device)
        crosscoder = Crosscoder.load(a.crosscoder)
        bounds = [Normalizer.read(Path(a.normalizers[m])).norm_bound for m in crosscoder.models]
        return cls(crosscoder.to(device), torch.tensor(bounds, device=device))

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.bounds.device

    def usable(self, h: Tensor, real: Tensor) -> Tensor:
        """Return which tokens the fit would use, [N]: neither at position 0 nor above a bound.

        ``h`` [N, M, D] are the raw activations of the tokens that ``real`` [B, T] marks, in order.
        """
        first = torch.zeros_like(real)
        first[:, 0] = True
        usable: Tensor = (h.norm(dim=2) <= self.bounds).all(1) & ~first[real]
        return usable

    def move(self, h: Tensor, source: int, target: int, chosen: Tensor | str) -> Tensor:
        """Return the source's activations moved towards the target's, [N, D].

        h_source + Σ_{j∈S} f_j (σ_t d_j^t − σ_s d_j^s) [Minder et al. 2025]. ``h`` is [N, M, D] raw;
        ``chosen`` a mask [F]; or ``all``, which moves biases and means too; or ``error``, which
        moves what the crosscoder does not reconstruct. ``all`` and ``error`` together give the
        target's own activations.
        """
        c = self.crosscoder
        x = c.normalize(h)
        f = c.encode(x)
        if isinstance(chosen, Tensor):
            shift = torch.einsum("nf,fmd->nmd", f * chosen, c.w_dec) * c.scale[:, None]
        else:
            decoded = c.decode(f)
            if chosen == "all":
                shift = decoded * c.scale[:, None] + c.mean
            else:
                shift = (x - decoded) * c.scale[:, None]
        return h[:, source] + shift[:, target] - shift[:, source]

    def activations(self, h: Tensor, real: Tensor) -> Tensor:
        """Return latent activations f [N, F], zero on tokens that the fit would not use."""
        f = self.crosscoder.encode(self.crosscoder.normalize(h))
        return f * self.usable(h, real)[:, None]

    def written(self, f: Tensor, model: int, latents: NDArray[np.int64]) -> Tensor:
        """Return what some latents write into a model, Σ_j f_j σ d_j, [N, D], for f [N, F]."""
        chosen = torch.tensor(latents, device=f.device)
        directions = self.crosscoder.w_dec[chosen, model]
        return (f[:, chosen] @ directions) * self.crosscoder.scale[model]


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
