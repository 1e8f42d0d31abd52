"""Where documents come from: the built-in generator, JSON lines, Parquet, data sets of a hub.

A source yields its documents in an order fixed by its seed, without holding them in memory, and
from any place (``records``). ``settings`` describes the settings of each kind.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from workflow_scripts.common.cli import UserError
from workflow_scripts.dataset.hub import stream
from workflow_scripts.dataset.label_values import Labels, labels_of
from workflow_scripts.dataset.local_files import matches, patterns
from workflow_scripts.dataset.records import (
    Files,
    Record,
    gzip_records,
    jsonl_records,
    parquet_records,
    shuffled_blocks,
    without_column,
)
from workflow_scripts.dataset.settings import FileSource, GeneratorSource, HubSource, Source
from workflow_scripts.generator import generate

SEARCHED = 10_000  # records in which a column of labels must show up
MALFORMED = 100  # a hub's source that starts with so many unusable rows is refused
CHAT_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class DrawnDocument:
    """Plain ``text`` or chat ``messages`` (the other one is empty).

    ``labels`` are column and value; ``malformed`` says that a row of a hub's data set holds no
    document.
    """

    text: str
    messages: tuple[tuple[str, str], ...] = ()
    category: str = ""
    labels: Labels = ()
    malformed: bool = False

    @property
    def kind(self) -> str:
        """``chat`` or ``plain``."""
        return "chat" if self.messages else "plain"

    @property
    def content(self) -> str:
        """All text of the document, messages joined by line breaks."""
        return self.text or "\n".join(content for _, content in self.messages)


@dataclass(frozen=True)
class NamedSource:
    """A source with its name, and its seed: its own, or the run's.

    Raises
    ------
    UserError
        If a file does not exist.
    """

    name: str
    settings: Source
    run_seed: int

    def __post_init__(self) -> None:
        for pattern in patterns(self.settings) if isinstance(self.settings, FileSource) else ():
            if not matches(pattern):
                raise UserError(f"source {self.name}: {pattern} does not exist: check its `path`")

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

    def _records(
        self, settings: FileSource | HubSource, start: int
    ) -> Iterator[tuple[str, Record]]:
        columns = [name for name in (settings.text_column, settings.messages_column) if name]
        if isinstance(settings, HubSource):
            return _hub_records(settings, columns, f"{self.seed}:{self.name}", start)
        labels = settings.label_columns
        files = Files(self.name, self.paths, f"{self.seed}:{self.name}")
        if settings.kind == "parquet":
            return parquet_records(files, columns, labels, start)
        gzipped = any(path.suffix == ".gz" for path in files.paths)
        return gzip_records(files, start) if gzipped else jsonl_records(files, start)

    def _parsed(self, settings: FileSource | HubSource, start: int) -> Iterator[DrawnDocument]:
        chat = bool(settings.messages_column)
        column = settings.messages_column or settings.text_column
        if not column:
            for _, record in self._records(settings, 0):
                chat = "messages" in record
                column = "messages" if chat else "text"
                break
        if not column:
            return
        good = start > 0
        records = self._labelled(settings, start)
        for number, (where, record, labels) in enumerate(records):
            try:
                document = _document(record, column, chat, f"source {self.name}: {where}")
                document = replace(document, labels=labels)
            except UserError:
                # Nobody can fix a hub's rows, but rows of another form are a wrong setting.
                fixable = not isinstance(settings, HubSource) or column not in record
                if fixable or not (good or number < MALFORMED):
                    raise
                document = DrawnDocument("", malformed=True)
            good = good or not document.malformed
            yield document

    def _labelled(
        self, settings: FileSource | HubSource, start: int
    ) -> Iterator[tuple[str, Record, Labels]]:
        """Yield each record with where it stands and its labels.

        Raises
        ------
        UserError
            If a column of labels is in none of the first records, or a value is no label.
        """
        columns = settings.label_columns
        absent = set() if start else set(columns)
        known: set[str] = set()
        for number, (where, record) in enumerate(self._records(settings, start), 1):
            if absent:
                known |= record.keys()
                absent -= known
            if absent and number == SEARCHED:
                break
            yield where, record, labels_of(record, columns, f"source {self.name}: {where}")
        if absent:
            raise without_column(self.name, min(absent), known)


def _document(record: Record, column: str, chat: bool, where: str) -> DrawnDocument:
    """Return the document of a record.

    Raises
    ------
    UserError
        If the column is missing, or holds neither text nor, for a chat, messages.
    """
    if column not in record:
        raise UserError(
            f"{where} has no column {column!r} (it has {', '.join(sorted(record)) or 'none'}): "
            "set text_column or messages_column"
        )
    value = record[column]
    if chat:
        return DrawnDocument("", parse_messages(value, where))
    if value is None or isinstance(value, str):
        return DrawnDocument(value or "")
    raise UserError(
        f"{where} holds {type(value).__name__} in {column!r}, not text: choose another text_column"
    )


def _hub_records(
    data: HubSource, columns: list[str], seed: str, start: int
) -> Iterator[tuple[str, Record]]:
    def rows(first: int) -> Iterator[tuple[str, Record]]:
        labels = data.label_columns
        for number, row in enumerate(stream(data, columns, labels, first), first):
            yield f"row {number} of {data.path}", row

    return shuffled_blocks(rows, seed, start)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def parse_messages(value: object, where: str) -> tuple[tuple[str, str], ...]:
    """Check and convert a chat: a list of ``{"role", "content"}``, or the JSON text of one.

    Raises
    ------
    UserError
        If it has another form, an unknown role, or no user message.
    """
    form = 'a list of {"role": "user" | "assistant" | "system", "content": text}'
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            raise UserError(f"{where} holds text for messages, not {form}") from None
    if not isinstance(value, list) or not value:
        raise UserError(f"{where} holds {type(value).__name__} for messages, not {form}")
    messages = []
    for item in value:
        if not isinstance(item, dict) or not isinstance(item.get("content"), str):
            raise UserError(f"{where} has a message without text content: messages are {form}")
        if item.get("role") not in CHAT_ROLES:
            raise UserError(f"{where} has the role {item.get('role')!r}: messages are {form}")
        messages.append((str(item["role"]), str(item["content"])))
    if all(role != "user" for role, _ in messages):
        raise UserError(f"{where} has no user message: messages are {form}")
    return tuple(messages)


def _generated(
    categories: Mapping[str, float], seed: int, cost: Callable[[DrawnDocument], float]
) -> Iterator[DrawnDocument]:
    def one(category: str) -> Iterator[DrawnDocument]:
        index = 0
        while True:
            document = generate(category, index, seed)
            yield DrawnDocument(document.text, document.messages, category)
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
