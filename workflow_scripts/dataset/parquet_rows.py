"""Rows of Parquet files in an order fixed by a seed, from any place in that order."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from workflow_scripts.common.cli import UserError, log, shortened
from workflow_scripts.dataset.chats import RowError
from workflow_scripts.dataset.record_forms import CONTEXT, KNOWN, SYSTEM, Record
from workflow_scripts.dataset.records import Files, Row, without_column
from workflow_scripts.dataset.text_files import compression

if TYPE_CHECKING:
    import pyarrow as pa

LARGEST_GROUP = 100_000_000
"""Rows of a row group above which its size is taken for damage."""


def parquet_rows(
    files: Files, columns: Sequence[str], labels: Sequence[str], start: int
) -> Iterator[Row]:
    """Yield the rows of Parquet files, from place ``start`` on.

    The named ``columns`` are read, or those that hold documents by their usual names, and
    ``labels`` with them; where a file has none of them, its rows have all columns, empty.

    Raises
    ------
    UserError
        If a file is no Parquet file or damaged, all are empty, or none has a column of labels.
    """
    groups: list[tuple[Path, int, int]] = []
    known = set[str]()
    for path in files.paths:
        sizes, names = _layout(path, files.name)
        known.update(names)
        groups.extend((path, group, size) for group, size in enumerate(sizes))
    if not sum(size for _, _, size in groups):
        raise files.empty()
    for column in labels:
        if column not in known:
            raise without_column(files.name, column, known)
    needed = {*columns, *labels} if columns else {*KNOWN, *SYSTEM, *CONTEXT, *labels}
    generator = random.Random(files.seed)
    generator.shuffle(groups)
    for path, group, size in groups:
        order = list(range(size))
        generator.shuffle(order)
        skipped = min(start, size)
        start -= skipped
        if skipped == size:
            continue
        records = _read_group(path, group, size, needed, columns, files.name)
        for row in order[skipped:]:
            yield f"{path} row {row} of row group {group}", records[row]


def _layout(path: Path, name: str) -> tuple[list[int], list[str]]:
    """Return the rows of each row group, and the names of the columns."""
    import pyarrow.parquet as pq

    if form := compression(path):
        raise UserError(f"source {name}: {path} is {form} data, no Parquet file: unpack it")
    try:
        meta = pq.read_metadata(path)
        sizes = [meta.row_group(group).num_rows for group in range(meta.num_row_groups)]
        names = list(meta.schema.to_arrow_schema().names)
    except Exception as error:  # pyarrow raises its own errors and Python's
        raise UserError(
            f"source {name}: {path} is not a Parquet file ({shortened(error)}): check its `path`"
        ) from error
    if any(not 0 <= size <= LARGEST_GROUP for size in sizes):
        raise UserError(
            f"source {name}: {path} is damaged (a row group of {max(sizes)} rows): fetch it again"
        )
    return sizes, names


def _read_group(
    path: Path, group: int, size: int, needed: set[str], columns: Sequence[str], name: str
) -> list[Record | RowError]:
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        names = set(file.schema_arrow.names)
        if not set(columns or needed) & names:
            return [dict.fromkeys(sorted(names))] * size
        table = file.read_row_group(group, columns=sorted(needed & names))
        if table.num_rows != size:
            raise ValueError(f"{table.num_rows} rows in place of {size}")
        return _records(table)
    except Exception as error:  # pyarrow raises its own errors and Python's
        log(f"{type(error).__name__}: {error}")
        raise UserError(
            f"source {name}: {path} is damaged ({shortened(error)}): fetch it again"
        ) from error


def _records(table: pa.Table) -> list[Record | RowError]:
    try:
        return list(table.to_pylist())
    except UnicodeDecodeError:
        return [_record(table, row) for row in range(table.num_rows)]


def _record(table: pa.Table, row: int) -> Record | RowError:
    """Return one record of a table in which some text is not UTF-8."""
    try:
        record: Record = table.slice(row, 1).to_pylist()[0]
        return record
    except UnicodeDecodeError as error:
        return RowError("not UTF-8", f"is not UTF-8 ({error}): convert it")
