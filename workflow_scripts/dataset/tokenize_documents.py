"""Turn documents into one token shard that every model of the run reads alike.

One tokenizer encodes for all: the models' tokenizers must agree (``vocabularies``), the one with
the largest vocabulary does the work, or the one whose control tokens are chosen, and a document
with an id that some model lacks is dropped and counted. One chat template serves the run: the file
given, else that of the first model that has one; the model whose control tokens are chosen is asked
first. Each row holds one document after exactly one BOS, cut to the context length, or a further
part of one: ``rows_per_document`` says how many. The rows of a document are in one shard, side by
side, and in one split.

Rows are in the documents' order. A shard takes documents while they fit and begins after the last
one of the previous shard; so a larger token budget keeps the shards of a smaller one. If the
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
from workflow_scripts.common.progress import track
from workflow_scripts.common.provenance import provenance
from workflow_scripts.dataset.chat_templates import check_template, choose_template
from workflow_scripts.dataset.document_tables import (
    TextDocument,
    categories_of,
    contents_of,
    read_documents,
)
from workflow_scripts.dataset.rendering import Encoded, Renderer, fix_date
from workflow_scripts.dataset.settings import Rendering
from workflow_scripts.dataset.shards import SPLITS, TokenShard, write_shard
from workflow_scripts.dataset.skeletons import RenderingError
from workflow_scripts.dataset.vocabularies import (
    check_agreement,
    control_ids,
    foreign_tokens,
    known_ids,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T", bound=np.generic)
COMPARED = 32  # documents whose ids are compared between tokenizers, besides the probes
COMPARED_CHARACTERS = 10_000


@dataclass(frozen=True)
class TokenRows:
    """One document, encoded: its rows, and the tokens of all its text (estimated if it is long)."""

    document: int
    split: int
    category: int
    rows: tuple[Encoded, ...]
    whole: int
    folded: bool
    removed: bool

    @property
    def tokens(self) -> int:
        """Tokens of its rows."""
        return sum(len(row.ids) for row in self.rows)


@dataclass
class TokenCount:
    """What became of the documents up to the shard's last row.

    ``tokens_whole`` is what the documents that are used hold, ``tokens`` what is left of them.
    """

    read: int = 0
    documents: int = 0
    rows: int = 0
    tokens: int = 0
    tokens_whole: int = 0
    truncated: int = 0
    system_folded: int = 0
    thoughts_removed: int = 0
    next_document: int = 0
    short: bool = False
    dropped: Counter[str] = field(default_factory=Counter)
    split_rows: Counter[str] = field(default_factory=Counter)
    split_tokens: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Encoder:
    """The renderer with what is known about the models' vocabularies."""

    renderer: Renderer
    known: NDArray[np.bool_]
    control: NDArray[np.int64]
    foreign: tuple[str, ...]
    categories: tuple[str, ...]
    context_length: int
    rows_per_document: int = 1

    def encode(self, documents: Sequence[TextDocument]) -> Iterator[TokenRows | str]:
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
            rows = self.renderer.split(result, self.context_length, self.rows_per_document)
            if not rows:
                yield "holds only template tokens"
                continue
            yield TokenRows(
                document.document,
                SPLITS.index(document.split),
                self.categories.index(document.category) if document.category else -1,
                tuple(rows),
                result.whole,
                document.kind == "chat" and self.renderer.folds(json.loads(document.messages)),
                result.removed,
            )

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


def pack(documents: Sequence[TokenRows], categories: tuple[str, ...]) -> TokenShard:
    """Lay rows one after another."""
    pairs = [(document, row) for document in documents for row in document.rows]
    encoded = [row for _, row in pairs]
    lengths = [len(row.ids) for row in encoded]
    template = _joined([row.template for row in encoded], np.bool_)
    category = np.repeat(np.array([d.category for d, _ in pairs], dtype=np.int16), lengths)
    category[template] = -1
    return TokenShard(
        ids=_joined([row.ids for row in encoded], np.int32),
        row_starts=np.cumsum([0, *lengths], dtype=np.int64),
        row_document=np.array([document.document for document, _ in pairs], dtype=np.int32),
        row_split=np.array([document.split for document, _ in pairs], dtype=np.uint8),
        role=_joined([row.role for row in encoded], np.uint8),
        template=template,
        category=category,
        categories=categories,
    )


def _joined(parts: Sequence[NDArray[T]], kind: type[T]) -> NDArray[T]:
    return np.concatenate(parts).astype(kind) if parts else np.empty(0, dtype=kind)


def fill(
    encoder: Encoder, batches: Iterator[list[TextDocument]], tokens: int, count: TokenCount
) -> list[TokenRows]:
    """Return the documents of the shard, of at most ``tokens`` tokens, and keep the count.

    Those after the last one that fits are left to the next shard, unusable ones too.
    """
    held: list[TokenRows] = []
    useless: list[str] = []
    for batch in batches:
        for document in encoder.encode(batch):
            if isinstance(document, str):
                useless.append(document)
                continue
            if count.tokens + document.tokens > tokens:
                return held
            held.append(document)
            _count(count, document, useless)
            useless = []
    count.short = True
    _count_dropped(count, useless)
    return held


def _count(count: TokenCount, document: TokenRows, useless: Sequence[str]) -> None:
    _count_dropped(count, useless)
    count.read += 1
    count.next_document += 1
    count.documents += 1
    count.rows += len(document.rows)
    count.tokens += document.tokens
    count.tokens_whole += max(document.whole, document.tokens)
    count.truncated += document.tokens < document.whole
    count.system_folded += document.folded
    count.thoughts_removed += document.removed
    count.split_rows[SPLITS[document.split]] += len(document.rows)
    count.split_tokens[SPLITS[document.split]] += document.tokens


def _count_dropped(count: TokenCount, reasons: Sequence[str]) -> None:
    count.read += len(reasons)
    count.next_document += len(reasons)
    count.dropped.update(reasons)


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
    compared = [contents_of(document)[:COMPARED_CHARACTERS] for document in first[:COMPARED]]
    check_agreement(tokenizers, compared, chosen)
    encoder_name = chosen or max(tokenizers, key=lambda name: len(tokenizers[name]))
    asked = {chosen: tokenizers[chosen], **tokenizers} if chosen is not None else tokenizers
    text, origin = choose_template(asked, rendering.template)
    renderer = Renderer(tokenizers[encoder_name], rendering.longest)
    if text is not None and any(document.kind == "chat" for document in first):
        check_template(renderer.tokenizer, text, origin)
    renderer.tokenizer.chat_template = fix_date(text) if text else None
    categories = categories_of(documents[0])
    encoder = Encoder(
        renderer,
        known_ids(tokenizers, sizes),
        control_ids(renderer.tokenizer),
        foreign_tokens(tokenizers, encoder_name),
        categories,
        rendering.context_length,
        rendering.rows_per_document,
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

    def noted(_: object) -> str:
        return f"{count.tokens:,} of {tokens:,} tokens"

    held = fill(encoder, track(batches, "documents", size=len, note=noted), tokens, count)
    if not held and not previous:
        raise UserError(f"{documents[0]} gives no usable row: {_reasons(count)}")
    write_shard(output, pack(held, categories), record)
    _report(count, tokens)
    write_json(
        manifest,
        {
            **vars(count),
            "tokens_wanted": tokens,
            "rows_per_document": rendering.rows_per_document,
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
    cut = count.tokens_whole - count.tokens
    cli.log(
        f"{count.tokens} tokens in {count.rows} rows of {count.documents} documents; "
        f"{count.truncated} documents were cut, by about {cut} tokens"
    )
    for reason, dropped in count.dropped.items():
        cli.log(f"{dropped} documents dropped: the document {reason}")
    if count.system_folded:
        cli.log(f"{count.system_folded} system messages folded into the first user turn")
    if count.thoughts_removed:
        cli.log(f"{count.thoughts_removed} chats without some of their thoughts, by the template")
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
