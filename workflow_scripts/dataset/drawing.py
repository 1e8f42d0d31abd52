"""Draw distinct documents from several sources, part by part."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from workflow_scripts.dataset.bad_rows import BadRows
from workflow_scripts.dataset.record_forms import DrawnDocument
from workflow_scripts.dataset.settings import Sampling
from workflow_scripts.dataset.shards import SPLITS
from workflow_scripts.dataset.sources import Mixer, NamedSource

REPEATS = 2000  # a source that repeats itself so often in a row has nothing new
CHAT_OVERHEAD = 5  # tokens of the template per message, estimated


@dataclass
class SourceCount:
    """What a source contributed to a part.

    ``bad_rows`` are those without a document, by kind; ``changes`` counts the documents of which
    something was altered or left out.
    """

    kind: str
    documents: int = 0
    estimated_tokens: float = 0.0
    duplicates: int = 0
    empty: int = 0
    exhausted: bool = False
    bad_rows: Counter[str] = field(default_factory=Counter)
    changes: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    categories: Counter[str] = field(default_factory=Counter)
    files: dict[str, str] = field(default_factory=dict)


@dataclass
class Place:
    """Where drawing stands: documents and tokens so far, and what each source has given."""

    documents: int = 0
    tokens: float = 0.0
    taken: dict[str, int] = field(default_factory=dict)
    spent: dict[str, float] = field(default_factory=dict)
    repeats: dict[str, int] = field(default_factory=dict)
    bad_rows: dict[str, int] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class DocumentRow:
    """One line of a part's table."""

    document: int
    source: str
    kind: str
    category: str
    split: str
    text: str
    messages: str
    hash: str
    labels: str


def estimate_tokens(document: DrawnDocument, sampling: Sampling) -> float:
    """Return the estimated tokens of a document."""
    content = len(document.content.encode()) / sampling.bytes_per_token
    return min(sampling.longest, 1 + content + CHAT_OVERHEAD * len(document.messages))


def content_hash(document: DrawnDocument) -> str:
    """Return the SHA-256 of a document's content.

    Unicode is brought to NFC and runs of white space to one blank first, so that documents that
    differ in nothing else count as one.
    """

    def normal(text: str) -> str:
        return " ".join(unicodedata.normalize("NFC", text).split())

    if document.messages:
        turns = [
            [turn.role, normal(turn.content), *([turn.extra] if turn.extra else [])]
            for turn in document.messages
        ]
        canonical = json.dumps(turns, ensure_ascii=False)
    else:
        canonical = normal(document.text)
    return hashlib.sha256(canonical.encode()).hexdigest()


def split_of(digest: str, splits: Mapping[str, float]) -> str:
    """Return the split of a document with content hash ``digest`` (hex)."""
    point = int(digest[:13], 16) / 16**13
    total = 0.0
    for name in SPLITS:
        total += splits.get(name, 0.0)
        if point < total:
            return name
    return next(name for name in reversed(SPLITS) if splits.get(name, 0.0) > 0)


class Drawing:
    """Draws documents from ``place`` on; ``seen`` are the hashes of all documents so far."""

    def __init__(
        self, sources: Sequence[NamedSource], sampling: Sampling, place: Place, seen: set[bytes]
    ) -> None:
        self.sampling = sampling
        self.place = place
        self.seen = seen
        self._taken, self._repeats = Counter(place.taken), Counter(place.repeats)
        self._bad_rows = {
            s.name: BadRows(s.name, s.bad_rows, place.bad_rows.get(s.name, 0)) for s in sources
        }
        live = [source for source in sources if source.name not in place.ended]
        self._mixer = Mixer(
            {s.name: s.documents(self._cost, place.taken.get(s.name, 0)) for s in live},
            {s.name: s.settings.weight for s in sources},
            place.spent,
        )

    def _cost(self, document: DrawnDocument) -> float:
        return estimate_tokens(document, self.sampling)

    def part(self, budget: int, counts: Mapping[str, SourceCount]) -> Iterator[DocumentRow]:
        """Yield documents until the budget of tokens, that of earlier parts included, is met.

        ``counts`` are kept up to date; at the end ``place`` is where the next part goes on.

        Raises
        ------
        UserError
            If too many rows of a source hold no document.
        """
        place = self.place
        splits = self.sampling.splits.model_dump()
        while place.tokens < (1 + self.sampling.reserve) * budget:
            try:
                name, document = self._mixer.draw()
            except LookupError:
                break
            self._taken[name] += 1
            if document.problem:
                counts[name].bad_rows[document.problem.kind] += 1
                self._bad_rows[name].add(document, self._taken[name])
                continue
            digest = content_hash(document)
            if reason := _reason_to_skip(document, bytes.fromhex(digest), self.seen):
                setattr(counts[name], reason, getattr(counts[name], reason) + 1)
                self._repeats[name] += 1
                if self._repeats[name] >= REPEATS:
                    self._mixer.close(name)
                continue
            self._repeats[name] = 0
            self.seen.add(bytes.fromhex(digest))
            counts[name].changes.update(document.changes)
            tokens = self._cost(document)
            place.tokens += tokens
            self._mixer.charge(name, tokens)
            row = _row(place.documents, name, document, digest, splits)
            place.documents += 1
            _count(counts[name], row, tokens)
            yield row
        self._finish(counts)

    def _finish(self, counts: Mapping[str, SourceCount]) -> None:
        place, streams = self.place, self._mixer.streams
        place.taken, place.repeats = dict(self._taken), dict(self._repeats)
        place.spent = dict(self._mixer.spent)
        place.ended = [name for name in counts if name not in streams]
        place.bad_rows = {name: rows.bad for name, rows in self._bad_rows.items()}
        for name in place.ended:
            counts[name].exhausted = True
            self._bad_rows[name].finish(self._taken[name])


def _reason_to_skip(document: DrawnDocument, key: bytes, seen: set[bytes]) -> str:
    """Return why a drawn document is skipped, or an empty string."""
    if not document.content.strip():
        return "empty"
    return "duplicates" if key in seen else ""


def _row(
    number: int, name: str, document: DrawnDocument, digest: str, splits: Mapping[str, float]
) -> DocumentRow:
    messages = [turn.message() for turn in document.messages]
    return DocumentRow(
        document=number,
        source=name,
        kind=document.kind,
        category=document.category,
        split=split_of(digest, splits),
        text=document.text,
        messages=json.dumps(messages, ensure_ascii=False) if messages else "",
        hash=digest,
        labels=json.dumps(dict(document.labels), ensure_ascii=False) if document.labels else "",
    )


def _count(count: SourceCount, row: DocumentRow, tokens: float) -> None:
    count.documents += 1
    count.estimated_tokens += tokens
    count.splits[row.split] += 1
    if row.category:
        count.categories[row.category] += 1
