"""Settings of comparisons."""

from __future__ import annotations

from typing import Literal

from workflow_scripts.common.settings import Confidence, Count, Name, Natural, Settings, Share


class ComparedSide(Settings):
    """One side of a comparison."""

    fit: Name
    """fit that holds the latents"""
    model: Name
    """model to which they are unique"""


class Comparison(Settings):
    """Latents unique to one model set against latents unique to another."""

    baseline: ComparedSide
    """the side before"""
    candidate: ComparedSide
    """the side after"""
    anchored: Name | None = None
    """comparison whose counts vote on the direction of a direct one"""
    placebo: Name | None = None
    """comparison of a model with its placebo: the null beside it"""
    against: Name | None = None
    """base against which both sides are unique; for a crosscoder of three models"""


class Labelling(Settings):
    """Whose labels count."""

    labeller: Name | None = None
    """labels that answer; none: true ones where known, else an LLM's, else lexical"""


class ComparisonSettings(Labelling):
    """How comparisons are tested, and which one answers."""

    primary: Name | None = None
    """comparison that answers; none: the first direct one that is no control or placebo, else
    any"""
    fdr: Share = 0.1
    """false discovery rate over categories"""
    confidence: Confidence = 0.95
    """coverage of the intervals"""
    reference: Literal["unchanged", "others", "lower_half"] = "unchanged"
    """latents against which a direct share is tested"""
    margin: Share = 0.15
    """by how much a direct share must exceed the reference's: categories that both models were
    taught alike differ too (docs/validation.md)"""
    least_latents: Count = 5
    """labelled latents that a test needs"""
    behaviour_documents: Count = 200
    """documents per category whose likelihood is measured"""
    cause_documents: Natural = 6
    """documents per category on which latents are patched and ablated; 0: none"""
    difference_tokens: Natural | None = None
    """tokens drawn for a sparse autoencoder on the difference of a direct comparison's models;
    none: as for the crosscoder; 0: no such baselines"""
    leaderboard: str | None = None
    """scores of your own beside the latents (CSV: category, model, score)"""
