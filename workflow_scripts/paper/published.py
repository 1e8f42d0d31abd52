"""Files of published quantities: their form, and how they are read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from workflow_scripts.common.cli import UserError


class Strict(BaseModel):
    """A frozen group of keys; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PercentChange(Strict):
    """Change of a category's or class's share of unique latents, in percent."""

    kind: Literal["percent_change"]
    comparison: str
    level: Literal["category", "class"]
    name: str


class UniqueLatents(Strict):
    """Number of latents unique to a model of a fit."""

    kind: Literal["unique_latents"]
    fit: str
    model: str


class NormBin(Strict):
    """Number of live latents whose Δnorm, in the fit's order, lies in [low, high]."""

    kind: Literal["norm_bin"]
    fit: str
    low: float
    high: float


class ExplainedFraction(Strict):
    """Held-out fraction of variance explained: of a model, or the mean of the fit's models."""

    kind: Literal["fve"]
    fit: str
    model: str | None = None


class TemplateShare(Strict):
    """Share of a model's unique latents with most of their activation on template tokens."""

    kind: Literal["template_share"]
    fit: str
    model: str


Measured = Annotated[
    PercentChange | UniqueLatents | NormBin | ExplainedFraction | TemplateShare,
    Field(discriminator="kind"),
]


class Tolerance(Strict):
    """Distances from the published value, in its own unit."""

    ok: float = Field(ge=0)
    close: float = Field(ge=0)


class PublishedQuantity(Strict):
    """One published quantity."""

    id: str
    quantity: str
    where: str
    value: float
    unit: Literal["percent", "latents", "fraction"]
    tolerance: Tolerance
    why: str
    source: Literal["primary", "second-hand"]
    measured: Measured


class Study(Strict):
    """One publication."""

    study: str
    title: str
    rows: tuple[PublishedQuantity, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _ids_are_unique(self) -> Study:
        ids = [row.id for row in self.rows]
        twice = [name for name in ids if ids.count(name) > 1]
        if twice:
            raise ValueError(f"the id {twice[0]!r} occurs twice")
        return self


def read_study(path: Path) -> Study:
    """Read a file of published quantities; its ``defaults`` fill what a row leaves out.

    Raises
    ------
    UserError
        If it is missing, no YAML, or a row is not valid; the sentence names the culprit.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: check the setting `paper.published`") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, Mapping) or not isinstance(content.get("rows"), list):
        raise UserError(f"{path} has no `rows`")
    defaults = content.get("defaults", {})
    filled = {key: value for key, value in content.items() if key != "defaults"}
    filled["rows"] = [{**defaults, **row} for row in content["rows"]]
    try:
        return Study.model_validate(filled)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(_named(part, filled["rows"]) for part in first["loc"]) or "the top"
        raise UserError(f"{path} is not valid at {where}: {first['msg']}") from None


def _named(part: int | str, rows: list[Mapping[str, object]]) -> str:
    return str(rows[part].get("id", part)) if isinstance(part, int) else part
