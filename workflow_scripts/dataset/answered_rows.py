"""Which rows of token shards have an answer token: those on which models' predictions are scored.

Answer tokens are those of the assistant's turns without template tokens; of plain text all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workflow_scripts.dataset.shards import ROLES, TokenShard

ANSWER_ROLES = (ROLES.index("plain"), ROLES.index("assistant"))


def answer_mask(shard: TokenShard, part: slice) -> NDArray[np.bool_]:
    """Return which tokens of a part count as answer; nothing predicts the first of a row."""
    answers = np.isin(shard.role[part], ANSWER_ROLES) & ~shard.template[part]
    kept: NDArray[np.bool_] = answers & (shard.position[part] > 0)
    return kept


def answered_rows(shard: TokenShard, split: str) -> NDArray[np.int64]:
    """Return the rows of a split that have an answer token."""
    rows = shard.row_of_token[answer_mask(shard, slice(None))]
    answered = np.bincount(rows, minlength=shard.rows) > 0
    return np.flatnonzero((shard.row_split == shard.splits.index(split)) & answered)


def first_of_document(shard: TokenShard, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the first of the rows of each document; its rows lie side by side."""
    first: NDArray[np.int64] = rows[np.diff(shard.row_document[rows], prepend=-1) != 0]
    return first


def answered_documents(paths: Sequence[Path], split: str) -> NDArray[np.int64]:
    """Return the numbers of a split's documents that have an answer token, in order."""
    shards = (TokenShard.read(path) for path in paths)
    numbers = [
        shard.row_document[first_of_document(shard, answered_rows(shard, split))]
        for shard in shards
    ]
    return np.concatenate(numbers).astype(np.int64)
