"""Join the annotators' tables, apply the gate, and compare the LLM with the lexical annotator.

Without an LLM the tables hold the lexical annotator's rows alone.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from workflow_scripts.autointerp.annotation_tables import (
    GOOD,
    ROW,
    TABLES,
    gate_labels,
    write_tables,
)
from workflow_scripts.autointerp.context_schema import STRATA
from workflow_scripts.common import cli, files
from workflow_scripts.common.intervals import percentile_interval
from workflow_scripts.common.taxonomy import UNASSIGNED, load_taxonomy

DRAWS = 2000


def collect_annotations(
    lexical: Path,
    taxonomy: Path,
    seed: int,
    output: Path,
    llm: Path | None = None,
    ledgers: tuple[Path, ...] = (),
) -> None:
    """Write the tables of all annotators, a summary and the ledger of all calls.

    Parameters
    ----------
    lexical
        folder of the lexical annotator's tables
    taxonomy
        categories with their classes (YAML)
    seed
        seed of the bootstrap
    output
        folder of the joint tables to write
    llm
        folder of the LLM's tables
    ledgers
        ledgers of the LLM's calls, by purpose (CSV)
    """
    folders = [lexical, *([llm] if llm else [])]
    tables = {
        name: pd.concat([files.read_parquet(folder / f"{name}.parquet") for folder in folders])
        for name in TABLES
    }
    labels, scores = tables["labels"], tables["scores"]
    passed = scores.set_index(ROW)["gate_passed"]
    known = passed.reindex(pd.MultiIndex.from_frame(labels[ROW])).fillna(False).to_numpy(bool)
    tables["labels"] = labels = gate_labels(labels, known, load_taxonomy(taxonomy))
    write_tables(output, tables)
    summary = _summary(labels, scores, seed)
    if llm:
        _join_ledgers(ledgers, output / "ledger.csv")
        answers = llm / "labels.json"
        summary["canaries"] = files.read_json(answers).get("canaries") if answers.exists() else None
    files.write_json(output / "summary.json", summary)


def _join_ledgers(ledgers: Sequence[Path], output: Path) -> None:
    with files.atomic_path(output) as temporary, temporary.open("w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        for number, path in enumerate(ledgers):
            with path.open(newline="", encoding="utf-8") as rows:
                for line, row in enumerate(csv.reader(rows)):
                    if line or not number:
                        writer.writerow(row)


def _summary(labels: pd.DataFrame, scores: pd.DataFrame, seed: int) -> dict[str, object]:
    per_annotator: dict[str, object] = {}
    for name, rows in labels.groupby("annotator"):
        score = scores[scores["annotator"] == name]
        good = rows[rows["status"].isin(GOOD)]
        per_annotator[str(name)] = {
            "annotator_kind": str(rows["annotator_kind"].iloc[0]),
            "llm_used": bool(rows["llm_used"].iloc[0]),
            "statuses": {str(k): int(v) for k, v in sorted(rows["status"].value_counts().items())},
            "coverage": _share(~good["category"].isin(["", UNASSIGNED])),
            "coverage_ungated": _share(~good["category_ungated"].isin(["", UNASSIGNED])),
            "gate_passed": _share(score.loc[score["status"].isin(GOOD), "gate_passed"]),
            "auroc_median": files.null_if_nan(float(score["auroc"].median())),
            **{
                f"auroc_{part}_median": files.null_if_nan(float(score[f"auroc_{part}"].median()))
                for part in ("hard", *STRATA)
            },
            "null_auroc_mean": files.null_if_nan(float(score["null_auroc"].mean())),
            "token_f1_median": files.null_if_nan(float(score["token_f1"].median())),
            "simulation_r_median": files.null_if_nan(float(score["simulation_r"].median())),
        }
    return {
        "annotators": per_annotator,
        "llm_used": bool(labels["llm_used"].any()),
        "floor": {
            str(name): _beats_floor(scores, str(name), seed)
            for name in sorted(scores.loc[scores["llm_used"], "annotator"].unique())
        },
    }


def _beats_floor(scores: pd.DataFrame, annotator: str, seed: int) -> dict[str, object]:
    """Return the mean lead in AUROC over the lexical annotator, with a bootstrap over latents."""
    llm = scores[scores["annotator"] == annotator].groupby("latent")["auroc"].mean()
    floor = scores[~scores["llm_used"]].groupby("latent")["auroc"].mean()
    lead = (llm - floor).dropna().to_numpy()
    if len(lead) < 2:
        return {"latents": len(lead), "lead": None, "low": None, "high": None, "beats": None}
    rng = np.random.default_rng(seed)
    means = lead[rng.integers(0, len(lead), (DRAWS, len(lead)))].mean(axis=1)
    interval = percentile_interval(float(lead.mean()), means)
    return {
        "latents": len(lead),
        "lead": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        "beats": interval.low > 0,
    }


def _share(flags: pd.Series[bool]) -> float | None:
    return float(flags.mean()) if len(flags) else None


main = cli.command(collect_annotations)


if __name__ == "__main__":
    raise SystemExit(main())
