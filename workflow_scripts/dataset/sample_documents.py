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

The job of one part draws the parts behind it too, while the sources are open, and leaves them in
the folder ``ahead`` beside each table, where their own jobs find them: so a run reads its sources
once, however many parts there are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

from workflow_scripts.common import cli
from workflow_scripts.common.cli import UserError
from workflow_scripts.common.files import atomic_path, read_json, write_json
from workflow_scripts.common.progress import track
from workflow_scripts.common.provenance import provenance
from workflow_scripts.common.settings import Name
from workflow_scripts.dataset.drawing import DocumentRow, Drawing, Place, SourceCount
from workflow_scripts.dataset.settings import Sampling, Source
from workflow_scripts.dataset.sources import NamedSource

ROW_GROUP = 10_000
AHEAD = "ahead"
"""Folder of parts that were drawn before their own jobs ran."""


def sample_documents(
    sources: dict[Name, Source],
    sampling: Sampling,
    tokens: int,
    seed: int,
    output: Path,
    manifest: Path,
    earlier: tuple[Path, ...] = (),
    state: Path | None = None,
    later: tuple[Path, ...] = (),
    later_tokens: tuple[int, ...] = (),
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
    later
        tables of the parts behind this one, in order, which are drawn ahead
    later_tokens
        their budgets

    Raises
    ------
    UserError
        If the sources hold no document at all, or a source too many rows without one.
    """
    origin = provenance(__file__)  # the code may change while documents are drawn
    place = Place(**read_json(state)["place"]) if state else Place()
    rule = {
        "sources": {name: source.model_dump(mode="json") for name, source in sources.items()},
        "sampling": sampling.model_dump(mode="json"),
        "seed": seed,
        "code": origin["code"],
    }
    facts = _taken(output, _draft(rule, tokens, place))
    if facts is None:
        named = [NamedSource(name, settings, seed) for name, settings in sources.items()]
        seen = {key for path in earlier for key in _hashes(path)}
        drawing = Drawing(named, sampling, place, seen)
        files = {} if state else {source.name: source.digests() for source in named}
        facts = {**_write_part(output, drawing, named, tokens, files), "provenance": origin}
        budgets = dict(zip(later, later_tokens, strict=True))
        _draw_ahead(drawing, named, rule, budgets, origin)
    write_json(manifest, facts)
    _report(facts)


def _write_part(
    output: Path,
    drawing: Drawing,
    sources: Sequence[NamedSource],
    tokens: int,
    files: Mapping[str, dict[str, str]],
) -> dict[str, Any]:
    """Write a part's table; return its counts and where the next part goes on."""
    place = drawing.place
    counts = {s.name: SourceCount(s.settings.kind, files=files.get(s.name, {})) for s in sources}
    before = place.documents
    with atomic_path(output) as temporary:
        _write_rows(temporary, drawing.part(tokens, counts), _category_names(sources))
        if not place.documents:
            names = ", ".join(counts)
            raise UserError(f"the sources ({names}) hold no text: every document is empty")
    return {
        "documents": place.documents - before,
        "tokens_wanted": tokens,
        "tokens_estimated": round(sum(c.estimated_tokens for c in counts.values())),
        "short": place.tokens < tokens,
        "sources": {
            name: {**vars(count), "estimated_tokens": round(count.estimated_tokens)}
            for name, count in counts.items()
        },
        "place": deepcopy(vars(place)),
    }


def _draft(rule: Mapping[str, object], tokens: int, place: Place) -> str:
    """Return a digest of all that a part follows from, the content of files apart."""
    text = json.dumps([rule, tokens, vars(place)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _draw_ahead(
    drawing: Drawing,
    sources: Sequence[NamedSource],
    rule: Mapping[str, object],
    budgets: Mapping[Path, int],
    origin: Mapping[str, object],
) -> None:
    """Write the parts that follow beside their tables, up to one that exists.

    What is wrong with the sources there is left to the part's own job.
    """
    for output, tokens in budgets.items():
        if output.exists():
            return
        draft = _draft(rule, tokens, drawing.place)
        table = output.parent / AHEAD / output.name
        try:
            facts = {**_write_part(table, drawing, sources, tokens, {}), "provenance": origin}
        except UserError as error:
            cli.log(f"no part is drawn ahead from {output.stem} on: {error}")
            return
        write_json(table.with_suffix(".json"), {"draft": draft, "facts": facts})


def _taken(output: Path, draft: str) -> dict[str, Any] | None:
    """Put a part in its place that was drawn ahead; return its facts, None where there is none."""
    table = output.parent / AHEAD / output.name
    facts = table.with_suffix(".json")
    if not (table.exists() and facts.exists()):
        return None
    kept = read_json(facts)
    facts.unlink()
    fits: bool = kept["draft"] == draft
    if fits:
        table.replace(output)
        cli.log("drawn by the job of an earlier part")
    table.unlink(missing_ok=True)
    with suppress(OSError):  # others are still there
        table.parent.rmdir()
    return kept["facts"] if fits else None


def _report(facts: Mapping[str, Any]) -> None:
    """Log what was left out of a part, or is missing."""
    for name, count in facts["sources"].items():
        for kind, rows in count["bad_rows"].items():
            cli.log(f"source {name}: {rows} rows without a document skipped: {kind}")
        for change, changed in count["changes"].items():
            cli.log(f"source {name}: {changed} documents with {change}")
        if count["exhausted"]:
            cli.log(f"source {name} has no more different documents")
    if facts["short"]:
        tokens = facts["place"]["tokens"]
        cli.log(f"the text is short: about {tokens:.0f} tokens of {facts['tokens_wanted']}")


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
