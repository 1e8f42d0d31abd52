"""Run one model over one token shard and store some layers, in the format of ``FORMAT.md``.

While one stretch of rows is computed, the previous one is written: at most two are in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from workflow_scripts.activations import FORMAT, VERSION
from workflow_scripts.activations.blocks import capture, check_layers, decoder_blocks, forward_to
from workflow_scripts.activations.layout import STORED, LayerWriter, Stored, write_column
from workflow_scripts.activations.settings import DumpNumbers, DumpSpeed
from workflow_scripts.common import cli, hdf5
from workflow_scripts.common.device import Compute
from workflow_scripts.common.manifest import Manifest
from workflow_scripts.common.prefetch import prefetch
from workflow_scripts.common.progress import Progress
from workflow_scripts.common.provenance import provenance
from workflow_scripts.dataset.shards import TokenShard
from workflow_scripts.models.loading import load_model

HELD_BYTES = 1 << 28  # float32 values of all layers, before they are written; twice at most
LARGEST = {name: torch.finfo(getattr(torch, name)).max for name in STORED}


def length_batches(lengths: NDArray[np.int64], tokens: int) -> Iterator[NDArray[np.int64]]:
    """Yield row indices in batches of like length, each of at most ``tokens`` padded tokens."""
    order = np.argsort(lengths, kind="stable")
    first = 0
    while first < len(order):
        last = first + 1
        while last < len(order) and lengths[order[last]] * (last + 1 - first) <= tokens:
            last += 1
        yield order[first:last]
        first = last


def stretches(starts: NDArray[np.int64], tokens: int) -> Iterator[NDArray[np.int64]]:
    """Yield neighbouring rows in order, at most ``tokens`` tokens at a time, but at least a row."""
    first = 0
    while first < len(starts) - 1:
        last = int(np.searchsorted(starts, starts[first] + tokens, side="right")) - 1
        last = max(last, first + 1)
        yield np.arange(first, last)
        first = last


def pad(shard: TokenShard, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Return right-padded ids and their mask, both int64 [B, T]."""
    pieces = [torch.from_numpy(shard.ids[shard.row(int(row))].astype(np.int64)) for row in rows]
    ids = torch.nn.utils.rnn.pad_sequence(pieces, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence(
        [torch.ones_like(piece) for piece in pieces], batch_first=True
    )
    return ids, mask


@dataclass
class Stretch:
    """Neighbouring rows of one layer: what is stored [n, D], norms [n], which are refused [n]."""

    values: Stored
    norms: NDArray[np.float32]
    outside: NDArray[np.bool_]

    @classmethod
    def empty(cls, rows: int, width: int, dtype: str) -> Stretch:
        """Return a stretch that is to be filled."""
        return cls(
            np.empty((rows, width), dtype=STORED[dtype]),
            np.empty(rows, dtype=np.float32),
            np.empty(rows, dtype=np.bool_),
        )

    def put(self, rows: NDArray[np.int64], h: Tensor, dtype: str) -> None:
        """Store h [n, D] at ``rows``; norms are taken before rounding."""
        x = h.float()
        outside = ~(x.abs() <= LARGEST[dtype]).all(dim=1)  # NaN too
        self.outside[rows] = outside.cpu().numpy()
        stored = x.to(getattr(torch, dtype))
        self.values[rows] = (
            stored.view(torch.uint16) if dtype == "bfloat16" else stored
        ).cpu().numpy()  # fmt: skip
        on_cpu = x.device.type == "cpu"
        self.norms[rows] = (
            np.linalg.norm(x.numpy(), axis=1) if on_cpu else x.norm(dim=1).cpu().numpy()
        )


def dump_activations(
    model: Path,
    tokens: Path,
    layers: list[int],
    numbers: DumpNumbers,
    speed: DumpSpeed,
    compute: Compute,
    output: Path,
) -> None:
    """Write the activations of a model's layers for every token of a shard.

    Parameters
    ----------
    model
        model.json of the model
    tokens
        token shard (HDF5)
    layers
        layers: outputs of those decoder blocks, counted from 1
    output
        dump to write (HDF5)

    Raises
    ------
    UserError
        If the model lacks a layer, has fewer positions than a row has tokens, or leaves a value
        that is not finite or too large to store.
    """
    described = Manifest.read(model)
    check_layers(layers, described.layers, described.name)
    shard = TokenShard.read(tokens)
    check_positions(described, int(np.diff(shard.row_starts).max(initial=0)))
    device = compute.start(speed.gpus)
    loaded = load_model(model, numbers.on(device), device, speed.gpus)
    origin = provenance(
        __file__, model=described.name, device=str(device), compute_dtype=str(loaded.dtype)
    )
    write_dump(
        loaded, described.name, shard, layers, output, numbers.dtype, speed.batch_tokens, origin
    )


def check_positions(model: Manifest, longest: int) -> None:
    """Refuse rows that are longer than the texts for which a model was made.

    Raises
    ------
    UserError
        If the longest row has more tokens than the model has positions.
    """
    if model.positions is not None and longest > model.positions:
        raise cli.UserError(
            f"a row has {longest} tokens, but model {model.name} was made for {model.positions} "
            "positions: lower text.context_length"
        )


def write_dump(
    model: PreTrainedModel,
    name: str,
    shard: TokenShard,
    layers: Sequence[int],
    output: Path,
    store_dtype: str,
    batch_tokens: int,
    origin: Mapping[str, object],
) -> None:
    """Do the work of :func:`dump_activations` with a loaded model and shard."""
    width = int(model.config.get_text_config().hidden_size)
    with hdf5.atomic(output, FORMAT, VERSION, origin) as file:
        write_index(file, shard)
        writers = {
            layer: LayerWriter(file, layer, shard.tokens, width, store_dtype) for layer in layers
        }

        def write(item: tuple[int, dict[int, Stretch]]) -> None:
            first, stretch_of = item
            for layer, stretch in stretch_of.items():
                if stretch.outside.any():
                    where = f"model {name} at layer {layer}"
                    refused = first + np.flatnonzero(stretch.outside)
                    raise _refusal(where, store_dtype, shard, refused)
                writers[layer].write(stretch.values, stretch.norms)

        computed = compute(model, shard, layers, width, store_dtype, batch_tokens)
        for _ in prefetch(write, computed):
            pass
        for writer in writers.values():
            writer.close()


def held_tokens(layers: Sequence[int], width: int) -> int:
    """Return the tokens that are held before they are written."""
    return HELD_BYTES // (4 * len(layers) * width)


def compute(
    model: PreTrainedModel,
    shard: TokenShard,
    layers: Sequence[int],
    width: int,
    dtype: str,
    batch_tokens: int,
) -> Iterator[tuple[int, dict[int, Stretch]]]:
    """Yield the first token and the activations of one stretch after the other."""
    lengths, progress = np.diff(shard.row_starts), Progress(shard.tokens, "tokens")
    with capture(decoder_blocks(model), layers) as captured:
        for rows in stretches(shard.row_starts, held_tokens(layers, width)):
            first, last = int(shard.row_starts[rows[0]]), int(shard.row_starts[rows[-1] + 1])
            parts = {layer: Stretch.empty(last - first, width, dtype) for layer in layers}
            for batch in length_batches(lengths[rows], batch_tokens):
                ids, mask = pad(shard, rows[batch])
                forward_to(model, ids.to(model.device), mask.to(model.device))
                index = np.concatenate([np.r_[shard.row(int(row))] for row in rows[batch]])
                for layer, stretch in parts.items():
                    h = captured.outputs[layer]
                    stretch.put(index - first, h[mask.bool().to(h.device)], dtype)
                progress.reach(progress.done + len(index))
            yield first, parts


def write_index(file: h5py.File, shard: TokenShard) -> None:
    """Write which document, position and split each row belongs to."""
    write_column(file, "document", shard.over_tokens(shard.row_document))
    write_column(file, "position", shard.position)
    write_column(file, "split", shard.over_tokens(shard.row_split))
    hdf5.put_text(file, "splits", json.dumps(shard.splits))


def _refusal(where: str, dtype: str, shard: TokenShard, tokens: NDArray[np.int64]) -> cli.UserError:
    document = shard.row_document[shard.row_of_token[tokens[0]]]
    return cli.UserError(
        f"{where} has activations that are not finite or too large for {dtype} at {len(tokens)} "
        f"tokens or more, first in document {document}: use activations.dtype bfloat16 or "
        "float32 and compute_dtype float32, or check the weights"
    )


main = cli.command(dump_activations)


if __name__ == "__main__":
    raise SystemExit(main())
