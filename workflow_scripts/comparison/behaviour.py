"""The likelihood gap: how much better one model predicts a document than the other."""

from __future__ import annotations

import numpy as np
import pandas as pd

LOSS_COLUMNS = ("document", "model", "tokens", "losses")
"""Columns of ``losses.parquet``; ``COLUMNS.md`` says what each means."""
DIVERGENCE_COLUMNS = ("document", "baseline", "candidate", "divergence")
"""Columns of ``divergences.parquet``."""


def document_gaps(losses: pd.DataFrame, baseline: str, candidate: str) -> pd.DataFrame:
    """Return how two models' losses on their common documents differ, indexed by document.

    ``gap`` is the mean over answer tokens of the baseline's minus the candidate's loss, ``spread``
    that of its absolute value, both in nats per token; + means that the candidate predicts the
    text better. Both read the same tokens, so that how hard a text is falls out.
    """
    sides = [losses[losses["model"] == m].set_index("document") for m in (baseline, candidate)]
    both = sides[0].join(sides[1]["losses"], how="inner", rsuffix="_candidate")
    gaps = [
        np.asarray(before, dtype=np.float64) - np.asarray(after, dtype=np.float64)
        for before, after in zip(both["losses"], both["losses_candidate"], strict=True)
    ]
    return pd.DataFrame(
        {
            "tokens": both["tokens"],
            "gap": [float(gap.mean()) for gap in gaps],
            "spread": [float(np.abs(gap).mean()) for gap in gaps],
        },
        index=both.index,
    )


def document_divergences(table: pd.DataFrame, baseline: str, candidate: str) -> pd.Series[float]:
    """Return KL(candidate ‖ baseline) of two models' predictions, by document.

    A mean over answer tokens, in nats per token.
    """
    pair = (table["baseline"] == baseline) & (table["candidate"] == candidate)
    divergences: pd.Series[float] = table[pair].set_index("document")["divergence"]
    return divergences
