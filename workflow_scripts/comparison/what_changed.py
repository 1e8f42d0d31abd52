"""The answer to "what changed?": verdicts collected, compared with the truth, put in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from workflow_scripts.common import cli
from workflow_scripts.common.labellers import LEXICAL, TRUE, usual
from workflow_scripts.common.taxonomy import WITHOUT_CATEGORY
from workflow_scripts.comparison.verdicts import GAINED, LOST, TOO_FEW, UNCHANGED, UNCLEAR

SIGNS = {"gained": 1, "lost": -1, "unchanged": 0}
"""Words of the planted table."""
Fact = Mapping[object, object]
Truth = Mapping[object, Fact]


@dataclass(frozen=True)
class WhatChanged:
    """What one comparison says, by one labeller at one seed."""

    comparison: str
    kind: str
    seed: int
    labeller: str
    llm_used: bool
    baseline: str
    candidate: str
    gained: list[str]
    lost: list[str]
    unclear: list[str]
    unchanged: list[str]
    too_few: list[str]
    coverage: float | None  # share of unique latents that have a category
    planted_total: int | None
    planted_found: int | None  # called, with the right sign
    planted_detected: int | None  # called, whatever the sign
    signs_right: int | None  # planted changes with the right sign, called or not
    unchanged_total: int | None
    unchanged_called: int | None
    unchanged_called_names: list[str]
    sentence: str


def planted_fact(
    row: Mapping[object, object], truth: Mapping[object, Mapping[object, object]]
) -> Mapping[object, object] | None:
    """Return what was planted in a row's category.

    A category of the true labeller that no teaching names is unchanged; another labeller's may
    not occur in the text at all, and has no truth.
    """
    if row["name"] in truth:
        return truth[row["name"]]
    if row["labeller"] == TRUE:
        return {"planted": "unchanged", "baseline_tokens": 0, "candidate_tokens": 0}
    return None


def what_changed(rows: pd.DataFrame, truth: Truth | None) -> WhatChanged:
    """Return the answer of one comparison, seed and labeller, from its category rows."""
    first = rows.iloc[0]
    tested = rows[rows["tested"].astype(bool)]
    groups = {
        verdict: sorted(tested.loc[tested["verdict"] == verdict, "name"])
        for verdict in (GAINED, LOST, UNCLEAR, UNCHANGED, TOO_FEW)
    }
    labeller = str(first["labeller"])
    score = _score(tested, truth) if truth is not None else _Score()
    return WhatChanged(
        comparison=str(first["comparison"]),
        kind=str(first["kind"]),
        seed=int(first["seed"]),
        labeller=labeller,
        llm_used=labeller not in (TRUE, LEXICAL),
        baseline=str(first["baseline"]),
        candidate=str(first["candidate"]),
        gained=groups[GAINED],
        lost=groups[LOST],
        unclear=groups[UNCLEAR],
        unchanged=groups[UNCHANGED],
        too_few=groups[TOO_FEW],
        coverage=coverage(rows),
        planted_total=score.planted_total,
        planted_found=score.planted_found,
        planted_detected=score.planted_detected,
        signs_right=score.signs_right,
        unchanged_total=score.unchanged_total,
        unchanged_called=None if score.unchanged_called is None else len(score.unchanged_called),
        unchanged_called_names=score.unchanged_called or [],
        sentence=sentence(str(first["baseline"]), str(first["candidate"]), labeller, groups, score),
    )


@dataclass(frozen=True)
class _Score:
    """How the verdicts compare with the planted table; None where nothing was planted."""

    planted_total: int | None = None
    planted_found: int | None = None
    planted_detected: int | None = None
    signs_right: int | None = None
    unchanged_total: int | None = None
    unchanged_called: list[str] | None = None


def _score(tested: pd.DataFrame, truth: Truth) -> _Score:
    facts = [(row, planted_fact(row, truth)) for row in tested.to_dict("records")]
    known = [(row, SIGNS[str(fact["planted"])]) for row, fact in facts if fact is not None]
    planted = [(row, sign) for row, sign in known if sign]
    unchanged = [row for row, sign in known if not sign]
    changed = (GAINED, LOST, UNCLEAR)
    return _Score(
        planted_total=sum(SIGNS[str(fact["planted"])] != 0 for fact in truth.values()),
        planted_found=sum(row["verdict"] == {1: GAINED, -1: LOST}[sign] for row, sign in planted),
        planted_detected=sum(row["verdict"] in changed for row, _ in planted),
        signs_right=sum(float(str(row["direction"])) == sign for row, sign in planted),
        unchanged_total=len(unchanged),
        unchanged_called=sorted(str(r["name"]) for r in unchanged if r["verdict"] in changed),
    )


def coverage(rows: pd.DataFrame) -> float | None:
    """Return the share of both sides' unique latents that have a category."""
    total = int(rows.iloc[0]["N_baseline"] + rows.iloc[0]["N_candidate"])
    without = rows[rows["name"].isin(WITHOUT_CATEGORY)]
    missing = int(without["n_baseline"].sum() + without["n_candidate"].sum())
    return 1 - missing / total if total else None


def sentence(
    baseline: str,
    candidate: str,
    labeller: str,
    groups: Mapping[str, Sequence[str]],
    score: _Score,
) -> str:
    """Return the one sentence that answers «what changed?»."""
    parts = []
    for verb, verdict in (("gained", GAINED), ("lost", LOST)):
        if groups[verdict]:
            parts.append(f"{verb} {_listed(groups[verdict])}")
    change = " and ".join(parts) or "neither gained nor lost any category beyond chance"
    text = f"Against {baseline}, {candidate} {change}"
    if groups[UNCLEAR]:
        text += (
            f"; {_listed(groups[UNCLEAR])} changed in a direction that the statistics leave open"
        )
    text += f" ({len(groups[UNCHANGED])} categories unchanged"
    text += f", {len(groups[TOO_FEW])} with too few latents to say" if groups[TOO_FEW] else ""
    text += f"; labels: {_labels(labeller)})"
    if score.planted_total is not None and score.unchanged_called is not None:
        text += (
            f"; {score.planted_found} of {score.planted_total} planted changes were found"
            f" and {len(score.unchanged_called)} of {score.unchanged_total}"
            " unchanged categories wrongly called"
        )
    return text + "."


def _listed(names: Sequence[str]) -> str:
    shown = [name.replace("_", " ") for name in names]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _labels(labeller: str) -> str:
    if labeller == TRUE:
        return "true categories of the text"
    return "lexical, no LLM was used" if labeller == LEXICAL else f"LLM {labeller}"


def choose(categories: pd.DataFrame, primary: str | None, labeller: str | None) -> tuple[str, str]:
    """Return the comparison and the labeller that answer, unless they are named.

    The first direct comparison, else the first; true labels, else an LLM's, else lexical ones.

    Raises
    ------
    UserError
        If the named comparison or labeller is not in the table.
    """
    names = categories.drop_duplicates("comparison")
    if primary is None:
        direct = names[names["kind"] == "direct"]
        primary = str((direct if len(direct) else names).iloc[0]["comparison"])
    rows = categories[categories["comparison"] == primary]
    if rows.empty:
        raise cli.UserError(f"no comparison is called {primary}: check `comparison.primary`")
    labellers = list(rows["labeller"].unique())
    if labeller is None:
        labeller = usual(labellers) or ""
    if labeller not in labellers:
        raise cli.UserError(f"{primary} has no labels by {labeller}: choose from {labellers}")
    return primary, labeller
