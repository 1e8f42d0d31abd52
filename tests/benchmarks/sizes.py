"""Trainers of chosen sizes for benchmarks."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from workflow_scripts.crosscoder.model import initial_weights
from workflow_scripts.crosscoder.training import Trainer, Training

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
    matmul: str = "float32",
    device: torch.device | None = None,
) -> Trainer:
    """Return a trainer of two models; with ``dead_tokens`` 1 AuxK works at once."""
    settings = Training(
        steps=1000,
        k=size.k,
        batch=size.B,
        learning_rate=1e-4,
        warmup_steps=1,
        decay_share=0.0,
        k_start=size.k,
        clip_norm=1.0,
        dead_tokens=dead_tokens,
        k_aux=size.D // 2,
        auxk_weight=1 / 32,
        matmul=matmul,
    )
    weights = initial_weights(size.F, M, size.D, 0, 1.0)
    return Trainer(weights if device is None else weights.to(device), settings)
