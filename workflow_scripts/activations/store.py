"""Read aligned activations of several models: contiguous ranges and shuffled batches.

A store joins the shards of M models at one layer. Tokens have global indices over the shards in
order. A token is usable when it is not at position 0 and no model's norm exceeds that model's bound
(the union of what each would drop, so that rows stay aligned). Values come normalised:
x^m = (h^m − mean^m) / scale^m.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workflow_scripts.activations import FORMAT, VERSION
from workflow_scripts.activations.layout import (
    STORED,
    Layer,
    Stored,
    as_tensor,
    read_column,
)
from workflow_scripts.activations.pools import Pools, epochs, restricted
from workflow_scripts.common import hdf5
from workflow_scripts.common.cli import UserError
from workflow_scripts.common.prefetch import prefetch
from workflow_scripts.common.progress import Progress

NORMALIZER_FORMAT = "diffscope-normalizer"
NORMALIZER_VERSION = 1
MEMORY = 1 << 30  # bytes of tokens, as float32 of all models, that are shuffled together
WORKERS = min(4, os.cpu_count() or 1)  # threads that read
DROPPED = 255  # in place of a split
CPU = torch.device("cpu")
EVERY = slice(None)


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
            read_column(file, path, "document").astype(np.int32, copy=False),
            read_column(file, path, "position").astype(np.int32, copy=False),
            read_column(file, path, "split").astype(np.uint8, copy=False),
            tuple(json.loads(hdf5.get_text(file, "splits"))),
        )


def read_norms(path: Path, layer: int) -> NDArray[np.float32]:
    """Return the norms of all rows of one layer of a shard, [N]."""
    with hdf5.open_complete(path, FORMAT, VERSION) as file:
        if f"norm{layer}" not in file:
            raise UserError(f"{path} holds no layer {layer}: dump it, or change the fit's layer")
        return read_column(file, path, f"norm{layer}").astype(np.float32, copy=False)


@dataclass(frozen=True)
class Usable:
    """Which tokens of all shards can be used, and how many of each split are dropped, and why.

    ``code`` [N] is the token's split, or :data:`DROPPED`. ``offsets`` are the shards' first tokens.
    """

    code: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    splits: tuple[str, ...]
    tokens: NDArray[np.int64]
    dropped: Mapping[str, NDArray[np.int64]]


class ActivationStore:
    """The activations of several models at one layer, row by row aligned.

    ``stored`` are the models whose dumps are read, ``models`` those of the batches.
    """

    def __init__(
        self,
        files: Mapping[str, Sequence[Path]],
        layer: int,
        normalizers: Mapping[str, Path],
        memory: int = MEMORY,
    ) -> None:
        self.files = {model: list(paths) for model, paths in files.items()}
        self.stored = list(files)
        self.models = self.stored
        self.layer = layer
        self.normalizers = {model: Normalizer.read(normalizers[model]) for model in self.stored}
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
        # Tokens that are shuffled together; two such pools exist where the split is larger.
        self.buffer = max(1, memory // (4 * len(self.stored) * self.width))
        self._cache: dict[str, Tensor] = {}

    @cached_property
    def _layers(self) -> dict[str, list[Layer]]:
        return {m: [Layer.open(path, self.layer) for path in self.files[m]] for m in self.stored}

    @cached_property
    def _readers(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(WORKERS, thread_name_prefix="read")

    @cached_property
    def _helpers(self) -> ThreadPoolExecutor:
        """Threads that normalise, one for each model except the first."""
        return ThreadPoolExecutor(max(1, len(self.stored) - 1), thread_name_prefix="normalize")

    @cached_property
    def usable(self) -> Usable:
        """Which tokens can be used: read once, shard by shard."""
        codes: list[NDArray[np.uint8]] = []
        splits: tuple[str, ...] = ()
        tokens = np.zeros(DROPPED, dtype=np.int64)
        dropped = {
            name: tokens.copy() for name in ("position", *(f"norm_{m}" for m in self.stored))
        }
        for shard in range(len(self.files[self.stored[0]])):
            index = self._shard_index(shard)
            splits = index.splits
            tokens += np.bincount(index.split, minlength=DROPPED)
            out = np.zeros(len(index.split), dtype=np.bool_)
            for name, reason in self._reasons(shard, index).items():
                dropped[name] += np.bincount(index.split[reason], minlength=DROPPED)
                out |= reason
            codes.append(np.where(out, np.uint8(DROPPED), index.split))
        offsets = np.cumsum([0] + [len(code) for code in codes])
        return Usable(np.concatenate(codes), offsets, splits, tokens, dropped)

    def _shard_index(self, shard: int) -> Index:
        """Return a shard's index, the same for all models."""
        first, *others = (read_index(self.files[model][shard]) for model in self.stored)
        for model, other in zip(self.stored[1:], others, strict=True):
            if not np.array_equal(first.document, other.document):
                raise UserError(
                    f"{self.files[model][shard]} was dumped from other tokens: delete it and run "
                    "again"
                )
        return first

    def _reasons(self, shard: int, index: Index) -> dict[str, NDArray[np.bool_]]:
        """Return which tokens of a shard are dropped: at ``position`` 0, or beyond a norm bound."""
        reasons = {"position": index.position == 0}
        for model in self.stored:
            norms = read_norms(self.files[model][shard], self.layer)
            reasons[f"norm_{model}"] = norms > self.normalizers[model].norm_bound
        return reasons

    @cached_property
    def document(self) -> NDArray[np.int32]:
        """The document of each token, int32 [N]."""
        paths = self.files[self.stored[0]]
        return np.concatenate([read_index(path).document for path in paths])

    def _number(self, split: str) -> int:
        if split not in self.usable.splits:
            raise UserError(f"there is no split {split}: choose one of {self.usable.splits}")
        return self.usable.splits.index(split)

    def rows(self, split: str) -> NDArray[np.int64]:
        """Return the global indices of the usable tokens of a split, sorted."""
        return np.flatnonzero(self.usable.code == self._number(split))

    def count(self, split: str) -> int:
        """Return the number of usable tokens of a split."""
        return int(np.count_nonzero(self.usable.code == self._number(split)))

    def dropped(self, split: str) -> dict[str, float]:
        """Return the share of a split's tokens that each reason drops."""
        number = self._number(split)
        total = max(1, int(self.usable.tokens[number]))
        return {name: int(count[number]) / total for name, count in self.usable.dropped.items()}

    def normalization(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the means [M, D] and the scales [M]."""
        return self._normalization

    @cached_property
    def _normalization(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        chosen = [self.normalizers[model] for model in self.stored]
        return np.stack([n.mean for n in chosen]), np.array([n.scale for n in chosen])

    @cached_property
    def _encoding(self) -> str:
        """How values are held before they are used: as all dumps store them, else widened."""
        encodings = {layer.encoding for layers in self._layers.values() for layer in layers}
        return encodings.pop() if len(encodings) == 1 else "float32"

    def room(self, tokens: int) -> Stored:
        """Return memory for some tokens, [M, tokens, D]."""
        return np.empty((len(self.stored), tokens, self.width), dtype=STORED[self._encoding])

    def held(self, rows: NDArray[np.int64], room: Stored | None = None) -> Stored:
        """Return the raw activations of sorted global tokens as they are held, [M, n, D].

        They are the first n of ``room``, where it is given.
        """
        encoding, layers = self._encoding, self._layers  # not by several threads at once
        result = self.room(len(rows)) if room is None else room[:, : len(rows)]
        offsets = self.usable.offsets
        bounds = np.searchsorted(rows, offsets)

        def fill(task: tuple[int, int]) -> None:
            shard, model = task
            first, last = bounds[shard], bounds[shard + 1]
            layer, target = layers[self.stored[model]][shard], result[model, first:last]
            for place, values, chosen in layer.pieces(rows[first:last] - offsets[shard]):
                x = values if layer.encoding == encoding else layer.widen(values)
                np.take(x, chosen, axis=0, out=target[place], mode="clip")

        shards = np.flatnonzero(np.diff(bounds))
        tasks = [(int(shard), model) for shard in shards for model in range(len(self.stored))]
        for _ in self._readers.map(fill, tasks):
            pass
        return result

    def gathered(
        self, held: Stored, place: NDArray[np.int64] | slice, room: Tensor | None = None
    ) -> Tensor:
        """Return the raw activations of some tokens as they are held, [M, n, D].

        ``place`` is where in ``held`` [M, ·, D] they are; they are put into ``room``, if given.
        """
        values = as_tensor(held, self._encoding)
        if isinstance(place, slice):
            return values[:, place]
        result = self._gathering_room(len(place)) if room is None else room
        chosen = torch.from_numpy(place)
        self._for_models(lambda m: torch.index_select(values[m], 0, chosen, out=result[m]))
        return result

    def _gathering_room(self, tokens: int, pinned: bool = False) -> Tensor:
        """Return memory for raw activations [M, tokens, D]; of pinned memory GPUs copy."""
        kind = getattr(torch, self._encoding)
        return torch.empty(len(self.stored), tokens, self.width, dtype=kind, pin_memory=pinned)

    def _for_models(self, action: Callable[[int], object]) -> None:
        """Act on each model, each in a thread of its own."""
        others = [self._helpers.submit(action, model) for model in range(1, len(self.stored))]
        action(0)
        for other in others:
            other.result()

    def normalized(self, values: Tensor, rows: NDArray[np.int64]) -> Tensor:
        """Return the normalised activations of tokens ``rows``, [n, M, D] float32, on their device.

        ``values`` [M, n, D] are raw, as they are held.
        """
        mean, scale = self._on(values.device)
        result = torch.empty(len(rows), len(self.stored), self.width, device=values.device)

        def fill(model: int) -> None:
            x = result[:, model]
            x.copy_(values[model])
            x.sub_(mean[model]).div_(scale[model])  # by steps: of one type they are faster

        if values.device.type == "cpu":
            self._for_models(fill)
        else:
            for model in range(len(self.stored)):
                fill(model)
        return result

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the means [M, D] and the scales [M] on a device."""
        if device not in self._placed:
            mean, scale = (torch.from_numpy(v).float().to(device) for v in self._normalization)
            self._placed[device] = (mean, scale)
        return self._placed[device]

    @cached_property
    def _placed(self) -> dict[torch.device, tuple[Tensor, Tensor]]:
        return {}

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the normalised activations of sorted global tokens, [n, M, D] float32."""
        x: NDArray[np.float32] = self._read(rows).numpy()
        return x

    def _read(self, rows: NDArray[np.int64]) -> Tensor:
        return self.normalized(self.gathered(self.held(rows), slice(None)), rows)

    def contiguous(
        self, split: str, batch: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield (rows [n], x [n, M, D]) over a split in order, n ≤ batch."""
        rows = self.rows(split)
        progress = Progress(len(rows), "tokens")
        step = max(batch, self.buffer // 8 // batch * batch)
        parts = [rows[first : first + step] for first in range(0, len(rows), step)]
        for part, _, held in self._held_ahead((part, part) for part in parts):
            for start in range(0, len(part), batch):
                chosen = part[start : start + batch]
                place = slice(start, start + len(chosen))
                yield chosen, self.normalized(self.gathered(held, place), chosen).numpy()
                progress.reach(progress.done + len(chosen))

    def _held_ahead(
        self, parts: Iterable[tuple[NDArray[np.int64], NDArray[np.int64]]]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], Stored]]:
        """Yield (a part's label, its sorted tokens, their activations) in order.

        The next part is read while one is used, into the other one of two rooms: to touch new
        memory costs more than to read.
        """
        rooms: list[Stored | None] = [None, None]

        def read(
            numbered: tuple[int, tuple[NDArray[np.int64], NDArray[np.int64]]],
        ) -> tuple[NDArray[np.int64], NDArray[np.int64], Stored]:
            number, (label, rows) = numbered
            room = rooms[number % 2]
            if room is None or room.shape[1] < len(rows):
                rooms[number % 2] = None  # before there is another
                room = rooms[number % 2] = self.room(len(rows))
            return label, rows, self.held(rows, room)

        yield from prefetch(read, enumerate(parts))

    def shuffled(
        self,
        split: str,
        batch: int,
        seed: int,
        start_batch: int = 0,
        device: torch.device = CPU,
        part: slice = EVERY,
    ) -> Iterator[Tensor]:
        """Yield batches x [batch, M, D] without end, each usable token once per epoch.

        A split that fits the buffer is read once and shuffled as a whole. A larger one is dealt to
        :class:`Pools`, the next of which is read while one is used. The last part of an epoch that
        fills no batch is left out. ``start_batch`` starts at that batch of the same sequence.

        To a GPU they go as they are held, while the one before is used, and are normalised there.
        Of each batch only a ``part`` is read and yielded.
        """
        count = self.count(split)
        per_epoch = count // batch
        if not per_epoch:
            raise UserError(
                f"the {split} split has {count} usable tokens, fewer than one batch of {batch}"
            )
        epoch, first = divmod(start_batch, per_epoch)
        if count > self.buffer:
            pools = self._pools(split, batch).endless(seed, epoch, first)
            for places, rows, held in self._held_ahead(restricted(p[:, part], r) for p, r in pools):
                yield from self._sent(places, rows, held, device)
        elif device.type == "cpu":
            if split not in self._cache:
                self._cache[split] = self._read(self.rows(split))
            for places in epochs(count, batch, seed, epoch, first):
                yield from (self._cache[split][place[part]] for place in places)
        else:
            rows = self.rows(split)
            held = self.held(rows)
            for places in epochs(count, batch, seed, epoch, first):
                yield from self._sent(places[:, part], rows, held, device)

    def _sent(
        self,
        places: NDArray[np.int64],
        rows: NDArray[np.int64],
        held: Stored,
        device: torch.device,
    ) -> Iterator[Tensor]:
        """Yield the normalised batches at some places [batches, n] of what is held."""
        if device.type == "cpu":
            for place in places:
                yield self.normalized(self.gathered(held, place), rows[place])
            return

        def gather(room: tuple[NDArray[np.int64], Tensor]) -> Tensor:
            return self.gathered(held, *room)

        # The allocator of pinned memory reuses it once the GPU has read it.
        rooms = ((place, self._gathering_room(len(place), pinned=True)) for place in places)
        for place, values in zip(places, prefetch(gather, rooms), strict=True):
            yield self.normalized(values.to(device, non_blocking=True), rows[place])

    def _pools(self, split: str, batch: int) -> Pools:
        offsets = self.usable.offsets.tolist()
        chunks = [layer.chunk_rows for layer in self._layers[self.stored[0]]]
        shards = list(zip(offsets, offsets[1:], chunks, strict=False))
        return Pools.of(self.usable.code, self._number(split), self.buffer, batch, shards)
