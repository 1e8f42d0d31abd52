"""Token shards, dumps and normalisers with known content."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tests.models.random_models import VOCABULARY
from workflow_scripts.activations import FORMAT, VERSION
from workflow_scripts.activations.dump_activations import write_index
from workflow_scripts.activations.layout import STORED, Layer, LayerWriter, Stored
from workflow_scripts.activations.store import NORMALIZER_FORMAT, NORMALIZER_VERSION
from workflow_scripts.common import hdf5
from workflow_scripts.dataset.shards import SPLITS, TokenShard, write_shard


def token_shard(
    lengths: list[int], first_document: int = 0, splits: list[str] | None = None, seed: int = 0
) -> TokenShard:
    """Return a shard of random ids with rows of the given lengths, each with BOS = 1."""
    rng = np.random.default_rng(seed)
    starts = np.cumsum([0, *lengths]).astype(np.int64)
    ids = rng.integers(3, VOCABULARY, starts[-1]).astype(np.int32)
    ids[starts[:-1]] = 1
    template = np.zeros(len(ids), dtype=np.bool_)
    template[starts[:-1]] = True
    names = splits or ["fit"] * len(lengths)
    return TokenShard(
        ids=ids,
        row_starts=starts,
        row_document=np.arange(first_document, first_document + len(lengths), dtype=np.int32),
        row_split=np.array([SPLITS.index(name) for name in names], dtype=np.uint8),
        role=np.zeros(len(ids), dtype=np.uint8),
        template=template,
        category=np.zeros(len(ids), dtype=np.int16),
        categories=("news",),
    )


def write_tokens(path: Path, shard: TokenShard) -> Path:
    """Write a token shard and return its path."""
    write_shard(path, shard, {})
    return path


def encode(h: NDArray[np.float32], dtype: str) -> Stored:
    """Return float32 values in a stored type; bfloat16 as bit patterns."""
    if dtype == "bfloat16":
        bits: NDArray[np.uint16] = torch.from_numpy(h).bfloat16().view(torch.int16).numpy()
        return bits.view(np.uint16)
    return h.astype(STORED[dtype])


def read_rows(path: Path, layer: int) -> NDArray[np.float32]:
    """Return all rows of one layer of a dump, [N, D]."""
    stored = Layer.open(path, layer)
    return stored.read(np.arange(stored.rows))


def write_dump(
    path: Path, shard: TokenShard, h: NDArray[np.float32], layer: int = 2, dtype: str = "float32"
) -> Path:
    """Write activations h [N, D] of one layer as a dump and return its path."""
    with hdf5.atomic(path, FORMAT, VERSION, {}) as file:
        write_index(file, shard)
        writer = LayerWriter(file, layer, len(h), h.shape[1], dtype)
        writer.write(encode(h, dtype), np.linalg.norm(h, axis=1).astype(np.float32))
        writer.close()
    return path


def write_normalizer(
    path: Path, mean: NDArray[np.float64], scale: float = 1.0, bound: float = 1e30
) -> Path:
    """Write a normaliser and return its path."""
    with hdf5.atomic(path, NORMALIZER_FORMAT, NORMALIZER_VERSION, {}) as file:
        file.create_dataset("mean", data=mean)
        file.attrs["scale"] = scale
        file.attrs["norm_bound"] = bound
        file.attrs["median_norm"] = bound / 10
        file.attrs["rows"] = 100
    return path
