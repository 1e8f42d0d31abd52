"""Does the primary statistic find what was planted, and nothing in placebos, over seeds?

``python -m tests.workflow.check_recovery results/recovery`` reads artifacts only, prints a line per
crosscoder seed and exits non-zero when a check fails: signs right in at least 90 %, at least 60 %
of the planted changes called, at least 9 of 10 placebo tables without a call (in proportion where
there are fewer).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from workflow_scripts.comparison.tables import read_csv

LEAST_SIGNS = 0.9
LEAST_CALLED = 0.6
LEAST_QUIET = 0.9
CHANGED = ("gained", "lost", "changed, direction unclear")
SIGN = {"gained": 1, "lost": -1}


@dataclass(frozen=True)
class Outcome:
    """One table: a comparison at one crosscoder seed."""

    name: str
    planted: int
    called: int
    signs_right: int
    false_calls: int


def judge(table: pd.DataFrame, planted: dict[str, str], name: str) -> Outcome:
    """Set the verdicts of one table beside the truth; ``planted`` is empty for a placebo."""
    called = table["verdict"].isin(CHANGED)
    truth = table["name"].map(planted).fillna("unchanged")
    changed = truth.isin(SIGN)
    signs = table["direction"] == truth.map(SIGN)
    return Outcome(
        name,
        planted=int(changed.sum()),
        called=int((called & changed).sum()),
        signs_right=int((signs & changed).sum()),
        false_calls=int((called & ~changed).sum()),
    )


def outcomes(results: Path) -> tuple[list[Outcome], list[Outcome]]:
    """Return the outcomes of the planted comparison and of the placebo, by seed."""
    categories = read_csv(results / "comparison" / "categories.csv")
    truth = pd.read_csv(results / "models" / "planted.csv")
    planted = dict(zip(truth["category"], truth["planted"], strict=True))
    rows = categories[(categories["labeller"] == "true") & (categories["level"] == "category")]
    found: dict[str, list[Outcome]] = {"direct": [], "placebo": []}
    for (comparison, seed), table in rows.groupby(["comparison", "seed"]):
        known = planted if comparison == "direct" else {}
        if comparison in found:
            found[comparison].append(judge(table, known, f"{comparison} seed {seed}"))
    return found["direct"], found["placebo"]


def check(direct: Sequence[Outcome], placebo: Sequence[Outcome]) -> list[tuple[bool, str]]:
    """Return whether each bound holds, with the figure."""
    planted = sum(outcome.planted for outcome in direct)
    signs = sum(outcome.signs_right for outcome in direct)
    called = sum(outcome.called for outcome in direct)
    quiet = sum(outcome.false_calls == 0 for outcome in placebo)
    false_calls = sum(outcome.false_calls for outcome in direct)
    return [
        (planted > 0 and signs >= LEAST_SIGNS * planted, f"signs right: {signs} of {planted}"),
        (planted > 0 and called >= LEAST_CALLED * planted, f"called: {called} of {planted}"),
        (
            bool(placebo) and quiet >= LEAST_QUIET * len(placebo),
            f"placebo tables without a call: {quiet} of {len(placebo)}",
        ),
        (True, f"unchanged categories called beside planted ones: {false_calls}"),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    results = parser.parse_args(argv).results
    direct, placebo = outcomes(results)
    for outcome in (*direct, *placebo):
        print(outcome)
    checks = check(direct, placebo)
    for passed, told in checks:
        print("ok  " if passed else "FAIL", told)
    return 0 if all(passed for passed, _ in checks) else 1


if __name__ == "__main__":
    raise SystemExit(main())
