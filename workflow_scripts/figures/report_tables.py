"""The report's tables: what is shown in words and figures, formatted for people."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from workflow_scripts.common import files
from workflow_scripts.common.artifacts import FitFiles
from workflow_scripts.common.labellers import LEXICAL, usual
from workflow_scripts.common.tables import read_csv
from workflow_scripts.figures.category_rows import Row, rows_of
from workflow_scripts.figures.style import readable
from workflow_scripts.latents.ownership import owned_by


@dataclass(frozen=True)
class Table:
    """A table: caption, header, rows of cells."""

    caption: str
    header: list[str]
    rows: list[list[str]]


def number(value: float, digits: int = 2, sign: bool = False) -> str:
    """Return a number for people; n/a where it is undefined, ∞ where it is unbounded."""
    if math.isnan(value):
        return "n/a"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:{'+' if sign else ''}.{digits}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")


def probability(value: float) -> str:
    """Return a p or q value."""
    if math.isnan(value):
        return "n/a"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def interval(row: Row, name: str, factor: float = 1, digits: int = 0, sign: bool = False) -> str:
    """Return the bounds ``name_low`` … ``name_high``."""
    low, high = (factor * row.number(f"{name}_{end}") for end in ("low", "high"))
    if math.isnan(low) and math.isnan(high):
        return ""
    return f"{number(low, digits, sign)} … {number(high, digits, sign)}"


def _text(row: Row, name: str) -> str:
    value = row.text(name)
    return "" if value == "nan" else value


def fit_table(fits: Mapping[str, FitFiles]) -> Table:
    """Return a row per crosscoder: FVE and loss per model, L0, dead latents, unique latents."""
    rows = []
    for name, fit in fits.items():
        for seed, source in fit.seeds.items():
            selection = files.read_parquet(source.selection)
            unique = {m: int(owned_by(selection["unique_to"], m).sum()) for m in fit.models}
            facts = files.read_json(source.evaluation) if source.evaluation else {}
            fve, published = facts.get("fve", {}), facts.get("fve_published")
            recovered = _recovered(source.loss)
            rows.append(
                [
                    name,
                    str(seed),
                    str(fit.layer),
                    ", ".join(f"{m} {number(fve.get(m, math.nan), 4)}" for m in fit.models)
                    + (f" (published: {number(published, 4)})" if published else ""),
                    ", ".join(f"{m} {number(v, 3)}" for m, v in recovered.items()) or "n/a",
                    f"{number(facts.get('l0_threshold', math.nan), 1)} (k = {facts.get('k', '?')})",
                    f"{number(100 * facts.get('dead_share', math.nan), 1)} %",
                    str(len(selection)),
                    ", ".join(f"{m} {count}" for m, count in unique.items()),
                    str(len(files.read_parquet(source.mirrors))) if source.mirrors else "n/a",
                ]
            )
    header = [
        "fit",
        "seed",
        "layer",
        "held-out FVE",
        "loss recovered",
        "L0",
        "dead",
        "live",
        "unique to",
    ]
    header += ["mirror pairs"]
    return Table("Crosscoders", header, rows)


CLAUSES = {
    "live": "live",
    "status": "defined, no flipped sign",
    "nu_r": "ν^r below its bound",
    "nu_e": "ν^ε below its bound",
    "fdr": "significant",
    "delta_norm": "Δnorm",
}


def clause_table(fits: Mapping[str, FitFiles]) -> Table | None:
    """Return how many live latents are left after each clause of the rule, by claim."""
    counts = [
        (name, seed, files.read_json(source.clauses)["left_after"])
        for name, fit in fits.items()
        for seed, source in fit.seeds.items()
        if source.clauses
    ]
    if not counts:
        return None
    counted = next(iter(counts[0][2].values()))
    steps = [step for step in CLAUSES if step in counted]  # the file's keys are sorted
    rows = [
        [name, str(seed), readable(claim), *(str(left[step]) for step in steps)]
        for name, seed, claims in counts
        for claim, left in claims.items()
    ]
    header = ["fit", "seed", "unique to", *(CLAUSES[step] for step in steps)]
    return Table("Latents left after each clause of the rule", header, rows)


def _recovered(path: Path | None) -> dict[str, float]:
    """Return by model the share of the loss that reconstructions keep, against mean ablation."""
    if path is None:
        return {}
    table = read_csv(path)
    every = table[table["source"] == "all"]
    return dict(zip(every["model"], every["recovered_mean"].astype(float), strict=True))


def recovery_table(recovery: pd.DataFrame) -> Table | None:
    """Return power and false calls per statistic, where something was planted."""
    if recovery.empty:
        return None
    rows = []
    keys = ["comparison", "labeller", "seed", "statistic"]
    recovery = recovery[recovery["labeller"] != LEXICAL]
    for (comparison, labeller, seed, statistic), block in recovery.groupby(keys, sort=False):
        planted = block[block["planted"] != "unchanged"]
        same = block[block["planted"] == "unchanged"]
        judged = planted[planted["sign_right"].isin(["yes", "no"])]
        rows.append(
            [
                str(comparison),
                str(labeller),
                str(seed),
                readable(str(statistic)),
                f"{int(planted['called'].astype(bool).sum())} of {len(planted)}",
                f"{int((judged['sign_right'] == 'yes').sum())} of {len(judged)}"
                if len(judged)
                else "has none",
                f"{int((same['false_call'] == 'yes').sum())} of {len(same)}",
            ]
        )
    header = ["comparison", "labels", "seed", "statistic", "planted called", "sign right", "false"]
    return Table("Planted changes and what each statistic finds", header, rows)


def score_table(gaps: pd.DataFrame, labeller: str) -> Table | None:
    """Return the gaps in scores of the user's own beside what changed; None without any."""
    own = gaps[gaps["labeller"] == labeller]
    if own.empty:
        return None
    rows = [
        [
            readable(row.text("label")),
            row.text("comparison"),
            row.text("source"),
            number(row.number("gap"), 3, sign=True),
            interval(row, "gap", 1, 3, sign=True),
            row.text("reading"),
        ]
        for row in rows_of(own)
    ]
    header = ["category", "comparison", "score", "gap", "interval", "reading"]
    return Table("Gaps in your own scores beside what changed", header, rows)


def sensitivity_table(table: pd.DataFrame, comparison: str, labeller: str) -> Table | None:
    """Return what every variant says of each category that one calls; None where none calls any.

    Shown are the labels of one labeller, or of the usual one where the table has none of its.
    """
    own = table[table["comparison"] == comparison]
    names = list(own["labeller"].unique())
    own = own[own["labeller"] == (labeller if labeller in names else usual(names))]
    called = own.loc[own["called"] == "yes", "name"]
    variants = list(own["variant"].unique())
    rows = []
    for name, block in own[own["name"].isin(called)].groupby("name", sort=False):
        calls = block.set_index("variant")["called"]
        words = {"yes": "called", "no": "not called"}
        rows.append([readable(str(name)), *(words.get(calls.get(v, ""), "–") for v in variants)])
    caption = "Whether counts of unique latents call a category under other decisions"
    return Table(caption, ["category", *variants], rows) if rows else None


def published_table(path: Path) -> Table:
    """Return every published quantity beside what was measured, with the verdict."""
    table = read_csv(path)
    rows = []
    for row in rows_of(table):
        low, high = row.number("low"), row.number("high")
        bounds = "" if math.isnan(low) else f"\n{number(low, 1, True)} … {number(high, 1, True)}"
        rows.append(
            [
                row.text("quantity"),
                f"{row.text('source')}, {row.text('where')}",
                f"{row.number('published'):g}".replace("-", "−"),
                (
                    "n/a" if math.isnan(row.number("measured")) else f"{row.number('measured'):.4g}"
                ).replace("-", "−")
                + bounds,
                row.text("unit"),
                row.text("verdict"),
                _text(row, "published_in_interval"),
                _text(row, "differs_from_no_change"),
                _text(row, "missing"),
            ]
        )
    header = ["quantity", "source", "published", "measured", "unit", "verdict"]
    header += ["published value in our interval", "ours differs from no change", "missing"]
    return Table("Published and measured", header, rows)


def flatten(value: object, prefix: str = "") -> list[tuple[str, str]]:
    """Return a nested JSON value as (path, text) pairs, in order."""
    if isinstance(value, Mapping):
        return [
            pair
            for key, inner in value.items()
            for pair in flatten(inner, f"{prefix} / {key}" if prefix else str(key))
        ]
    if isinstance(value, Sequence) and not isinstance(value, str):
        if all(not isinstance(item, Mapping | list) for item in value):
            return [(prefix, ", ".join(map(str, value)))]
        return [pair for i, item in enumerate(value) for pair in flatten(item, f"{prefix} / {i}")]
    return [(prefix, "" if value is None else str(value))]
