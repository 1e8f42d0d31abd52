"""What a GGUF file says of its model: sizes, tokenizer and tensors, from its header alone.

Fast enough for a dry run, since nothing is imported but the standard library. Whether transformers
reads the architecture says :mod:`workflow_scripts.models.convert_gguf`.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from workflow_scripts.common.cli import UserError, quoted
from workflow_scripts.models.weights import check_pointer

MAGIC, VERSIONS, ALIGNMENT = b"GGUF", (2, 3), 32
NUMBERS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
"""Type of a metadata value: its form in the words of `struct`."""
STRING, ARRAY = 8, 9
MOST_DIMENSIONS = 4
HALVES = {1: "float16", 30: "bfloat16"}
BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    9: (32, 40), 10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210),
    15: (256, 292), 16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18),
    21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8),
    28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
}  # fmt: skip
"""Type of a tensor: numbers in a block, and its bytes."""


@dataclass(frozen=True)
class GgufTensor:
    """A tensor: its type in the format's numbers, its sizes, and where its bytes lie."""

    kind: int
    sizes: tuple[int, ...]
    start: int

    @property
    def end(self) -> int:
        """Return the byte behind the tensor's last one."""
        numbers, size = BLOCKS[self.kind]
        return self.start + math.prod(self.sizes) // numbers * size


@dataclass(frozen=True)
class GgufFile:
    """What a GGUF file's header says; of arrays, ``metadata`` has the length."""

    metadata: Mapping[str, object]
    tensors: Mapping[str, GgufTensor]
    tokenizer: str
    """Digest of the entries that decide how text is cut and chat is rendered."""

    @property
    def architecture(self) -> str:
        """The model's architecture, in the format's words."""
        return str(self.metadata["general.architecture"])

    def _size(self, name: str) -> int | None:
        value = self.metadata.get(f"{self.architecture}.{name}")
        return value if type(value) is int and value > 0 else None

    @property
    def layers(self) -> int | None:
        """The number of decoder blocks."""
        return self._size("block_count")

    @property
    def width(self) -> int | None:
        """The width of the residual stream."""
        return self._size("embedding_length")

    @property
    def positions(self) -> int | None:
        """The longest text that the model was made for, in tokens."""
        return self._size("context_length")

    @property
    def parameters(self) -> int:
        """The numbers in all tensors."""
        return sum(math.prod(tensor.sizes) for tensor in self.tensors.values())

    @property
    def dtype(self) -> str:
        """The type that holds all weights exactly: float32, unless all matrices have 16 bits."""
        kinds = {tensor.kind for tensor in self.tensors.values() if len(tensor.sizes) > 1}
        return HALVES.get(min(kinds), "float32") if len(kinds) == 1 else "float32"


def read_gguf(where: str, path: Path) -> GgufFile:
    """Return what the header of a GGUF file says, after checking that the file is whole.

    ``where`` begins each sentence: the setting or the model that names the file.

    Raises
    ------
    UserError
        If the file is missing, damaged, one part of several, or holds no language model with its
        tokenizer.
    """
    try:
        check_pointer(where, path)
        status = path.stat()
        found = _read(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise UserError(
            f"{where}: {path} cannot be read ({error.strerror}): give a GGUF file"
        ) from None
    except (ValueError, LookupError, struct.error, RecursionError, OverflowError):
        raise UserError(
            f"{where}: {path} is truncated or no GGUF file: fetch or convert it again"
        ) from None
    _refuse(where, path, found)
    return found


def _refuse(where: str, path: Path, found: GgufFile) -> None:
    data = found.metadata
    unknown = {t.kind for t in found.tensors.values()} - BLOCKS.keys()
    if unknown:
        raise UserError(
            f"{where}: {path} holds tensors of type {min(unknown)}, which this version does not "
            "know: give another quantisation"
        )
    if data.get("split.count", 1) not in (0, 1):
        raise UserError(
            f"{where}: {path} is one of {data['split.count']} parts: join them with "
            "llama-gguf-split --merge"
        )
    kind = data.get("general.type", "model")
    if kind != "model" or not found.tensors or found.layers is None:
        raise UserError(
            f"{where}: {path} holds no language model (it is of the type {quoted(kind)} and the "
            f"architecture {quoted(found.architecture)}): check which file it is"
        )
    if not data.get("tokenizer.ggml.tokens"):
        raise UserError(f"{where}: {path} holds no tokenizer: convert it with its tokenizer")
    if any(tensor.end > path.stat().st_size for tensor in found.tensors.values()):
        raise UserError(f"{where}: {path} is truncated: fetch or convert it again")


@cache
def _read(path: Path, size: int, changed: int) -> GgufFile:
    """Return the header of a file; size and time of change tell apart its versions."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _Header(data).read()


class _Header:
    """Reads a header from its beginning to its end."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at = data, 0

    def read(self) -> GgufFile:
        if self.data[:4] != MAGIC:
            raise ValueError("another kind of file")
        self.at = 4
        if self.number("I") not in VERSIONS:
            raise ValueError("another version")
        tensors, entries = self.number("Q"), self.number("Q")
        metadata: dict[str, object] = {}
        tokenizer = hashlib.sha256()
        for _ in range(entries):
            start, name = self.at, self.text()
            metadata[name] = self.value(self.number("I"))
            if name.startswith("tokenizer."):
                tokenizer.update(self.data[start : self.at])
        found = [self.tensor() for _ in range(tensors)]
        alignment = metadata.get("general.alignment", ALIGNMENT)
        if type(alignment) is not int or alignment < 1:
            raise ValueError("no alignment")
        data = -(-self.at // alignment) * alignment
        placed = {n: GgufTensor(t.kind, t.sizes, data + t.start) for n, t in found}
        if "general.architecture" not in metadata:
            raise ValueError("no architecture")
        return GgufFile(metadata, placed, tokenizer.hexdigest()[:16])

    def number(self, form: str) -> int:
        """Read one number."""
        (value,) = struct.unpack_from(f"<{form}", self.data, self.at)
        self.at += struct.calcsize(f"<{form}")
        return value  # type: ignore[no-any-return]

    def text(self) -> str:
        """Read one string."""
        length = self.number("Q")
        start, self.at = self.at, self.at + length
        if self.at > len(self.data):
            raise ValueError("the file ends within a string")
        return self.data[start : self.at].decode("utf-8")

    def value(self, kind: int) -> object:
        """Read one value; of an array, return the length."""
        if kind == STRING:
            return self.text()
        if kind != ARRAY:
            return self.number(NUMBERS[kind])
        inner, count = self.number("I"), self.number("Q")
        if inner in NUMBERS:
            self.at += count * struct.calcsize(f"<{NUMBERS[inner]}")
        elif inner == STRING:
            for _ in range(count):
                self.at += 8 + struct.unpack_from("<Q", self.data, self.at)[0]
        else:
            for _ in range(count):
                self.value(inner)
        return count

    def tensor(self) -> tuple[str, GgufTensor]:
        """Read a tensor's entry; its place is counted from the first tensor's."""
        name, dimensions = self.text(), self.number("I")
        if dimensions > MOST_DIMENSIONS:
            raise ValueError("too many dimensions")
        sizes = tuple(self.number("Q") for _ in range(dimensions))
        kind = self.number("I")
        return name, GgufTensor(kind, sizes, self.number("Q"))
