"""What later steps read from the sampled documents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from workflow_scripts.common import files


def read_sources(paths: Sequence[Path]) -> dict[int, str]:
    """Return the source of each document by its number, of all parts of documents.parquet."""
    sources: dict[int, str] = {}
    for path in paths:
        table = files.read_parquet(path, columns=["document", "source"])
        sources |= dict(zip(table["document"].tolist(), table["source"].tolist(), strict=True))
    return sources
