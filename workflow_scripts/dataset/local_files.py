"""The local files that a source of text names."""

from __future__ import annotations

import glob
from pathlib import Path

from workflow_scripts.dataset.settings import FileSource, HubSource, Source


def source_files(source: Source) -> list[Path]:
    """Return the local files of a source, in the order of its patterns."""
    if isinstance(source, HubSource):
        return sorted(path for path in Path(source.path).rglob("*") if path.is_file())
    if not isinstance(source, FileSource):
        return []
    return [path for pattern in patterns(source) for path in matches(pattern)]


def patterns(source: FileSource) -> list[str]:
    """Return the patterns of a source."""
    return [source.path] if isinstance(source.path, str) else source.path


def matches(pattern: str) -> list[Path]:
    """Return the files that a pattern matches, in alphabetic order; the file of that name first."""
    if Path(pattern).is_file():
        return [Path(pattern)]
    # Not Path.glob, which refuses absolute patterns.
    paths = sorted(map(Path, glob.glob(pattern, recursive=True)))  # noqa: PTH207
    return [path for path in paths if path.is_file()]
