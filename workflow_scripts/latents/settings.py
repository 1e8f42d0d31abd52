"""Settings of latents: the rule that makes one unique to a model, and its examples."""

from __future__ import annotations

from pydantic import Field

from workflow_scripts.common.settings import Count, Natural, Positive, Settings, Share


class ExampleCounts(Settings):
    """Contexts of a latent in one split, by kind."""

    top: Natural
    """strongest contexts"""
    quantile: Natural
    """contexts spread over the values"""
    random: Natural
    """random contexts in which the latent is silent"""
    hard: Natural
    """silent contexts that are near in wording"""


class Examples(Settings):
    """Contexts that are stored for explanations."""

    shared_latents: Natural = 300
    """live latents beside the unique ones"""
    window: Count = 64
    """tokens per context"""
    explain: ExampleCounts = ExampleCounts(top=10, quantile=10, random=10, hard=10)
    """from the explain split"""
    verify: ExampleCounts = ExampleCounts(top=20, quantile=30, random=25, hard=25)
    """from the verify split"""
    pool: Count = 2000
    """random windows per split for counts and negatives"""


class Bounds(Settings):
    """The region of latent scaling in which a latent is unique to a model (2504.02922)."""

    nu_r: Positive = 0.5
    """upper bound of ν^r (2504.02922)"""
    nu_e: Positive = 0.2
    """upper bound of ν^ε (2504.02922)"""


class Region(Bounds):
    """The same region with its lower bound, on both axes."""

    nu_lower: float = -0.1
    """lower bound of both; below it: status sign_flip"""


class Scoring(Region):
    """How latents are scored."""

    min_beta: Share = 0.05
    """share of the median β below which ν is undefined"""
    min_documents: Count = 10
    """score documents in which a latent must fire"""
    groups: int = Field(default=50, ge=2)
    """document groups of the jackknife"""


class Selection(Bounds):
    """The rule by which a latent is unique to a model."""

    fdr: Share = 0.1
    """false discovery rate over live latents"""
    delta_norm: Share | None = None
    """least share of the decoder norm on the own model's side; none: no such condition"""


class Matching(Settings):
    """How latents are matched over seeds, and paired within a crosscoder."""

    match_tokens: Count = 100_000
    """score tokens on which latents are matched and paired"""
    match_least: Share = 0.5
    """least similarity of latents that match over seeds, or form a mirror pair"""


class Promotion(Settings):
    """What latents write, read through each model's unembedding."""

    promoted_tokens: Natural = 8
    """tokens that each latent promotes most, and suppresses most, beside its contexts; 0: none"""


class Latents(Promotion, Matching, Selection, Scoring):
    """The rule by which a latent is unique to a model, and what is stored of latents."""

    examples: Examples = Examples()
    """contexts that are stored"""
