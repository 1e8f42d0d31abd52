"""The latent browser's data: one table per crosscoder, in columns, and the contexts of latents."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, permutations
from pathlib import Path
from typing import TypedDict

import numpy as np
import pandas as pd

from workflow_scripts import files

ANSWERED = ("ok", "repaired", "reasked")


@dataclass(frozen=True)
class SeedFiles:
    """Artifacts of one crosscoder that the report shows."""

    latents: Path
    selection: Path
    examples: Path | None = None
    clauses: Path | None = None
    evaluation: Path | None = None
    loss: Path | None = None
    mirrors: Path | None = None
    labels: list[Path] = field(default_factory=list)
    explanations: list[Path] = field(default_factory=list)
    scores: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class FitFiles:
    """A fit: its models in order, its layer, and the files of each seed."""

    models: list[str]
    layer: int
    seeds: dict[int, SeedFiles]


class Column(TypedDict):
    """One column of the browser's table; ``digits`` is None for text."""

    id: str
    label: str
    digits: int | None
    values: Sequence[str | float | None]


class Context(TypedDict):
    """One context: token numbers (into ``pieces``) and the activations that are not 0."""

    split: str
    document: int
    tokens: list[int]
    active: list[tuple[int, float]]


class Browser(TypedDict):
    """All that the page knows about one crosscoder."""

    fit: str
    seed: int
    layer: int
    models: list[str]
    columns: list[Column]
    pieces: list[str]
    contexts: dict[str, list[Context]]
    maxima: dict[str, float]


def browser(fit: str, files_of: FitFiles, contexts: int) -> Browser:
    """Return the browser's data of a fit's first seed, with so many contexts per latent."""
    seed, source = next(iter(files_of.seeds.items()))
    selection = files.read_parquet(source.selection)
    latents = files.read_parquet(source.latents)
    live = selection[["latent", "unique_to"]].merge(latents, on="latent")
    for paths, reader in (
        (source.labels, _label_columns),
        (source.explanations, _explanation_columns),
        (source.scores, _score_columns),
    ):
        for name, values in reader(paths).items():
            live[name] = live["latent"].map(values)
    pieces: dict[str, int] = {}
    examples: dict[str, list[Context]] = {}
    maxima: dict[str, float] = {}
    if source.examples is not None:
        examples, maxima = read_contexts(source.examples, contexts, pieces)
    return {
        "fit": fit,
        "seed": seed,
        "layer": files_of.layer,
        "models": files_of.models,
        "columns": _columns(live, files_of.models),
        "pieces": list(pieces),
        "contexts": examples,
        "maxima": maxima,
    }


def read_contexts(
    path: Path, count: int, pieces: dict[str, int]
) -> tuple[dict[str, list[Context]], dict[str, float]]:
    """Return each latent's strongest contexts, and its largest activation.

    Two thirds are the strongest, the rest spread over the other positive ones.
    """
    table = files.read_parquet(path)
    positive = table[table["kind"] == "positive"].sort_values(
        ["latent", "max_activation"], ascending=[True, False], kind="stable"
    )
    found: dict[str, list[Context]] = {}
    maxima: dict[str, float] = {}
    for latent, rows in positive.groupby("latent", sort=True):
        top = min(len(rows), math.ceil(count * 2 / 3))
        rest = np.unique(np.linspace(top, len(rows) - 1, count - top).round().astype(int))
        chosen = [*range(top), *(int(i) for i in rest if top <= i < len(rows))]
        found[str(latent)] = [
            _context(rows.iloc[i].to_dict(), pieces) for i in dict.fromkeys(chosen)
        ]
        maxima[str(latent)] = _rounded(float(rows["latent_max"].max()), 4) or 0.0
    return found, maxima


def _context(row: Mapping[object, object], pieces: dict[str, int]) -> Context:
    tokens, values = row["pieces"], row["activations"]
    assert isinstance(tokens, np.ndarray)
    assert isinstance(values, np.ndarray)
    return {
        "split": str(row["split"]),
        "document": int(str(row["document"])),
        "tokens": [pieces.setdefault(str(token), len(pieces)) for token in tokens],
        "active": [(int(i), _rounded(float(values[i]), 3) or 0.0) for i in np.flatnonzero(values)],
    }


def _columns(live: pd.DataFrame, models: Sequence[str]) -> list[Column]:
    """Return the table's columns: what is known of every live latent."""
    columns = [
        _column(live, "latent", "latent", 0),
        _column(live, "unique_to", "unique to", None),
    ]
    named = [name for name in live.columns if str(name).startswith("category ")]
    if "true_category" in live.columns:
        columns.append(_column(live, "true_category", "true category", None))
    columns += [_column(live, name, name, None) for name in named]
    columns += [
        _column(live, str(name), str(name), None)
        for name in live.columns
        if str(name).startswith("explanation ")
    ]
    columns += [
        _column(live, str(name), str(name), 2)
        for name in live.columns
        if str(name).startswith("AUROC ")
    ]
    for a, b in combinations(models, 2):
        columns.append(_column(live, f"delta_norm_{a}_{b}", f"Δnorm {a}→{b}", 3))
        columns.append(_column(live, f"cosine_{a}_{b}", f"cosine {a}·{b}", 3))
    for own, other in permutations(models, 2):
        pair, told = f"{own}_vs_{other}", f"{own} against {other}"
        columns += [
            _column(live, f"nu_r_{pair}", f"νʳ {told}", 3),
            _column(live, f"nu_r_{pair}_se", f"± νʳ {told}", 3),
            _column(live, f"nu_e_{pair}", f"νᵋ {told}", 3),
            _column(live, f"nu_e_{pair}_se", f"± νᵋ {told}", 3),
            _column(live, f"q_{pair}", f"q {told}", 3),
            _column(live, f"status_{pair}", f"status {told}", None),
        ]
    for name, label, digits in (
        ("firing_rate", "firing rate", 5),
        ("documents", "documents", 0),
        ("activation_mean", "mean activation", 3),
        ("activation_max", "max activation", 3),
        ("template_share", "template share", 2),
    ):
        columns.append(_column(live, name, label, digits))
    return columns


def _column(table: pd.DataFrame, name: str, label: str, digits: int | None) -> Column:
    values = table[name] if name in table.columns else pd.Series([None] * len(table))
    shown: list[str | float | None]
    if digits is None:
        shown = ["" if pd.isna(value) else str(value) for value in values]
    else:
        shown = [_rounded(float(str(value)), 4) if not pd.isna(value) else None for value in values]
    return {"id": name, "label": label, "digits": digits, "values": shown}


def _rounded(value: float, digits: int) -> float | None:
    """Return a number to so many significant digits; None for what JSON cannot hold."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def _first_answers(paths: Sequence[Path]) -> dict[str, pd.DataFrame]:
    """Return, by annotator, the first answered row of each latent."""
    if not paths:
        return {}
    table = pd.concat([files.read_parquet(path) for path in paths], ignore_index=True)
    table = table[table["status"].isin(ANSWERED)].drop_duplicates(["annotator", "latent"])
    return {str(name): rows.set_index("latent") for name, rows in table.groupby("annotator")}


def _label_columns(paths: Sequence[Path]) -> dict[str, pd.Series[str]]:
    return {f"category by {n}": rows["category"] for n, rows in _first_answers(paths).items()}


def _explanation_columns(paths: Sequence[Path]) -> dict[str, pd.Series[str]]:
    return {f"explanation by {n}": rows["explanation"] for n, rows in _first_answers(paths).items()}


def _score_columns(paths: Sequence[Path]) -> dict[str, pd.Series[float]]:
    found = {}
    for name, rows in _first_answers(paths).items():
        found[f"AUROC by {name}"] = rows["auroc"]
        found[f"AUROC by {name}, low"] = rows["auroc_low"]
        found[f"AUROC by {name}, high"] = rows["auroc_high"]
    return found


def llm_annotators(fits: Mapping[str, FitFiles]) -> list[str]:
    """Return the annotators of any fit that are LLMs."""
    found: set[str] = set()
    for fit in fits.values():
        for source in fit.seeds.values():
            for path in (*source.labels, *source.explanations):
                table = files.read_parquet(path)
                found.update(table.loc[table["llm_used"].astype(bool), "annotator"].astype(str))
    return sorted(found)


def to_json(value: object) -> str:
    """Return JSON that can stand in a script element: it holds no tag and no address.

    ``<`` and the line separators that end a JavaScript line are written as escapes, and ``://``
    with escaped slashes, so that nothing in the data can close the element or look like a link.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.replace("://", ":\\/\\/")
