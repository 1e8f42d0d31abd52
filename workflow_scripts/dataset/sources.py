"""Where documents come from: the built-in generator, local files, data sets of a hub.

A source yields its documents in an order fixed by its seed, without holding them in memory, and
from any place (``records``). ``settings`` describes the settings of each kind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from workflow_scripts.common.cli import UserError
from workflow_scripts.dataset.chats import ChatTurn, RowError
from workflow_scripts.dataset.hub import stream
from workflow_scripts.dataset.label_values import labels_of
from workflow_scripts.dataset.local_files import absence, check_readable, matches, patterns
from workflow_scripts.dataset.parquet_rows import parquet_rows
from workflow_scripts.dataset.record_forms import (
    Columns,
    DrawnDocument,
    MissingSettingError,
    bad_document,
    document_of,
    with_labels,
)
from workflow_scripts.dataset.records import (
    Files,
    Row,
    csv_rows,
    json_rows,
    shuffled_blocks,
    without_column,
)
from workflow_scripts.dataset.settings import (
    FileSource,
    GeneratorSource,
    HubSource,
    RecordSource,
    Source,
)
from workflow_scripts.generator import generate

SEARCHED = 10_000  # records in which a column of labels must show up


@dataclass(frozen=True)
class NamedSource:
    """A source with its name, and its seed: its own, or the run's.

    Raises
    ------
    UserError
        If a file does not exist or cannot be read.
    """

    name: str
    settings: Source
    run_seed: int

    def __post_init__(self) -> None:
        for pattern in patterns(self.settings) if isinstance(self.settings, FileSource) else ():
            if not matches(pattern):
                raise UserError(f"source {self.name}: {absence(pattern)}")
        for path in self.paths:
            check_readable(f"source {self.name}", path)

    @property
    def seed(self) -> int:
        """Seed of the order, or of the generator's documents."""
        return self.run_seed if self.settings.seed is None else self.settings.seed

    @property
    def paths(self) -> tuple[Path, ...]:
        """The local files, of a source that reads files."""
        chosen = patterns(self.settings) if isinstance(self.settings, FileSource) else []
        return tuple(path for pattern in chosen for path in matches(pattern))

    @property
    def bad_rows(self) -> Literal["stop", "skip"] | None:
        """What rows without a document do; those of the generator all have one."""
        return None if isinstance(self.settings, GeneratorSource) else self.settings.bad_rows

    @property
    def categories(self) -> Mapping[str, float]:
        """The categories of the generator's documents, with their shares."""
        return self.settings.shares if isinstance(self.settings, GeneratorSource) else {}

    def documents(
        self, cost: Callable[[DrawnDocument], float], start: int = 0
    ) -> Iterator[DrawnDocument]:
        """Yield the documents from number ``start`` on; ``cost`` is a document's size in tokens."""
        if isinstance(self.settings, GeneratorSource):
            return islice(_generated(self.settings.shares, self.seed, cost), start, None)
        return self._parsed(self.settings, start)

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of each file."""
        return {path.name: _digest(path) for path in self.paths}

    def _rows(self, settings: FileSource | HubSource, start: int) -> Iterator[Row]:
        columns = _columns(settings).names
        seed = f"{self.seed}:{self.name}"
        if isinstance(settings, HubSource):
            return _hub_rows(settings, columns, seed, start)
        files = Files(self.name, self.paths, seed)
        if settings.kind == "parquet":
            return parquet_rows(files, columns, settings.label_columns, start)
        return (csv_rows if settings.kind == "csv" else json_rows)(files, start)

    def _parsed(self, settings: FileSource | HubSource, start: int) -> Iterator[DrawnDocument]:
        """Yield a document per row, or what is wrong with the row.

        Raises
        ------
        UserError
            If rows need a setting that is not given, or a column of labels is in none of the first
            ones.
        """
        columns, labels = _columns(settings), settings.label_columns
        absent = set() if start else set(labels)
        known: set[str] = set()
        for number, (where, record) in enumerate(self._rows(settings, start), 1):
            try:
                if isinstance(record, RowError):
                    raise record
                known |= record.keys() if absent else set()
                document = document_of(record, columns)
                document = with_labels(document, labels_of(record, labels))
            except MissingSettingError as problem:
                raise UserError(f"source {self.name}: {where} {problem}") from None
            except RowError as problem:
                document = bad_document(problem, where)
            absent -= known
            if absent and number == SEARCHED:
                break
            yield document
        if absent and known:
            raise without_column(self.name, min(absent), known)


def _columns(settings: RecordSource) -> Columns:
    return Columns(settings.text_column, settings.messages_column, settings.preference)


def _hub_rows(data: HubSource, columns: list[str], seed: str, start: int) -> Iterator[Row]:
    def rows(first: int) -> Iterator[Row]:
        labels = data.label_columns
        for number, row in enumerate(stream(data, columns, labels, first), first):
            yield f"row {number} of {data.path}", row

    return shuffled_blocks(rows, seed, start)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _generated(
    categories: Mapping[str, float], seed: int, cost: Callable[[DrawnDocument], float]
) -> Iterator[DrawnDocument]:
    def one(category: str) -> Iterator[DrawnDocument]:
        index = 0
        while True:
            document = generate(category, index, seed)
            messages = tuple(ChatTurn(role, text) for role, text in document.messages)
            yield DrawnDocument(document.text, messages, category)
            index += 1

    mixed = Mixer({category: one(category) for category in categories}, categories)
    while True:
        category, drawn = mixed.draw()
        mixed.charge(category, cost(drawn))
        yield drawn


class Mixer:
    """Draws from several streams so that the token shares follow the weights.

    The next document comes from the stream with the least tokens per weight so far: the order
    does not depend on the budget, so that a larger sample starts with the smaller one.
    """

    def __init__(
        self,
        streams: Mapping[str, Iterator[DrawnDocument]],
        weights: Mapping[str, float],
        spent: Mapping[str, float] | None = None,
    ) -> None:
        self.streams = dict(streams)
        self.spent = dict.fromkeys(streams, 0.0) | dict(spent or {})
        self.weights = weights

    def draw(self) -> tuple[str, DrawnDocument]:
        """Return the next document and its stream's name.

        Raises
        ------
        LookupError
            If every stream has ended.
        """
        while self.streams:
            name = min(self.streams, key=lambda key: self.spent[key] / self.weights[key])
            document = next(self.streams[name], None)
            if document is not None:
                return name, document
            self.close(name)
        raise LookupError("every stream has ended")

    def charge(self, name: str, tokens: float) -> None:
        """Count ``tokens`` for a stream."""
        self.spent[name] += tokens

    def close(self, name: str) -> None:
        """Draw no more from a stream."""
        del self.streams[name]
