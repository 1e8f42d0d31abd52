"""Settings of the text that the models read."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from workflow_scripts.common.settings import Count, Name, Natural, Positive, Settings, Share


class GeneratorSource(Settings):
    """Documents of known category from the built-in generator."""

    kind: Literal["generator"]
    """`generator`"""
    categories: list[Name] | dict[Name, Positive] | None = None
    """categories, or category: share of tokens; none: all in equal shares"""
    weight: Positive = 1.0
    """share of the tokens, relative to other sources"""
    seed: Natural | None = None
    """seed of the documents; none: the run's"""


class FileSource(Settings):
    """Documents from local files."""

    kind: Literal["jsonl", "parquet"]
    """`jsonl` or `parquet`"""
    path: str | list[str]
    """file or glob pattern, or a list of them; `.jsonl.gz` too"""
    text_column: str | None = None
    """column of plain text"""
    messages_column: str | None = None
    """column of chat messages"""
    weight: Positive = 1.0
    """share of the tokens, relative to other sources"""
    seed: Natural | None = None
    """seed of the order; none: the run's"""


class HubSource(Settings):
    """Documents from a data set on the Hugging Face hub, read row by row through `datasets`."""

    kind: Literal["huggingface"]
    """`huggingface`"""
    path: str
    """id of the data set, or a folder in the hub's layout"""
    name: str | None = None
    """configuration of the data set"""
    revision: str | None = None
    """commit of the data set, 40 hex digits; none: `path` is a folder"""
    split: str = "train"
    """split of the data set"""
    text_column: str | None = None
    """column of plain text"""
    messages_column: str | None = None
    """column of chat messages"""
    weight: Positive = 1.0
    """share of the tokens, relative to other sources"""
    seed: Natural | None = None
    """seed of the order; none: the run's"""


SOURCE_KINDS = ("generator", "jsonl", "parquet", "huggingface")


Source = Annotated[GeneratorSource | FileSource | HubSource, Field(discriminator="kind")]


class Splits(Settings):
    """Fractions of the documents, by the hash of their content; they sum to 1."""

    fit: Share = 0.6
    """crosscoders are fitted on it"""
    calibration: Share = 0.05
    """normalisers and thresholds are set on it"""
    score: Share = 0.2
    """crosscoders, latents and behaviour are measured on it"""
    explain: Share = 0.08
    """explanations are made from it"""
    verify: Share = 0.07
    """explanations are scored on it"""


class Text(Settings):
    """The text that the models read."""

    sources: dict[Name, Source]
    """name: where documents come from"""
    tokens: Count = 1_000_000
    """token budget over all splits; raising it adds shards and redoes no full one"""
    shard_tokens: Count = 2_000_000
    """tokens per shard: one dump job each"""
    context_length: Count = 256
    """tokens to which a document is cut"""
    bytes_per_token: Positive = 4.0
    """for the estimate of tokens when drawing"""
    template: str | None = None
    """file of a Jinja chat template; none: that of the first model with one"""
    splits: Splits = Splits()
    """fractions of the documents"""
