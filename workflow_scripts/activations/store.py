"""Read aligned activations of several models: contiguous ranges and shuffled batches.

A store joins the shards of M models at one layer. Tokens have global indices over the shards in
order. A token is usable when it is not at position 0 and no model's norm exceeds that model's bound
(the union of what each would drop, so that rows stay aligned). Values come normalised:
x^m = (h^m − mean^m) / scale^m.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from workflow_scripts import hdf5
from workflow_scripts.activations import FORMAT, VERSION
from workflow_scripts.cli import UserError

NORMALIZER_FORMAT = "diffscope-normalizer"
NORMALIZER_VERSION = 1
BLOCK = 256  # usable tokens that are read together when shuffling
MEMORY = 1 << 30  # bytes of usable tokens, as float32 of all models, shuffled together


@dataclass(frozen=True)
class Normalizer:
    """Mean [D], scale and norm bound of one model at one layer."""

    mean: NDArray[np.float64]
    scale: float
    norm_bound: float

    @classmethod
    def read(cls, path: Path) -> Normalizer:
        """Read a normaliser file."""
        with hdf5.open_complete(path, NORMALIZER_FORMAT, NORMALIZER_VERSION) as file:
            mean = np.asarray(file["mean"], dtype=np.float64)
            return cls(mean, float(file.attrs["scale"]), float(file.attrs["norm_bound"]))


@dataclass(frozen=True)
class Index:
    """What a shard says of its rows, [N] each."""

    document: NDArray[np.int32]
    position: NDArray[np.int32]
    split: NDArray[np.uint8]
    splits: tuple[str, ...]


def read_index(path: Path) -> Index:
    """Read document, position and split of a shard's rows."""
    with hdf5.open_complete(path, FORMAT, VERSION) as file:
        return Index(
            np.asarray(file["document"]),
            np.asarray(file["position"]),
            np.asarray(file["split"]),
            tuple(json.loads(file.attrs["splits"])),
        )


def read_rows(path: Path, layer: int, rows: slice | NDArray[np.int64]) -> NDArray[np.float32]:
    """Return rows of one layer of a shard as float32, [n, D].

    Raises
    ------
    UserError
        If the file lacks the layer or is damaged.
    """
    with hdf5.open_complete(path, FORMAT, VERSION) as file:
        dataset = _dataset(file, path, "layer", layer)
        values = dataset[rows] if isinstance(rows, slice) else _gather(dataset, rows)
        if dataset.attrs["encoding"] == "bfloat16":
            return hdf5.from_bfloat16_bits(np.asarray(values, dtype=np.uint16))
        return np.asarray(values, dtype=np.float32)


def read_norms(path: Path, layer: int) -> NDArray[np.float32]:
    """Return the norms of all rows of one layer of a shard, [N]."""
    with hdf5.open_complete(path, FORMAT, VERSION) as file:
        return np.asarray(_dataset(file, path, "norm", layer))


def _dataset(file: h5py.File, path: Path, kind: str, layer: int) -> h5py.Dataset:
    if f"{kind}{layer}" not in file:
        raise UserError(f"{path} holds no layer {layer}: dump it, or change the fit's layer")
    return file[f"{kind}{layer}"]


def _gather(dataset: h5py.Dataset, rows: NDArray[np.int64]) -> NDArray[np.generic]:
    """Read sorted rows: the stretch that holds them all when they are dense, else run by run."""
    if not len(rows):
        return np.asarray(dataset[:0])
    first, last = int(rows[0]), int(rows[-1]) + 1
    if last - first <= 4 * len(rows):
        return np.asarray(dataset[first:last])[rows - first]
    breaks = np.flatnonzero(np.diff(rows) > 16) + 1
    parts = []
    for run in np.split(rows, breaks):
        start = int(run[0])
        parts.append(np.asarray(dataset[start : int(run[-1]) + 1])[run - start])
    return np.concatenate(parts)


class ActivationStore:
    """The activations of several models at one layer, row by row aligned."""

    def __init__(
        self,
        files: Mapping[str, Sequence[Path]],
        layer: int,
        normalizers: Mapping[str, Path],
        memory: int = MEMORY,
    ) -> None:
        self.files = {model: list(paths) for model, paths in files.items()}
        self.models = list(files)
        self.layer = layer
        self.normalizers = {model: Normalizer.read(normalizers[model]) for model in self.models}
        widths = {model: len(n.mean) for model, n in self.normalizers.items()}
        if len(set(widths.values())) != 1:
            raise UserError(
                f"the models of a fit have different widths ({widths}): a crosscoder needs equal "
                "ones"
            )
        counts = {model: len(paths) for model, paths in self.files.items()}
        if len(set(counts.values())) != 1:
            raise UserError(f"the models differ in their number of shards ({counts}): dump all")
        self.width = next(iter(widths.values()))
        self.buffer = max(BLOCK, memory // (4 * len(self.models) * self.width))  # tokens
        self._cache: dict[str, NDArray[np.float32]] = {}

    @classmethod
    def from_json(cls, files: object, normalizers: object, layer: int) -> ActivationStore:
        """Build a store from the values of the flags ``--activations`` and ``--normalizers``.

        ``files`` maps each model to its shard paths, ``normalizers`` to its normaliser's path.
        """
        if not isinstance(files, dict) or not isinstance(normalizers, dict):
            raise UserError("--activations and --normalizers take JSON objects keyed by model")
        return cls(
            {model: [Path(path) for path in paths] for model, paths in files.items()},
            layer,
            {model: Path(path) for model, path in normalizers.items()},
        )

    @cached_property
    def _index(self) -> Index:
        """The shards' index, end to end; the same for all models."""
        parts: dict[str, list[Index]] = {
            model: [read_index(path) for path in paths] for model, paths in self.files.items()
        }
        first = parts[self.models[0]]
        for model in self.models[1:]:
            for path, a, b in zip(self.files[model], first, parts[model], strict=True):
                if not np.array_equal(a.document, b.document):
                    raise UserError(f"{path} was dumped from other tokens: delete it and run again")
        self._offsets = np.cumsum([0] + [len(part.document) for part in first])
        return Index(
            np.concatenate([part.document for part in first]),
            np.concatenate([part.position for part in first]),
            np.concatenate([part.split for part in first]),
            first[0].splits,
        )

    @cached_property
    def _reasons(self) -> dict[str, NDArray[np.bool_]]:
        """Why tokens are dropped: ``position`` 0, or a model's norm bound."""
        reasons = {"position": self._index.position == 0}
        for model in self.models:
            norms = np.concatenate([read_norms(path, self.layer) for path in self.files[model]])
            reasons[f"norm_{model}"] = norms > self.normalizers[model].norm_bound
        return reasons

    def _in_split(self, split: str) -> NDArray[np.bool_]:
        if split not in self._index.splits:
            raise UserError(f"there is no split {split}: choose one of {self._index.splits}")
        found: NDArray[np.bool_] = self._index.split == self._index.splits.index(split)
        return found

    def rows(self, split: str) -> NDArray[np.int64]:
        """Return the global indices of the usable tokens of a split, sorted."""
        dropped = np.logical_or.reduce(list(self._reasons.values()))
        return np.flatnonzero(self._in_split(split) & ~dropped)

    def dropped(self, split: str) -> dict[str, float]:
        """Return the share of a split's tokens that each reason drops."""
        inside = self._in_split(split)
        return {
            name: float(mask[inside].mean()) if inside.any() else 0.0
            for name, mask in self._reasons.items()
        }

    def normalization(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the means [M, D] and the scales [M]."""
        chosen = [self.normalizers[model] for model in self.models]
        return np.stack([n.mean for n in chosen]), np.array([n.scale for n in chosen])

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the normalised activations of sorted global tokens, [n, M, D] float32."""
        _ = self._index
        result = np.empty((len(rows), len(self.models), self.width), dtype=np.float32)
        bounds = np.searchsorted(rows, self._offsets)
        for shard in range(len(self._offsets) - 1):
            first, last = bounds[shard], bounds[shard + 1]
            if first == last:
                continue
            local = rows[first:last] - self._offsets[shard]
            for index, model in enumerate(self.models):
                normalizer = self.normalizers[model]
                h = read_rows(self.files[model][shard], self.layer, local)
                h -= normalizer.mean.astype(np.float32)
                h /= np.float32(normalizer.scale)
                result[first:last, index] = h
        return result

    def contiguous(
        self, split: str, batch: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield (rows [n], x [n, M, D]) over a split in order, n ≤ batch."""
        rows = self.rows(split)
        step = max(batch, self.buffer // 8 // batch * batch)
        for first in range(0, len(rows), step):
            part = rows[first : first + step]
            x = self.read(part)
            for start in range(0, len(part), batch):
                yield part[start : start + batch], x[start : start + batch]

    def shuffled(
        self, split: str, batch: int, seed: int, start_batch: int = 0
    ) -> Iterator[NDArray[np.float32]]:
        """Yield batches x [batch, M, D] without end, each usable token once per epoch.

        Blocks of neighbouring tokens are read in random order into a buffer, which is shuffled as a
        whole; a split that fits the buffer is read once. The last part of an epoch that fills no
        batch is left out. ``start_batch`` goes straight to that batch of the same sequence.
        """
        rows = self.rows(split)
        per_epoch = len(rows) // batch
        if not per_epoch:
            raise UserError(
                f"the {split} split has {len(rows)} usable tokens, fewer than one batch of {batch}"
            )
        position = start_batch
        while True:
            epoch, first = divmod(position, per_epoch)
            for x in self._epoch(split, rows, batch, [seed, epoch], first):
                yield x
                position += 1

    def _epoch(
        self, split: str, rows: NDArray[np.int64], batch: int, seed: list[int], first: int
    ) -> Iterator[NDArray[np.float32]]:
        rng = np.random.default_rng(seed)
        if len(rows) <= self.buffer:
            if split not in self._cache:
                self._cache[split] = self.read(rows)
            order = rng.permutation(len(rows))
            for start in range(first * batch, len(rows) - batch + 1, batch):
                yield self._cache[split][order[start : start + batch]]
            return
        blocks = np.array_split(rows, -(-len(rows) // BLOCK))
        order = rng.permutation(len(blocks))
        capacity = max(1, self.buffer // BLOCK)
        left, index = np.zeros(0, dtype=np.int64), 0
        for start in range(0, len(order), capacity):
            chosen = [blocks[i] for i in order[start : start + capacity]]
            pool = rng.permutation(np.concatenate([left, *chosen]))
            usable = len(pool) // batch * batch
            left = pool[usable:]
            if index + usable // batch <= first:
                index += usable // batch
                continue
            ordered = np.sort(pool[:usable])
            x = self.read(ordered)
            place = np.searchsorted(ordered, pool[:usable])
            for at in range(0, usable, batch):
                if index >= first:
                    yield x[place[at : at + batch]]
                index += 1
