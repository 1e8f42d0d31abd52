"""Compare what was found with what was planted, and state the answer in one sentence.

Leaves ``recovery.csv``, a row per comparison, seed, labeller, statistic and category (empty where
nothing was planted), and ``answer.json``, whose ``sentence`` is computed from the changes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from workflow_scripts.common import cli, files
from workflow_scripts.common.labellers import TRUE
from workflow_scripts.common.tables import read_csv, write_csv
from workflow_scripts.comparison.settings import Answering
from workflow_scripts.comparison.verdicts import CHANGED, MOVED
from workflow_scripts.comparison.what_changed import (
    SIGNS,
    UNPLANTED,
    Fact,
    Truth,
    categories_of,
    choose,
    what_changed,
)
from workflow_scripts.dataset.labels import read_labels
from workflow_scripts.dataset.text_losses import text_losses

PLANTED_COLUMNS = (
    "baseline",
    "candidate",
    "category",
    "class",
    "baseline_tokens",
    "candidate_tokens",
    "planted",
)
KEYS = ["comparison", "baseline", "candidate", "seed", "labeller"]
COLUMNS = (
    "comparison",
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
    """Where a table holds one statistic: its effect and interval, q value and sign."""

    effect: str
    q: str | None = None
    sign: str | None = None  # None: the effect's own sign; "": it has none
    bounds: tuple[str, str] | None = None  # None: the effect's name with _low and _high

    @property
    def interval(self) -> tuple[str, str]:
        """The columns of the bounds."""
        return self.bounds or (f"{self.effect}_low", f"{self.effect}_high")


OF_LATENTS = {
    "anchored_counts": Statistic("percent_change", "q", "count_sign", ("low", "high")),
    "direct_share": Statistic("unique_share", "detection_q", ""),
    "delta_norm": Statistic("delta_norm"),
}
"""Statistics of ``categories.csv``."""
OF_DOCUMENTS = {
    "behaviour": Statistic("behaviour", "behaviour_q"),
    "representation": Statistic("representation", "representation_q", ""),
    "verdict": Statistic("behaviour"),
}
"""Statistics of ``changes.csv``."""


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
    categories: pd.DataFrame,
    changes: pd.DataFrame,
    known: Mapping[tuple[str, str], Truth],
    fdr: float,
) -> pd.DataFrame:
    """Return the recovery table: every statistic of every comparison of a planted pair."""
    latents = categories[(categories["level"] == "category") & categories["tested"].astype(bool)]
    documents = changes[changes["labeller"] == TRUE].rename(columns={"label": "name"})
    records = [
        record
        for rows, statistics in ((latents, OF_LATENTS), (documents, OF_DOCUMENTS))
        for row in rows.to_dict("records")
        if (truth := known.get((row["baseline"], row["candidate"]))) is not None
        and (fact := planted_fact(row, truth)) is not None
        for record in _recovered(row, statistics, fact, fdr)
    ]
    return pd.DataFrame(records, columns=list(COLUMNS))


def planted_fact(row: Mapping[object, object], truth: Truth) -> Fact | None:
    """Return what was planted in a row's category.

    A category of the true labeller that no teaching names is unchanged; another labeller's may
    not occur in the text at all, and has no truth.
    """
    return truth.get(row["name"], UNPLANTED if row["labeller"] == TRUE else None)


def _recovered(
    row: Mapping[object, object], statistics: Mapping[str, Statistic], fact: Fact, fdr: float
) -> Iterator[dict[str, object]]:
    truth = SIGNS[str(fact["planted"])]
    for name, statistic in statistics.items():
        effect, low, high = (_number(row[n]) for n in (statistic.effect, *statistic.interval))
        q = _number(row[statistic.q]) if statistic.q else math.nan
        if math.isnan(effect) and math.isnan(q):
            continue
        if name == "verdict":
            called = row["verdict"] in CHANGED
            sign = math.nan if row["verdict"] == MOVED or not called else float(np.sign(effect))
        else:
            called = q <= fdr if statistic.q else low > 0 or high < 0
            sign = _sign(row, statistic, effect)
        yield {
            **{key: row[key] for key in COLUMNS[:5]},
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
    return math.nan if math.isnan(value) else float(np.sign(value))


def _judged(value: bool | None) -> str:
    return "n/a" if value is None else ("yes" if value else "no")


def _number(value: object) -> float:
    return float(str(value))


def score_recovery(
    categories: Path,
    changes: Path,
    labels: list[Path],
    text: Path,
    answering: Answering,
    usual: list[str],
    recovery: Path,
    answer: Path,
    planted: Path | None = None,
) -> None:
    """Write what was found beside what was planted, and the sentence that says what changed.

    Parameters
    ----------
    categories
        what the latents say of each category (CSV)
    changes
        effects and verdict of each label (CSV)
    labels
        tables of labels of the documents (Parquet)
    text
        manifest of the text (JSON)
    usual
        labellers in the order in which they answer where none is named
    recovery
        table to write, a row per comparison, seed, labeller, statistic and category (CSV)
    answer
        what each comparison says, the one that answers first (JSON)
    planted
        what was planted (CSV)
    """
    table, known = read_csv(changes), truths(read_planted(planted) if planted else None)
    if table.empty:
        raise cli.UserError(
            "no document has a label, so that there is nothing to compare: give text.sources a "
            "category_column, or more text"
        )
    chosen, by = choose(table, answering.primary, answering.labeller, usual)
    write_csv(recovery, recover(read_csv(categories), table, known, answering.fdr))
    every = read_labels(labels)
    of_label = {name: categories_of(every, name) for name in set(table["labeller"])}
    answers = [
        what_changed(rows, known.get((str(base), str(candidate))), of_label[str(labeller)])
        for (_, base, candidate, _, labeller), rows in table.groupby(KEYS, sort=False)
    ]
    own = [a for a in answers if a.comparison == chosen]
    first = {a.labeller: asdict(a) for a in own if a.seed == own[0].seed}
    cli.log(first[by]["sentence"])
    lost = text_losses(files.read_json(text))
    beside = {
        "text": asdict(lost),
        "by_labeller": first,
        "all": [asdict(a) for a in answers],
    }
    files.write_json(answer, {**first[by], "fdr": answering.fdr, **beside})


main = cli.command(score_recovery)


if __name__ == "__main__":
    raise SystemExit(main())
