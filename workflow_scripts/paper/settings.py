"""Settings of a published study."""

from __future__ import annotations

from pydantic import Field

from workflow_scripts.common.settings import Name, Settings


class Paper(Settings):
    """The published study against which `reproduce_paper` compares."""

    published: list[str] = Field(min_length=1)
    """files of published quantities (YAML), one per study"""
    labeller: Name | None = None
    """whose labels are counted; none: an LLM's, else lexical ones"""
