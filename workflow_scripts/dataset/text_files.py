"""The text of a file, whatever its compression and encoding: both are told by its first bytes."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from workflow_scripts.common.cli import UserError, shortened

COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}
"""First bytes of compressed files."""
OTHERS = {
    b"PAR1": "a Parquet file: set its kind to parquet",
    b"PK\x03\x04": "a ZIP archive: unpack it",
    b"ARROW1": "an Arrow file: save it as Parquet",
    b"SQLite format 3": "an SQLite database: export its text as JSON lines",
    b"\x89HDF": "an HDF5 file: save its text as JSON lines",
    b"%PDF": "a PDF: save its text as JSON lines",
    b"Obj\x01": "an Avro file: save it as Parquet",
    b"ORC": "an ORC file: save it as Parquet",
}
"""First bytes of files that hold no lines, and the remedy."""
MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
ZEROS = {
    "x000": "utf-32-le",
    "000x": "utf-32-be",
    "x0x0": "utf-16-le",
    "0x0x": "utf-16-be",
}
"""Encodings without a mark, by which of the first four bytes are zero: text begins in ASCII."""


def compression(path: Path) -> str:
    """Return how a file is compressed, by its first bytes, or an empty string."""
    with path.open("rb") as file:
        start = file.read(6)
    return next((name for magic, name in COMPRESSED.items() if start.startswith(magic)), "")


def encoding(start: bytes) -> str:
    """Return the encoding of a file, given its first bytes."""
    marked = (name for mark, name in MARKS if start.startswith(mark))
    return next(marked, ZEROS.get("".join("x" if byte else "0" for byte in start[:4]), "utf-8"))


@contextmanager
def open_text(path: Path) -> Iterator[tuple[IO[bytes], str]]:
    """Yield the decompressed bytes of a file and their encoding.

    Raises
    ------
    UserError
        If it is of a kind that holds no lines, is damaged or cannot be read.
    """
    import pyarrow

    form = compression(path)
    try:
        with _decompressed(path, form) as stream:
            buffered = io.BufferedReader(cast(io.RawIOBase, stream), 1 << 16)
            start = buffered.peek(16)[:16]
            for magic, remedy in OTHERS.items():
                if start.startswith(magic):
                    raise UserError(f"{path} is {remedy}")
            yield buffered, encoding(start)
    except (OSError, EOFError, zlib.error, lzma.LZMAError, pyarrow.ArrowException) as error:
        if form:
            raise UserError(
                f"{path} is no whole {form} file ({shortened(error)}): fetch it again"
            ) from error
        raise UserError(f"{path} cannot be read ({shortened(error)}): check the file") from error


def _decompressed(path: Path, form: str) -> IO[bytes]:
    if form == "zstd":
        import pyarrow

        return cast(IO[bytes], pyarrow.input_stream(str(path), compression="zstd"))
    if not form:
        return path.open("rb")
    openers = {"gzip": gzip.GzipFile, "bzip2": bz2.BZ2File, "xz": lzma.LZMAFile}
    return cast(IO[bytes], openers[form](path, "rb"))


def lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file as UTF-8, without a byte order mark at the start of any.

    Other encodings are converted; what is invalid in them becomes U+FFFD.
    """
    with open_text(path) as (stream, encoded):
        source = stream if encoded == "utf-8" else _converted(stream, encoded)
        yield from (line.removeprefix(codecs.BOM_UTF8) for line in source)


def _converted(stream: IO[bytes], encoded: str) -> Iterator[bytes]:
    with io.TextIOWrapper(stream, encoded, errors="replace", newline="\n") as text:
        yield from (line.encode("utf-8", "replace") for line in text)


def read_start(path: Path, size: int) -> str:
    """Return the first ``size`` bytes of a file's text, decoded, without a byte order mark."""
    with open_text(path) as (stream, encoded):
        return stream.read(size).decode(encoded, "replace").removeprefix("\ufeff")
