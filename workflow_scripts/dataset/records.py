"""Records of files in an order fixed by a seed, from any place in that order.

JSON lines are read by an index of line starts, Parquet by row groups. What can only be read
forwards (gzip, a hub's stream) is shuffled in blocks of rows.
"""

from __future__ import annotations

import gzip
import json
import random
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar, cast

from workflow_scripts.common.cli import UserError

BLOCK = 10_000  # rows that are shuffled together
Record = Mapping[str, object]
R = TypeVar("R")


@dataclass(frozen=True)
class Files:
    """The files of a source, by the source's name, and the seed of their order."""

    name: str
    paths: tuple[Path, ...]
    seed: str


def jsonl_records(files: Files, start: int) -> Iterator[tuple[str, Record]]:
    """Yield the records of JSON lines, each with where it stands, from place ``start`` on.

    Raises
    ------
    UserError
        If the files are empty, or a line is no JSON object.
    """
    index: list[tuple[Path, array[int], array[int]]] = []
    for path in files.paths:
        index.append((path, *_line_starts(path)))
    order = array("q", range(sum(len(starts) for _, starts, _ in index)))
    if not order:
        raise UserError(f"source {files.name}: {files.paths[0]} is empty: it holds no documents")
    random.Random(files.seed).shuffle(order)
    handles = [path.open("rb") for path, _, _ in index]
    try:
        for item in order[start:]:
            which = 0
            while item >= len(index[which][1]):
                item -= len(index[which][1])
                which += 1
            path, starts, numbers = index[which]
            handles[which].seek(starts[item])
            where = f"{path} line {numbers[item]}"
            yield where, _json_record(handles[which].readline(), where, files.name)
    finally:
        for handle in handles:
            handle.close()


def _line_starts(path: Path) -> tuple[array[int], array[int]]:
    """Return the byte offset and the number of each line that is not blank."""
    starts, numbers, offset = array("q"), array("q"), 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                starts.append(offset)
                numbers.append(number)
            offset += len(line)
    return starts, numbers


def _json_record(line: bytes, where: str, name: str) -> Record:
    try:
        record = json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"source {name}: {where} is not valid JSON ({error}): fix it") from None
    if not isinstance(record, dict):
        raise UserError(f"source {name}: {where} is no JSON object: write one object per line")
    return cast(Record, record)


def gzip_records(files: Files, start: int) -> Iterator[tuple[str, Record]]:
    """Yield the records of JSON lines of which some are gzipped; as :func:`jsonl_records`."""
    paths = list(files.paths)
    random.Random(files.seed).shuffle(paths)
    lines = chain.from_iterable(_lines(path) for path in paths)
    empty = True
    for where, line in shuffled_blocks(lambda first: islice(lines, first, None), files.seed, start):
        empty = False
        yield where, _json_record(line, where, files.name)
    if empty and not start:
        raise UserError(f"source {files.name}: {paths[0]} is empty: it holds no documents")


def _lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield each line that is not blank, and where it stands."""
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        try:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"{path} line {number}", line
        except (OSError, EOFError) as error:
            raise UserError(f"{path} is no whole gzip file ({error}): fetch it again") from None


def without_column(name: str, column: str, known: Collection[str]) -> UserError:
    """Return the error of a source in which no record has a column of labels."""
    return UserError(
        f"source {name}: no record has the column {column!r} (they have "
        f"{', '.join(sorted(known)) or 'none'}): check its category_column"
    )


def shuffled_blocks(
    rows: Callable[[int], Iterator[tuple[str, R]]], seed: str, start: int
) -> Iterator[tuple[str, R]]:
    """Yield what can only be read forwards, shuffled within blocks, from place ``start`` on.

    ``rows`` gives the rows from a number on. The order of a block depends on its number alone.
    """
    block, skipped = divmod(start, BLOCK)
    stream = rows(block * BLOCK)
    while held := list(islice(stream, BLOCK)):
        random.Random(f"{seed}:{block}").shuffle(held)
        yield from held[skipped:]
        block, skipped = block + 1, 0


def parquet_records(
    files: Files, columns: Sequence[str], labels: Sequence[str], start: int
) -> Iterator[tuple[str, Record]]:
    """Yield the records of Parquet files, each with where it stands, from place ``start`` on.

    ``columns``, ``text`` and ``messages`` are read where the files have them, and ``labels`` with
    them; else one column.

    Raises
    ------
    UserError
        If a file is no Parquet file, all are empty, or none has a column of labels.
    """
    import pyarrow
    import pyarrow.parquet as pq

    groups: list[tuple[Path, int, int]] = []
    rows, known = 0, set[str]()
    for path in files.paths:
        try:
            meta = pq.read_metadata(path)
        except pyarrow.ArrowInvalid as error:
            raise UserError(
                f"source {files.name}: {path} is not a Parquet file ({error}): check its `path`"
            ) from None
        rows += meta.num_rows
        known.update(meta.schema.to_arrow_schema().names)
        groups.extend(
            (path, group, meta.row_group(group).num_rows) for group in range(meta.num_row_groups)
        )
    if not rows:
        raise UserError(f"source {files.name}: {files.paths[0]} is empty: it holds no documents")
    for column in labels:
        if column not in known:
            raise without_column(files.name, column, known)
    generator = random.Random(files.seed)
    generator.shuffle(groups)
    needed = {*columns, "text", "messages"}
    for path, group, size in groups:
        order = list(range(size))
        generator.shuffle(order)
        skipped = min(start, size)
        start -= skipped
        if skipped == size:
            continue
        file = pq.ParquetFile(path)
        names = set(file.schema_arrow.names)
        read = sorted({*needed, *labels} & names) if needed & names else sorted(names)[:1]
        records = file.read_row_group(group, columns=read).to_pylist()
        for row in order[skipped:]:
            where = f"{path} row {row} of row group {group}"
            blank = dict.fromkeys(sorted(names))
            yield where, (records[row] if needed & names else blank)
