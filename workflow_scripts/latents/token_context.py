"""The context of each token of a run: its document, role, template flag and true category."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int, Int16, Int32, UInt8

from workflow_scripts.dataset.shards import TokenShard


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
    shards = [TokenShard.read(path) for path in paths]
    offsets = np.cumsum([0] + [len(shard.ids) for shard in shards])
    starts = [
        shard.row_starts[:-1] + offset for shard, offset in zip(shards, offsets[:-1], strict=True)
    ]
    return TokenContext(
        ids=np.concatenate([shard.ids for shard in shards]),
        document=np.concatenate([shard.over_tokens(shard.row_document) for shard in shards]),
        position=np.concatenate([shard.position for shard in shards]),
        role=np.concatenate([shard.role for shard in shards]),
        template=np.concatenate([shard.template for shard in shards]),
        category=np.concatenate([shard.category for shard in shards]),
        row_starts=np.concatenate([*starts, offsets[-1:]]).astype(np.int64),
        categories=list(shards[0].categories),
    )
