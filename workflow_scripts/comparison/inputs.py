"""What a comparison is made of: its sides, the files of its fits, and their labelled latents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import yaml

from workflow_scripts.common import files
from workflow_scripts.common.cli import UserError
from workflow_scripts.common.labels import TRUE
from workflow_scripts.comparison.direct import is_direct

NONE, UNASSIGNED, UNINTERPRETABLE = "none", "unassigned", "uninterpretable"
NOT_JUDGED = "not_judged"
"""Category of latents for which an annotator has no answer: its labels' status says why."""
RESERVED = (NONE, UNASSIGNED, UNINTERPRETABLE, NOT_JUDGED)
"""Latents without a category: they stay in every denominator and are never tested."""
ANSWERED = ("ok", "repaired", "reasked")
"""Statuses of an annotator's answers that hold a category."""


@dataclass(frozen=True)
class Side:
    """One side of a comparison: latents of ``fit`` that are unique to ``model``."""

    fit: str
    model: str


@dataclass(frozen=True)
class Comparison:
    """Two sides, with the comparisons that are read beside it."""

    baseline: Side
    candidate: Side
    anchored: str | None = None
    placebo: str | None = None
    against: str | None = None

    @property
    def direct(self) -> bool:
        """Say whether two models are set against each other in one crosscoder."""
        return is_direct(self)

    @property
    def others(self) -> tuple[str | None, str | None]:
        """Return against which model the latents of each side are unique; None: all of the fit."""
        if self.direct:
            return self.candidate.model, self.baseline.model
        return self.against, self.against


@dataclass(frozen=True)
class SeedFiles:
    """Artifacts of one crosscoder."""

    latents: Path
    selection: Path
    examples: Path | None = None
    labels: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class FitFiles:
    """Artifacts of a fit: its models in order, and the files of each seed."""

    models: list[str]
    seeds: dict[int, SeedFiles]


@dataclass(frozen=True)
class Labelled:
    """One crosscoder's live latents that a labeller has named, in one frame.

    Columns ``latent``, ``category``, ``class``, ``weight`` (live latents for which the row
    stands), ``unique_to``, ``unique_<own>_vs_<other>`` and all of ``latents.parquet``.
    """

    models: tuple[str, ...]
    frame: pd.DataFrame


def read_classes(taxonomy: Path) -> dict[str, str]:
    """Return the class of each category of a taxonomy file.

    Raises
    ------
    UserError
        If the file is missing or has no categories with ``id`` and ``class``.
    """
    try:
        content = yaml.safe_load(taxonomy.read_text(encoding="utf-8"))
        return {str(entry["id"]): str(entry["class"]) for entry in content["categories"]}
    except FileNotFoundError:
        raise UserError(f"{taxonomy} does not exist: check the setting `taxonomy`") from None
    except (yaml.YAMLError, KeyError, TypeError):
        raise UserError(
            f"{taxonomy} is no taxonomy: it needs `categories` with `id` and `class`"
        ) from None


def read_labelled(
    fit: str, seed: int, fits: Mapping[str, FitFiles], classes: Mapping[str, str]
) -> dict[str, Labelled]:
    """Return the labelled latents of a crosscoder, by labeller."""
    source = fits[fit].seeds[seed]
    models = tuple(fits[fit].models)
    table = files.read_parquet(source.latents)
    selection = files.read_parquet(source.selection)
    live = selection.merge(table, on="latent", how="inner", validate="one_to_one")
    found: dict[str, Labelled] = {}
    if "true_category" in live.columns:
        known = live.assign(weight=1.0, category=live["true_category"].replace("", None))
        found[TRUE] = Labelled(models, _classify(known, UNASSIGNED, classes))
    if source.labels and source.examples is not None:
        weights = _sample_weights(source.examples)
        for annotator, labels in _read_labels(source.labels).items():
            frame = live.merge(weights, on="latent").merge(labels, on="latent", how="left")
            found[annotator] = Labelled(models, _classify(frame, NOT_JUDGED, classes))
    return found


def _classify(frame: pd.DataFrame, missing: str, classes: Mapping[str, str]) -> pd.DataFrame:
    """Return ``frame`` with ``category``, which is ``missing`` where there is none, and `class`."""
    category = frame["category"].fillna(missing).astype(str)
    known = {name: name for name in RESERVED} | dict(classes)
    return frame.assign(category=category, **{"class": category.map(lambda c: known.get(c, c))})


def _sample_weights(examples: Path) -> pd.DataFrame:
    weights = pd.read_parquet(examples, columns=["latent", "sample_weight"])
    return weights.drop_duplicates("latent").rename(columns={"sample_weight": "weight"})


def _most_frequent(rows: pd.DataFrame) -> pd.DataFrame:
    """Return each latent's most frequent ``category``; where two are, it is ``unassigned``."""
    counts = rows.groupby(["latent", "category"]).size().rename("count").reset_index("category")
    top = counts[counts["count"] == counts.groupby("latent")["count"].transform("max")]
    tied = top.index.duplicated(keep=False)
    top = top.assign(category=top["category"].where(~tied, UNASSIGNED))
    named: pd.DataFrame = top.loc[~top.index.duplicated(), ["category"]]
    return named


def _read_labels(paths: list[Path]) -> dict[str, pd.DataFrame]:
    """Return, by annotator, one category per latent and the mean score of its answers.

    The category is the most frequent answer of the replicates, and ``unassigned`` at a tie; a
    failed replicate has no say, and latents without any answer are not there.
    """
    table = pd.concat([files.read_parquet(path) for path in paths], ignore_index=True)
    answered = table["status"].isin(ANSWERED)
    found = {}
    for annotator in sorted(table["annotator"].unique()):
        rows = table[answered & (table["annotator"] == annotator)]
        named = _most_frequent(rows)
        score = rows.groupby("latent")["score"].mean() if "score" in rows else None
        found[str(annotator)] = (named if score is None else named.join(score)).reset_index()
    return found
