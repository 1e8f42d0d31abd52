"""What does each witness say of each label's text? ``witnesses.csv``: all methods side by side.

A witness is a way to look at two models: how well they predict text, how far predictions or
activations are apart, what they answer, whose latents are unique. Each has an effect with an
interval over documents and a null of its own. Likelihood, distance and latents bring their tests.
The others have no model of chance: their effect stands out where its interval lies above what a
placebo shows, a comparison of two models that were taught the same; without one, above twice the
median of the other labels, which more than half of the labels must be unchanged for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pandas as pd

from workflow_scripts.common import cli
from workflow_scripts.common.settings import Settings
from workflow_scripts.common.tables import read_csv, write_csv
from workflow_scripts.comparison.settings import Discoveries

COLUMNS = (
    *("comparison", "labeller", "label", "witness"),
    *("effect", "low", "high", "null", "stands_out"),
)
"""Columns of ``witnesses.csv``; ``COLUMNS.md`` says what each means."""
MEDIANS = 2.0
"""How many medians of the other labels an effect must exceed."""
LEAST_LABELS = 4
"""Other labels from which a null is taken."""
Effects = pd.DataFrame
"""Effects of one witness by label: ``effect``, ``low``, ``high``."""


class WitnessFiles(Settings):
    """What is known of one comparison beside changes.csv and categories.csv."""

    seed: int
    """seed of the crosscoder that counts"""
    placebo: str | None = None
    """comparison that is its null"""
    predictions: Path | None = None
    """how far predictions and activations are apart by label"""
    answers: Path | None = None
    """how answers differ by label"""


def compare_witnesses(
    changes: Path,
    categories: Path,
    comparisons: dict[str, WitnessFiles],
    rule: Discoveries,
    output: Path,
) -> None:
    """Write what every witness says of every label.

    Parameters
    ----------
    changes
        verdicts and effects by label (CSV)
    categories
        counts of unique latents by category (CSV)
    comparisons
        further tables of each direct comparison (JSON)
    output
        table to write, a row per comparison, labeller, label and witness (CSV)
    """
    changed, counted = read_csv(changes), read_csv(categories)
    rows: list[dict[str, object]] = []
    for name, own in comparisons.items():
        known = changed[(changed["comparison"] == name) & (changed["seed"] == own.seed)]
        for labeller in known["labeller"].unique():
            rows += label_rows(name, str(labeller), comparisons, changed, counted, rule.fdr)
    write_csv(output, rows, COLUMNS)


def label_rows(
    comparison: str,
    labeller: str,
    comparisons: Mapping[str, WitnessFiles],
    changes: pd.DataFrame,
    categories: pd.DataFrame,
    fdr: float,
) -> Iterator[dict[str, object]]:
    """Yield the rows of one comparison and labeller."""
    keys = {"comparison": comparison, "labeller": labeller}
    own, placebo = comparisons[comparison], comparisons[comparison].placebo
    rows = of_comparison(changes, comparison, own.seed, labeller)
    for axis, witness in (("behaviour", "likelihood"), ("representation", "distance")):
        for label, row in rows.iterrows():
            effect, least = row[axis], row[f"{axis}_least"]
            out = None if math.isnan(row[f"{axis}_q"]) else row[f"{axis}_q"] <= fdr
            if axis == "representation" and out:
                out = effect >= least
            bounds = (effect, row[f"{axis}_low"], row[f"{axis}_high"], least)
            yield _row(keys, str(label), witness, bounds, out)
    for witness, read in tested_elsewhere(changes).items():
        effects = read(comparison, own, labeller)
        null = comparisons.get(placebo) if placebo else None
        beside = read(placebo, null, labeller) if placebo and null else None
        yield from outliers(keys, witness, effects, beside)
    yield from latents(keys, own.seed, categories)


def of_comparison(changes: pd.DataFrame, comparison: str, seed: int, labeller: str) -> pd.DataFrame:
    """Return the rows of changes.csv of one crosscoder and labeller, by label."""
    chosen = (changes["comparison"] == comparison) & (changes["seed"] == seed)
    return changes[chosen & (changes["labeller"] == labeller)].set_index("label")


def tested_elsewhere(
    changes: pd.DataFrame,
) -> dict[str, Callable[[str, WitnessFiles, str], Effects]]:
    """Return the witnesses without a test of their own: how to read their effects."""

    def change(column: str) -> Callable[[str, WitnessFiles, str], Effects]:
        def read(comparison: str, own: WitnessFiles, labeller: str) -> Effects:
            return _effects(of_comparison(changes, comparison, own.seed, labeller), column)

        return read

    def shift(comparison: str, own: WitnessFiles, labeller: str) -> Effects:
        table = read_csv(own.predictions) if own.predictions else pd.DataFrame()
        return _effects(_of_labeller(table, labeller), "shift")

    def answers(comparison: str, own: WitnessFiles, labeller: str) -> Effects:
        table = read_csv(own.answers) if own.answers else pd.DataFrame()
        if not table.empty:
            table = table[table["measure"] == "distance"]
        renamed = {"low": "difference_low", "high": "difference_high"}
        return _effects(_of_labeller(table, labeller).rename(columns=renamed), "difference")

    return {
        "predictions": change("divergence"),
        "mean difference": shift,
        "unique mass": change("unique_mass"),
        "answers": answers,
    }


def _of_labeller(table: pd.DataFrame, labeller: str) -> pd.DataFrame:
    return table if table.empty else table[table["labeller"] == labeller].set_index("label")


def _effects(rows: pd.DataFrame, column: str) -> Effects:
    """Return a column with its interval as effects by label."""
    names = {column: "effect", f"{column}_low": "low", f"{column}_high": "high"}
    if rows.empty:
        return pd.DataFrame(columns=list(names.values()), dtype=float)
    return rows.rename(columns=names)[list(names.values())].dropna().astype(float)


def outliers(
    keys: Mapping[str, object], witness: str, effects: Effects, placebo: Effects | None
) -> Iterator[dict[str, object]]:
    """Yield a witness's rows, each effect against its placebo's or the other labels'."""
    for label, row in effects.iterrows():
        others = effects["effect"].drop(label)
        null = math.nan
        if placebo is not None and not placebo.empty:
            null = float(placebo["high"].max())
        elif len(others) >= LEAST_LABELS:
            null = MEDIANS * float(others.median())
        bounds = (row["effect"], row["low"], row["high"], null)
        yield _row(
            keys, str(label), witness, bounds, None if math.isnan(null) else row["low"] > null
        )


def latents(
    keys: Mapping[str, object], seed: int, categories: pd.DataFrame
) -> Iterator[dict[str, object]]:
    """Yield the shares of a label's latents that are unique to either model, and their test."""
    rows = categories[
        (categories["comparison"] == keys["comparison"])
        & (categories["labeller"] == keys["labeller"])
        & (categories["seed"] == seed)
        & (categories["level"] == "category")
    ]
    for _, row in rows[rows["detection_q"].notna()].iterrows():
        bounds = tuple(row[f"unique_share{end}"] for end in ("", "_low", "_high"))
        called = row["called"] == "yes"
        yield _row(keys, str(row["name"]), "latents", (*bounds, row["detectable_share"]), called)


def _row(
    keys: Mapping[str, object],
    label: str,
    witness: str,
    bounds: tuple[float, ...],
    out: bool | None,
) -> dict[str, object]:
    values = (label, witness, *bounds, "n/a" if out is None else "yes" if out else "no")
    return {**keys, **dict(zip(COLUMNS[2:], values, strict=True))}


main = cli.command(compare_witnesses)


if __name__ == "__main__":
    raise SystemExit(main())
