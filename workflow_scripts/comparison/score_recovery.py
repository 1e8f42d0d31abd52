"""Compare what was found with what was planted, and state the answer in one sentence.

Leaves ``recovery.csv``, a row per comparison, seed, labeller, statistic and category (empty where
nothing was planted), and ``answer.json``, whose ``sentence`` is computed from the categories.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from workflow_scripts.common import cli, files
from workflow_scripts.common.tables import read_csv, write_csv
from workflow_scripts.comparison.settings import Answering
from workflow_scripts.comparison.verdicts import GAINED, LOST, UNCLEAR
from workflow_scripts.comparison.what_changed import (
    SIGNS,
    Fact,
    Truth,
    choose,
    planted_fact,
    what_changed,
)

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
    records = [
        record
        for row in rows.to_dict("records")
        if (truth := known.get((row["baseline"], row["candidate"]))) is not None
        and (fact := planted_fact(row, truth)) is not None
        for record in _recovered(row, fact, fdr)
    ]
    return pd.DataFrame(records, columns=list(COLUMNS))


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
    answering: Answering,
    recovery: Path,
    answer: Path,
    planted: Path | None = None,
) -> None:
    """Write what was found beside what was planted, and the sentence that says what changed.

    Parameters
    ----------
    categories
        what each model gained and lost (CSV)
    recovery
        table to write, a row per comparison, seed, labeller, statistic and category (CSV)
    answer
        what each comparison says, the one that answers first (JSON)
    planted
        what was planted (CSV)
    """
    table = read_csv(categories)
    chosen, by = choose(table, answering.primary, answering.labeller)
    known = truths(read_planted(planted) if planted else None)
    level = table[table["level"] == "category"]
    answers = []
    for key, rows in level.groupby(["comparison", "seed", "labeller"], sort=False):
        sides = (str(rows.iloc[0]["baseline"]), str(rows.iloc[0]["candidate"]))
        answers.append((key, what_changed(rows, known.get(sides))))
    first = next(a for key, a in answers if (key[0], key[2]) == (chosen, by))
    write_csv(recovery, recover(table, known, answering.fdr))
    all_answers = [asdict(each) for _, each in answers]
    files.write_json(answer, {**asdict(first), "fdr": answering.fdr, "all": all_answers})
    cli.log(first.sentence)


main = cli.command(score_recovery)


if __name__ == "__main__":
    raise SystemExit(main())
