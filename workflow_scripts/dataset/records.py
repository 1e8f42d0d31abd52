"""Records of lines in an order fixed by a seed, from any place in that order.

JSON lines in plain UTF-8 are read by an index of line starts. What can only be read forwards
(compressed files, other encodings, JSON arrays, CSV, a hub's stream) is shuffled in blocks of rows.
"""

from __future__ import annotations

import codecs
import csv
import json
import random
import sys
from array import array
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import IO, TypeVar, cast

from workflow_scripts.common.cli import UserError, shortened
from workflow_scripts.dataset.chats import RowError
from workflow_scripts.dataset.record_forms import Record, listed
from workflow_scripts.dataset.text_files import (
    OTHERS,
    compression,
    encoding,
    lines,
    open_text,
    read_start,
)

BLOCK = 10_000  # rows that are shuffled together
LARGEST_ARRAY = 1 << 30  # bytes of a JSON array, which is held as a whole
SNIFFED = 1 << 16
MOST_OPEN = 128  # files of a source at a time
DELIMITERS = ",\t;"
Row = tuple[str, Record | RowError]
"""Where a row stands, and its record or what is wrong with it."""
R = TypeVar("R")


@dataclass(frozen=True)
class Files:
    """The files of a source, by the source's name, and the seed of their order."""

    name: str
    paths: tuple[Path, ...]
    seed: str

    def empty(self) -> UserError:
        """Return the error of files without a row."""
        return UserError(f"source {self.name}: {self.paths[0]} is empty: it holds no documents")


def json_rows(files: Files, start: int) -> Iterator[Row]:
    """Yield the rows of JSON lines or arrays, from place ``start`` on.

    Raises
    ------
    UserError
        If the files are empty, damaged or of another kind.
    """
    if all(map(_is_plain, files.paths)):
        return _indexed_rows(files, start)
    return _forward_rows(files, _json_lines, start)


def csv_rows(files: Files, start: int) -> Iterator[Row]:
    """Yield the rows of CSV files with a header; separated by commas, tabs or semicolons.

    Raises
    ------
    UserError
        If the files are empty, damaged or of another kind.
    """
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    return _forward_rows(files, _csv_lines, start)


def _is_plain(path: Path) -> bool:
    """Return whether a file can be read by an index of its lines."""
    with path.open("rb") as file:
        start = file.read(SNIFFED)
    if compression(path) or encoding(start) != "utf-8":
        return False
    known = any(start.startswith(magic) for magic in OTHERS)
    return not known and not _is_array(start.removeprefix(codecs.BOM_UTF8))


def _is_array(start: bytes) -> bool:
    return start.lstrip().startswith(b"[")


def _indexed_rows(files: Files, start: int) -> Iterator[Row]:
    index = [_line_starts(path) for path in files.paths]
    ends = list(accumulate(len(starts) for starts, _ in index))
    order = array("q", range(ends[-1]))
    if not order:
        raise files.empty()
    random.Random(files.seed).shuffle(order)
    with OpenFiles() as opened:
        for item in order[start:]:
            which = bisect_right(ends, item)
            starts, numbers = index[which]
            line, path = item - ends[which] + len(starts), files.paths[which]
            file = opened.get(path)
            file.seek(starts[line])
            text = file.readline().strip().removeprefix(codecs.BOM_UTF8)
            yield f"{path} line {numbers[line]}", _json_record(text)


class OpenFiles(ExitStack):
    """Keeps some files open, since a process may have no more than 256 on some systems."""

    def __init__(self) -> None:
        super().__init__()
        self._open: dict[Path, IO[bytes]] = {}
        self.callback(lambda: [file.close() for file in self._open.values()])

    def get(self, path: Path) -> IO[bytes]:
        """Return an open file; where there are too many, the one opened first is closed."""
        if path not in self._open:
            if len(self._open) >= MOST_OPEN:
                self._open.pop(next(iter(self._open))).close()
            self._open[path] = path.open("rb")
        return self._open[path]


def _line_starts(path: Path) -> tuple[array[int], array[int]]:
    """Return the byte offset and the number of each line that is not blank."""
    starts, numbers, offset = array("q"), array("q"), 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.removeprefix(codecs.BOM_UTF8).strip():
                starts.append(offset)
                numbers.append(number)
            offset += len(line)
    return starts, numbers


def _json_record(line: bytes) -> Record | RowError:
    try:
        record = json.loads(line.decode())
    except UnicodeDecodeError as error:
        return RowError("not UTF-8", f"is not UTF-8 ({error}): save the file as UTF-8")
    except json.JSONDecodeError as error:
        return RowError("no valid JSON", f"is not valid JSON ({error}): fix it")
    except (RecursionError, MemoryError):
        return RowError("no valid JSON", "is not valid JSON (it is nested too deeply): fix it")
    except ValueError as error:  # of a number with thousands of digits
        return RowError("no valid JSON", f"is not valid JSON ({shortened(error)}): fix it")
    return _object(record)


def _object(record: object) -> Record | RowError:
    if isinstance(record, dict):
        return cast(Record, record)
    return RowError("no JSON object", "is no JSON object: write one object per line")


def _forward_rows(files: Files, read: Callable[[Path], Iterator[Row]], start: int) -> Iterator[Row]:
    paths = list(files.paths)
    random.Random(files.seed).shuffle(paths)
    rows = chain.from_iterable(map(read, paths))
    empty = True
    for row in shuffled_blocks(lambda first: islice(rows, first, None), files.seed, start):
        empty = False
        yield row
    if empty and not start:
        raise files.empty()


def _json_lines(path: Path) -> Iterator[Row]:
    if _is_array(read_start(path, SNIFFED).encode()):
        items = _array_items(path)
        if items is not None:
            yield from ((f"{path} item {n}", _object(item)) for n, item in enumerate(items, 1))
            return
    for number, line in enumerate(lines(path), 1):
        if line.strip():
            yield f"{path} line {number}", _json_record(line)


def _array_items(path: Path) -> list[object] | None:
    """Return the items of a JSON array, or None where the file is not one array."""
    with open_text(path) as (stream, encoded):
        data = stream.read(LARGEST_ARRAY + 1)
    if len(data) > LARGEST_ARRAY:
        raise UserError(
            f"{path} is a JSON array of more than {LARGEST_ARRAY >> 30} GiB, which would have to "
            "be held as a whole: write one object per line"
        )
    try:
        items = json.loads(data.decode(encoded, "replace").removeprefix("\ufeff"))
    except (ValueError, RecursionError, MemoryError):
        return None
    return items if isinstance(items, list) else None


def _csv_lines(path: Path) -> Iterator[Row]:
    header = read_start(path, SNIFFED).lstrip().partition("\n")[0]
    delimiter = max(DELIMITERS, key=header.count)
    text = (line.decode("utf-8", "replace") for line in lines(path))
    reader = csv.DictReader(text, restkey="", delimiter=delimiter)
    number = 0
    try:
        for number, row in enumerate(reader, 1):
            where = f"{path} row {number}"
            if "" in row and isinstance(row[""], list):
                yield (
                    where,
                    RowError("no row of the header", "has more fields than the header: fix it"),
                )
            else:
                yield where, row
    except csv.Error as error:
        raise UserError(
            f"{path} is no CSV file ({error}, after row {number}): check its quotes"
        ) from error


def without_column(name: str, column: str, known: Collection[str]) -> UserError:
    """Return the error of a source in which no record has a column of labels."""
    return UserError(
        f"source {name}: no record has the column {column!r} (they have "
        f"{listed(known)}): check its category_column"
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
