"""What later steps ask of the sampled documents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from workflow_scripts.common import files


def read_sources(paths: Sequence[Path]) -> dict[int, str]:
    """Return the source of each document by its number, of all parts of documents.parquet."""
    found: dict[int, str] = {}
    for path in paths:
        table = files.read_parquet(path, columns=["document", "source"])
        found |= dict(zip(table["document"].tolist(), table["source"].tolist(), strict=True))
    return found
