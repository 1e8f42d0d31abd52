"""The context of each token of a run: its document, role, template flag and true category."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Int16, Int32, UInt8
from numpy.typing import NDArray

from workflow_scripts.dataset.shards import TokenShard

OVER_TOKENS = ("ids", "document", "position", "role", "template", "category")


@dataclass(frozen=True)
class TokenContext:
    """Token arrays over all shards in order; ``row_starts`` are offsets of the rows, and N."""

    ids: Int32[np.ndarray, " N"]
    document: Int32[np.ndarray, " N"]
    position: Int32[np.ndarray, " N"]
    role: UInt8[np.ndarray, " N"]
    template: Bool[np.ndarray, " N"]
    category: Int16[np.ndarray, " N"]  # −1 unknown
    row_starts: Int[np.ndarray, " starts"]
    categories: list[str]

    def row_of(self, token: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Return the row (document) that holds each global token index."""
        return np.searchsorted(self.row_starts, token, side="right") - 1


def read_context(paths: Sequence[Path]) -> TokenContext:
    """Read the token shards of a run, in order."""
    columns: dict[str, list[NDArray[Any]]] = {name: [] for name in OVER_TOKENS}
    starts, tokens, categories = [], 0, list[str]()
    for path in paths:
        shard = TokenShard.read(path)
        for name, parts in columns.items():
            own = name == "document"
            parts.append(shard.over_tokens(shard.row_document) if own else getattr(shard, name))
        starts.append(shard.row_starts[:-1] + tokens)
        tokens += shard.tokens
        categories = categories or list(shard.categories)
    # One after another, so that no more than one of them is held twice.
    whole = {name: np.concatenate(columns.pop(name)) for name in OVER_TOKENS}
    return TokenContext(
        **whole,
        row_starts=np.concatenate([*starts, [tokens]]).astype(np.int64),
        categories=categories,
    )
