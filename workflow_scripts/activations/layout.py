"""One dump file: the rows of a layer in chunks, each with a checksum. ``FORMAT.md`` has the format.

It is written through HDF5, but rows are read without HDF5, directly from the chunks in the file, so
that threads can read in parallel. Every reader refuses a chunk whose checksum differs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from isal.isal_zlib import crc32  # zlib's own takes a third of the reading's time
from numpy.typing import NDArray
from torch import Tensor

from workflow_scripts.activations import FORMAT, VERSION
from workflow_scripts.common import hdf5
from workflow_scripts.common.cli import UserError

CHUNK_BYTES = 1 << 17
PIECE_BYTES = 1 << 23  # chunks that lie side by side and are read together
AHEAD_BYTES = 1 << 23  # chunks that the kernel reads next
ADVISES = hasattr(os, "posix_fadvise")  # macOS does not
STORED = {"bfloat16": np.uint16, "float16": np.float16, "float32": np.float32}
CHECKSUM = "crc32"
REMEDY = "it is damaged; delete it and run again"
Stored = NDArray[np.uint16] | NDArray[np.float16] | NDArray[np.float32]


class LayerWriter:
    """Writes one layer of a dump, rows in order."""

    def __init__(self, file: h5py.File, layer: int, rows: int, width: int, dtype: str) -> None:
        kind = np.dtype(STORED[dtype])
        self.chunk_rows = max(1, min(max(rows, 1), CHUNK_BYTES // (width * kind.itemsize)))
        self.file, self.layer, self.done = file, layer, 0
        self.values = file.create_dataset(
            f"layer{layer}",
            (rows, width),
            kind,
            chunks=(self.chunk_rows, width),
            maxshape=(None if rows == 0 else rows, width),  # HDF5 has no empty chunked dataset
            fillvalue=0,
        )
        hdf5.put_text(self.values, "encoding", dtype)
        self.norms = np.empty(rows, dtype=np.float32)
        self.checksums = np.zeros(-(-rows // self.chunk_rows), dtype=np.uint32)

    def write(self, values: Stored, norms: NDArray[np.float32]) -> None:
        """Append rows in the stored type [n, D] with their norms [n]."""
        last = self.done + len(values)
        self.values[self.done : last] = values
        self.norms[self.done : last] = norms
        for chunk in range(self.done // self.chunk_rows, -(-last // self.chunk_rows)):
            begin = max(self.done, chunk * self.chunk_rows) - self.done
            end = min(last, (chunk + 1) * self.chunk_rows) - self.done
            part = np.ascontiguousarray(values[begin:end])
            self.checksums[chunk] = crc32(part.data, int(self.checksums[chunk]))
        self.done = last

    def close(self) -> None:
        """Write norms and checksums, after the last row."""
        write_column(self.file, f"norm{self.layer}", self.norms)
        write_column(self.file, f"{CHECKSUM}_layer{self.layer}", self.checksums)


def write_column(file: h5py.File, name: str, values: NDArray[np.generic]) -> None:
    """Write a one-dimensional dataset with its checksum."""
    dataset = file.create_dataset(name, data=values)
    dataset.attrs[CHECKSUM] = np.uint32(crc32(np.ascontiguousarray(values).data))


def read_column(file: h5py.File, path: Path, name: str) -> NDArray[np.generic]:
    """Return a one-dimensional dataset.

    Raises
    ------
    UserError
        If it is missing or its checksum differs.
    """
    if name not in file or CHECKSUM not in file[name].attrs:
        raise UserError(f"{path} has no {name} with a checksum: {REMEDY}")
    values = np.asarray(file[name])
    if crc32(values.data) != int(file[name].attrs[CHECKSUM]):
        raise UserError(f"{path} differs from its checksum in {name}: {REMEDY}")
    return values


@dataclass(frozen=True)
class Layer:
    """Where the chunks of a layer lie in a file; a chunk has ``chunk_rows`` rows of ``width``."""

    path: Path
    layer: int
    encoding: str
    rows: int
    width: int
    chunk_rows: int
    offsets: NDArray[np.int64]
    checksums: NDArray[np.uint32]

    @classmethod
    def open(cls, path: Path, layer: int) -> Layer:
        """Find the chunks of a layer.

        Raises
        ------
        UserError
            If the file is none, damaged or lacks the layer.
        """
        with hdf5.open_complete(path, FORMAT, VERSION) as file:
            name = f"layer{layer}"
            if name not in file:
                raise UserError(
                    f"{path} holds no layer {layer}: dump it, or change the fit's layer"
                )
            checksums = read_column(file, path, f"{CHECKSUM}_{name}").astype(np.uint32)
            values = file[name]
            offsets = np.full(len(checksums), -1, dtype=np.int64)
            values.id.chunk_iter(
                lambda chunk: offsets.__setitem__(
                    chunk.chunk_offset[0] // values.chunks[0], chunk.byte_offset
                )
            )
            opened = cls(
                path=path,
                layer=layer,
                encoding=hdf5.get_text(values, "encoding"),
                rows=int(values.shape[0]),
                width=int(values.shape[1]),
                chunk_rows=int(values.chunks[0]),
                offsets=offsets,
                checksums=checksums,
            )
        if opened.encoding not in STORED or (offsets < 0).any():
            raise UserError(f"{path} lacks rows of {name}: {REMEDY}")
        return opened

    @property
    def kind(self) -> np.dtype[np.generic]:
        """The type in which values are stored."""
        return np.dtype(STORED[self.encoding])

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a whole chunk."""
        return self.chunk_rows * self.width * self.kind.itemsize

    def pieces(self, rows: NDArray[np.int64]) -> Iterator[tuple[slice, Stored, NDArray[np.int64]]]:
        """Yield sorted rows in the stored type, part by part.

        A part is its place among ``rows``, the chunks that hold it, and where in them its rows are.

        Raises
        ------
        UserError
            If a chunk is cut off or differs from its checksum.
        """
        chunks = np.unique(rows // self.chunk_rows)
        if not len(chunks):
            return
        most = max(1, PIECE_BYTES // self.chunk_bytes)
        steps = np.diff(self.offsets[chunks]) != self.chunk_bytes
        breaks = np.flatnonzero(steps | (np.diff(chunks) != 1)) + 1
        handle = os.open(self.path, os.O_RDONLY)
        try:
            parts = [
                run[start : start + most]
                for run in np.split(chunks, breaks)
                for start in range(0, len(run), most)
            ]
            for part in self._announced(handle, parts):
                yield self._piece(handle, part, rows)
        finally:
            os.close(handle)

    def _announced(
        self, handle: int, parts: Sequence[NDArray[np.int64]]
    ) -> Iterator[NDArray[np.int64]]:
        """Yield runs of chunks; the kernel already reads those that come next.

        A wait for each of many small runs would take as long again as the reading.
        """
        ends = np.cumsum([len(part) * self.chunk_bytes for part in parts])
        announced = 0
        for number, part in enumerate(parts):
            while (
                ADVISES and announced < len(parts) and ends[announced] - ends[number] <= AHEAD_BYTES
            ):
                size = len(parts[announced]) * self.chunk_bytes
                offset = int(self.offsets[parts[announced][0]])
                os.posix_fadvise(handle, offset, size, os.POSIX_FADV_WILLNEED)
                announced += 1
            yield part

    def _piece(
        self, handle: int, chunks: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> tuple[slice, Stored, NDArray[np.int64]]:
        begin = int(chunks[0]) * self.chunk_rows
        end = min((int(chunks[-1]) + 1) * self.chunk_rows, self.rows)
        values = np.empty((end - begin, self.width), dtype=self.kind)
        if _read_fully(handle, values, int(self.offsets[chunks[0]])) != values.nbytes:
            raise UserError(f"{self.path} ends within layer{self.layer}: {REMEDY}")
        for chunk in chunks:
            first = int(chunk) * self.chunk_rows - begin
            if crc32(values[first : first + self.chunk_rows].data) != self.checksums[chunk]:
                raise UserError(
                    f"{self.path} differs from its checksum in layer{self.layer}, rows "
                    f"{begin + first} to {min(begin + first + self.chunk_rows, self.rows) - 1}: "
                    f"{REMEDY}"
                )
        first, last = np.searchsorted(rows, (begin, end))
        return slice(int(first), int(last)), values, rows[first:last] - begin

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return sorted rows as float32, [n, D]."""
        result = np.empty((len(rows), self.width), dtype=np.float32)
        for place, values, chosen in self.pieces(rows):
            result[place] = self.widen(values[chosen])
        return result

    def widen(self, values: Stored) -> NDArray[np.float32]:
        """Return stored values as float32, exactly."""
        widened: NDArray[np.float32] = as_tensor(values, self.encoding).float().numpy()
        return widened

    def verify(self) -> None:
        """Read every chunk and compare its checksum; raises as :meth:`pieces`."""
        step = self.chunk_rows * 64
        for first in range(0, self.rows, step):
            for _ in self.pieces(np.arange(first, min(first + step, self.rows))):
                pass


def as_tensor(values: Stored, encoding: str) -> Tensor:
    """Return stored values as a tensor that shares their memory."""
    if encoding == "bfloat16":
        return torch.from_numpy(values.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(values)


def _read_fully(handle: int, values: NDArray[np.generic], offset: int) -> int:
    """Fill ``values`` from the file at ``offset``; return the bytes read."""
    view = values.reshape(-1).view(np.uint8).data
    done = 0
    while done < len(view):
        read = os.preadv(handle, [view[done:]], offset + done)
        if not read:
            break
        done += read
    return done
