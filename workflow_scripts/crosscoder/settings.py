"""Settings of fits."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from workflow_scripts.common.settings import (
    Count,
    Name,
    Natural,
    NonNegative,
    Positive,
    Settings,
    Share,
)

Variant = Literal["batch_topk", "topk", "l1"]


class Training(Settings):
    """How one crosscoder is trained, and the schedule that follows from it."""

    variant: Variant = "batch_topk"
    """sparsity rule; `l1` is a baseline known to mislead"""
    l1_price: NonNegative = 0.0
    """μ, the price of activity; for `l1`"""
    shared_share: Share = 0.0
    """share of latents with one decoder direction for all models"""
    shared_cost: Annotated[float, Field(gt=0, le=1)] = 0.5
    """what each of them counts towards k, or costs of μ; others count 1"""
    dictionary_size: Count = 1024
    """number of latents, F"""
    k: Count = 16
    """latents active per token, on average"""
    tokens: Count = 2_000_000
    """tokens drawn in all"""
    batch: Count = 1024
    """tokens per optimiser step"""
    learning_rate: Positive = 1e-3
    """peak learning rate of Adam"""
    warmup_share: Share = 0.05
    """share of steps with a rising learning rate"""
    decay_share: Share = 0.2
    """share of steps with a falling learning rate"""
    k_start: Natural = 0
    """k at the first step, falling to k; 0: k throughout"""
    clip_norm: Positive = 1.0
    """gradient norm above which it is clipped"""
    dead_tokens: Count = 100_000
    """tokens without firing that make a latent dead"""
    k_aux: Natural = 0
    """dead latents per token in AuxK; 0: half the width"""
    auxk_weight: NonNegative = 1 / 32
    """weight of the AuxK loss"""
    calibration_rows: Count = 200_000
    """tokens on which the threshold is solved"""

    @property
    def steps(self) -> int:
        """Number of optimiser steps."""
        return max(1, self.tokens // self.batch)

    @property
    def warmup_steps(self) -> int:
        """Steps over which learning rate, k and the price of activity approach their values."""
        return round(self.steps * self.warmup_share)

    @property
    def shared(self) -> int:
        """Number of designated shared latents, the first of all."""
        return round(self.shared_share * self.dictionary_size)

    def aux_latents(self, width: int) -> int:
        """Return how many dead latents per token AuxK uses."""
        return self.k_aux or width // 2

    def warmup(self, done: int) -> float:
        """Return how far the warm-up is at the step after ``done`` steps, 0 … 1."""
        return min(1.0, (done + 1) / max(self.warmup_steps, 1))

    def learning_rate_at(self, done: int) -> float:
        """Return the rate for the step after ``done`` steps: warm-up, plateau, linear decay."""
        decay_steps = max(math.ceil(self.steps * self.decay_share), 1)
        decay = min(1.0, (self.steps - done) / decay_steps)
        return self.learning_rate * self.warmup(done) * decay

    def k_at(self, done: int) -> float:
        """Return k for the step after ``done`` steps: linear from ``k_start`` over the warm-up."""
        start = self.k_start or self.k
        return start + (self.k - start) * min(1.0, done / max(self.warmup_steps, 1))

    def resolved(self, width: int) -> dict[str, object]:
        """Return the settings and what follows from them for models of a width, for the records."""
        derived = {name: getattr(self, name) for name in ("steps", "warmup_steps", "shared")}
        start, aux = self.k_start or self.k, self.aux_latents(width)
        return {**self.model_dump(), **derived, "k_start": start, "k_aux": aux}


class CrosscoderSettings(Training):
    """Settings that all fits share unless a fit says otherwise."""

    loss_documents: Natural = 40
    """documents per source on which models predict from reconstructions; 0: skipped"""
    seeds: list[Natural] = Field(default=[0], min_length=1)
    """one crosscoder is fitted per seed"""
    processes: Count = 1
    """processes that share the latents of a fit, each with a GPU of its own where there are
    GPUs"""


class Imported(Settings):
    """Where a published crosscoder comes from: exactly one of `path` and `hub`."""

    path: str | None = None
    """folder with config.json and model.safetensors"""
    hub: str | None = None
    """id on the Hugging Face hub"""
    revision: str | None = None
    """the hub's commit, 40 hex digits"""
    fve: Share | None = None
    """its published fraction of variance explained, mean of the models; none: that in its
    config.json, if any. A warning names the layer where the run's own is more than 0.05 lower"""


class Fit(CrosscoderSettings):
    """One crosscoder over several models at one layer, with all settings of `crosscoder`."""

    models: list[Name] = Field(min_length=2)
    """models in order"""
    layer: Count
    """layer: output of that decoder block, counted from 1"""
    control: Literal["noise", "swap"] | None = None
    """`noise`: the first model against itself with rounding errors; `swap`: labels of the two
    models exchanged in half of the documents; none: the models themselves"""
    imported: Imported | None = None
    """a published crosscoder of these models in the layout of `dictionary_learning`, instead of a
    fit"""
