"""Turn documents into one token shard that every model of the run reads alike.

One tokenizer encodes for all: the models' tokenizers must agree (``vocabularies``), the one with
the largest vocabulary does the work, or the one whose control tokens are chosen, and a document
with an id that some model lacks is dropped and counted. One chat template serves the run: the file
given, else that of the first model that has one; the model whose control tokens are chosen is asked
first. Each row holds one document after exactly one BOS, cut to the context length.

Rows are in the documents' order. A shard takes rows while they fit and begins after the last
document of the previous shard; so a larger token budget keeps the shards of a smaller one. If the
text is short, the last shards stay small or empty, which the manifest says.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from workflow_scripts.common import cli
from workflow_scripts.common.cli import UserError
from workflow_scripts.common.files import read_json, write_json
from workflow_scripts.common.manifest import Manifest, load_tokenizer
from workflow_scripts.common.provenance import provenance
from workflow_scripts.dataset.chat_templates import check_template, choose_template
from workflow_scripts.dataset.rendering import Encoded, Renderer, RenderingError, cut, fix_date
from workflow_scripts.dataset.settings import Rendering
from workflow_scripts.dataset.shards import SPLITS, TokenShard, write_shard
from workflow_scripts.dataset.vocabularies import (
    check_agreement,
    control_ids,
    foreign_tokens,
    known_ids,
)

if TYPE_CHECKING:
    import pyarrow.parquet as pq
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T", bound=np.generic)
BATCH = 1000
COMPARED = 32  # documents whose ids are compared between tokenizers, besides the probes


@dataclass(frozen=True)
class TokenRow:
    """One document, encoded."""

    document: int
    split: int
    category: int
    encoded: Encoded
    truncated: bool
    folded: bool


@dataclass
class TokenCount:
    """What became of the documents up to the shard's last row."""

    read: int = 0
    rows: int = 0
    tokens: int = 0
    truncated: int = 0
    system_folded: int = 0
    next_document: int = 0
    short: bool = False
    dropped: Counter[str] = field(default_factory=Counter)
    split_rows: Counter[str] = field(default_factory=Counter)
    split_tokens: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class TextDocument:
    """The columns of a table of documents that matter here."""

    document: int
    kind: str
    category: str
    split: str
    text: str
    messages: str


@dataclass(frozen=True)
class Encoder:
    """The renderer with what is known about the models' vocabularies."""

    renderer: Renderer
    known: NDArray[np.bool_]
    control: NDArray[np.int64]
    foreign: tuple[str, ...]
    categories: tuple[str, ...]
    context_length: int

    def rows(self, documents: Sequence[TextDocument]) -> Iterator[TokenRow | str]:
        """Encode documents in order; of one that cannot be used, give the reason."""
        plain = [d for d in documents if d.kind == "plain"]
        chat = [d for d in documents if d.kind == "chat"]
        results: dict[int, Encoded | RenderingError] = {}
        texts = self.renderer.plain([d.text for d in plain])
        results.update(zip((d.document for d in plain), texts, strict=True))
        chats = self.renderer.chats([json.loads(d.messages) for d in chat])
        results.update(zip((d.document for d in chat), chats, strict=True))
        for document in documents:
            result = results[document.document]
            problem = str(result) if isinstance(result, RenderingError) else self._problem(result)
            if isinstance(result, RenderingError) or problem:
                yield problem
                continue
            row = cut(result, self.context_length)
            if row.template.all():
                yield "holds only template tokens"
                continue
            category = self.categories.index(document.category) if document.category else -1
            split = SPLITS.index(document.split)
            truncated = len(row.ids) < len(result.ids)
            folded = document.kind == "chat" and self.renderer.folds(json.loads(document.messages))
            yield TokenRow(document.document, split, category, row, truncated, folded)

    def _problem(self, row: Encoded) -> str:
        if (row.ids >= len(self.known)).any() or not self.known[row.ids].all():
            return "has ids that a model lacks"
        if self.foreign and row.template.any():
            written = self.renderer.tokenizer.decode(row.ids[row.template].tolist())
            if any(token in written for token in self.foreign):
                return "needs control tokens that a model lacks"
        bos = self.renderer.tokenizer.bos_token_id
        # A template may write it again: before each turn, or as the marker of turns.
        if bos is not None and (row.ids[~row.template] == bos).any():
            return "has BOS inside"
        # A marker that a text spells out would read as a turn that nobody took.
        if np.isin(row.ids[~row.template], self.control).any():
            return "has a control token in its content"
        return ""


def pack(rows: Sequence[TokenRow], categories: tuple[str, ...]) -> TokenShard:
    """Lay rows one after another."""
    encoded = [row.encoded for row in rows]
    lengths = [len(e.ids) for e in encoded]
    template = _joined([e.template for e in encoded], np.bool_)
    category = np.repeat(np.array([row.category for row in rows], dtype=np.int16), lengths)
    category[template] = -1
    return TokenShard(
        ids=_joined([e.ids for e in encoded], np.int32),
        row_starts=np.cumsum([0, *lengths], dtype=np.int64),
        row_document=np.array([row.document for row in rows], dtype=np.int32),
        row_split=np.array([row.split for row in rows], dtype=np.uint8),
        role=_joined([e.role for e in encoded], np.uint8),
        template=template,
        category=category,
        categories=categories,
    )


def _joined(parts: Sequence[NDArray[T]], kind: type[T]) -> NDArray[T]:
    return np.concatenate(parts).astype(kind) if parts else np.empty(0, dtype=kind)


def fill(
    encoder: Encoder, batches: Iterator[list[TextDocument]], tokens: int, count: TokenCount
) -> list[TokenRow]:
    """Return the rows of the shard, of at most ``tokens`` tokens, and keep the count.

    Documents after the last row are left to the next shard, unusable ones too.
    """
    held: list[TokenRow] = []
    useless: list[str] = []
    for batch in batches:
        for row in encoder.rows(batch):
            if isinstance(row, str):
                useless.append(row)
                continue
            if count.tokens + len(row.encoded.ids) > tokens:
                return held
            held.append(row)
            _count(count, row, useless)
            useless = []
    count.short = True
    _count_dropped(count, useless)
    return held


def _count(count: TokenCount, row: TokenRow, useless: Sequence[str]) -> None:
    _count_dropped(count, useless)
    tokens = len(row.encoded.ids)
    count.read += 1
    count.next_document += 1
    count.rows += 1
    count.tokens += tokens
    count.truncated += row.truncated
    count.system_folded += row.folded
    count.split_rows[SPLITS[row.split]] += 1
    count.split_tokens[SPLITS[row.split]] += tokens


def _count_dropped(count: TokenCount, reasons: Sequence[str]) -> None:
    count.read += len(reasons)
    count.next_document += len(reasons)
    count.dropped.update(reasons)


def read_documents(paths: Sequence[Path], first: int = 0) -> Iterator[list[TextDocument]]:
    """Yield the documents from number ``first`` on in batches.

    Raises
    ------
    UserError
        If a file is missing or no table of documents.
    """
    columns = list(TextDocument.__dataclass_fields__)
    for path in paths:
        file = _open_documents(path, columns)
        for group in range(file.num_row_groups):
            size = file.metadata.row_group(group).num_rows
            if first >= size:
                first -= size
                continue
            for batch in file.iter_batches(BATCH, row_groups=[group], columns=columns):
                rows = batch.to_pylist()[first:]
                first = max(0, first - batch.num_rows)
                if rows:
                    yield [TextDocument(**row) for row in rows]


def _open_documents(path: Path, columns: Sequence[str]) -> pq.ParquetFile:
    import pyarrow
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: run sample_documents") from None
    except pyarrow.ArrowInvalid as error:
        raise UserError(
            f"{path} is not a Parquet file ({error}): delete it and run again"
        ) from None
    missing = sorted(set(columns) - set(file.schema_arrow.names))
    if missing:
        raise UserError(f"{path} has no column {missing[0]!r}: run sample_documents")
    return file


def _categories(path: Path) -> tuple[str, ...]:
    """Return the categories that documents may have, as the table says."""
    metadata = _open_documents(path, []).schema_arrow.metadata or {}
    return tuple(json.loads(metadata.get(b"categories", b"[]")))


def _contents(document: TextDocument) -> str:
    if document.kind == "plain":
        return document.text
    return "\n".join(message["content"] for message in json.loads(document.messages))


def fill_shard(
    documents: Sequence[Path],
    tokenizers: Mapping[str, PreTrainedTokenizerBase],
    sizes: Mapping[str, int],
    rendering: Rendering,
    tokens: int,
    output: Path,
    manifest: Path,
    previous: Path | None = None,
) -> None:
    """Do the work of :func:`tokenize_documents` with loaded tokenizers.

    ``sizes`` gives the rows of each model's embedding where known.
    """
    first = next(read_documents(documents), [])
    chosen = rendering.control_tokens
    if chosen is not None and chosen not in tokenizers:
        raise UserError(
            f"text.control_tokens is {chosen}, which is none of {', '.join(tokenizers)}: "
            "name the model whose control tokens the text is to have"
        )
    check_agreement(tokenizers, [_contents(document) for document in first[:COMPARED]], chosen)
    encoder_name = chosen or max(tokenizers, key=lambda name: len(tokenizers[name]))
    asked = {chosen: tokenizers[chosen], **tokenizers} if chosen is not None else tokenizers
    text, origin = choose_template(asked, rendering.template)
    renderer = Renderer(tokenizers[encoder_name])
    if text is not None:
        check_template(renderer.tokenizer, text, origin)
    renderer.tokenizer.chat_template = fix_date(text) if text else None
    categories = _categories(documents[0])
    encoder = Encoder(
        renderer,
        known_ids(tokenizers, sizes),
        control_ids(renderer.tokenizer),
        foreign_tokens(tokenizers, encoder_name),
        categories,
        rendering.context_length,
    )
    record = provenance(  # the code may change while documents are read
        __file__,
        models=list(tokenizers),
        encoder=encoder_name,
        template_from=origin,
        template_sha256=hashlib.sha256((text or "").encode()).hexdigest(),
    )
    count = TokenCount(next_document=read_json(previous)["next_document"] if previous else 0)
    batches = read_documents(documents, count.next_document)
    held = fill(encoder, iter(cli.progress(batches, desc="documents")), tokens, count)
    if not held and not previous:
        raise UserError(f"{documents[0]} gives no usable row: {_reasons(count)}")
    write_shard(output, pack(held, categories), record)
    _report(count, tokens)
    write_json(
        manifest,
        {
            **vars(count),
            "tokens_wanted": tokens,
            "template": text,
            "categories": list(categories),
            "provenance": record,
        },
    )


def _reasons(count: TokenCount) -> str:
    if not count.dropped:
        return "the first document is longer than the shard; raise text.tokens"
    listed = ", ".join(f"{reason}: {dropped}" for reason, dropped in count.dropped.items())
    return f"all {count.read} documents were dropped ({listed}); fix the template or the text"


def _report(count: TokenCount, budget: int) -> None:
    cli.log(f"{count.tokens} tokens in {count.rows} rows, {count.truncated} cut")
    for reason, dropped in count.dropped.items():
        cli.log(f"{dropped} documents dropped: the document {reason}")
    if count.system_folded:
        cli.log(f"{count.system_folded} system messages folded into the first user turn")
    if count.short:
        cli.log(f"the text is short: {count.tokens} tokens of {budget}")


def tokenize_documents(
    documents: list[Path],
    tokenizers: dict[str, Path],
    rendering: Rendering,
    tokens: int,
    output: Path,
    manifest: Path,
    previous: Path | None = None,
) -> None:
    """Write a token shard and its manifest.

    Parameters
    ----------
    documents
        tables of documents up to the shard's own, in order
    tokenizers
        models with their model.json, one for each tokenizer (JSON)
    tokens
        tokens of the shard, at most
    output
        shard to write (HDF5)
    manifest
        counts to write (JSON)
    previous
        manifest of the shard before; none: this is the first

    Raises
    ------
    UserError
        If tokenizers conflict, a chat document meets no template, the template is no Jinja, or no
        row remains.
    """
    loaded = {name: load_tokenizer(path) for name, path in tokenizers.items()}
    sizes = {name: Manifest.read(path).vocabulary for name, path in tokenizers.items()}
    fill_shard(documents, loaded, sizes, rendering, tokens, output, manifest, previous)


main = cli.command(tokenize_documents)


if __name__ == "__main__":
    raise SystemExit(main())
