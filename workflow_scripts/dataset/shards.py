"""The token shard: ids, document boundaries, roles, template mask and true categories.

Format "diffscope-tokens", version 1 (HDF5). A row is a document, or a part of one, of at most the
context length; rows lie one after another, those of a document side by side. With N tokens and R
rows:

====================  ==============  ==========================================================
``ids``               int32 [N]       token ids, the same for every model
``row_starts``        int64 [R + 1]   row r is ``ids[row_starts[r]:row_starts[r + 1]]``
``row_document``      int32 [R]       the row's ``document`` in documents.parquet
``row_split``         uint8 [R]       index in the attribute ``splits`` (a JSON list)
``role``              uint8 [N]       index in :data:`ROLES`
``template``          bool [N]        BOS and tokens that the chat template adds
``category``          int16 [N]       index in the attribute ``categories`` (a JSON list), or -1
====================  ==============  ==========================================================

A shard may be empty (N = R = 0) where the text was shorter than the token budget.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from workflow_scripts.common import hdf5
from workflow_scripts.common.cli import UserError

FORMAT = "diffscope-tokens"
VERSION = 1
SPLITS = ("fit", "calibration", "score", "explain", "verify")
ROLES = ("plain", "system", "user", "assistant", "tool")
T = TypeVar("T", bound=np.generic)
_TYPES: Mapping[str, type[np.generic]] = {
    "ids": np.int32,
    "row_starts": np.int64,
    "row_document": np.int32,
    "row_split": np.uint8,
    "role": np.uint8,
    "template": np.bool_,
    "category": np.int16,
}


@dataclass(frozen=True)
class TokenShard:
    """One shard in memory; shapes and meanings are in the module's table."""

    ids: NDArray[np.int32]
    row_starts: NDArray[np.int64]
    row_document: NDArray[np.int32]
    row_split: NDArray[np.uint8]
    role: NDArray[np.uint8]
    template: NDArray[np.bool_]
    category: NDArray[np.int16]
    categories: tuple[str, ...] = ()
    splits: tuple[str, ...] = SPLITS

    @property
    def tokens(self) -> int:
        """Number of tokens, N."""
        return len(self.ids)

    @property
    def rows(self) -> int:
        """Number of rows, R."""
        return len(self.row_document)

    @cached_property
    def row_of_token(self) -> NDArray[np.int32]:
        """The row of each token, int32 [N]."""
        return self.over_tokens(np.arange(self.rows, dtype=np.int32))

    @cached_property
    def position(self) -> NDArray[np.int32]:
        """The index of each token in its row, int32 [N]; BOS is at 0."""
        position = np.arange(self.tokens, dtype=np.int32)
        position -= self.over_tokens(self.row_starts[:-1].astype(np.int32))
        return position

    def over_tokens(self, of_rows: NDArray[T]) -> NDArray[T]:
        """Return what is known of each row [R] for each of its tokens [N]."""
        return np.repeat(of_rows, np.diff(self.row_starts))

    def row(self, index: int) -> slice:
        """Return the slice of row ``index`` in the arrays over tokens."""
        return slice(int(self.row_starts[index]), int(self.row_starts[index + 1]))

    @classmethod
    def read(cls, path: Path) -> TokenShard:
        """Read a shard.

        Raises
        ------
        UserError
            If the file is missing, incomplete, of another format or version, or inconsistent.
        """
        with hdf5.open_complete(path, FORMAT, VERSION) as file:
            arrays = {name: np.asarray(file[name]) for name in _TYPES}
            shard = cls(
                **{name: arrays[name].astype(kind, copy=False) for name, kind in _TYPES.items()},
                categories=tuple(json.loads(file.attrs["categories"])),
                splits=tuple(json.loads(file.attrs["splits"])),
            )
        problem = shard.inconsistency()
        if problem:
            raise UserError(f"{path} is damaged ({problem}): delete it and run again")
        return shard

    def inconsistency(self) -> str:
        """Return what contradicts the format, or an empty string."""
        over_tokens = {len(self.ids), len(self.role), len(self.template), len(self.category)}
        if len(over_tokens) != 1 or len(self.row_split) != self.rows:
            return "its arrays differ in length"
        if len(self.row_starts) != self.rows + 1 or self.row_starts[0] != 0:
            return "its row starts do not fit its rows"
        if self.row_starts[-1] != self.tokens or (np.diff(self.row_starts) <= 0).any():
            return "its row starts do not cover its tokens"
        return ""


def write_shard(path: Path, shard: TokenShard, provenance: Mapping[str, object]) -> None:
    """Write a shard, whole or not at all.

    Raises
    ------
    ValueError
        If the arrays contradict each other.
    """
    problem = shard.inconsistency()
    if problem:
        raise ValueError(f"the shard for {path} is inconsistent: {problem}")
    with hdf5.atomic(path, FORMAT, VERSION, provenance) as file:
        for name, kind in _TYPES.items():
            file.create_dataset(name, data=getattr(shard, name).astype(kind))
        file.attrs["splits"] = json.dumps(shard.splits)
        file.attrs["categories"] = json.dumps(shard.categories)
