"""Trainers of chosen sizes for benchmarks."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from workflow_scripts.crosscoder.model import initial_weights
from workflow_scripts.crosscoder.settings import Training
from workflow_scripts.crosscoder.training import Trainer

M = 2
NEVER = 10**12


@dataclass(frozen=True)
class Size:
    """Latents F, width D, active latents k, batch B."""

    F: int = 16_384
    D: int = 512
    k: int = 32
    B: int = 1024


def new_trainer(
    size: Size,
    dead_tokens: int = NEVER,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> Trainer:
    """Return a trainer of two models; with ``dead_tokens`` 1 AuxK works at once."""
    settings = Training(
        dictionary_size=size.F,
        k=size.k,
        tokens=1000 * size.B,
        batch=size.B,
        learning_rate=1e-4,
        warmup_share=0.0,
        decay_share=0.0,
        dead_tokens=dead_tokens,
    )
    weights = initial_weights(size.F, M, size.D, 0, 1.0).map(lambda tensor: tensor.to(device))
    return Trainer(weights, settings, dtype=dtype)
