"""The tables of sampled documents, as the step reads them that turns them into tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from workflow_scripts.common.cli import UserError

if TYPE_CHECKING:
    import pyarrow.parquet as pq

BATCH = 1000


@dataclass(frozen=True)
class TextDocument:
    """The columns of a table of documents that matter here."""

    document: int
    kind: str
    category: str
    split: str
    text: str
    messages: str


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


def categories_of(path: Path) -> tuple[str, ...]:
    """Return the categories that documents may have, as the table says."""
    metadata = _open_documents(path, []).schema_arrow.metadata or {}
    return tuple(json.loads(metadata.get(b"categories", b"[]")))


def contents_of(document: TextDocument) -> str:
    """Return the text of a document, of a chat without the names of roles."""
    if document.kind == "plain":
        return document.text
    return "\n".join(message["content"] for message in json.loads(document.messages))
