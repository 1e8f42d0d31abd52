"""Put the annotators' tables together, apply the gate, and compare the LLM with the lexical floor.

Writes `explanations.parquet`, `labels.parquet`, `scores.parquet` and `summary.json`. Without an LLM
they hold the lexical annotator's rows alone.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workflow_scripts.autointerp import annotation_tables
from workflow_scripts.autointerp.annotation_tables import GOOD
from workflow_scripts.common import cli, files
from workflow_scripts.common.taxonomy import UNASSIGNED, load_taxonomy

DRAWS = 2000


@dataclass(frozen=True)
class Sources:
    """Folders that each hold the three tables, and the ledgers of the LLM's calls."""

    lexical: Path
    llm: Path | None
    ledgers: Sequence[Path] = ()


def collect_annotations(sources: Sources, taxonomy: Path, output: Path, seed: int) -> None:
    """Write the tables of all annotators and a summary into the folder ``output``."""
    folders = [sources.lexical, *([sources.llm] if sources.llm else [])]
    frames = {
        name: pd.concat([files.read_parquet(f / f"{name}.parquet") for f in folders])
        for name in annotation_tables.TABLES
    }
    passed = _gate_of(frames["labels"], frames["scores"])
    frames["labels"] = annotation_tables.gated(frames["labels"], passed, load_taxonomy(taxonomy))
    annotation_tables.write_tables(output, frames)
    if sources.llm:
        _join_ledgers(sources.ledgers, output / "ledger.csv")
    summary = _summary(frames["labels"], frames["scores"], seed)
    if sources.llm:
        statuses = sources.llm / "labels.json"
        summary["canaries"] = (
            files.read_json(statuses).get("canaries") if statuses.exists() else None
        )
    files.write_json(output / "summary.json", summary)


def _gate_of(labels: pd.DataFrame, scores: pd.DataFrame) -> NDArray[np.bool_]:
    """Return, per label, whether the explanation behind it passes the gate."""
    key = ["latent", "annotator", "replicate"]
    passed = scores.set_index(key)["gate_passed"]
    return passed.reindex(pd.MultiIndex.from_frame(labels[key])).fillna(False).to_numpy(bool)


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
            "auroc_median": _known(float(score["auroc"].median())),
            **{
                f"auroc_{part}_median": _known(float(score[f"auroc_{part}"].median()))
                for part in ("hard", *annotation_tables.STRATA)
            },
            "null_auroc_mean": _known(float(score["null_auroc"].mean())),
            "token_f1_median": _known(float(score["token_f1"].median())),
            "simulation_r_median": _known(float(score["simulation_r"].median())),
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
    low, high = (float(x) for x in np.percentile(means, [2.5, 97.5]))
    return {
        "latents": len(lead),
        "lead": float(lead.mean()),
        "low": low,
        "high": high,
        "beats": low > 0,
    }


def _share(flags: pd.Series[bool]) -> float | None:
    return float(flags.mean()) if len(flags) else None


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and collect."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lexical", type=Path, required=True, help="folder of the lexical tables")
    parser.add_argument("--llm", type=Path, help="folder of the LLM's tables")
    parser.add_argument("--ledgers", type=Path, nargs="*", default=[])
    parser.add_argument("--taxonomy", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True, help="folder of the joint tables")
    a = parser.parse_args(argv)
    sources = Sources(a.lexical, a.llm, a.ledgers)
    return cli.guarded(lambda: collect_annotations(sources, a.taxonomy, a.output, a.seed))


if __name__ == "__main__":
    raise SystemExit(main())
