"""Every setting of a run: the groups that the stages declare, composed.

The Snakefile reads its config through :func:`workflow_scripts.run.load.load` once, before any
work. Steps get values by flags. ``config/README.md`` is written from the declarations.
"""

from __future__ import annotations

from pydantic import Field

from workflow_scripts.activations.settings import Activations
from workflow_scripts.autointerp.settings import Autointerp
from workflow_scripts.common.settings import Count, Name, Natural, Settings
from workflow_scripts.comparison.settings import Comparison, ComparisonSettings
from workflow_scripts.crosscoder.settings import CrosscoderSettings, Fit
from workflow_scripts.dataset.settings import Text
from workflow_scripts.latents.settings import Latents
from workflow_scripts.models.settings import ModelSource, OrganismSettings
from workflow_scripts.paper.settings import Paper


class Config(Settings):
    """The whole config file."""

    run: Name
    """name of the run: its artifacts are in results/<run>/"""
    seed: Natural = 0
    """seed of everything that has no seed of its own"""
    models: dict[Name, ModelSource]
    """name: where the model comes from"""
    organism: OrganismSettings = OrganismSettings()
    """how models that the workflow trains are trained"""
    text: Text
    """text that the models read"""
    layers: dict[Name, list[Count]] = Field(min_length=1)
    """dump group: layers; one group is one forward pass"""
    activations: Activations = Activations()
    """computing and storing activations"""
    crosscoder: CrosscoderSettings = CrosscoderSettings()
    """defaults of all fits"""
    fits: dict[Name, Fit]
    """name: a crosscoder; none: one per pair of models at the first layer"""
    latents: Latents = Latents()
    """decision rule and contexts"""
    taxonomy: str | None = None
    """classes and categories (YAML); none: config/taxonomy.yaml"""
    autointerp: Autointerp = Autointerp()
    """explanations and categories"""
    comparisons: dict[Name, Comparison]
    """name: two sides; none: the two models of each fit of two models"""
    comparison: ComparisonSettings = ComparisonSettings()
    """tests of comparisons"""
    paper: Paper | None = None
    """published study; none: nothing to reproduce"""
