"""HDF5 files that are either complete or refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from workflow_scripts.common.cli import UserError, shortened
from workflow_scripts.common.files import atomic_path, user_mask


@contextmanager
def atomic(
    path: Path, file_format: str, version: int, provenance: Mapping[str, object]
) -> Iterator[h5py.File]:
    """Yield a new HDF5 file that gets its name, and ``complete``, only when the block succeeds."""
    with atomic_path(path) as temporary:
        with h5py.File(temporary, "w", libver="latest") as file:
            yield file
            put_text(file, "format", file_format)
            file.attrs["format_version"] = version
            put_text(file, "provenance", json.dumps(provenance, sort_keys=True))
            file.attrs["complete"] = True
        temporary.chmod(0o666 & ~user_mask())


@contextmanager
def open_complete(path: Path, file_format: str, version: int) -> Iterator[h5py.File]:
    """Yield ``path`` open for reading.

    Raises
    ------
    UserError
        If the file is missing, no HDF5 file, of another format, newer than this version
        understands, incomplete, or damaged where it is read.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist: run the step that makes it")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise UserError(
            f"{path} cannot be read as HDF5 ({error}): it is truncated or no HDF5 file; "
            "delete it and run again"
        ) from None
    with file:
        try:
            check_complete(file, path, file_format, version)
            yield file
        except (
            OSError,
            LookupError,
            RuntimeError,
            ValueError,
        ) as error:  # what h5py raises for damage
            raise UserError(
                f"{path} is damaged ({shortened(error)}): delete it and run again"
            ) from None


def check_complete(file: h5py.File, path: Path, file_format: str, version: int) -> None:
    """Refuse a file of another format, a newer version, or one that was never finished."""
    actual = get_text(file, "format") if "format" in file.attrs else None
    if actual != file_format:
        raise UserError(f"{path} holds {actual!r}, not {file_format!r}: give the right file")
    if int(file.attrs.get("format_version", 0)) > version:
        raise UserError(
            f"{path} has format version {file.attrs['format_version']}, newer than {version}: "
            "update diffscope"
        )
    if not file.attrs.get("complete", False):
        raise UserError(f"{path} was never finished: delete it and run again")


def put_text(where: h5py.File | h5py.Dataset, name: str, text: str) -> None:
    """Set an attribute to text, of fixed length: it lies where HDF5 keeps checksums."""
    where.attrs[name] = np.bytes_(text.encode())


def get_text(where: h5py.File | h5py.Dataset, name: str) -> str:
    """Return the text of an attribute."""
    value = where.attrs[name]
    return value.decode() if isinstance(value, bytes) else str(value)
