"""Draw the documents that the models read: by seed, mix and token budget, without duplicates.

Documents come from the named sources so that each source's share of tokens follows its weight.
Tokens are estimated as UTF-8 bytes over ``bytes_per_token``, at most those of a document's rows,
until the budget and a reserve: the tokenizer comes later and takes what it needs. A document's
split is a function of its content alone.

The documents are written in parts: a part continues where the previous one ended, up to
its own, larger budget. So a larger sample has the parts of a smaller one, and more. A part is a
table (``document``, ``source``, ``kind``, ``category``, ``split``, ``text``, ``messages`` as a JSON
list, ``hash``, ``labels`` as a JSON object of columns) and a JSON file with its counts and the
state from which the next part continues.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from workflow_scripts.common import cli
from workflow_scripts.common.cli import UserError
from workflow_scripts.common.files import atomic_path, read_json, write_json
from workflow_scripts.common.progress import track
from workflow_scripts.common.provenance import provenance
from workflow_scripts.common.settings import Name
from workflow_scripts.dataset.bad_rows import BadRows
from workflow_scripts.dataset.record_forms import DrawnDocument
from workflow_scripts.dataset.settings import Sampling, Source
from workflow_scripts.dataset.shards import SPLITS
from workflow_scripts.dataset.sources import Mixer, NamedSource

REPEATS = 2000  # a source that repeats itself so often in a row has nothing new
ROW_GROUP = 10_000
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


def draw_documents(
    sources: Sequence[NamedSource],
    sampling: Sampling,
    budget: int,
    counts: Mapping[str, SourceCount],
    place: Place,
    seen: set[bytes],
) -> Iterator[DocumentRow]:
    """Yield distinct documents from ``place`` on until the budget of tokens is met.

    ``counts``, ``place`` and ``seen``, the hashes of all documents so far, are kept up to date.

    Raises
    ------
    UserError
        If too many rows of a source hold no document.
    """

    def cost(document: DrawnDocument) -> float:
        return estimate_tokens(document, sampling)

    splits = sampling.splits.model_dump()
    live = [source for source in sources if source.name not in place.ended]
    mixer = Mixer(
        {s.name: s.documents(cost, place.taken.get(s.name, 0)) for s in live},
        {s.name: s.settings.weight for s in sources},
        place.spent,
    )
    repeats = Counter(place.repeats)
    taken = Counter(place.taken)
    bad_rows = {s.name: BadRows(s.name, s.bad_rows, place.bad_rows.get(s.name, 0)) for s in sources}
    while place.tokens < (1 + sampling.reserve) * budget:
        try:
            name, document = mixer.draw()
        except LookupError:
            break
        taken[name] += 1
        if document.problem:
            counts[name].bad_rows[document.problem.kind] += 1
            bad_rows[name].add(document, taken[name])
            continue
        digest = content_hash(document)
        key = bytes.fromhex(digest)
        if reason := _reason_to_skip(document, key, seen):
            setattr(counts[name], reason, getattr(counts[name], reason) + 1)
            repeats[name] += 1
            if repeats[name] >= REPEATS:
                mixer.close(name)
            continue
        repeats[name] = 0
        seen.add(key)
        counts[name].changes.update(document.changes)
        tokens = cost(document)
        place.tokens += tokens
        mixer.charge(name, tokens)
        row = _row(place.documents, name, document, digest, splits)
        place.documents += 1
        _count(counts[name], row, tokens)
        yield row
    place.taken, place.repeats, place.spent = dict(taken), dict(repeats), mixer.spent
    place.ended = [source.name for source in sources if source.name not in mixer.streams]
    place.bad_rows = {name: of_source.bad for name, of_source in bad_rows.items()}
    for name in place.ended:
        counts[name].exhausted = True
        bad_rows[name].finish(taken[name])


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


def sample_documents(
    sources: dict[Name, Source],
    sampling: Sampling,
    tokens: int,
    seed: int,
    output: Path,
    manifest: Path,
    earlier: tuple[Path, ...] = (),
    state: Path | None = None,
) -> None:
    """Write one part of the sample: the documents after the earlier parts, up to the budget.

    Parameters
    ----------
    sources
        where documents come from, by name (JSON)
    tokens
        budget of tokens, the earlier parts' included
    seed
        seed of the sources that have none of their own
    output
        table of this part to write (Parquet)
    manifest
        counts of this part to write, and where the next one goes on (JSON)
    earlier
        tables of the earlier parts, in order
    state
        manifest of the part before

    Raises
    ------
    UserError
        If the sources hold no document at all, or a source too many rows without one.
    """
    origin = provenance(__file__)  # the code may change while documents are drawn
    named = [NamedSource(name, settings, seed) for name, settings in sources.items()]
    place = Place(**read_json(state)["place"]) if state else Place()
    seen = {key for path in earlier for key in _hashes(path)}
    counts = {
        source.name: SourceCount(source.settings.kind, files={} if state else source.digests())
        for source in named
    }
    before = place.documents
    with atomic_path(output) as temporary:
        drawn = draw_documents(named, sampling, tokens, counts, place, seen)
        _write_rows(temporary, drawn, _category_names(named))
        if not place.documents:
            names = ", ".join(counts)
            raise UserError(f"the sources ({names}) hold no text: every document is empty")
    short = place.tokens < tokens
    for name, count in counts.items():
        for kind, rows in count.bad_rows.items():
            cli.log(f"source {name}: {rows} rows without a document skipped: {kind}")
        for change, changed in count.changes.items():
            cli.log(f"source {name}: {changed} documents with {change}")
        if count.exhausted:
            cli.log(f"source {name} has no more different documents")
    if short:
        cli.log(f"the text is short: about {place.tokens:.0f} tokens of {tokens}")
    write_json(
        manifest,
        {
            "documents": place.documents - before,
            "tokens_wanted": tokens,
            "tokens_estimated": round(sum(c.estimated_tokens for c in counts.values())),
            "short": short,
            "sources": {
                name: {**vars(count), "estimated_tokens": round(count.estimated_tokens)}
                for name, count in counts.items()
            },
            "place": vars(place),
            "provenance": origin,
        },
    )


def _category_names(sources: Sequence[NamedSource]) -> list[str]:
    """Return the categories that any part may hold, sorted."""
    return sorted({category for source in sources for category in source.categories})


def _hashes(path: Path) -> Iterator[bytes]:
    import pyarrow.parquet as pq

    for digest in pq.read_table(path, columns=["hash"])["hash"].to_pylist():
        yield bytes.fromhex(digest)


def _write_rows(path: Path, rows: Iterator[DocumentRow], categories: Sequence[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = ("source", "kind", "category", "split", "text", "messages", "hash", "labels")
    schema = pa.schema(
        [("document", pa.int64()), *((name, pa.large_string()) for name in names)],
        metadata={"categories": json.dumps(categories)},
    )
    group: list[dict[str, object]] = []
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for row in track(rows, "documents"):
            group.append(vars(row))
            if len(group) == ROW_GROUP:
                writer.write_table(pa.Table.from_pylist(group, schema))
                group = []
        writer.write_table(pa.Table.from_pylist(group, schema))


main = cli.command(sample_documents)


if __name__ == "__main__":
    raise SystemExit(main())
