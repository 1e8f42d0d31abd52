"""HDF5 files that are either complete or refused, and bfloat16 as bit patterns.

h5py has no bfloat16 type: such arrays are stored as ``uint16`` bit patterns with the attribute
``encoding = "bfloat16"``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from workflow_scripts.common.cli import UserError
from workflow_scripts.common.files import atomic_path


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
        temporary.chmod(0o644)


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
        except (OSError, LookupError, RuntimeError, ValueError) as error:  # as h5py tells damage
            told = " ".join(str(error).split())[:200]
            raise UserError(f"{path} is damaged ({told}): delete it and run again") from None


def check_complete(file: h5py.File, path: Path, file_format: str, version: int) -> None:
    """Refuse a file of another format, a newer version, or one that was never finished."""
    found = get_text(file, "format") if "format" in file.attrs else None
    if found != file_format:
        raise UserError(f"{path} holds {found!r}, not {file_format!r}: give the right file")
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


def to_bfloat16_bits(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round float32 to bfloat16 (nearest even) and return the bit patterns as uint16."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    result = (rounded >> np.uint32(16)).astype(np.uint16)
    nan = np.isnan(values)
    if nan.any():
        result[nan] = np.uint16(0x7FC0)
    return result


def from_bfloat16_bits(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Widen bfloat16 bit patterns to float32, exactly."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
