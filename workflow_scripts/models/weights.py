"""Names and shapes of a model's tensors, from the headers of its safetensors files.

Only headers are read, so that a model of any size takes milliseconds, and nothing is imported but
the standard library. Format: https://huggingface.co/docs/safetensors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflow_scripts.common.cli import UserError

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
LONGEST = 100_000_000  # bytes of a header, as in the format's own reader
LFS = b"version https://git-lfs"
BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "I8": 1, "U8": 1}
WEIGHT_TYPES = ("F64", "F32", "F16", "BF16")
WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "module.")
"""Parts that torch.compile, FSDP, activation checkpointing and DistributedDataParallel add."""
PACKED = (".qweight", ".weight_packed", ".absmax", ".weight_scale", ".weight_scale_inv", "_blocks")
"""Endings of the tensors of quantised checkpoints."""


@dataclass(frozen=True)
class TensorEntry:
    """What a header says of a tensor: its data type, in the format's words, and its shape."""

    dtype: str
    shape: tuple[int, ...]


def check_pointer(where: str, path: Path) -> None:
    """Refuse a file that Git LFS has not fetched.

    Raises
    ------
    UserError
        If it is a pointer.
    """
    with path.open("rb") as file:
        if file.read(len(LFS)) == LFS:
            raise UserError(
                f"{where}: {path} is a Git LFS pointer, not the file itself: run `git lfs pull` in "
                "its folder, or download it again"
            )


def read_object(where: str, path: Path) -> dict[str, Any]:
    """Return the mapping in a JSON file that a user brings.

    Raises
    ------
    UserError
        If the file cannot be read, is a Git LFS pointer, no JSON, or holds something else.
    """
    try:
        check_pointer(where, path)
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{where}: {path} cannot be read ({error.strerror}): fetch it") from None
    except (ValueError, RecursionError):  # no UTF-8, no JSON, or nested too deeply
        raise UserError(f"{where}: {path} is not valid JSON: fetch or save it again") from None
    if not isinstance(value, dict):
        raise UserError(f"{where}: {path} is no JSON object: fetch or save it again")
    return value


def read_header(where: str, path: Path) -> dict[str, TensorEntry]:
    """Return the tensors of a safetensors file.

    Raises
    ------
    UserError
        If it is a Git LFS pointer, truncated or damaged.
    """
    try:
        check_pointer(where, path)
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(LONGEST, size - 8):
                raise ValueError("no whole header")
            header = json.loads(file.read(length))
        tensors = {n: _entry(header[n], size - 8 - length) for n in header if n != "__metadata__"}
        end = max((header[name]["data_offsets"][1] for name in tensors), default=0)
        if end != size - 8 - length:
            raise ValueError("another length")
    except OSError as error:
        raise UserError(f"{where}: {path} cannot be read ({error.strerror}): fetch it") from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise UserError(
            f"{where}: {path} is truncated or no safetensors file: fetch or save it again"
        ) from None
    return tensors


def _entry(described: Mapping[str, Any], data: int) -> TensorEntry:
    """Return a tensor's entry, of a header before ``data`` bytes."""
    dtype, shape = described["dtype"], described["shape"]
    first, last = described["data_offsets"]
    if not all(type(number) is int and number >= 0 for number in (*shape, first, last)):
        raise ValueError("no size")
    if not first <= last <= data or last - first != math.prod(shape) * BYTES.get(
        dtype, (last - first) / max(math.prod(shape), 1)
    ):
        raise ValueError("the size does not fit the shape")
    return TensorEntry(str(dtype), tuple(shape))


def read_tensors(where: str, folder: Path) -> dict[str, TensorEntry]:
    """Return all tensors of a model, which may lie in several files.

    Raises
    ------
    UserError
        If there are no weights as safetensors, files are missing or damaged, or tensors are
        quantised or named otherwise than transformers names them.
    """
    tensors: dict[str, TensorEntry] = {}
    for file in weight_files(where, folder):
        tensors |= read_header(where, file)
    if not tensors:
        raise UserError(f"{where}: {folder} holds no tensor: save the model again")
    check_names(where, folder, tensors)
    return tensors


def weight_files(where: str, folder: Path) -> list[Path]:
    """Return the files that hold a model's weights.

    Raises
    ------
    UserError
        If there is none as safetensors, or one is missing.
    """
    if not (folder / WHOLE).is_file() and not (folder / INDEX).is_file():
        raise UserError(f"{where}: {_no_weights(folder)}")
    if not (folder / INDEX).is_file():
        return [folder / WHOLE]
    index = read_object(where, folder / INDEX)
    names = index.get("weight_map")
    if (
        not isinstance(names, dict)
        or not isinstance(index.get("metadata"), dict)
        or not all(isinstance(name, str) and Path(name).name == name for name in names.values())
    ):
        raise UserError(
            f"{where}: {folder / INDEX} does not say which file holds which tensor (metadata, "
            "weight_map): fetch or save it again"
        )
    parts = sorted(set(names.values()))
    if missing := [name for name in parts if not (folder / name).is_file()]:
        raise UserError(f"{where}: {folder} lacks {missing[0]}: fetch it again")
    return [folder / WHOLE] if (folder / WHOLE).is_file() else [folder / name for name in parts]


def _no_weights(folder: Path) -> str:
    others = sorted(folder.glob("*.safetensors"))
    if others:
        return (
            f"{folder} holds no safetensors file of the name {WHOLE} but {others[0].name}: rename "
            "it, or save the model again"
        )
    if ggufs := sorted(folder.glob("*.gguf")):
        return (
            f"{folder} holds no safetensors file but {ggufs[0].name}: write gguf: {ggufs[0]} in "
            "place of path"
        )
    if any(folder.glob("*.bin")):
        return (
            f"{folder} holds no safetensors file, the one format of weights that is read, but "
            "*.bin (only pickled weights, which may run code): save the model as safetensors"
        )
    return (
        f"{folder} holds no safetensors file, the one format of weights that is read: fetch or "
        "save the weights"
    )


def check_names(where: str, folder: Path, tensors: Mapping[str, TensorEntry]) -> None:
    """Refuse tensors that are quantised, or named by a wrapper around the model.

    Raises
    ------
    UserError
        Naming the first one.
    """
    for name, entry in tensors.items():
        weights = name.endswith("weight") and entry.dtype not in WEIGHT_TYPES
        if weights or name.endswith(PACKED):
            raise UserError(
                f"{where}: the weights in {folder} are quantised ({name} is {entry.dtype}): give "
                "the model in full precision"
            )
    for part in WRAPPERS:
        wrapped = [n for n in tensors if n.startswith(part) or (part[0] == "_" and part in n)]
        if wrapped:
            raise UserError(
                f"{where}: the weights in {folder} are named as a wrapper names them "
                f"({wrapped[0]}): save the model without it, or delete {part!r} from the names"
            )
