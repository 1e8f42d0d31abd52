"""The answer to "what changed?": verdicts collected, compared with the truth, put in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from workflow_scripts.common import cli
from workflow_scripts.common.labellers import LLM, SOURCE, TOPICS, TRUE
from workflow_scripts.comparison.verdicts import (
    CANNOT_TELL,
    CHANGED,
    GAINED,
    LOST,
    MOVED,
    UNCHANGED,
    USED,
    VERDICTS,
)

SIGNS = {"gained": 1, "lost": -1, "unchanged": 0}
"""Words of the planted table."""
Fact = Mapping[object, object]
Truth = Mapping[object, Fact]
UNPLANTED: Fact = {"planted": "unchanged", "baseline_tokens": 0, "candidate_tokens": 0}


@dataclass(frozen=True)
class WhatChanged:
    """What one comparison says, by one labeller at one seed."""

    comparison: str
    seed: int
    labeller: str
    baseline: str
    candidate: str
    verdicts: dict[str, list[str]]
    planted_total: int | None
    planted_found: int | None  # planted categories called, with the right sign
    planted_detected: int | None  # called, whatever the sign
    unchanged_total: int | None  # labels of text in which nothing was planted
    unchanged_called: int | None
    unchanged_called_names: list[str]
    sentence: str


def categories_of(labels: pd.DataFrame, labeller: str) -> dict[str, str]:
    """Return the true category of most documents of each of a labeller's labels.

    ``labels`` are those of all labellers; a label without a category for half of its documents is
    left out.
    """
    by = {name: rows.set_index("document")["label"] for name, rows in labels.groupby("labeller")}
    if TRUE not in by or labeller not in by:
        return {}
    known = pd.DataFrame({"label": by[labeller], "category": by[TRUE]}).dropna(subset=["label"])
    counts = known.groupby("label")["category"].value_counts()
    most = counts.groupby("label").head(1).reset_index("category")
    enough = most["count"] >= known.groupby("label").size().reindex(most.index) / 2
    return {str(k): str(v) for k, v in most.loc[enough, "category"].items()}


def what_changed(rows: pd.DataFrame, truth: Truth | None, of: Mapping[str, str]) -> WhatChanged:
    """Return the answer of one comparison, seed and labeller, from its rows of ``changes.csv``.

    ``of`` gives the true categories of labels, ``truth`` what was planted by category.
    """
    first = rows.iloc[0]
    groups = {word: sorted(rows.loc[rows["verdict"] == word, "label"]) for word in VERDICTS}
    score = _score(rows, truth, of) if truth is not None and of else _Score()
    baseline, candidate, labeller = (str(first[k]) for k in ("baseline", "candidate", "labeller"))
    return WhatChanged(
        comparison=str(first["comparison"]),
        seed=int(first["seed"]),
        labeller=labeller,
        baseline=baseline,
        candidate=candidate,
        verdicts=groups,
        planted_total=score.planted_total,
        planted_found=score.planted_found,
        planted_detected=score.planted_detected,
        unchanged_total=score.unchanged_total,
        unchanged_called=None if score.unchanged_called is None else len(score.unchanged_called),
        unchanged_called_names=score.unchanged_called or [],
        sentence=sentence(baseline, candidate, labeller, groups, score),
    )


@dataclass(frozen=True)
class _Score:
    """How the verdicts compare with the planted table; None where nothing was planted."""

    planted_total: int | None = None
    planted_found: int | None = None
    planted_detected: int | None = None
    unchanged_total: int | None = None
    unchanged_called: list[str] | None = None


def _score(rows: pd.DataFrame, truth: Truth, of: Mapping[str, str]) -> _Score:
    known = rows[rows["label"].isin(list(of))]
    categories = known["label"].map(of)
    planted = np.array([SIGNS[str(truth.get(name, UNPLANTED)["planted"])] for name in categories])
    called = known["verdict"].isin(CHANGED).to_numpy()
    signs = np.where(known["verdict"] == MOVED, 0, np.sign(known["behaviour"].to_numpy(float)))
    found, detected = called & (planted != 0) & (signs == planted), called & (planted != 0)
    return _Score(
        planted_total=sum(SIGNS[str(fact["planted"])] != 0 for fact in truth.values()),
        planted_found=int(categories[found].nunique()),
        planted_detected=int(categories[detected].nunique()),
        unchanged_total=int((planted == 0).sum()),
        unchanged_called=sorted(str(name) for name in known["label"][called & (planted == 0)]),
    )


def sentence(
    baseline: str,
    candidate: str,
    labeller: str,
    groups: Mapping[str, Sequence[str]],
    score: _Score,
) -> str:
    """Return the one sentence that answers «what changed?»."""
    parts = [
        f"{verb} {_listed(groups[word])}"
        for verb, word in (("gained", GAINED), ("lost", LOST))
        if groups[word]
    ]
    change = " and ".join(parts) or "neither gained nor lost any kind of text beyond chance"
    text = f"Against {baseline}, {candidate} {change}"
    if groups[USED]:
        text += f"; it predicts {_listed(groups[USED])} differently, represented as before"
    if groups[MOVED]:
        text += f"; it represents {_listed(groups[MOVED])} differently, predicted as before"
    text += f" ({len(groups[UNCHANGED])} unchanged"
    text += f", {len(groups[CANNOT_TELL])} undecided" if groups[CANNOT_TELL] else ""
    text += f"; labels: {_labels(labeller)})"
    if score.planted_total is not None and score.unchanged_called is not None:
        text += (
            f"; {score.planted_found} of {score.planted_total} planted changes were found"
            f" and {len(score.unchanged_called)} of {score.unchanged_total}"
            " unchanged ones wrongly called"
        )
    return text + "."


def _listed(names: Sequence[str]) -> str:
    shown = [f"“{name}”" if "," in name else name.replace("_", " ") for name in names]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _labels(labeller: str) -> str:
    words = {
        TRUE: "true categories of the text",
        SOURCE: "sources of the text",
        TOPICS: "topics found in the text",
        LLM: "an LLM's",
    }
    return words.get(labeller, labeller)


def choose(
    changes: pd.DataFrame, primary: str | None, labeller: str | None, usual: Sequence[str]
) -> tuple[str, str]:
    """Return the comparison and the labeller that answer, unless they are named.

    The labeller is the first of ``usual`` that has labelled a document.

    Raises
    ------
    UserError
        If the named comparison or labeller is not in the table.
    """
    if primary is None:
        both = changes[changes["distance"].notna()]
        primary = str((both if len(both) else changes).iloc[0]["comparison"])
    rows = changes[changes["comparison"] == primary]
    if rows.empty:
        raise cli.UserError(f"no comparison is called {primary}: check `comparison.primary`")
    labellers = list(rows["labeller"].unique())
    chosen = labeller or next((n for n in usual if n in labellers), labellers[0])
    if chosen not in labellers:
        raise cli.UserError(f"{primary} has no labels by {chosen}: choose from {labellers}")
    return primary, chosen
