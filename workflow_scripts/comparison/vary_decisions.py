"""Check whether the latents call other categories when decisions are made otherwise.

Leaves ``sensitivity.csv``: the comparison made again with tighter and looser ν thresholds,
without template latents and by class instead of category, a row per comparison, labeller, name and
variant; first seed, categories.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd

from workflow_scripts.common import cli
from workflow_scripts.common.artifacts import LabelledLatents
from workflow_scripts.common.labellers import TRUE
from workflow_scripts.common.tables import write_csv
from workflow_scripts.comparison.category_table import category_table
from workflow_scripts.comparison.pairs import ComparedPair, ComparisonInputs
from workflow_scripts.comparison.settings import CategoryTest
from workflow_scripts.latents.ownership import owners

TEMPLATE_SHARE = 0.5
"""Share of activation on template tokens from which a latent counts as a template latent."""
COLUMNS = (
    "comparison",
    "kind",
    "labeller",
    "name",
    "variant",
    "n_baseline",
    "N_baseline",
    "n_candidate",
    "N_candidate",
    "percent_change",
    "unique_share",
    "q",
    "called",
    "same_call",
)
"""Columns of ``sensitivity.csv``; ``COLUMNS.md`` says what each means."""


@dataclass(frozen=True)
class Thresholds:
    """Upper bounds of ν^r and ν^ε; ``tested``: the latent must pass the base rule as well."""

    nu_r: float
    nu_e: float
    tested: bool


BASE = "as configured"
BY_CLASS = "by class"
TIGHT = Thresholds(0.3, 0.1, tested=True)
LOOSE = Thresholds(0.7, 0.3, tested=False)


def rethreshold(labelled: LabelledLatents, bounds: Thresholds) -> LabelledLatents:
    """Return the latents with uniqueness decided by other thresholds of ν."""
    frame = labelled.frame.copy()
    for own, other in permutations(labelled.models, 2):
        pair = f"{own}_vs_{other}"
        passed = (frame[f"nu_r_{pair}"] < bounds.nu_r) & (frame[f"nu_e_{pair}"] < bounds.nu_e)
        old = frame[f"unique_{pair}"].astype(bool)
        fine = old if bounds.tested else frame[f"status_{pair}"] == "ok"
        frame[f"unique_{pair}"] = passed & fine
    frame["unique_to"] = owners(frame, labelled.models)
    return replace(labelled, frame=frame)


def without_template(labelled: LabelledLatents) -> LabelledLatents:
    """Return the latents without those that fire mainly on template tokens."""
    kept = ~(labelled.frame["template_share"] > TEMPLATE_SHARE)
    return replace(labelled, frame=labelled.frame[kept].reset_index(drop=True))


def vary(pair: ComparedPair, change: Callable[[LabelledLatents], LabelledLatents]) -> ComparedPair:
    """Return a pair with both sides changed."""
    return replace(
        pair,
        baseline={name: change(side) for name, side in pair.baseline.items()},
        candidate={name: change(side) for name, side in pair.candidate.items()},
    )


def only(pair: ComparedPair, labellers: Sequence[str]) -> ComparedPair:
    """Return a pair with some labellers only."""
    return replace(
        pair,
        baseline={name: side for name, side in pair.baseline.items() if name in labellers},
        candidate={name: side for name, side in pair.candidate.items() if name in labellers},
    )


def variants(pairs: Sequence[ComparedPair]) -> dict[str, list[ComparedPair]]:
    """Return every variant of the comparisons.

    Looser thresholds only where every live latent is labelled: elsewhere the latents that become
    unique are a sample, and their counts would not be comparable.
    """
    varied = {
        BASE: list(pairs),
        f"ν^r < {TIGHT.nu_r}, ν^ε < {TIGHT.nu_e}": [
            vary(pair, lambda side: rethreshold(side, TIGHT)) for pair in pairs
        ],
        "without template latents": [vary(pair, without_template) for pair in pairs],
    }
    if all(TRUE in pair.labellers for pair in pairs):
        varied[f"ν^r < {LOOSE.nu_r}, ν^ε < {LOOSE.nu_e}"] = [
            vary(only(pair, [TRUE]), lambda side: rethreshold(side, LOOSE)) for pair in pairs
        ]
    return varied


def sensitivity(
    pairs: Sequence[ComparedPair],
    class_of: Callable[[str], str],
    test: CategoryTest,
) -> pd.DataFrame:
    """Return the table of all variants, for the first seed of each comparison."""
    firsts = list({pair.name: pair for pair in reversed(pairs)}.values())[::-1]
    parts = []
    for name, varied in variants(firsts).items():
        table = category_table(varied, class_of, test)
        table = table[table["tested"].astype(bool)]
        direct = table["kind"] == "direct"
        tested = table.assign(
            variant=name,
            q=table["detection_q"].where(direct, table["q"]),
        )
        categories = tested[tested["level"] == "category"]
        parts.append(categories)
        if name == BASE:
            parts.append(as_classes(categories, tested[tested["level"] == "class"]))
    table = pd.concat(parts, ignore_index=True)
    base = table[table["variant"] == BASE].set_index(["comparison", "labeller", "name"])["called"]
    keys = list(zip(table["comparison"], table["labeller"], table["name"], strict=True))
    same = [called == base.get(key, "") for key, called in zip(keys, table["called"], strict=True)]
    return table.assign(same_call=np.where(same, "yes", "no"))[list(COLUMNS)]


def as_classes(categories: pd.DataFrame, classes: pd.DataFrame) -> pd.DataFrame:
    """Return, for each category, what its class shows: the coarser taxonomy."""
    keys = ["comparison", "labeller", "class"]
    coarse = classes.drop(columns=["class"]).rename(columns={"name": "class"})
    named = categories[[*keys, "name"]].merge(coarse, on=keys)
    return named.assign(variant=BY_CLASS)


def vary_decisions(inputs: ComparisonInputs, test: CategoryTest, output: Path) -> None:
    """Write whether the latents call other categories when decisions are made otherwise.

    Parameters
    ----------
    output
        table to write, a row per comparison, labeller, name and variant (CSV)
    """
    write_csv(output, sensitivity(inputs.read_pairs(), inputs.class_of, test))


main = cli.command(vary_decisions)


if __name__ == "__main__":
    raise SystemExit(main())
