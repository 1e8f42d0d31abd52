"""The table of contexts: its columns, and the names that they hold."""

from __future__ import annotations

import pyarrow as pa

TRAIN, HELD_OUT = "train", "held_out"
"""Parts: the contexts that explain a latent, and those that score the explanation."""
POSITIVE, RANDOM, HARD = "positive", "random_negative", "hard_negative"
"""Kinds: the latent fires; it is silent in a random context; in one that is near in wording."""
STRATA = ("top", "quantile")
"""Where a latent fires most strongly, and evenly over the quantiles of where else it does."""

CONTEXT_SCHEMA = pa.schema(
    [
        ("latent", pa.int64()),
        ("context", pa.int64()),
        ("part", pa.string()),
        ("kind", pa.string()),
        ("stratum", pa.string()),
        ("document", pa.int64()),
        ("pieces", pa.list_(pa.string())),
        ("activations", pa.list_(pa.float32())),
        ("template", pa.list_(pa.bool_())),
        ("role", pa.list_(pa.uint8())),
    ]
)
