"""How many planted changes are called as fewer documents are read: half, a quarter, a tenth.

``python -m tests.workflow.tabulate_score_power results/recovery`` (part of ``make validate``)
judges the planted pair again on part of the documents of each true category, under every seed of
the crosscoder, and prints a line per share. It leaves ``score_power.csv``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from workflow_scripts.common import files
from workflow_scripts.common.labellers import TRUE
from workflow_scripts.common.tables import read_csv
from workflow_scripts.comparison.judge_changes import JudgedPair, change_table
from workflow_scripts.comparison.score_recovery import read_planted, recover, truths
from workflow_scripts.comparison.settings import Judgement
from workflow_scripts.comparison.verdicts import CANNOT_TELL
from workflow_scripts.dataset.labels import by_labeller, read_labels

SHARES = (1.0, 0.5, 0.25, 0.1, 0.05)
COMPARISON, MODELS = "direct", ("it", "simpo")


def first_documents(labels: pd.Series[str], share: float) -> pd.Series[str]:
    """Return the first part of each label's documents, at least one."""
    grouped = labels.groupby(labels)
    kept = (share * grouped.transform("size")).round().clip(lower=1)
    return labels[grouped.cumcount() < kept]


def tabulate(results: Path) -> pd.DataFrame:
    """Return a row per share of the documents; counts are sums over seeds."""
    record = json.loads((results / "provenance.json").read_text(encoding="utf-8"))
    given = record["settings"]["comparison"]
    rule = Judgement(**{name: given[name] for name in Judgement.model_fields})
    comparison = results / "comparison"
    weighed = comparison.glob(f"documents/{COMPARISON}_seed*[0-9].parquet")
    seeds = {int(path.stem.rpartition("_seed")[2]): path for path in sorted(weighed)}
    pair = JudgedPair(baseline=MODELS[0], candidate=MODELS[1], documents=seeds)
    losses = files.read_parquet(comparison / "losses.parquet")
    divergences = files.read_parquet(comparison / "divergences.parquet")
    labels = by_labeller(read_labels([results / "dataset" / "labels.parquet"]))[TRUE]
    labels = labels[labels.index.isin(losses["document"])].sort_index()
    latents = read_csv(comparison / "categories.csv").iloc[:0]
    known = truths(read_planted(results / "models" / "planted.csv"))
    rows = []
    for share in SHARES:
        part = first_documents(labels, share)
        changes = change_table({COMPARISON: pair}, {TRUE: part}, losses, divergences, rule)
        found = recover(latents, changes, known, rule.fdr)
        verdicts = found[found["statistic"] == "verdict"]
        planted, called = verdicts["planted"] != "unchanged", verdicts["called"].astype(bool)
        told = {
            "planted": int(planted.sum()),
            "called": int((called & planted).sum()),
            "signs_right": int((verdicts["sign_right"] == "yes").sum()),
            "unchanged_called": int((called & ~planted).sum()),
            "cannot_tell": int((changes["verdict"] == CANNOT_TELL).sum()),
        }
        rows.append({"share": share, "documents": len(part), **told})
    return pd.DataFrame(rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and tabulate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    results = parser.parse_args(argv).results
    table = tabulate(results)
    table.to_csv(results / "score_power.csv", index=False)
    print(table.to_string(index=False))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
