"""Tables of contexts, read a few latents at a time, so that memory does not grow with their number.

A file may hold its rows in any order: all row groups that can hold a latent are scanned for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from workflow_scripts.common.cli import UserError

DICTIONARY = ["pieces.list.element"]
READ_LATENTS = 500
"""Latents read in one scan: a file whose row groups are large is scanned that many times less."""
SCAN_ROWS = 1 << 12
"""Rows decoded at once."""


class LatentTable:
    """A Parquet table with a column `latent`, of which the rows of some latents are read.

    Raises
    ------
    UserError
        If the file is missing, no Parquet file, or lacks one of the columns ``needed``.
    """

    def __init__(self, path: Path, needed: Sequence[str], optional: Sequence[str] = ()) -> None:
        self._file = open_table(path, needed)
        have = self._file.schema_arrow.names
        self._columns = [*needed, *(name for name in optional if name in have)]
        self._ranges = [_latent_range(self._file, i) for i in range(self._file.num_row_groups)]

    def latents(self) -> NDArray[np.int64]:
        """Return the distinct latents, in ascending order."""
        parts = (
            np.unique(rows["latent"].to_numpy())
            for rows in self._file.iter_batches(1 << 16, columns=["latent"])
        )
        return np.unique(np.concatenate([np.zeros(0, np.int64), *parts]))

    def read(self, latents: NDArray[np.int64]) -> pa.Table:
        """Return the rows of ``latents`` in the order of the file."""
        wanted = pa.array(latents)
        scanned = (
            rows.filter(pc.is_in(rows["latent"], wanted))
            for group, (low, high) in enumerate(self._ranges)
            if ((latents >= low) & (latents <= high)).any()
            # One by one, since each has a dictionary of its own.
            for rows in self._file.iter_batches(SCAN_ROWS, [group], self._columns)
        )
        return pa.Table.from_batches([rows for rows in scanned if len(rows)], self._schema())

    def batches(self, latents: NDArray[np.int64], size: int) -> Iterator[pa.Table]:
        """Yield the rows of at most ``size`` of the latents at a time."""
        for many in _parts(latents, READ_LATENTS):
            yield from _split(self.read(many), many, size)

    def _schema(self) -> pa.Schema:
        whole = self._file.schema_arrow
        return pa.schema([whole.field(name) for name in self._columns])


def open_table(path: Path, columns: Sequence[str]) -> pq.ParquetFile:
    """Open a Parquet table and check that it has ``columns``.

    Raises
    ------
    UserError
        If the file is missing, no Parquet file, or lacks a column.
    """
    try:
        # Not whole column chunks are read but a buffer of them: a row group may be large.
        file = pq.ParquetFile(path, read_dictionary=DICTIONARY, buffer_size=1 << 20)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: run the step that makes it") from None
    except pa.ArrowInvalid as error:
        raise UserError(
            f"{path} is not a Parquet file ({error}): delete it and run again"
        ) from None
    for column in columns:
        if column not in file.schema_arrow.names:
            raise UserError(f"{path} has no column {column!r}: it was made by other code")
    return file


def read_table(path: Path, columns: Sequence[str]) -> pa.Table:
    """Read a whole table; see :func:`open_table`."""
    open_table(path, columns).close()
    return pq.read_table(path, read_dictionary=DICTIONARY)


def _split(rows: pa.Table, latents: NDArray[np.int64], size: int) -> Iterator[pa.Table]:
    for some in _parts(latents, size):
        yield rows.filter(pc.is_in(rows["latent"], pa.array(some)))


def _parts(latents: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(latents), size):
        yield latents[start : start + size]


def _latent_range(file: pq.ParquetFile, group: int) -> tuple[float, float]:
    """Return the least and the largest latent of a row group, as far as the file says."""
    place = file.schema.names.index("latent")
    bounds = file.metadata.row_group(group).column(place).statistics
    known = bounds is not None and bounds.has_min_max
    return (bounds.min, bounds.max) if known else (-np.inf, np.inf)
