"""Does the verdict find what was planted, and nothing in placebos, over seeds?

``python -m tests.workflow.check_recovery results/recovery`` reads artifacts only. It prints power
and false calls of every statistic, which it leaves as ``power.csv`` too, and exits non-zero when a
check fails: at full dose at least 90 % of the planted changes called, the direction right in at
least 95 % of those, at most 2 % of what is unchanged called; at least 95 % of the placebo tables
without a call; effect rising with dose.
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

LEAST_CALLED = 0.9
LEAST_SIGNS = 0.95
MOST_FALSE = 0.02
LEAST_QUIET = 0.95
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
    signs_wrong: int
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
                signs_wrong=int((table["sign_right"] == "no").sum()),
                unchanged=int((~planted).sum()),
                false_calls=int((called & ~planted).sum()),
            )
        )
    return found


def power(found: Sequence[Outcome]) -> pd.DataFrame:
    """Return, per comparison and statistic, sums over seeds."""
    table = pd.DataFrame([vars(outcome) for outcome in found])
    sums = table.groupby(["name", "statistic"], sort=False)
    counted = ["planted", "called", "signs_right", "signs_wrong", "unchanged", "false_calls"]
    return sums[counted].sum().reset_index()


def doses(recovery: pd.DataFrame) -> pd.DataFrame:
    """Return, per comparison and planted category, dose in tokens and mean size of the gap."""
    rows = recovery[(recovery["labeller"] == "true") & (recovery["statistic"] == "behaviour")]
    rows = rows.assign(effect=rows["effect"].abs())
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
    right = sum(o.signs_right for o in full)
    judged = right + sum(o.signs_wrong for o in full)
    quiet = sum(o.false_calls == 0 for o in placebo)
    unchanged, false = sum(o.unchanged for o in full), sum(o.false_calls for o in full)
    cells = doses(recovery)
    rho, low, high = rank_correlation(cells)
    told = f"dose against effect: ρ = {rho:.2f} ({low:.2f} … {high:.2f}, {len(cells)} cells)"
    return [
        (planted > 0 and called >= LEAST_CALLED * planted, f"called: {called} of {planted}"),
        (judged > 0 and right >= LEAST_SIGNS * judged, f"signs right: {right} of {judged}"),
        (unchanged > 0 and false <= MOST_FALSE * unchanged, f"false: {false} of {unchanged}"),
        (
            bool(placebo) and quiet >= LEAST_QUIET * len(placebo),
            f"placebo tables without a call: {quiet} of {len(placebo)}",
        ),
        (low > 0, told),
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
