"""Join a leaderboard's gaps in score with the changes of the same labels.

Leaves ``gaps.csv``, a row per comparison, labeller, label and score (first seed).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from workflow_scripts.common import cli, statistics
from workflow_scripts.common.intervals import Interval
from workflow_scripts.common.tables import read_csv, write_csv
from workflow_scripts.comparison.settings import Intervals
from workflow_scripts.comparison.verdicts import CHANGED, MOVED, UNCHANGED

SCORES = ("score", "score_controlled")
COLUMNS = (
    "comparison",
    "baseline",
    "candidate",
    "labeller",
    "label",
    "source",
    "gap",
    "gap_low",
    "gap_high",
    "behaviour",
    "behaviour_low",
    "behaviour_high",
    "verdict",
    "reading",
)
"""Columns of ``gaps.csv``; ``COLUMNS.md`` says what each means."""
BOTH = "gap with a change"
OPPOSED = "gap and change opposed"
GAP_ONLY = "gap without a change"
CHANGE_ONLY = "change that the score does not show"
NEITHER = "within noise"


def reading(gap: Interval, verdict: str, behaviour: float) -> str:
    """Say how a gap in score and a change go together.

    A gap counts when its interval excludes 0, a change when the verdict says so. They are opposed
    when the likelihood gap has the other sign; what only *moved* has no direction.
    """
    clear = gap.excludes(0.0)
    if verdict not in CHANGED:
        return GAP_ONLY if clear else NEITHER
    if not clear:
        return CHANGE_ONLY
    opposed = verdict != MOVED and gap.estimate * behaviour < 0
    return OPPOSED if opposed else BOTH


def read_leaderboard(path: Path) -> pd.DataFrame:
    """Return a leaderboard: ``category``, ``model``, ``score``; if given ``score_controlled`` (for
    style) and ``error`` (standard error of a score).

    Raises
    ------
    UserError
        If it is missing, lacks a column, or scores a category of a model twice.
    """
    table = read_csv(path)
    missing = [name for name in ("category", "model", "score") if name not in table.columns]
    if missing:
        raise cli.UserError(
            f"the leaderboard {path} lacks the column {missing[0]}: it needs category, model, score"
        )
    twice = table[table.duplicated(["category", "model"])]
    if len(twice):
        row = twice.iloc[0]
        raise cli.UserError(
            f"the leaderboard {path} scores {row['category']!r} of {row['model']!r} twice: keep "
            "one row of each category and model"
        )
    return table


def score_gaps(
    board: pd.DataFrame,
    baseline: str,
    candidate: str,
    column: str,
    unchanged: Sequence[str],
    confidence: float,
) -> dict[str, Interval]:
    """Return the candidate's minus the baseline's score per category, with an interval.

    From the errors where the leaderboard has them; else from the spread of the gaps of the
    ``unchanged`` categories, as 1.4826 times their median absolute deviation from 0.
    """
    if column not in board.columns:
        return {}
    sides = [
        board[board["model"] == model].set_index("category") for model in (baseline, candidate)
    ]
    names = [name for name in sides[0].index if name in sides[1].index]
    gaps = {n: float(sides[1].loc[n, column]) - float(sides[0].loc[n, column]) for n in names}
    if "error" in board.columns:
        errors = {n: math.hypot(*(float(side.loc[n, "error"]) for side in sides)) for n in names}
    else:
        noise = [abs(gaps[name]) for name in names if name in unchanged]
        spread = 1.4826 * float(np.median(noise)) if noise else math.nan
        errors = dict.fromkeys(names, spread)
    return {n: statistics.normal_interval(gaps[n], errors[n], confidence) for n in names}


def join(changes: pd.DataFrame, board: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Return the table of gaps and changes."""
    joined = []
    for _, block in changes.groupby(["comparison", "labeller"], sort=False):
        rows = block[block["seed"] == block["seed"].iloc[0]]
        pair = (str(rows["baseline"].iloc[0]), str(rows["candidate"].iloc[0]))
        unchanged = list(rows.loc[rows["verdict"] == UNCHANGED, "label"])
        for source in SCORES:
            gaps = score_gaps(board, *pair, source, unchanged, confidence)
            for row in rows[rows["label"].isin(list(gaps))].to_dict("records"):
                gap = gaps[str(row["label"])]
                bounds = {"gap": gap.estimate, "gap_low": gap.low, "gap_high": gap.high}
                says = reading(gap, str(row["verdict"]), float(row["behaviour"]))
                joined.append({**row, **bounds, "source": source, "reading": says})
    return pd.DataFrame(joined, columns=list(COLUMNS))


def explain_gaps(changes: Path, leaderboard: Path, intervals: Intervals, output: Path) -> None:
    """Write the gaps of a leaderboard beside the changes of the same labels.

    Parameters
    ----------
    changes
        effects and verdict of each label (CSV)
    leaderboard
        scores of your own (CSV: category, model, score)
    output
        table to write, a row per comparison, labeller, label and score (CSV)
    """
    table, board = read_csv(changes), read_leaderboard(leaderboard)
    unknown = sorted(set(board["category"].astype(str)) - set(table["label"].astype(str)))
    if unknown:
        cli.log(
            f"warning: {leaderboard} has categories that no label is called: {', '.join(unknown)}"
        )
    write_csv(output, join(table, board, intervals.confidence))


main = cli.command(explain_gaps)


if __name__ == "__main__":
    raise SystemExit(main())
