"""Where documents come from: the built-in generator, JSON lines, Parquet.

A source yields its documents in an order fixed by its seed, without holding them in memory:
JSON lines by an index of line starts, Parquet by row groups. The settings of a source:

- ``kind``: ``generator``, ``jsonl`` or ``parquet``; ``weight``: share of the tokens (default 1);
  ``seed``: of its order or of the generator (default: the run's).
- ``categories`` (generator): category to share of the source's tokens, or a list of categories;
  all in equal shares by default.
- ``path`` (files): a path or glob pattern, or a list of them. ``text_column`` and
  ``messages_column``: where plain text, or a list of ``{"role", "content"}``, stands. Without
  either, ``messages`` is taken where the first record has it, else ``text``.
"""

from __future__ import annotations

import hashlib
import json
import random
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from workflow_scripts.cli import UserError
from workflow_scripts.dataset.generator import CHAT_CATEGORIES, PLAIN_CATEGORIES, generate

CHAT_ROLES = ("system", "user", "assistant")
_KEYS = {
    "generator": {"kind", "weight", "seed", "categories"},
    "jsonl": {"kind", "weight", "seed", "path", "text_column", "messages_column"},
    "parquet": {"kind", "weight", "seed", "path", "text_column", "messages_column"},
}
Record = Mapping[str, object]


@dataclass(frozen=True)
class Draft:
    """A drawn document: plain ``text`` or chat ``messages`` (the other one is empty)."""

    text: str
    messages: tuple[tuple[str, str], ...] = ()
    category: str = ""

    @property
    def kind(self) -> str:
        """``chat`` or ``plain``."""
        return "chat" if self.messages else "plain"

    @property
    def content(self) -> str:
        """All text of the document, messages joined by line breaks."""
        return self.text or "\n".join(content for _, content in self.messages)


@dataclass(frozen=True)
class Source:
    """A checked source."""

    name: str
    kind: str
    weight: float
    seed: int
    categories: Mapping[str, float]
    paths: tuple[Path, ...]
    text_column: str
    messages_column: str

    def drafts(self, cost: Callable[[Draft], float]) -> Iterator[Draft]:
        """Yield the source's documents; ``cost`` is a document's size in tokens."""
        if self.kind == "generator":
            return _generated(self.categories, self.seed, cost)
        records = _jsonl_records if self.kind == "jsonl" else _parquet_records
        return self._parsed(records(self))

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of each file."""
        return {path.name: _digest(path) for path in self.paths}

    def _parsed(self, records: Iterable[tuple[str, Record]]) -> Iterator[Draft]:
        column, chat = self.messages_column or self.text_column, bool(self.messages_column)
        for where, record in records:
            if not column:
                chat = "messages" in record
                column = "messages" if chat else "text"
            if column not in record:
                raise UserError(
                    f"source {self.name}: {where} has no column {column!r} "
                    f"(it has {', '.join(sorted(record)) or 'none'}): "
                    "set text_column or messages_column"
                )
            value = record[column]
            if chat:
                yield Draft("", parse_messages(value, f"source {self.name}: {where}"))
            elif value is None or isinstance(value, str):
                yield Draft(value or "")
            else:
                raise UserError(
                    f"source {self.name}: {where} holds {type(value).__name__} in {column!r}, "
                    "not text: choose another text_column"
                )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def parse_sources(settings: object, seed: int) -> list[Source]:
    """Check the ``sources`` of a run.

    Raises
    ------
    UserError
        On a wrong type, an unknown kind, key or category, a weight that is not positive, or a
        file that does not exist.
    """
    if not isinstance(settings, dict) or not settings:
        raise UserError("text.sources is empty or no mapping: name at least one source")
    return [_parse_source(str(name), value, seed) for name, value in settings.items()]


def _parse_source(name: str, value: object, seed: int) -> Source:
    if not isinstance(value, dict):
        raise UserError(f"source {name}: its settings are no mapping: give at least `kind`")
    given = {key: item for key, item in value.items() if item is not None}
    kind = given.get("kind")
    if kind not in _KEYS:
        raise UserError(f"source {name}: kind {kind!r} is unknown: use one of {', '.join(_KEYS)}")
    unknown = sorted(set(given) - _KEYS[kind])
    if unknown:
        raise UserError(
            f"source {name}: {unknown[0]!r} is no setting of a {kind} source: "
            f"use {', '.join(sorted(_KEYS[kind]))}"
        )
    if "text_column" in given and "messages_column" in given:
        raise UserError(f"source {name}: give text_column or messages_column, not both")
    return Source(
        name=name,
        kind=kind,
        weight=_positive(given.get("weight", 1.0), f"source {name}: weight"),
        seed=int(given.get("seed", seed)),
        categories=_categories(name, given.get("categories")) if kind == "generator" else {},
        paths=() if kind == "generator" else _paths(name, given.get("path")),
        text_column=str(given.get("text_column", "")),
        messages_column=str(given.get("messages_column", "")),
    )


def _positive(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise UserError(f"{what} is {value!r}: give a number above 0")
    return float(value)


def _categories(name: str, value: object) -> dict[str, float]:
    known = PLAIN_CATEGORIES + CHAT_CATEGORIES
    if value is None:
        return dict.fromkeys(known, 1.0)
    if not isinstance(value, dict | list) or not value:
        raise UserError(f"source {name}: categories are no mapping or list of generator categories")
    pairs = value.items() if isinstance(value, dict) else ((item, 1.0) for item in value)
    result = {str(key): _positive(w, f"source {name}: weight of {key}") for key, w in pairs}
    unknown = [category for category in result if category not in known]
    if unknown:
        raise UserError(
            f"source {name}: the generator has no category {unknown[0]!r}: "
            f"use some of {', '.join(known)}"
        )
    return result


def _paths(name: str, value: object) -> tuple[Path, ...]:
    patterns = [value] if isinstance(value, str) else value
    if not isinstance(patterns, list) or not patterns:
        raise UserError(f"source {name}: no path is given: set `path` to a file or glob pattern")
    found: list[Path] = []
    for pattern in patterns:
        path = Path(str(pattern))
        root = Path(path.anchor)
        matches = [path] if path.exists() else sorted(root.glob(str(path.relative_to(root))))
        files = [match for match in matches if match.is_file()]
        if not files:
            raise UserError(f"source {name}: {pattern} does not exist: check its `path`")
        found.extend(files)
    return tuple(found)


def parse_messages(value: object, where: str) -> tuple[tuple[str, str], ...]:
    """Check and convert a chat: a list of ``{"role", "content"}``, or the JSON text of one.

    Raises
    ------
    UserError
        If it has another form, an unknown role, or no user message.
    """
    wanted = 'a list of {"role": "user" | "assistant" | "system", "content": text}'
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            raise UserError(f"{where} holds text for messages, not {wanted}") from None
    if not isinstance(value, list) or not value:
        raise UserError(f"{where} holds {type(value).__name__} for messages, not {wanted}")
    messages = []
    for item in value:
        if not isinstance(item, dict) or not isinstance(item.get("content"), str):
            raise UserError(f"{where} has a message without text content: messages are {wanted}")
        if item.get("role") not in CHAT_ROLES:
            raise UserError(f"{where} has the role {item.get('role')!r}: messages are {wanted}")
        messages.append((str(item["role"]), str(item["content"])))
    if all(role != "user" for role, _ in messages):
        raise UserError(f"{where} has no user message: messages are {wanted}")
    return tuple(messages)


def _generated(
    categories: Mapping[str, float], seed: int, cost: Callable[[Draft], float]
) -> Iterator[Draft]:
    def one(category: str) -> Iterator[Draft]:
        index = 0
        while True:
            document = generate(category, index, seed)
            yield Draft(document.text, document.messages, category)
            index += 1

    mixed = Mixer({category: one(category) for category in categories}, categories)
    while True:
        category, draft = mixed.draw()
        mixed.charge(category, cost(draft))
        yield draft


class Mixer:
    """Draws from several streams so that the token shares follow the weights.

    The next document comes from the stream with the least tokens per weight so far: the order
    does not depend on the budget, so that a larger sample starts with the smaller one.
    """

    def __init__(self, streams: Mapping[str, Iterator[Draft]], weights: Mapping[str, float]):
        self.streams = dict(streams)
        self.spent = dict.fromkeys(streams, 0.0)
        self.weights = weights

    def draw(self) -> tuple[str, Draft]:
        """Return the next document and its stream's name.

        Raises
        ------
        LookupError
            If every stream has ended.
        """
        while self.streams:
            name = min(self.streams, key=lambda key: self.spent[key] / self.weights[key])
            draft = next(self.streams[name], None)
            if draft is not None:
                return name, draft
            self.close(name)
        raise LookupError("every stream has ended")

    def charge(self, name: str, tokens: float) -> None:
        """Count ``tokens`` for a stream."""
        self.spent[name] += tokens

    def close(self, name: str) -> None:
        """Draw no more from a stream."""
        del self.streams[name]


def _jsonl_records(source: Source) -> Iterator[tuple[str, Record]]:
    index: list[tuple[Path, array[int], array[int]]] = []
    for path in source.paths:
        index.append((path, *_line_starts(path)))
    order = array("q", range(sum(len(starts) for _, starts, _ in index)))
    if not order:
        raise UserError(f"source {source.name}: {source.paths[0]} is empty: it holds no documents")
    random.Random(f"{source.seed}:{source.name}").shuffle(order)
    handles = [path.open("rb") for path, _, _ in index]
    try:
        for item in order:
            which = 0
            while item >= len(index[which][1]):
                item -= len(index[which][1])
                which += 1
            path, starts, numbers = index[which]
            handles[which].seek(starts[item])
            where = f"{path} line {numbers[item]}"
            yield where, _json_record(handles[which].readline(), where, source.name)
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
        raise UserError(f"source {name}: {where} is not valid JSON ({error}): mend it") from None
    if not isinstance(record, dict):
        raise UserError(f"source {name}: {where} is no JSON object: write one object per line")
    return cast(Record, record)


def _parquet_records(source: Source) -> Iterator[tuple[str, Record]]:
    import pyarrow
    import pyarrow.parquet as pq

    groups: list[tuple[Path, int]] = []
    rows = 0
    for path in source.paths:
        try:
            meta = pq.read_metadata(path)
        except pyarrow.ArrowInvalid as error:
            raise UserError(
                f"source {source.name}: {path} is not a Parquet file ({error}): check its `path`"
            ) from None
        rows += meta.num_rows
        groups.extend((path, group) for group in range(meta.num_row_groups))
    if not rows:
        raise UserError(f"source {source.name}: {source.paths[0]} is empty: it holds no documents")
    generator = random.Random(f"{source.seed}:{source.name}")
    generator.shuffle(groups)
    wanted = {source.text_column, source.messages_column, "text", "messages"}
    for path, group in groups:
        file = pq.ParquetFile(path)
        names = set(file.schema_arrow.names)
        read = sorted(wanted & names) or sorted(names)[:1]
        records = file.read_row_group(group, columns=read).to_pylist()
        order = list(range(len(records)))
        generator.shuffle(order)
        for row in order:
            where = f"{path} row {row} of row group {group}"
            blank = dict.fromkeys(sorted(names))
            yield where, (records[row] if wanted & names else blank)
