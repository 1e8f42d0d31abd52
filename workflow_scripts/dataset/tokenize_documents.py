"""Turn the documents into token shards that every model of the run reads alike.

One tokenizer encodes for all: the models' tokenizers must agree (``vocabularies``), the one with
the largest vocabulary does the work, and a document with an id that some model lacks is dropped
and counted. One chat template serves the run: the file given, else that of the first model that
has one. Each row holds one document behind exactly one BOS, cut to the context length.

Rows are dealt to shards in the documents' order. A shard takes rows while they fit; the number of
shards follows from the budget alone, so that where the text is short the last ones stay small or
empty, which the manifest says.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from workflow_scripts import cli
from workflow_scripts.cli import UserError
from workflow_scripts.dataset.rendering import Encoded, Renderer, RenderingError, cut
from workflow_scripts.dataset.shards import SPLITS, TokenShard, write_shard
from workflow_scripts.dataset.vocabularies import check_agreement, known_ids
from workflow_scripts.files import read_json, write_json
from workflow_scripts.provenance import provenance

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T", bound=np.generic)
BATCH = 1000
COMPARED = 32  # documents whose ids are compared between tokenizers, besides the probes


@dataclass(frozen=True)
class Layout:
    """The size of rows and shards, in tokens."""

    context_length: int
    tokens: int
    shard_tokens: int

    @property
    def shards(self) -> int:
        """The number of shards, from the budget alone."""
        return math.ceil(self.tokens / self.shard_tokens)

    def capacity(self, shard: int) -> int:
        """Tokens that a shard may hold; the last one holds the rest of the budget."""
        return min(self.shard_tokens, self.tokens - shard * self.shard_tokens)

    def check(self, outputs: int) -> None:
        """Refuse sizes that cannot work.

        Raises
        ------
        UserError
            If a size is not positive, a row may exceed a shard, or the number of outputs is wrong.
        """
        if min(self.context_length, self.tokens, self.shard_tokens) < 2:
            raise UserError("text: tokens, shard_tokens and context_length must be at least 2")
        if self.context_length > self.shard_tokens:
            raise UserError(
                f"text: context_length {self.context_length} exceeds shard_tokens "
                f"{self.shard_tokens}: make shards at least as long as a document"
            )
        if outputs != self.shards:
            raise UserError(
                f"{outputs} shard files are named but {self.tokens} tokens in shards of "
                f"{self.shard_tokens} make {self.shards}: name as many --output files"
            )


@dataclass(frozen=True)
class Row:
    """One document, encoded."""

    document: int
    split: int
    category: int
    encoded: Encoded


@dataclass
class Tally:
    """What became of the documents."""

    read: int = 0
    rows: int = 0
    tokens: int = 0
    truncated: int = 0
    system_folded: int = 0
    short: bool = False
    dropped: Counter[str] = field(default_factory=Counter)
    split_rows: Counter[str] = field(default_factory=Counter)
    split_tokens: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Document:
    """The columns of documents.parquet that matter here."""

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
    categories: tuple[str, ...]
    context_length: int

    def rows(self, documents: Sequence[Document], tally: Tally) -> Iterator[Row]:
        """Encode documents in order; count and leave out those that cannot be used."""
        plain = [d for d in documents if d.kind == "plain"]
        chat = [d for d in documents if d.kind == "chat"]
        results: dict[int, Encoded | RenderingError] = {}
        texts = self.renderer.plain([d.text for d in plain])
        results.update(zip((d.document for d in plain), texts, strict=True))
        chats = self.renderer.chats([json.loads(d.messages) for d in chat])
        results.update(zip((d.document for d in chat), chats, strict=True))
        for document in documents:
            tally.read += 1
            result = results[document.document]
            problem = str(result) if isinstance(result, RenderingError) else self._problem(result)
            if isinstance(result, RenderingError) or problem:
                tally.dropped[problem] += 1
                continue
            row = cut(result, self.context_length)
            if row.template.all():
                tally.dropped["holds only template tokens"] += 1
                continue
            tally.truncated += len(row.ids) < len(result.ids)
            category = self.categories.index(document.category) if document.category else -1
            yield Row(document.document, SPLITS.index(document.split), category, row)

    def _problem(self, row: Encoded) -> str:
        if (row.ids >= len(self.known)).any() or not self.known[row.ids].all():
            return "has ids that a model lacks"
        bos = self.renderer.tokenizer.bos_token_id
        if bos is not None and (row.ids[1:] == bos).any():
            return "has BOS inside"
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


def deal(rows: Iterator[Row], layout: Layout, tally: Tally) -> Iterator[list[Row]]:
    """Yield the rows of each shard in turn, always ``layout.shards`` lists.

    The row after the last that fits is drawn from ``rows`` and lost. ``tally.short`` says
    whether the rows ended before the shards were full.
    """
    waiting = next(rows, None)
    for shard in range(layout.shards):
        held: list[Row] = []
        free = layout.capacity(shard)
        while waiting is not None and len(waiting.encoded.ids) <= free:
            held.append(waiting)
            free -= len(waiting.encoded.ids)
            waiting = next(rows, None)
        tally.short = waiting is None
        yield held


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


def read_documents(path: Path) -> Iterator[list[Document]]:
    """Yield the documents in batches.

    Raises
    ------
    UserError
        If the file is missing or no documents.parquet.
    """
    import pyarrow
    import pyarrow.parquet as pq

    columns = list(Document.__dataclass_fields__)
    try:
        file = pq.ParquetFile(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: run sample_documents") from None
    except pyarrow.ArrowInvalid as error:
        raise UserError(f"{path} is not a Parquet file ({error}): make it anew") from None
    missing = sorted(set(columns) - set(file.schema_arrow.names))
    if missing:
        raise UserError(f"{path} has no column {missing[0]!r}: run sample_documents")
    for batch in file.iter_batches(batch_size=BATCH, columns=columns):
        yield [Document(**record) for record in batch.to_pylist()]


def _categories(path: Path) -> tuple[str, ...]:
    import pyarrow.parquet as pq

    values = pq.read_table(path, columns=["category"])["category"].unique().to_pylist()
    return tuple(sorted(value for value in values if value))


def _contents(document: Document) -> str:
    if document.kind == "plain":
        return document.text
    return "\n".join(message["content"] for message in json.loads(document.messages))


def fill_shards(
    documents: Path,
    tokenizers: Mapping[str, PreTrainedTokenizerBase],
    sizes: Mapping[str, int],
    template: Path | None,
    layout: Layout,
    outputs: Sequence[Path],
    manifest: Path,
    facts: Mapping[str, object],
) -> None:
    """Do the work of :func:`tokenize_documents` with loaded tokenizers.

    ``sizes`` gives the rows of each model's embedding where known.
    """
    layout.check(len(outputs))
    _check_fast(tokenizers)
    first = next(read_documents(documents), [])
    check_agreement(tokenizers, [_contents(document) for document in first[:COMPARED]])
    text, origin = choose_template(tokenizers, template)
    encoder_name = max(tokenizers, key=lambda name: len(tokenizers[name]))
    renderer = Renderer(tokenizers[encoder_name])
    renderer.tokenizer.chat_template = text
    categories = _categories(documents)
    encoder = Encoder(renderer, known_ids(tokenizers, sizes), categories, layout.context_length)
    tally = Tally()
    rows = (row for batch in read_documents(documents) for row in encoder.rows(batch, tally))
    record = provenance(
        models=list(tokenizers),
        encoder=encoder_name,
        template_from=origin,
        template_sha256=hashlib.sha256((text or "").encode()).hexdigest(),
        **facts,
    )
    shard_facts: list[dict[str, int]] = []
    shards = zip(outputs, deal(rows, layout, tally), strict=True)
    for path, held in cli.progress(shards, total=len(outputs), desc="shards"):
        shard = pack(held, categories)
        _count(tally, shard)
        if not tally.rows:
            raise UserError(f"{documents} gives no usable row: {_reasons(tally)}")
        write_shard(path, shard, record)
        shard_facts.append({"rows": shard.rows, "tokens": shard.tokens})
    tally.system_folded = renderer.folded
    _report(tally, layout)
    write_json(
        manifest,
        {
            **vars(tally),
            "tokens_wanted": layout.tokens,
            "shards": shard_facts,
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


def _count(tally: Tally, shard: TokenShard) -> None:
    tally.rows += shard.rows
    tally.tokens += shard.tokens
    lengths = np.diff(shard.row_starts)
    for index, name in enumerate(SPLITS):
        chosen = shard.row_split == index
        tally.split_rows[name] += int(chosen.sum())
        tally.split_tokens[name] += int(lengths[chosen].sum())


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
    documents: Path,
    models: Mapping[str, Path],
    template: Path | None,
    layout: Layout,
    outputs: Sequence[Path],
    manifest: Path,
    facts: Mapping[str, object],
) -> None:
    """Write the token shards of a run and their manifest.

    ``models`` maps each name to its ``model.json``, whose tokenizer is loaded.

    Raises
    ------
    UserError
        If tokenizers conflict, a chat document meets no template, or no row remains.
    """
    from workflow_scripts.models.loading import load_tokenizer

    layout.check(len(outputs))
    tokenizers = {name: load_tokenizer(path) for name, path in models.items()}
    sizes = {name: read_json(path).get("vocabulary") for name, path in models.items()}
    known = {name: int(size) for name, size in sizes.items() if size}
    fill_shards(documents, tokenizers, known, template, layout, outputs, manifest, facts)


def named_path(text: str) -> tuple[str, Path]:
    """Argparse type of ``name=path``."""
    name, separator, path = text.partition("=")
    if not (name and separator and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form name=path")
    return name, Path(path)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and tokenize."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=Path, required=True, help="documents.parquet")
    parser.add_argument(
        "--tokenizer",
        type=named_path,
        action="append",
        required=True,
        metavar="MODEL=MODEL.JSON",
        help="a model's name and manifest; repeat for each model",
    )
    parser.add_argument("--template", type=Path, default=None, help="jinja chat template file")
    parser.add_argument("--context-length", type=int, required=True)
    parser.add_argument("--tokens", type=int, required=True, help="token budget of the run")
    parser.add_argument("--shard-tokens", type=int, required=True)
    parser.add_argument("--facts", type=json.loads, default={}, help="JSON for the provenance")
    parser.add_argument("--output", type=Path, nargs="+", required=True, help="the shards")
    parser.add_argument("--manifest", type=Path, required=True)
    arguments = parser.parse_args(argv)

    def run() -> None:
        tokenize_documents(
            arguments.documents,
            dict(arguments.tokenizer),
            arguments.template,
            Layout(arguments.context_length, arguments.tokens, arguments.shard_tokens),
            arguments.output,
            arguments.manifest,
            arguments.facts,
        )

    return cli.guarded(run)


if __name__ == "__main__":
    raise SystemExit(main())
