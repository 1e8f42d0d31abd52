"""Draw the documents that the models read: by seed, mix and token budget, without duplicates.

Documents come from the named sources so that each source's share of tokens follows its weight.
Tokens are estimated as UTF-8 bytes over ``bytes_per_token``, at most the context length, until
1.1 times the budget: the tokenizer comes later and takes what it needs. A document's split is a
function of its content alone.

The documents are written in parts: a part goes on where the one before ended, up to its own,
larger budget. So a larger sample has the parts of a smaller one, and more. A part is a table
(``document``, ``source``, ``kind``, ``category``, ``split``, ``text``, ``messages`` as a JSON list,
``hash``) and a JSON file with its counts and where drawing stands.
"""

from __future__ import annotations

import argparse
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
from workflow_scripts.common.provenance import provenance
from workflow_scripts.dataset.shards import SPLITS
from workflow_scripts.dataset.sources import Draft, Mixer, Source, parse_sources

MARGIN = 1.1
REPEATS = 2000  # a source that repeats itself so often in a row has nothing new
ROW_GROUP = 10_000
CHAT_OVERHEAD = 5  # tokens of the template per message, estimated


@dataclass(frozen=True)
class Budget:
    """How much text is drawn: the tokens wanted and how they are estimated."""

    tokens: int
    context_length: int
    bytes_per_token: float

    def estimate(self, draft: Draft) -> float:
        """Return the estimated tokens of a document."""
        content = len(draft.content.encode()) / self.bytes_per_token
        return min(self.context_length, 1 + content + CHAT_OVERHEAD * len(draft.messages))


@dataclass
class SourceCount:
    """What a source gave to a part."""

    kind: str
    documents: int = 0
    estimated_tokens: float = 0.0
    duplicates: int = 0
    empty: int = 0
    malformed: int = 0
    exhausted: bool = False
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
    ended: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Row:
    """One line of a part's table."""

    document: int
    source: str
    kind: str
    category: str
    split: str
    text: str
    messages: str
    hash: str


def content_hash(draft: Draft) -> str:
    """Return the SHA-256 of a document's content.

    Unicode is brought to NFC and runs of white space to one blank first, so that documents that
    differ in nothing else count as one.
    """

    def normal(text: str) -> str:
        return " ".join(unicodedata.normalize("NFC", text).split())

    if draft.messages:
        pairs = [[role, normal(content)] for role, content in draft.messages]
        canonical = json.dumps(pairs, ensure_ascii=False)
    else:
        canonical = normal(draft.text)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


def split_of(digest: str, splits: Mapping[str, float]) -> str:
    """Return the split of a document with content hash ``digest`` (hex)."""
    point = int(digest[:13], 16) / 16**13
    total = 0.0
    for name in SPLITS:
        total += splits.get(name, 0.0)
        if point < total:
            return name
    return next(name for name in reversed(SPLITS) if splits.get(name, 0.0) > 0)


def parse_splits(settings: object) -> dict[str, float]:
    """Check the split fractions.

    Raises
    ------
    UserError
        If a name is unknown, a fraction is no number in [0, 1], or they do not sum to 1.
    """
    if not isinstance(settings, dict):
        raise UserError(f"text.splits is no mapping: give fractions of {', '.join(SPLITS)}")
    for name, fraction in settings.items():
        if name not in SPLITS:
            raise UserError(f"text.splits: {name!r} is unknown: use {', '.join(SPLITS)}")
        number = isinstance(fraction, int | float) and not isinstance(fraction, bool)
        if not number or not 0 <= fraction <= 1:
            raise UserError(f"text.splits: {name} is {fraction!r}: give a fraction from 0 to 1")
    total = sum(settings.values())
    if abs(total - 1) > 1e-6:
        raise UserError(f"text.splits sum to {total:g}: make them sum to 1")
    return {str(name): float(fraction) for name, fraction in settings.items()}


def draw_documents(
    sources: Sequence[Source],
    budget: Budget,
    splits: Mapping[str, float],
    counts: Mapping[str, SourceCount],
    place: Place,
    seen: set[bytes],
) -> Iterator[Row]:
    """Yield distinct documents from ``place`` on until the budget is met.

    ``counts``, ``place`` and ``seen``, the hashes of all documents so far, are kept up to date.
    """
    live = [source for source in sources if source.name not in place.ended]
    mixer = Mixer(
        {s.name: s.drafts(budget.estimate, place.taken.get(s.name, 0)) for s in live},
        {s.name: s.weight for s in sources},
        place.spent,
    )
    repeats = Counter(place.repeats)
    taken = Counter(place.taken)
    while place.tokens < MARGIN * budget.tokens:
        try:
            name, draft = mixer.draw()
        except LookupError:
            break
        taken[name] += 1
        digest = content_hash(draft)
        key = bytes.fromhex(digest)
        if reason := _useless(draft, key, seen):
            setattr(counts[name], reason, getattr(counts[name], reason) + 1)
            repeats[name] += 1
            if repeats[name] >= REPEATS:
                mixer.close(name)
            continue
        repeats[name] = 0
        seen.add(key)
        tokens = budget.estimate(draft)
        place.tokens += tokens
        mixer.charge(name, tokens)
        row = _row(place.documents, name, draft, digest, splits)
        place.documents += 1
        _count(counts[name], row, tokens)
        yield row
    place.taken, place.repeats, place.spent = dict(taken), dict(repeats), mixer.spent
    place.ended = [source.name for source in sources if source.name not in mixer.streams]
    for name in place.ended:
        counts[name].exhausted = True


def _useless(draft: Draft, key: bytes, seen: set[bytes]) -> str:
    """Return why a draft gives no document, or an empty string."""
    if draft.malformed:
        return "malformed"
    if not draft.content.strip():
        return "empty"
    return "duplicates" if key in seen else ""


def _row(number: int, name: str, draft: Draft, digest: str, splits: Mapping[str, float]) -> Row:
    messages = [{"role": role, "content": content} for role, content in draft.messages]
    return Row(
        document=number,
        source=name,
        kind=draft.kind,
        category=draft.category,
        split=split_of(digest, splits),
        text=draft.text,
        messages=json.dumps(messages, ensure_ascii=False) if messages else "",
        hash=digest,
    )


def _count(count: SourceCount, row: Row, tokens: float) -> None:
    count.documents += 1
    count.estimated_tokens += tokens
    count.splits[row.split] += 1
    if row.category:
        count.categories[row.category] += 1


def sample_documents(
    sources: Sequence[Source],
    budget: Budget,
    splits: Mapping[str, float],
    output: Path,
    manifest: Path,
    earlier: Sequence[Path] = (),
    state: Path | None = None,
) -> None:
    """Draw documents up to ``budget``, which includes the earlier parts, and write this part.

    ``earlier`` are the tables of the parts before, ``state`` the last one's manifest.

    Raises
    ------
    UserError
        If the sources hold no document at all.
    """
    place = Place(**read_json(state)["place"]) if state else Place()
    seen = {key for path in earlier for key in _hashes(path)}
    counts = {
        source.name: SourceCount(source.kind, files={} if state else source.digests())
        for source in sources
    }
    before = place.documents
    with atomic_path(output) as temporary:
        drawn = draw_documents(sources, budget, splits, counts, place, seen)
        _write_rows(temporary, drawn, _category_names(sources))
        if not place.documents:
            names = ", ".join(counts)
            raise UserError(f"the sources ({names}) hold no text: every document is empty")
    short = place.tokens < budget.tokens
    for name, count in counts.items():
        if count.exhausted:
            cli.log(f"source {name} has no more different documents")
    if short:
        cli.log(f"the text is short: about {place.tokens:.0f} tokens of {budget.tokens} wanted")
    write_json(
        manifest,
        {
            "documents": place.documents - before,
            "tokens_wanted": budget.tokens,
            "tokens_estimated": round(sum(c.estimated_tokens for c in counts.values())),
            "short": short,
            "sources": {
                name: {**vars(count), "estimated_tokens": round(count.estimated_tokens)}
                for name, count in counts.items()
            },
            "place": vars(place),
            "provenance": provenance(__file__),
        },
    )


def _category_names(sources: Sequence[Source]) -> list[str]:
    """Return the categories that any part may hold, sorted."""
    return sorted({category for source in sources for category in source.categories})


def _hashes(path: Path) -> Iterator[bytes]:
    import pyarrow.parquet as pq

    for digest in pq.read_table(path, columns=["hash"])["hash"].to_pylist():
        yield bytes.fromhex(digest)


def _write_rows(path: Path, rows: Iterator[Row], categories: Sequence[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = ("source", "kind", "category", "split", "text", "messages", "hash")
    schema = pa.schema(
        [("document", pa.int64()), *((name, pa.large_string()) for name in names)],
        metadata={"categories": json.dumps(categories)},
    )
    group: list[dict[str, object]] = []
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for row in cli.progress(rows, desc="documents"):
            group.append(vars(row))
            if len(group) == ROW_GROUP:
                writer.write_table(pa.Table.from_pylist(group, schema))
                group = []
        writer.write_table(pa.Table.from_pylist(group, schema))


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and sample."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--sources", type=cli.json_argument, required=True, help="JSON: name to settings"
    )
    parser.add_argument(
        "--tokens", type=int, required=True, help="token budget, the earlier parts' included"
    )
    parser.add_argument("--context-length", type=int, required=True, help="tokens per document")
    parser.add_argument(
        "--bytes-per-token", type=float, default=4.0, help="for the estimate of tokens"
    )
    parser.add_argument(
        "--splits", type=cli.json_argument, required=True, help="JSON: split to fraction"
    )
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument(
        "--earlier", type=Path, nargs="*", default=[], help="tables of the earlier parts, in order"
    )
    parser.add_argument("--state", type=Path, default=None, help="manifest of the part before")
    parser.add_argument("--output", type=Path, required=True, help="the part's table (Parquet)")
    parser.add_argument("--manifest", type=Path, required=True, help="the part's manifest (JSON)")
    arguments = parser.parse_args(argv)

    def run() -> None:
        sample_documents(
            parse_sources(arguments.sources, arguments.seed),
            Budget(arguments.tokens, arguments.context_length, arguments.bytes_per_token),
            parse_splits(arguments.splits),
            arguments.output,
            arguments.manifest,
            arguments.earlier,
            arguments.state,
        )

    return cli.guarded(run)


if __name__ == "__main__":
    raise SystemExit(main())
