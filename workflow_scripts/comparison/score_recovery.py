"""Set what was found beside what was planted, and say it in one sentence.

Leaves ``recovery.csv``, a row per comparison, seed, labeller, statistic and category (empty where
nothing was planted), and ``answer.json``, whose ``sentence`` is computed from the categories.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from workflow_scripts.common import cli, files
from workflow_scripts.common.tables import read_csv, write_csv
from workflow_scripts.comparison.answer import (
    SIGNS,
    Fact,
    Truth,
    answer,
    choose,
    planted_fact,
)
from workflow_scripts.comparison.verdicts import GAINED, LOST, UNCLEAR

PLANTED_COLUMNS = (
    "baseline",
    "candidate",
    "category",
    "class",
    "baseline_tokens",
    "candidate_tokens",
    "planted",
)
COLUMNS = (
    "comparison",
    "kind",
    "baseline",
    "candidate",
    "seed",
    "labeller",
    "statistic",
    "category",
    "planted",
    "baseline_tokens",
    "candidate_tokens",
    "effect",
    "low",
    "high",
    "q",
    "called",
    "sign",
    "sign_right",
    "false_call",
)
"""Columns of ``recovery.csv``; ``COLUMNS.md`` says what each means."""


@dataclass(frozen=True)
class Statistic:
    """Where ``categories.csv`` holds one statistic: its effect, interval, q value and sign."""

    effect: str
    low: str
    high: str
    q: str | None
    sign: str | None  # None: the effect's own sign; "": it has none


STATISTICS = {
    "anchored_counts": Statistic("percent_change", "low", "high", "q", "count_sign"),
    "direct_share": Statistic(
        "unique_share", "unique_share_low", "unique_share_high", "detection_q", ""
    ),
    "direct_share_others": Statistic(
        "unique_share", "unique_share_low", "unique_share_high", "others_q", ""
    ),
    "delta_norm": Statistic("delta_norm", "delta_norm_low", "delta_norm_high", None, None),
    "likelihood_gap": Statistic(
        "likelihood_gap", "likelihood_gap_low", "likelihood_gap_high", None, None
    ),
    "verdict": Statistic("unique_share", "unique_share_low", "unique_share_high", None, ""),
}


def read_planted(path: Path) -> pd.DataFrame:
    """Return the planted table.

    Raises
    ------
    UserError
        If it is missing, lacks a column or holds an unknown word in ``planted``.
    """
    table = read_csv(path, PLANTED_COLUMNS)
    unknown = sorted(set(table["planted"]) - set(SIGNS))
    if unknown:
        raise cli.UserError(f"{path}: planted is {unknown[0]!r}: give gained, lost or unchanged")
    return table


def truths(planted: pd.DataFrame | None) -> dict[tuple[str, str], Truth]:
    """Return, by pair of models, the planted facts by category; empty without a table."""
    if planted is None:
        return {}
    return {
        (str(base), str(candidate)): facts.set_index("category").to_dict("index")
        for (base, candidate), facts in planted.groupby(["baseline", "candidate"], sort=False)
    }


def recover(
    categories: pd.DataFrame, known: Mapping[tuple[str, str], Truth], fdr: float
) -> pd.DataFrame:
    """Return the recovery table: every statistic of every comparison of a planted pair."""
    rows = categories[(categories["level"] == "category") & categories["tested"].astype(bool)]
    found = [
        record
        for row in rows.to_dict("records")
        if (truth := known.get((row["baseline"], row["candidate"]))) is not None
        and (fact := planted_fact(row, truth)) is not None
        for record in _recovered(row, fact, fdr)
    ]
    return pd.DataFrame(found, columns=list(COLUMNS))


def _recovered(row: Mapping[object, object], fact: Fact, fdr: float) -> Iterator[dict[str, object]]:
    truth = SIGNS[str(fact["planted"])]
    for name, statistic in STATISTICS.items():
        low, high = _number(row[statistic.low]), _number(row[statistic.high])
        effect = _number(row[statistic.effect])
        q = _number(row[statistic.q]) if statistic.q else math.nan
        if name == "verdict":
            called = row["verdict"] in (GAINED, LOST, UNCLEAR)
            sign: float = {GAINED: 1, LOST: -1}.get(str(row["verdict"]), 0)
        elif math.isnan(effect) and math.isnan(q):
            continue
        else:
            called = q <= fdr if statistic.q else low > 0 or high < 0
            sign = _sign(row, statistic, effect)
        yield {
            **{key: row[key] for key in COLUMNS[:6]},
            "statistic": name,
            "category": row["name"],
            "planted": fact["planted"],
            "baseline_tokens": fact["baseline_tokens"],
            "candidate_tokens": fact["candidate_tokens"],
            "effect": effect,
            "low": low,
            "high": high,
            "q": q,
            "called": called,
            "sign": sign,
            "sign_right": _judged(sign == truth if truth and not math.isnan(sign) else None),
            "false_call": _judged(bool(called) if truth == 0 else None),
        }


def _sign(row: Mapping[object, object], statistic: Statistic, effect: float) -> float:
    if statistic.sign == "":
        return math.nan
    value = _number(row[statistic.sign]) if statistic.sign else effect
    return math.nan if math.isnan(value) else float((value > 0) - (value < 0))


def _judged(value: bool | None) -> str:
    return "n/a" if value is None else ("yes" if value else "no")


def _number(value: object) -> float:
    return float(str(value))


def score_recovery(
    categories: Path,
    planted: Path | None,
    primary: str | None,
    labeller: str | None,
    fdr: float,
    recovery: Path,
    output: Path,
) -> None:
    """Write the recovery table and the answer."""
    table = read_csv(categories)
    chosen, by = choose(table, primary, labeller)
    known = truths(read_planted(planted) if planted else None)
    level = table[table["level"] == "category"]
    answers = []
    for key, rows in level.groupby(["comparison", "seed", "labeller"], sort=False):
        sides = (str(rows.iloc[0]["baseline"]), str(rows.iloc[0]["candidate"]))
        answers.append((key, answer(rows, known.get(sides))))
    first = next(a for key, a in answers if (key[0], key[2]) == (chosen, by))
    write_csv(recovery, recover(table, known, fdr))
    files.write_json(
        output, {**asdict(first), "fdr": fdr, "all": [asdict(found) for _, found in answers]}
    )
    cli.log(first.sentence)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--categories", type=Path, required=True)
    parser.add_argument("--planted", type=Path, default=None, help="planted.csv of organisms")
    parser.add_argument("--primary", default=None, help="comparison that answers")
    parser.add_argument("--labeller", default=None, help="labeller that answers")
    parser.add_argument("--fdr", type=float, default=0.1)
    parser.add_argument("--recovery", type=Path, required=True)
    parser.add_argument("--answer", type=Path, required=True)
    a = parser.parse_args(argv)
    return cli.guarded(
        lambda: score_recovery(
            a.categories, a.planted, a.primary, a.labeller, a.fdr, a.recovery, a.answer
        )
    )


if __name__ == "__main__":
    raise SystemExit(main())
