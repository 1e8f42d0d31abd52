"""The local files that a source of text names."""

from __future__ import annotations

import glob
from pathlib import Path

from workflow_scripts.common.cli import UserError
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
    """Return the file of that name, or those that a pattern matches, in alphabetic order.

    ``~`` is the home folder.
    """
    path = Path(pattern).expanduser()
    if path.is_file():
        return [path]
    # Not Path.glob, which refuses absolute patterns.
    paths = sorted(map(Path, glob.glob(str(path), recursive=True)))  # noqa: PTH207
    return [path for path in paths if path.is_file()]


def check_readable(where: str, path: Path) -> None:
    """Check that a file can be opened.

    Raises
    ------
    UserError
        If not, after ``where``.
    """
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise UserError(
            f"{where}: {path} cannot be read ({error.strerror}): check its permissions"
        ) from error


def absence(pattern: str) -> str:
    """Return why a pattern names no file, and the remedy."""
    if Path(pattern).expanduser().is_dir():
        return f"{pattern} is a folder: name its files, as in {pattern.rstrip('/')}/*.jsonl"
    return f"{pattern} does not exist: check its `path`"
