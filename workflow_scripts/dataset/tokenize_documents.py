"""Turn documents into one token shard that every model of the run reads alike.

One tokenizer encodes for all: the models' tokenizers must agree (``vocabularies``), the one with
the largest vocabulary does the work, and a document with an id that some model lacks is dropped
and counted. One chat template serves the run: the file given, else that of the first model that
has one. Each row holds one document behind exactly one BOS, cut to the context length.

Rows lie in the documents' order. A shard takes rows while they fit and begins behind the last
document of the shard before; so the shards of a smaller token budget are also a larger one's. Where
the text is short, the last shards stay small or empty, which the manifest says.
"""

from __future__ import annotations

import argparse
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
from workflow_scripts.common.manifest import load_tokenizer
from workflow_scripts.common.provenance import provenance
from workflow_scripts.dataset.rendering import Encoded, Renderer, RenderingError, cut, fix_date
from workflow_scripts.dataset.shards import SPLITS, TokenShard, write_shard
from workflow_scripts.dataset.vocabularies import check_agreement, control_ids, known_ids

if TYPE_CHECKING:
    import pyarrow.parquet as pq
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T", bound=np.generic)
BATCH = 1000
COMPARED = 32  # documents whose ids are compared between tokenizers, besides the probes


@dataclass(frozen=True)
class Layout:
    """The size of rows and of the shard, in tokens."""

    context_length: int
    tokens: int

    def check(self) -> None:
        """Refuse sizes that cannot work.

        Raises
        ------
        UserError
            If a size is below 2.
        """
        if min(self.context_length, self.tokens) < 2:
            raise UserError("text: tokens, shard_tokens and context_length must be at least 2")


@dataclass(frozen=True)
class Row:
    """One document, encoded."""

    document: int
    split: int
    category: int
    encoded: Encoded
    truncated: bool
    folded: bool


@dataclass
class Tally:
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
class Document:
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
    categories: tuple[str, ...]
    context_length: int

    def rows(self, documents: Sequence[Document]) -> Iterator[Row | str]:
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
            yield Row(document.document, split, category, row, truncated, folded)

    def _problem(self, row: Encoded) -> str:
        if (row.ids >= len(self.known)).any() or not self.known[row.ids].all():
            return "has ids that a model lacks"
        bos = self.renderer.tokenizer.bos_token_id
        if bos is not None and (row.ids[1:] == bos).any():
            return "has BOS inside"
        # A marker that a text spells out would read as a turn that nobody took.
        if np.isin(row.ids[~row.template], self.control).any():
            return "has a control token in its content"
        return ""


def pack(rows: Sequence[Row], categories: tuple[str, ...]) -> TokenShard:
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
    encoder: Encoder, batches: Iterator[list[Document]], tokens: int, tally: Tally
) -> list[Row]:
    """Return the rows of the shard, of at most ``tokens`` tokens, and keep the tally.

    Documents behind the last row are left to the next shard, those that cannot be used too.
    """
    held: list[Row] = []
    useless: list[str] = []
    for batch in batches:
        for row in encoder.rows(batch):
            if isinstance(row, str):
                useless.append(row)
                continue
            if tally.tokens + len(row.encoded.ids) > tokens:
                return held
            held.append(row)
            _count(tally, row, useless)
            useless = []
    tally.short = True
    _count_dropped(tally, useless)
    return held


def _count(tally: Tally, row: Row, useless: Sequence[str]) -> None:
    _count_dropped(tally, useless)
    tokens = len(row.encoded.ids)
    tally.read += 1
    tally.next_document += 1
    tally.rows += 1
    tally.tokens += tokens
    tally.truncated += row.truncated
    tally.system_folded += row.folded
    tally.split_rows[SPLITS[row.split]] += 1
    tally.split_tokens[SPLITS[row.split]] += tokens


def _count_dropped(tally: Tally, reasons: Sequence[str]) -> None:
    tally.read += len(reasons)
    tally.next_document += len(reasons)
    tally.dropped.update(reasons)


def choose_template(
    tokenizers: Mapping[str, PreTrainedTokenizerBase], file: Path | None
) -> tuple[str | None, str]:
    """Return the run's chat template and where it is from.

    Raises
    ------
    UserError
        If the file does not exist.
    """
    if file is not None:
        if not file.is_file():
            raise UserError(f"text.template: {file} does not exist: check the path")
        return file.read_text(encoding="utf-8"), file.name
    for name, tokenizer in tokenizers.items():
        if isinstance(tokenizer.chat_template, str):
            return tokenizer.chat_template, name
        if tokenizer.chat_template:
            return tokenizer.get_chat_template(), name
    return None, ""


def read_documents(paths: Sequence[Path], first: int = 0) -> Iterator[list[Document]]:
    """Yield the documents from number ``first`` on in batches.

    Raises
    ------
    UserError
        If a file is missing or no table of documents.
    """
    columns = list(Document.__dataclass_fields__)
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
                    yield [Document(**row) for row in rows]


def _open_documents(path: Path, columns: Sequence[str]) -> pq.ParquetFile:
    import pyarrow
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: run sample_documents") from None
    except pyarrow.ArrowInvalid as error:
        raise UserError(f"{path} is not a Parquet file ({error}): make it anew") from None
    missing = sorted(set(columns) - set(file.schema_arrow.names))
    if missing:
        raise UserError(f"{path} has no column {missing[0]!r}: run sample_documents")
    return file


def _categories(path: Path) -> tuple[str, ...]:
    """Return the categories that documents may have, as the table says."""
    metadata = _open_documents(path, []).schema_arrow.metadata or {}
    return tuple(json.loads(metadata.get(b"categories", b"[]")))


def _contents(document: Document) -> str:
    if document.kind == "plain":
        return document.text
    return "\n".join(message["content"] for message in json.loads(document.messages))


def fill_shard(
    documents: Sequence[Path],
    tokenizers: Mapping[str, PreTrainedTokenizerBase],
    sizes: Mapping[str, int],
    template: Path | None,
    layout: Layout,
    output: Path,
    manifest: Path,
    previous: Path | None = None,
) -> None:
    """Do the work of :func:`tokenize_documents` with loaded tokenizers.

    ``sizes`` gives the rows of each model's embedding where known.
    """
    layout.check()
    _check_fast(tokenizers)
    first = next(read_documents(documents), [])
    check_agreement(tokenizers, [_contents(document) for document in first[:COMPARED]])
    text, origin = choose_template(tokenizers, template)
    encoder_name = max(tokenizers, key=lambda name: len(tokenizers[name]))
    renderer = Renderer(tokenizers[encoder_name])
    renderer.tokenizer.chat_template = fix_date(text) if text else None
    categories = _categories(documents[0])
    encoder = Encoder(
        renderer,
        known_ids(tokenizers, sizes),
        control_ids(renderer.tokenizer),
        categories,
        layout.context_length,
    )
    tally = Tally(next_document=read_json(previous)["next_document"] if previous else 0)
    batches = read_documents(documents, tally.next_document)
    held = fill(encoder, iter(cli.progress(batches, desc="documents")), layout.tokens, tally)
    if not held and not previous:
        raise UserError(f"{documents[0]} gives no usable row: {_reasons(tally)}")
    record = provenance(
        __file__,
        models=list(tokenizers),
        encoder=encoder_name,
        template_from=origin,
        template_sha256=hashlib.sha256((text or "").encode()).hexdigest(),
    )
    write_shard(output, pack(held, categories), record)
    _report(tally, layout)
    write_json(
        manifest,
        {
            **vars(tally),
            "tokens_wanted": layout.tokens,
            "template": text,
            "categories": list(categories),
            "provenance": record,
        },
    )


def _check_fast(tokenizers: Mapping[str, PreTrainedTokenizerBase]) -> None:
    for name, tokenizer in tokenizers.items():
        if not tokenizer.is_fast:
            raise UserError(
                f"the tokenizer of {name} has no fast form (tokenizer.json), which token "
                "offsets need: convert it with transformers"
            )


def _reasons(tally: Tally) -> str:
    listed = ", ".join(f"{reason}: {count}" for reason, count in tally.dropped.items())
    return f"all {tally.read} documents were dropped ({listed}); mend the template or the text"


def _report(tally: Tally, layout: Layout) -> None:
    cli.log(f"{tally.tokens} tokens in {tally.rows} rows, {tally.truncated} cut")
    for reason, count in tally.dropped.items():
        cli.log(f"{count} documents dropped: the document {reason}")
    if tally.system_folded:
        cli.log(f"{tally.system_folded} system messages folded into the first user turn")
    if tally.short:
        cli.log(f"the text is short: {tally.tokens} tokens of {layout.tokens} wanted")


def tokenize_documents(
    documents: Sequence[Path],
    models: Mapping[str, Path],
    template: Path | None,
    layout: Layout,
    output: Path,
    manifest: Path,
    previous: Path | None = None,
) -> None:
    """Write a token shard and its manifest.

    ``models`` maps each name to its ``model.json``, whose tokenizer is loaded. ``documents`` are
    all parts up to the shard's own, ``previous`` is the manifest of the shard before.

    Raises
    ------
    UserError
        If tokenizers conflict, a chat document meets no template, or no row remains.
    """
    layout.check()
    tokenizers = {name: load_tokenizer(path) for name, path in models.items()}
    sizes = {name: read_json(path).get("vocabulary") for name, path in models.items()}
    known = {name: int(size) for name, size in sizes.items() if size}
    fill_shard(documents, tokenizers, known, template, layout, output, manifest, previous)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and tokenize."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--documents", type=Path, nargs="+", required=True, help="tables of documents, in order"
    )
    parser.add_argument(
        "--tokenizer",
        type=cli.named_path,
        action="append",
        required=True,
        metavar="MODEL=MODEL.JSON",
        help="a model's name and manifest; repeat for each model",
    )
    parser.add_argument("--template", type=Path, default=None, help="jinja chat template file")
    parser.add_argument("--context-length", type=int, required=True)
    parser.add_argument("--tokens", type=int, required=True, help="tokens of the shard, at most")
    parser.add_argument(
        "--previous", type=Path, default=None, help="manifest of the shard before, none: the first"
    )
    parser.add_argument("--output", type=Path, required=True, help="the shard")
    parser.add_argument("--manifest", type=Path, required=True)
    arguments = parser.parse_args(argv)

    def run() -> None:
        tokenize_documents(
            arguments.documents,
            dict(arguments.tokenizer),
            arguments.template,
            Layout(arguments.context_length, arguments.tokens),
            arguments.output,
            arguments.manifest,
            arguments.previous,
        )

    return cli.guarded(run)


if __name__ == "__main__":
    raise SystemExit(main())
