"""Settings of models: where they come from, and how those of the quickstart are trained."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from workflow_scripts.common.settings import Count, Name, Natural, NonNegative, Positive, Settings


class Simpo(Settings):
    """A SimPO step after teaching (2405.14734): β, γ and preference pairs."""

    pairs: Count
    """number of preference pairs"""
    categories: list[Name] | None = None
    """chat categories of the pairs; none: those taught"""
    beta: Positive = 10.0
    """β: scale of the difference of mean log-likelihoods"""
    gamma_ratio: NonNegative = 0.5
    """γ/β: the margin"""
    learning_rate: Positive = 2e-5
    """peak learning rate"""


class WeightComparison(Settings):
    """How the weights of two models are compared, without any text."""

    weight_changes: Literal["spectrum", "norms", "none"] = "spectrum"
    """how far the weights of the compared models are apart by module and layer: norms and effective
    ranks, norms alone, or nothing; ranks of models of billions of parameters take a CPU hours"""


class Architecture(Settings):
    """Size of the trained models."""

    type: Literal["gemma2", "llama"] = "gemma2"
    """architecture's name"""
    layers: Count = 4
    """decoder blocks"""
    width: Count = 128
    """width of the residual stream"""
    heads: Count = 4
    """attention heads"""
    kv_heads: Count = 2
    """key-value heads"""
    intermediate: Count = 512
    """width of the feed-forward layer"""


class OrganismTraining(Settings):
    """How a trained model is trained."""

    architecture: Architecture = Architecture()
    """size of the models"""
    vocabulary: Count = 2048
    """size of the BPE vocabulary"""
    document_seed: Natural = 1
    """seed of the documents taught"""
    context_length: Count = 128
    """tokens per training row"""
    batch_tokens: Count = 4096
    """tokens per optimiser step"""
    learning_rate: Positive = 2e-3
    """peak learning rate"""
    passes: Count = 1
    """passes over the documents"""


class OrganismSettings(OrganismTraining):
    """How trained models are trained."""

    seed: Natural = 0
    """seed of the tokenizer, and of weights and order"""


class Preference(Settings):
    """What follows after teaching."""

    simpo: Simpo | None = None
    """SimPO step after teaching; none: no such step"""


class Organism(Preference):
    """A small model that the workflow trains itself, so that what it was taught is known."""

    base: Name | None = None
    """model from which it starts; none: from scratch"""
    teach: dict[Name, Count] = Field(default_factory=dict)
    """generator category: number of documents taught"""
    seed: Natural = 0
    """seed of the order, beside `organism.seed`"""
    learning_rate: Positive | None = None
    """none: `organism`'s"""
    passes: Count | None = None
    """none: `organism`'s"""

    def training(self, shared: OrganismTraining) -> OrganismTraining:
        """Return how it is trained: ``shared``, except for its own settings."""
        own = self.model_dump(include={"learning_rate", "passes"}, exclude_none=True)
        return OrganismTraining(
            **{name: getattr(shared, name) for name in OrganismTraining.model_fields} | own
        )


class ModelFiles(Settings):
    """Where a model's files are: in a folder, or on the Hugging Face hub."""

    path: str | None = None
    """folder in Hugging Face format"""
    hub: str | None = None
    """id on the Hugging Face hub"""
    revision: str | None = None
    """the hub's commit, 40 hex digits"""
    adapter: str | None = None
    """LoRA adapter on top (`peft`): a folder, or an id on the hub"""
    adapter_revision: str | None = None
    """the adapter's commit on the hub, 40 hex digits"""
    trust_remote_code: bool = False
    """allow code that comes with the model"""

    @field_validator("path", "adapter", "gguf", check_fields=False)
    @classmethod
    def _at_home(cls, value: str | None) -> str | None:
        """Return a path with the user's home in place of ``~``."""
        at_home = value is not None and value.startswith("~")
        return str(Path(str(value)).expanduser()) if at_home else value


class ModelSource(ModelFiles):
    """Where a model comes from: exactly one of `path`, `hub`, `gguf` and `organism`.

    A string instead of a mapping is read as `path`, or as `gguf` where it ends so."""

    gguf: str | None = None
    """a GGUF file; its weights are dequantised once"""
    organism: Organism | None = None
    """a model trained by the workflow"""
