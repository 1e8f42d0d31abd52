"""Which documents two models are compared on: the same few of every label, for both axes."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def sample_labels(
    labels: pd.DataFrame, documents: NDArray[np.int64], limit: int, seed: int
) -> pd.DataFrame:
    """Return the labels of up to ``limit`` of the documents, for each label of each labeller.

    Documents have one order, whichever others there are, so that one serves several labellers. Yet
    each label counts its own sample only: what another labeller draws may lean to some kinds of
    its text.
    """
    key = np.random.default_rng([seed, 11]).integers(2**63, dtype=np.uint64)
    places = pd.util.hash_array(documents.astype(np.uint64) ^ key)
    placed = pd.DataFrame({"document": documents, "place": places})
    known = labels.merge(placed, on="document").sort_values("place", kind="stable")
    chosen = known.groupby(["labeller", "label"]).head(limit)
    return chosen.drop(columns="place").sort_index(ignore_index=True)
