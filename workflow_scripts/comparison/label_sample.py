"""Which documents two models are compared on: the same few of every label, for both axes."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def draw(
    labels: pd.DataFrame, documents: NDArray[np.int64], limit: int, seed: int
) -> NDArray[np.int64]:
    """Return up to ``limit`` of the documents for each label of each labeller, sorted.

    All labels draw in one order, so that a document serves several labellers.
    """
    order = np.random.default_rng([seed, 11]).permutation(documents)
    places = pd.DataFrame({"document": order, "place": np.arange(len(order))})
    known = labels.merge(places, on="document").sort_values("place")
    chosen = known.groupby(["labeller", "label"]).head(limit)
    return np.unique(chosen["document"].to_numpy(dtype=np.int64))
