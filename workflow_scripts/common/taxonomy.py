"""The taxonomy file: classes, categories with definitions, and the offline lexicon."""

from __future__ import annotations

import hashlib
import re
from functools import cached_property
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from workflow_scripts.common.cli import UserError
from workflow_scripts.common.detectors import DETECTORS

UNASSIGNED = "unassigned"
UNINTERPRETABLE = "uninterpretable"
RESERVED = (UNASSIGNED, UNINTERPRETABLE)
"""Ids that are answers, not categories: no clear category; no clear meaning at all."""
NONE, NOT_JUDGED = "none", "not_judged"
"""Of latents without a true category; of those for which an annotator has no answer, whose labels'
status says why."""
WITHOUT_CATEGORY = (NONE, UNASSIGNED, UNINTERPRETABLE, NOT_JUDGED)
"""Names of latents without a category: they stay in every denominator and are never tested."""

Register = Literal["any", "chat", "plain"]


class Lexicon(BaseModel):
    """What the offline annotator looks for in the text of one category."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    words: tuple[str, ...] = ()
    phrases: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    detectors: tuple[str, ...] = ()

    @field_validator("patterns")
    @classmethod
    def _compiles(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(
                    f"the pattern {pattern!r} is no regular expression: {error}"
                ) from None
        return patterns

    @field_validator("detectors")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in DETECTORS:
                raise ValueError(
                    f"no detector {name!r}: choose from {', '.join(sorted(DETECTORS))}"
                )
        return names


class Category(BaseModel):
    """One category: what it means, examples for and against, and its lexicon."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    id: str = Field(pattern=r"^[a-z0-9_]+$", max_length=64)
    class_: str = Field(alias="class")
    definition: str = Field(min_length=1)
    positive: tuple[str, ...] = Field(min_length=1)
    negative: tuple[str, ...] = Field(min_length=1)
    register_: Register = Field(default="any", alias="register")
    lexicon: Lexicon = Lexicon()


class Taxonomy(BaseModel):
    """A validated taxonomy file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str
    classes: dict[str, str]
    categories: tuple[Category, ...] = Field(min_length=2)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Category ids in the order of the file."""
        return tuple(category.id for category in self.categories)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content, first 16 hexadecimal digits; comments do not count."""
        return hashlib.sha256(self.model_dump_json(by_alias=True).encode()).hexdigest()[:16]

    @cached_property
    def _classes(self) -> dict[str, str]:
        return {category.id: category.class_ for category in self.categories}

    def class_of(self, name: str) -> str:
        """Return the class of a category; a name that is none of them is its own class."""
        return self._classes.get(name, name)


def load_taxonomy(path: Path) -> Taxonomy:
    """Read and validate a taxonomy file.

    Raises
    ------
    UserError
        If the file is missing, no YAML, or breaks a rule; the sentence names the culprit.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"the taxonomy {path} does not exist: check the setting `taxonomy`"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"the taxonomy {path} is not valid YAML: {_one_line(error)}") from None
    try:
        taxonomy = Taxonomy.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = _place(content, first["loc"])
        raise UserError(f"the taxonomy {path} is not valid at {where}: {first['msg']}") from None
    _check_names(taxonomy, path)
    return taxonomy


def _check_names(taxonomy: Taxonomy, path: Path) -> None:
    seen: set[str] = set()
    for category in taxonomy.categories:
        if category.id in WITHOUT_CATEGORY:
            raise UserError(f"the taxonomy {path} uses the reserved id {category.id!r}: rename it")
        if category.id in seen:
            raise UserError(f"the taxonomy {path} has the category {category.id!r} twice")
        if category.class_ not in taxonomy.classes:
            raise UserError(
                f"the taxonomy {path} puts {category.id!r} into the unknown class "
                f"{category.class_!r}: add it under `classes`"
            )
        seen.add(category.id)
    for name in taxonomy.classes:
        if not re.fullmatch(r"[a-z0-9_]+", name):
            raise UserError(f"the taxonomy {path} has the class {name!r}: use only a-z, 0-9 and _")


def _place(content: object, location: tuple[int | str, ...]) -> str:
    parts: list[str] = []
    for key in location:
        content = _child(content, key)
        name = content.get("id") if isinstance(content, dict) else None
        parts.append(str(name or key))
    return " / ".join(parts) or "the top"


def _child(content: object, key: int | str) -> object:
    if isinstance(content, dict):
        return content.get(key)
    if isinstance(content, list) and isinstance(key, int) and key < len(content):
        return content[key]
    return None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
