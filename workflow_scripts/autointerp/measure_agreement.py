"""Measure how far annotators agree on categories: alpha with interval, kappa per pair and category.

Raters are the annotators' replicates. The labels before the gate are compared; a failed answer is
missing, while `unassigned` and `uninterpretable` are answers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workflow_scripts.autointerp.agreement import (
    RELIABLE,
    codes,
    cohen_kappa,
    gwet_ac1,
    krippendorff_alpha,
)
from workflow_scripts.autointerp.annotation_tables import GOOD
from workflow_scripts.common import cli, files


def measure_agreement(labels: Path, seed: int, output: Path) -> None:
    """Write how far the annotators agree; null where that is undefined.

    Parameters
    ----------
    labels
        labels of all annotators (Parquet)
    seed
        seed of the bootstrap
    output
        file to write (JSON)
    """
    table = files.read_parquet(labels)
    llm = table[table["annotator_kind"] == "llm"]
    annotators = sorted(table["annotator"].unique())
    result: dict[str, object] = {
        "latents": int(table["latent"].nunique()),
        "annotators": annotators,
        "reliable_from": RELIABLE,
    }
    result["llm"] = _group(llm, seed)
    result["all"] = _group(table, seed)
    reliable = _reliable(result["llm"])
    result["reliable"] = reliable
    result["banner"] = _banner(llm, reliable)
    files.write_json(output, result)
    cli.log(f"agreement of {len(annotators)} annotators written to {output.name}")


def _banner(llm: pd.DataFrame, reliable: bool | None) -> str:
    if llm.empty:
        return "one lexical annotator, no LLM: agreement cannot be measured"
    if reliable is None:
        return "agreement cannot be measured: labels may not be reliable"
    return "" if reliable else f"labels not reliable: alpha is below {RELIABLE}"


def _reliable(group: object) -> bool | None:
    alpha = group["alpha"]["value"] if isinstance(group, dict) else None
    return None if alpha is None else bool(alpha >= RELIABLE)


def _group(table: pd.DataFrame, seed: int) -> dict[str, object]:
    """Return alpha and the pairwise measures of the raters in ``table``."""
    judged = table.assign(
        rater=table["annotator"].astype(str) + "/" + table["replicate"].astype(str),
        label=table["category_ungated"].where(table["status"].isin(GOOD)),
    )
    wide = judged.pivot_table(
        index="latent", columns="rater", values="label", aggfunc="first", dropna=False
    )
    raters = [str(name) for name in wide.columns]
    rows = [[None if pd.isna(x) or x == "" else str(x) for x in row] for row in wide.to_numpy()]
    matrix, categories = codes(rows)
    alpha = krippendorff_alpha(matrix, seed=seed)
    return {
        "raters": raters,
        "labels": int((matrix >= 0).sum()),
        "missing": int((matrix < 0).sum()),
        "alpha": {
            "value": files.null_if_nan(alpha.estimate),
            "low": files.null_if_nan(alpha.low),
            "high": files.null_if_nan(alpha.high),
        },
        "pairs": [
            _pair(raters, i, j, matrix, len(categories))
            for i, j in combinations(range(len(raters)), 2)
        ],
        "categories": {
            str(name): _category(matrix, number, seed) for number, name in enumerate(categories)
        },
    }


def _pair(
    raters: Sequence[str], i: int, j: int, matrix: NDArray[np.int64], categories: int
) -> dict[str, object]:
    first, second = matrix[:, i], matrix[:, j]
    both = (first >= 0) & (second >= 0)
    return {
        "raters": [raters[i], raters[j]],
        "latents": int(both.sum()),
        "agreement": files.null_if_nan(
            float((first == second)[both].mean()) if both.any() else math.nan
        ),
        "kappa": files.null_if_nan(cohen_kappa(first, second)),
        "ac1": files.null_if_nan(gwet_ac1(first, second, categories)),
    }


def _category(matrix: NDArray[np.int64], number: int, seed: int) -> dict[str, object]:
    """Return how often a category is named, and alpha of naming it or not."""
    binary = np.where(matrix < 0, -1, (matrix == number).astype(np.int64))
    pairs = [
        cohen_kappa(binary[:, i], binary[:, j]) for i, j in combinations(range(matrix.shape[1]), 2)
    ]
    known = [kappa for kappa in pairs if not math.isnan(kappa)]
    return {
        "named": int((matrix == number).sum()),
        "alpha": files.null_if_nan(krippendorff_alpha(binary, draws=1, seed=seed).estimate),
        "kappa": files.null_if_nan(float(np.mean(known)) if known else math.nan),
    }


main = cli.command(measure_agreement)


if __name__ == "__main__":
    raise SystemExit(main())
