"""Settings of the text that the models read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from workflow_scripts.common.settings import (
    Count,
    Name,
    Natural,
    NonNegative,
    Positive,
    Settings,
    Share,
)
from workflow_scripts.generator import CHAT_CATEGORIES, PLAIN_CATEGORIES


class SourceShare(Settings):
    """What every source has."""

    weight: Positive = 1.0
    """share of the tokens, relative to other sources"""
    seed: Natural | None = None
    """seed of its order, or of the generator's documents; none: the run's seed"""


class GeneratorSource(SourceShare):
    """Documents of known category from the built-in generator."""

    kind: Literal["generator"]
    """`generator`"""
    categories: list[Name] | dict[Name, Positive] | None = None
    """categories, or category: share of tokens; none: all in equal shares"""

    @field_validator("categories")
    @classmethod
    def _known(cls, categories: Iterable[str] | None) -> Iterable[str] | None:
        known = PLAIN_CATEGORIES + CHAT_CATEGORIES
        for category in categories or ():
            if category not in known:
                raise ValueError(
                    f"names the unknown category {category}: use some of {', '.join(known)}"
                )
        return categories

    @property
    def shares(self) -> dict[str, float]:
        """Share of each category, relative to the others."""
        if isinstance(self.categories, dict):
            return self.categories
        return dict.fromkeys(self.categories or PLAIN_CATEGORIES + CHAT_CATEGORIES, 1.0)


class RecordSource(SourceShare):
    """Rows of documents; without a column, in the usual forms (docs/tutorial.md lists them)."""

    text_column: str | None = None
    """column of plain text"""
    messages_column: str | None = None
    """column of chat messages"""
    category_column: str | list[str] | None = None
    """column that says what kind of text a document is, or several; its values are the labels"""
    category: str | None = None
    """label of all its documents; none: the source's name"""
    preference: Literal["chosen", "rejected"] | None = None
    """side of preference pairs that is read"""
    bad_rows: Literal["stop", "skip"] | None = None
    """`stop` at the first row without a document, `skip` all; none: skip up to 1 % of the rows"""

    @property
    def label_columns(self) -> list[str]:
        """The columns of labels."""
        columns = self.category_column or []
        return [columns] if isinstance(columns, str) else columns

    @model_validator(mode="after")
    def _distinct_labels(self) -> Self:
        columns = self.label_columns
        if len(set(columns)) < len(columns):
            raise ValueError("names a category_column twice: name each once")
        if self.category is not None and not self.category.strip():
            raise ValueError("has a blank category: name the kind of its text, or leave it out")
        return self

    @model_validator(mode="after")
    def _one_column(self) -> Self:
        if self.text_column is not None and self.messages_column is not None:
            raise ValueError("has text_column and messages_column: give one of them")
        return self


class FileSource(RecordSource):
    """Documents from local files."""

    kind: Literal["jsonl", "parquet", "csv"]
    """`jsonl` (JSON lines or an array), `parquet`, or `csv` (commas, tabs or semicolons)"""
    path: str | list[str]
    """file or glob pattern, or a list of them; JSON and CSV also as gzip, zstd, bzip2 or xz"""


class HubSource(RecordSource):
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

    @model_validator(mode="after")
    def _pinned(self) -> Self:
        if self.revision is None and not self.local:
            raise ValueError(
                f"has no revision: give the commit of {self.path} (40 hex digits), or a folder "
                "that exists"
            )
        return self

    @property
    def local(self) -> bool:
        """Whether it is a folder on this machine."""
        return Path(self.path).is_dir()


SOURCE_KINDS = ("generator", "jsonl", "parquet", "csv", "huggingface")


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

    @model_validator(mode="after")
    def _whole(self) -> Self:
        total = sum(share for _, share in self)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"sum to {total:g}: make them sum to 1")
        return self


class Splitting(Settings):
    """How documents are divided."""

    splits: Splits = Splits()
    """fractions of the documents"""


class RowLength(Settings):
    """How long a document may be.

    One row by default: every interval is over documents, and most of them fit into a budget so.
    """

    context_length: int = Field(default=256, ge=2)
    """tokens of a row, to which a document is cut"""
    rows_per_document: Count = 1
    """rows into which a longer document is cut, at most; what is left over is not read"""

    @property
    def longest(self) -> int:
        """Tokens that a document may have."""
        return self.context_length * self.rows_per_document


class Sampling(RowLength, Splitting):
    """How documents are drawn."""

    bytes_per_token: Positive = 4.0
    """for the estimate of tokens when drawing"""
    reserve: NonNegative = 0.1
    """documents drawn beyond the budget, as a share of it, in place of those that cannot be used"""


class Rendering(RowLength):
    """How documents become rows of tokens."""

    template: str | None = None
    """file of a Jinja chat template; none: that of the first model with one"""
    control_tokens: Name | None = None
    """model whose control tokens (BOS, turn markers) the text gets; none: the models' are equal"""

    @field_validator("template")
    @classmethod
    def _at_home(cls, template: str | None) -> str | None:
        return str(Path(template).expanduser()) if template else template


class Topics(Settings):
    """Topics that are found in the text, as labels of documents."""

    count: Natural | None = None
    """topics to find; 0: none, none given: as many as separate the documents best"""
    least_similarity: Share = 0.05
    """cosine of a document's words and its topic's centre below which it stays without a topic"""


class Text(Sampling, Rendering):
    """The text that the models read."""

    sources: dict[Name, Source]
    """name: where documents come from"""
    tokens: Count = 1_000_000
    """token budget over all splits; raising it adds shards and redoes no full one"""
    shard_tokens: Count = 2_000_000
    """tokens per shard, and of each dump"""
    topics: Topics = Topics()
    """topics that are found in the text"""
