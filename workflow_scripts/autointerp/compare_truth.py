"""Compare annotators' categories with the true ones, where the text's categories are known.

Writes `truth.json`: per annotator its coverage and accuracy with intervals, recall, precision and
detection AUROC by true category; and `confusion.csv` (annotator, true_category, category, latents).
A latent without a true category (`none`) counts towards false assignments only.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from workflow_scripts.common import cli, files
from workflow_scripts.common.tables import write_csv
from workflow_scripts.common.taxonomy import RESERVED

NONE = "none"


def compare_truth(labels: Path, scores: Path, latents: Path, output: Path, confusion: Path) -> None:
    """Write how far every annotator agrees with the true categories.

    Parameters
    ----------
    labels
        labels of all annotators (Parquet)
    scores
        detection scores of all annotators (Parquet)
    latents
        latents of the fit, with their true categories (Parquet)
    output
        coverage, accuracy, recall and precision to write (JSON)
    confusion
        table to write, latents by true and given category (CSV)

    Raises
    ------
    UserError
        If the table of latents has no `true_category`.
    """
    truth = files.read_parquet(latents)
    if "true_category" not in truth.columns:
        raise cli.UserError(
            f"{latents} has no true categories: the run's text is not the generator's"
        )
    key = ["latent", "annotator", "replicate"]
    table = files.read_parquet(labels).merge(truth[["latent", "true_category"]], on="latent")
    auroc = files.read_parquet(scores)[[*key, "auroc", "auroc_hard"]]
    table = table.merge(auroc, on=key, how="left")
    result = {str(name): _annotator(rows) for name, rows in table.groupby("annotator")}
    files.write_json(output, {"annotators": result})
    counts = table.groupby(["annotator", "true_category", "category"]).size()
    write_csv(confusion, counts.rename("latents").reset_index())


def _annotator(rows: pd.DataFrame) -> dict[str, object]:
    known = rows[rows["true_category"] != NONE]
    assigned = known[~known["category"].isin(["", *RESERVED])]
    hits = int((assigned["category"] == assigned["true_category"]).sum())
    without = rows[rows["true_category"] == NONE]
    false = int((~without["category"].isin(["", *RESERVED])).sum())
    return {
        "annotator_kind": str(rows["annotator_kind"].iloc[0]),
        "llm_used": bool(rows["llm_used"].iloc[0]),
        "latents": len(rows),
        "with_true_category": len(known),
        "coverage": _ratio(len(assigned), len(known)),
        "accuracy": _ratio(hits, len(assigned)),
        "assigned_without_true_category": _ratio(false, len(without)),
        "categories": {
            str(name): _category(own, rows) for name, own in known.groupby("true_category")
        },
    }


def _category(own: pd.DataFrame, rows: pd.DataFrame) -> dict[str, object]:
    name = str(own["true_category"].iloc[0])
    hits = int((own["category"] == name).sum())
    named = rows[rows["category"] == name]
    right = int((named["true_category"] == name).sum())
    auroc = own["auroc"].median()
    hard = own["auroc_hard"].median()
    return {
        "latents": len(own),
        "recall": _ratio(hits, len(own)),
        "precision": _ratio(right, len(named)),
        "auroc_median": None if pd.isna(auroc) else float(auroc),
        "auroc_hard_median": None if pd.isna(hard) else float(hard),
    }


def _ratio(count: int, total: int) -> dict[str, float | int | None]:
    """Return a share with its Wilson interval; null where there is nothing to divide by."""
    if not total:
        return {"count": count, "of": total, "share": None, "low": None, "high": None}
    low, high = proportion_confint(count, total, method="wilson")
    share = count / total
    return {"count": count, "of": total, "share": share, "low": float(low), "high": float(high)}


main = cli.command(compare_truth)


if __name__ == "__main__":
    raise SystemExit(main())
