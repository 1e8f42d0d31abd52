"""Join each category's gap in score with the change of its latents: which gaps have a counterpart?

Leaves ``gaps.csv``, a row per direct comparison, labeller, category and score (first seed). Scores
are the models' likelihoods, already in ``categories.csv``, and those of the user's leaderboard.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from workflow_scripts.common import cli, statistics
from workflow_scripts.common.intervals import Interval
from workflow_scripts.common.tables import read_csv, write_csv
from workflow_scripts.comparison.settings import Intervals
from workflow_scripts.comparison.verdicts import GAINED, LOST, TOO_FEW, UNCHANGED

LIKELIHOOD = "likelihood"
SCORES = ("score", "score_controlled")
COLUMNS = (
    "comparison",
    "baseline",
    "candidate",
    "labeller",
    "name",
    "class",
    "source",
    "gap",
    "gap_low",
    "gap_high",
    "delta_norm",
    "delta_norm_low",
    "delta_norm_high",
    "unique_share",
    "anchored_change",
    "verdict",
    "reading",
)
"""Columns of ``gaps.csv``; ``COLUMNS.md`` says what each means."""
BOTH = "gap with a change of latents"
OPPOSED = "gap and change opposed"
GAP_ONLY = "gap without a change of latents"
CHANGE_ONLY = "change of latents that no score shows"
NEITHER = "within noise"


def reading(gap: Interval, verdict: str, shift: float) -> str:
    """Say how a gap in score and a change of latents go together.

    A gap counts when its interval excludes 0, a change when the verdict says so. They are opposed
    when the verdict's direction, or where it has none the shift of Δnorm, contradicts the gap.
    """
    clear = gap.excludes(0.0)
    if verdict in (UNCHANGED, TOO_FEW):
        return GAP_ONLY if clear else NEITHER
    if not clear:
        return CHANGE_ONLY
    sign = {GAINED: 1.0, LOST: -1.0}.get(verdict, shift)
    return OPPOSED if gap.estimate * sign < 0 else BOTH


def read_leaderboard(path: Path) -> pd.DataFrame:
    """Return a leaderboard: ``category``, ``model``, ``score``; if given ``score_controlled`` (for
    style) and ``error`` (standard error of a score).

    Raises
    ------
    UserError
        If it is missing or lacks a column.
    """
    table = read_csv(path)
    missing = [name for name in ("category", "model", "score") if name not in table.columns]
    if missing:
        raise cli.UserError(
            f"the leaderboard {path} lacks the column {missing[0]}: it needs category, model, score"
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


def gaps_by_source(
    rows: pd.DataFrame, board: pd.DataFrame | None, confidence: float
) -> dict[str, Mapping[str, Interval]]:
    """Return the gaps of one comparison, by source of the score."""
    first = rows.iloc[0]
    gaps: dict[str, Mapping[str, Interval]] = {
        LIKELIHOOD: {
            str(row["name"]): Interval(
                *(float(row[f"likelihood_gap{end}"]) for end in ("", "_low", "_high"))
            )
            for row in rows.to_dict("records")
        }
    }
    if board is not None:
        unchanged = list(rows.loc[rows["verdict"] == UNCHANGED, "name"])
        pair = (str(first["baseline"]), str(first["candidate"]))
        for column in SCORES:
            gaps[column] = score_gaps(board, *pair, column, unchanged, confidence)
    return gaps


def join(categories: pd.DataFrame, board: pd.DataFrame | None, confidence: float) -> pd.DataFrame:
    """Return the table of gaps and changes."""
    rows = categories[(categories["kind"] == "direct") & (categories["level"] == "category")]
    rows = rows[rows["tested"].astype(bool)]
    joined = []
    for _, block in rows.groupby(["comparison", "labeller"], sort=False):
        first = block[block["seed"] == block["seed"].iloc[0]]
        for source, gaps in gaps_by_source(first, board, confidence).items():
            for row in first.to_dict("records"):
                gap = gaps.get(str(row["name"]))
                if gap is None or math.isnan(gap.estimate):
                    continue
                bounds = {"gap": gap.estimate, "gap_low": gap.low, "gap_high": gap.high}
                says = reading(gap, str(row["verdict"]), float(row["delta_norm"]))
                joined.append({**row, **bounds, "source": source, "reading": says})
    return pd.DataFrame(joined, columns=list(COLUMNS))


def explain_gaps(
    categories: Path, intervals: Intervals, output: Path, leaderboard: Path | None = None
) -> None:
    """Write each category's gaps in score beside the change of its latents.

    Parameters
    ----------
    categories
        what each model gained and lost (CSV)
    output
        table to write, a row per direct comparison, labeller, category and score (CSV)
    leaderboard
        scores of your own (CSV: category, model, score)
    """
    board = read_leaderboard(leaderboard) if leaderboard else None
    write_csv(output, join(read_csv(categories), board, intervals.confidence))


main = cli.command(explain_gaps)


if __name__ == "__main__":
    raise SystemExit(main())
