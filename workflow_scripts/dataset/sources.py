"""Where documents come from: the built-in generator, JSON lines, Parquet, data sets of a hub.

A source yields its documents in an order fixed by its seed, without holding them in memory, and
from any place on (``records``). The settings of a source:

- ``kind``: ``generator``, ``jsonl``, ``parquet`` or ``huggingface``; ``weight``: share of the
  tokens (default 1); ``seed``: of its order or of the generator (default: the run's).
- ``categories`` (generator): category to share of the source's tokens, or a list of categories;
  all in equal shares by default.
- ``path`` (files): a path or glob pattern, or a list of them; JSON lines may be gzipped (``.gz``).
- ``path`` (hub): id of a data set, or a folder in the hub's layout; with ``name``, ``revision``
  and ``split``.
- ``text_column`` and ``messages_column``: where plain text, or a list of ``{"role", "content"}``,
  stands. Without either, ``messages`` is taken where the first record has it, else ``text``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from workflow_scripts.common.cli import UserError
from workflow_scripts.dataset.hub import DataSet, stream
from workflow_scripts.dataset.records import (
    Files,
    Record,
    gzip_records,
    jsonl_records,
    parquet_records,
    shuffled_blocks,
)
from workflow_scripts.generator import CHAT_CATEGORIES, PLAIN_CATEGORIES, generate

MALFORMED = 100  # a hub's source that starts with so many rows of no use is refused
CHAT_ROLES = ("system", "user", "assistant")
_KEYS = {
    "generator": {"kind", "weight", "seed", "categories"},
    "jsonl": {"kind", "weight", "seed", "path", "text_column", "messages_column"},
    "parquet": {"kind", "weight", "seed", "path", "text_column", "messages_column"},
    "huggingface": {"kind", "weight", "seed", "path", "name", "revision", "split", "text_column",
                    "messages_column"},
}  # fmt: skip


@dataclass(frozen=True)
class Draft:
    """A drawn document: plain ``text`` or chat ``messages`` (the other one is empty).

    ``malformed`` says that a row of a hub's data set holds no document.
    """

    text: str
    messages: tuple[tuple[str, str], ...] = ()
    category: str = ""
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
    data: DataSet | None = None

    def drafts(self, cost: Callable[[Draft], float], start: int = 0) -> Iterator[Draft]:
        """Yield the documents from number ``start`` on; ``cost`` is a document's size in tokens."""
        if self.kind == "generator":
            return islice(_generated(self.categories, self.seed, cost), start, None)
        return self._parsed(start)

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of each file."""
        return {path.name: _digest(path) for path in self.paths}

    def _records(self, start: int) -> Iterator[tuple[str, Record]]:
        columns = [name for name in (self.text_column, self.messages_column) if name]
        if self.data is not None:
            return _hub_records(self.data, columns, f"{self.seed}:{self.name}", start)
        files = Files(self.name, self.paths, f"{self.seed}:{self.name}")
        if self.kind == "parquet":
            return parquet_records(files, columns, start)
        gzipped = any(path.suffix == ".gz" for path in self.paths)
        return gzip_records(files, start) if gzipped else jsonl_records(files, start)

    def _parsed(self, start: int) -> Iterator[Draft]:
        column, chat = self.messages_column or self.text_column, bool(self.messages_column)
        if not column:
            for _, record in self._records(0):
                chat = "messages" in record
                column = "messages" if chat else "text"
                break
        good = start > 0
        for number, (where, record) in enumerate(self._records(start)):
            try:
                draft = _draft(record, column, chat, f"source {self.name}: {where}")
            except UserError:
                # Nobody can mend a hub's rows, but rows of another form are a wrong setting.
                if self.data is None or column not in record or not (good or number < MALFORMED):
                    raise
                draft = Draft("", malformed=True)
            good = good or not draft.malformed
            yield draft


def _draft(record: Record, column: str, chat: bool, where: str) -> Draft:
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
        return Draft("", parse_messages(value, where))
    if value is None or isinstance(value, str):
        return Draft(value or "")
    raise UserError(
        f"{where} holds {type(value).__name__} in {column!r}, not text: choose another text_column"
    )


def _hub_records(
    data: DataSet, columns: list[str], seed: str, start: int
) -> Iterator[tuple[str, Record]]:
    def rows(first: int) -> Iterator[tuple[str, Record]]:
        for number, row in enumerate(stream(data, columns, first), first):
            yield f"row {number} of {data.path}", row

    return shuffled_blocks(rows, seed, start)


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
        paths=_paths(name, given.get("path")) if kind in ("jsonl", "parquet") else (),
        text_column=str(given.get("text_column", "")),
        messages_column=str(given.get("messages_column", "")),
        data=_data_set(name, given) if kind == "huggingface" else None,
    )


def _data_set(name: str, given: Mapping[str, object]) -> DataSet:
    if not given.get("path"):
        raise UserError(f"source {name}: no path is given: set `path` to a data set or folder")
    data = DataSet(
        path=str(given["path"]),
        name=str(given["name"]) if "name" in given else None,
        revision=str(given["revision"]) if "revision" in given else None,
        split=str(given.get("split", "train")),
    )
    if data.revision is None and not data.local:
        raise UserError(f"source {name}: no revision is given: set the commit of {data.path}")
    return data


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

    def __init__(
        self,
        streams: Mapping[str, Iterator[Draft]],
        weights: Mapping[str, float],
        spent: Mapping[str, float] | None = None,
    ) -> None:
        self.streams = dict(streams)
        self.spent = dict.fromkeys(streams, 0.0) | dict(spent or {})
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
