"""Does the primary statistic find what was planted, and nothing in placebos, over seeds?

``python -m tests.workflow.check_recovery results/recovery`` reads artifacts only. It prints power
and false calls of every statistic, which it leaves as ``power.csv`` too, and exits non-zero when a
check fails: signs right in at least 90 % of the planted changes at full dose, at least 60 % of
them called, at least 9 of 10 placebo tables without a call, effect rising with dose.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from workflow_scripts.common.tables import read_csv

LEAST_SIGNS = 0.9
LEAST_CALLED = 0.6
LEAST_QUIET = 0.9
FULL_DOSE = ("direct", "direct_b")
PLACEBO = ("placebo", "placebo_b")
DOSES = (*FULL_DOSE, "mid", "low")
DRAWS = 5000


@dataclass(frozen=True)
class Outcome:
    """One table: a comparison at one crosscoder seed, by one statistic."""

    name: str
    seed: int
    statistic: str
    planted: int
    called: int
    signs_right: int
    unchanged: int
    false_calls: int


def outcomes(recovery: pd.DataFrame) -> list[Outcome]:
    """Return the outcome of every table, by true labels."""
    rows = recovery[recovery["labeller"] == "true"]
    found = []
    for (name, seed, statistic), table in rows.groupby(
        ["comparison", "seed", "statistic"], sort=False
    ):
        planted = table["planted"] != "unchanged"
        called = table["called"].astype(bool)
        found.append(
            Outcome(
                str(name),
                int(str(seed)),
                str(statistic),
                planted=int(planted.sum()),
                called=int((called & planted).sum()),
                signs_right=int((table["sign_right"] == "yes").sum()),
                unchanged=int((~planted).sum()),
                false_calls=int((called & ~planted).sum()),
            )
        )
    return found


def directions(categories: pd.DataFrame, recovery: pd.DataFrame) -> tuple[int, int]:
    """Return how many planted changes at full dose have the right sign, called or not, of all."""
    rows = categories[(categories["labeller"] == "true") & (categories["level"] == "category")]
    rows = rows[rows["comparison"].isin(FULL_DOSE)]
    truth = recovery[recovery["planted"] != "unchanged"].drop_duplicates(["comparison", "category"])
    joined = rows.merge(
        truth[["comparison", "category", "planted"]],
        left_on=["comparison", "name"],
        right_on=["comparison", "category"],
    )
    right = joined["direction"] == joined["planted"].map({"gained": 1, "lost": -1})
    return int(right.sum()), len(joined)


def power(found: Sequence[Outcome]) -> pd.DataFrame:
    """Return, per comparison and statistic, sums over seeds."""
    table = pd.DataFrame([vars(outcome) for outcome in found])
    sums = table.groupby(["name", "statistic"], sort=False)
    return (
        sums[["planted", "called", "signs_right", "unchanged", "false_calls"]].sum().reset_index()
    )


def doses(recovery: pd.DataFrame) -> pd.DataFrame:
    """Return, per comparison and planted category, dose in tokens and the mean direct share."""
    rows = recovery[(recovery["labeller"] == "true") & (recovery["statistic"] == "direct_share")]
    rows = rows[rows["comparison"].isin(DOSES) & (rows["planted"] != "unchanged")]
    means = rows.groupby(["comparison", "category"])[
        ["effect", "baseline_tokens", "candidate_tokens"]
    ].mean()
    dose = (means["candidate_tokens"] - means["baseline_tokens"]).abs()
    return means.assign(dose=dose)[["dose", "effect"]].reset_index()


def rank_correlation(table: pd.DataFrame, seed: int = 0) -> tuple[float, float, float]:
    """Return Spearman's ρ of dose and effect, with a percentile bootstrap over cells."""
    dose, effect = table["dose"].to_numpy(), table["effect"].to_numpy()

    def rho(index: NDArray[np.int64]) -> float:
        return float(stats.spearmanr(dose[index], effect[index]).statistic)

    rng = np.random.default_rng(seed)
    drawn = [rho(rng.integers(0, len(dose), len(dose))) for _ in range(DRAWS)]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return rho(np.arange(len(dose))), float(low), float(high)


def check(results: Path) -> list[tuple[bool, str]]:
    """Return whether each bound holds, with the figure."""
    recovery = read_csv(results / "comparison" / "recovery.csv")
    found = outcomes(recovery)
    verdicts = [o for o in found if o.statistic == "verdict"]
    full = [o for o in verdicts if o.name in FULL_DOSE]
    placebo = [o for o in verdicts if o.name in PLACEBO]
    planted, called = sum(o.planted for o in full), sum(o.called for o in full)
    right, judged = directions(read_csv(results / "comparison" / "categories.csv"), recovery)
    quiet = sum(o.false_calls == 0 for o in placebo)
    unchanged = sum(o.unchanged for o in full)
    cells = doses(recovery)
    rho, low, high = rank_correlation(cells)
    told = f"dose against effect: ρ = {rho:.2f} ({low:.2f} … {high:.2f}, {len(cells)} cells)"
    return [
        (judged > 0 and right >= LEAST_SIGNS * judged, f"signs right: {right} of {judged}"),
        (planted > 0 and called >= LEAST_CALLED * planted, f"called: {called} of {planted}"),
        (
            bool(placebo) and quiet >= LEAST_QUIET * len(placebo),
            f"placebo tables without a call: {quiet} of {len(placebo)}",
        ),
        (low > 0, told),
        (True, f"unchanged called beside: {sum(o.false_calls for o in full)} of {unchanged}"),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    results = parser.parse_args(argv).results
    recovery = read_csv(results / "comparison" / "recovery.csv")
    table = power(outcomes(recovery))
    table.to_csv(results / "power.csv", index=False)
    print(table.to_string(index=False), "\n")
    print(doses(recovery).to_string(index=False), "\n")
    checks = check(results)
    for passed, told in checks:
        print("ok  " if passed else "FAIL", told)
    return 0 if all(passed for passed, _ in checks) else 1


if __name__ == "__main__":
    raise SystemExit(main())
