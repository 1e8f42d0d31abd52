"""Checkpoints of a fit, in safetensors: the same file from one process and from several.

Tensors with a row per latent come from all processes in order, and are written piece by piece: a
checkpoint is three times the weights, which no process need hold.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from workflow_scripts.common.files import atomic_path
from workflow_scripts.crosscoder.parallel import Processes

TYPES = {torch.float64: "F64", torch.float32: "F32", torch.int64: "I64"}
COMMON = "decoder_bias"
"""All processes hold tensors of this name, and single numbers, as a whole."""


def is_divided(name: str, tensor: Tensor) -> bool:
    """Return whether each process holds its latents' part of a tensor."""
    return tensor.dim() > 0 and not name.endswith(COMMON)


def whole_shape(name: str, own: Tensor, latents: int) -> list[int]:
    """Return the shape of a tensor of all latents."""
    return [latents, *own.shape[1:]] if is_divided(name, own) else list(own.shape)


def pieces(name: str, own: Tensor, processes: Processes) -> Iterator[Tensor]:
    """Yield a tensor in the first process, on the CPU, part by part; in the others nothing."""
    if is_divided(name, own):
        yield from processes.pieces(own)
    elif processes.rank == 0:
        yield own.cpu()


def write(
    path: Path, tensors: Mapping[str, Tensor], latents: int, state: str, processes: Processes
) -> None:
    """Write the parts of all processes as tensors of all latents, and a text, the ``state``."""
    names = sorted(tensors, key=lambda name: -tensors[name].element_size())  # aligned in the file
    parts = (piece for name in names for piece in pieces(name, tensors[name], processes))
    if processes.rank:
        for _ in parts:
            pass
        return
    header: dict[str, object] = {"__metadata__": {"state": state}}
    end = 0
    for name in names:
        own, shape = tensors[name], whole_shape(name, tensors[name], latents)
        begin, end = end, end + own.element_size() * prod(shape)
        described = {"dtype": TYPES[own.dtype], "shape": shape, "data_offsets": [begin, end]}
        header[name] = described
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for piece in parts:
            file.write(piece.contiguous().view(-1).view(torch.uint8).numpy().data)


def whole(tensors: Mapping[str, Tensor], latents: int, processes: Processes) -> dict[str, Tensor]:
    """Return tensors of all latents in the first process, on the CPU; in the others nothing."""
    result: dict[str, Tensor] = {}
    for name, own in tensors.items():
        end = 0
        for piece in pieces(name, own, processes):
            if not end:
                result[name] = torch.empty(whole_shape(name, own, latents), dtype=own.dtype)
            begin, end = end, end + len(piece)
            result[name][begin:end] = piece
    return result


def read_state(path: Path) -> str:
    """Return the text of a checkpoint."""
    with safe_open(path, framework="pt") as file:
        state: str = file.metadata()["state"]
    return state


def read(path: Path, own: Mapping[str, Tensor], latents: slice) -> Iterator[tuple[str, Tensor]]:
    """Yield the values of tensors like ``own``, on the CPU: of all latents, those of a process."""
    with safe_open(path, framework="pt") as file:
        for name, like in own.items():
            divided = is_divided(name, like)
            yield name, file.get_slice(name)[latents] if divided else file.get_tensor(name)
