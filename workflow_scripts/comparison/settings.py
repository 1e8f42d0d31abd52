"""Settings of comparisons."""

from __future__ import annotations

from workflow_scripts.common.settings import (
    Confidence,
    Count,
    Name,
    Natural,
    NonNegative,
    Positive,
    Settings,
    Share,
)
from workflow_scripts.models.settings import WeightComparison


class ComparedSide(Settings):
    """One side of a comparison."""

    fit: Name
    """fit that holds the latents"""
    model: Name
    """model to which they are unique"""


class Comparison(Settings):
    """Latents unique to one model, compared with latents unique to another."""

    baseline: ComparedSide
    """the side before"""
    candidate: ComparedSide
    """the side after"""
    anchored: Name | None = None
    """comparison whose counts stand beside a direct one's"""
    placebo: Name | None = None
    """comparison of a model with its placebo, as a null"""
    against: Name | None = None
    """base model against which both sides are unique; for a crosscoder of three models"""

    @property
    def is_direct(self) -> bool:
        """Whether two models are compared in one crosscoder."""
        one_fit = self.baseline.fit == self.candidate.fit
        return one_fit and self.baseline.model != self.candidate.model and self.against is None

    @property
    def others(self) -> tuple[str | None, str | None]:
        """Against which model the latents of each side are unique; None: all others of the fit."""
        if self.is_direct:
            return self.candidate.model, self.baseline.model
        return self.against, self.against


class Intervals(Settings):
    """How sure intervals are."""

    confidence: Confidence = 0.95
    """coverage of the intervals"""


class Discoveries(Settings):
    """How many calls may be false."""

    fdr: Share = 0.1
    """false discovery rate over categories"""


class CategoryTest(Intervals, Discoveries):
    """How a category's latents are tested; the verdict is that of documents, not of latents."""

    margin: Share = 0.15
    """by how much a direct share must exceed that of unchanged categories to be called: those that
    both models were taught equally differ too"""
    least_latents: Count = 5
    """labelled latents that a test needs"""


class Judgement(Intervals, Discoveries):
    """When a label's text counts as changed; docs/validation.md shows how this was chosen."""

    least_documents: Count = 10
    """documents of the score split that a label needs"""
    behaviour_floor: NonNegative = 0.02
    """likelihood gap that is no change, however sure: nats per token"""
    side_effect: Share = 0.12
    """up to which part of the largest gap a gap is a side effect of training, not a change"""
    relevant_gap: Positive = 0.5
    """a label is *unchanged* only where a gap as large as this, or as `shared_shift` of the
    largest, would have been called; nats per token"""
    training_noise: NonNegative = 0.2
    """what chance in training makes of a gap: share of the mean absolute gap per token"""
    shared_shift: Share = 0.25
    """up to which part of the largest gap a shift that many labels share is no change of theirs"""
    distance_floor: NonNegative = 0.02
    """relative distance of activations that is no change, however sure"""
    usual_scatter: Positive = 0.3
    """scatter of the logarithms of distances among unchanged labels, where few are known"""
    same_ratio: Positive = 1.25
    """a label whose behaviour changed is *used differently* where a distance so many times that of
    unchanged text can be excluded"""
    moved_ratio: Positive = 2.0
    """how many times the distance of unchanged text makes a label *moved* that behaves as before"""


class Labelling(Settings):
    """Whose labels count."""

    labeller: str | None = None
    """labels for the answer; none: a column of the data, else true categories, `category` of the
    sources, an LLM's labels, names of sources, or topics"""


class Answering(Labelling, Discoveries):
    """Which comparison gives the answer, by whose labels."""

    primary: Name | None = None
    """comparison that gives the answer; none: the first direct one that is no control or placebo,
    else any"""


class LabelSample(Settings):
    """Text on which models are compared."""

    documents_per_label: Count = 200
    """documents of each label, of each labeller, on which models are compared: their likelihoods
    and their activations"""


class AnswerSample(Settings):
    """Prompts that both models answer."""

    answer_documents: Natural = 8
    """documents of each label that both models answer or go on with, greedily; 0: none"""
    answer_tokens: Count = 48
    """tokens of an answer at most"""


class PredictionSample(Settings):
    """Text on which two models' predictions are compared token by token."""

    prediction_documents: Natural = 20
    """documents of each label on which predictions and activations are compared token by token:
    which tokens the candidate predicts more and less, what the difference promotes; 0: none"""
    prediction_tokens: Count = 8
    """tokens that are named of each label, on either side"""


class ComparisonSettings(
    AnswerSample,
    PredictionSample,
    WeightComparison,
    LabelSample,
    CategoryTest,
    Judgement,
    Answering,
):
    """How comparisons are tested, and which one gives the answer."""

    cause_documents: Natural = 6
    """documents per category on which latents are patched and ablated; 0: none"""
    difference_tokens: Natural | None = None
    """tokens drawn for a sparse autoencoder on the difference of a direct comparison's models;
    none: as for the crosscoder; 0: no such baselines"""
    leaderboard: str | None = None
    """scores of your own beside the latents (CSV: category, model, score)"""
