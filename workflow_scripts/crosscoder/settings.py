"""Settings of fits."""

from __future__ import annotations

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


class Crosscoder(Settings):
    """Settings that all fits share unless a fit says otherwise."""

    variant: Literal["batch_topk", "topk", "l1"] = "batch_topk"
    """sparsity rule; `l1` is a baseline known to mislead"""
    l1_price: NonNegative = 0.0
    """μ, the price of activity; for `l1`"""
    shared_share: Share = 0.0
    """share of latents with one decoder direction for all models"""
    shared_cost: Annotated[float, Field(gt=0, le=1)] = 0.5
    """what such a latent counts of k, or of μ; others count 1"""
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
    loss_documents: Natural = 40
    """documents per source on which models predict from reconstructions; 0: none"""
    seeds: list[Natural] = Field(default=[0], min_length=1)
    """one crosscoder is fitted per seed"""
    processes: Count = 1
    """processes that share each batch of a fit, every one with a GPU of its own where there are
    GPUs"""


class Imported(Settings):
    """Where a published crosscoder comes from: exactly one of `path` and `hub`."""

    path: str | None = None
    """folder with config.json and model.safetensors"""
    hub: str | None = None
    """id on the Hugging Face hub"""
    revision: str | None = None
    """the hub's commit, 40 hex digits"""


class Fit(Crosscoder):
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
