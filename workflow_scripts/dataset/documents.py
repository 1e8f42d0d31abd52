"""What later steps read from the sampled documents."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from workflow_scripts.common import files

ALL = "all"
"""What tables call all sources together."""
CHUNK = 5_000
"""Documents whose text is held at once."""


def read_sources(paths: Sequence[Path]) -> dict[int, str]:
    """Return the source of each document by its number, of all parts of documents.parquet."""
    sources: dict[int, str] = {}
    for path in paths:
        table = files.read_parquet(path, columns=["document", "source"])
        sources |= dict(zip(table["document"].tolist(), table["source"].tolist(), strict=True))
    return sources


def contents(paths: Sequence[Path]) -> Iterator[list[str]]:
    """Yield the text of all documents in order, a list of them at a time; of chats the contents."""
    import pyarrow.parquet as pq

    for path in paths:
        for batch in pq.ParquetFile(path).iter_batches(CHUNK, columns=["text", "messages"]):
            columns = (batch["text"].to_pylist(), batch["messages"].to_pylist())
            yield [text or _joined(messages) for text, messages in zip(*columns, strict=True)]


def _joined(messages: str) -> str:
    """Return the contents of a chat, given as JSON, without the names of roles."""
    return "\n".join(message["content"] for message in json.loads(messages or "[]"))


def read_contents(paths: Sequence[Path], wanted: Iterable[int]) -> dict[int, str]:
    """Return the text of some documents by number; of a chat, the contents with their roles."""
    chosen = set(wanted)
    found: dict[int, str] = {}
    for path in paths:
        table = files.read_parquet(path, columns=["document", "text", "messages"])
        for row in table[table["document"].isin(chosen)].to_dict("records"):
            messages = json.loads(row["messages"] or "[]")
            chat = "\n".join(f"{message['role']}: {message['content']}" for message in messages)
            found[int(row["document"])] = row["text"] or chat
    return found
