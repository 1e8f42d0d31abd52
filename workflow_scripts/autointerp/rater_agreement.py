"""How far raters agree on categories, as the steps write it: alpha, and kappa by pair and category.

A rater is an annotator's replicate. A missing label is no judgement.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

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
from workflow_scripts.common import files


def describe_agreement(table: pd.DataFrame, unit: str, seed: int) -> dict[str, Any]:
    """Return alpha with its interval, and the measures of pairs and of categories.

    ``table`` has a row per unit (the column so named), ``annotator`` and ``replicate``; its
    ``label`` is missing or empty where there is none. Undefined numbers are None.
    """
    judged = table.assign(
        rater=table["annotator"].astype(str) + "/" + table["replicate"].astype(str)
    )
    wide = judged.pivot_table(
        index=unit, columns="rater", values="label", aggfunc="first", dropna=False
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


def is_reliable(group: dict[str, Any]) -> bool | None:
    """Return whether an agreement allows tentative conclusions; None where it is undefined."""
    alpha = group["alpha"]["value"]
    return None if alpha is None else bool(alpha >= RELIABLE)


def _pair(
    raters: Sequence[str], i: int, j: int, matrix: NDArray[np.int64], categories: int
) -> dict[str, object]:
    first, second = matrix[:, i], matrix[:, j]
    both = (first >= 0) & (second >= 0)
    return {
        "raters": [raters[i], raters[j]],
        "both": int(both.sum()),
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
