"""Run one model over one token shard and store the wanted layers: ``FORMAT.md`` has the format."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workflow_scripts import cli, hdf5
from workflow_scripts.activations import FORMAT, VERSION
from workflow_scripts.activations.blocks import capture, check_layers, decoder_blocks, forward_to
from workflow_scripts.dataset.shards import TokenShard
from workflow_scripts.models.loading import Manifest, choose_device, load_model
from workflow_scripts.provenance import provenance

CHUNK_BYTES = 1 << 20
HELD_BYTES = 1 << 28  # float32 values of all layers, held before they are written
STORED = {"bfloat16": np.uint16, "float16": np.float16, "float32": np.float32}
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


def dump_activations(
    manifest: Path,
    tokens: Path,
    layers: Sequence[int],
    output: Path,
    store_dtype: str = "bfloat16",
    compute_dtype: str = "float32",
    batch_tokens: int = 8192,
    device_name: str = "auto",
    gpus: int = 1,
    facts: Mapping[str, object] | None = None,
) -> None:
    """Write the activations of ``layers`` for every token of a shard.

    Raises
    ------
    UserError
        If the model lacks a layer, or leaves a value that is not finite or too large to store.
    """
    described = Manifest.read(manifest)
    check_layers(layers, described.layers, described.name)
    shard = TokenShard.read(tokens)
    device = choose_device(device_name)
    model = load_model(manifest, getattr(torch, compute_dtype), device, gpus)
    width = int(model.config.get_text_config().hidden_size)
    parts = list(stretches(shard.row_starts, HELD_BYTES // (4 * len(layers) * width)))
    origin = provenance(model=described.name, device=str(device), **(facts or {}))
    with hdf5.atomic(output, FORMAT, VERSION, origin) as file:
        write_index(file, shard)
        for layer in layers:
            _create(file, layer, shard.tokens, width, store_dtype)
        with capture(decoder_blocks(model), layers) as captured:
            for rows in cli.progress(parts, desc=f"{described.name} {tokens.stem}"):
                first, last = shard.row_starts[rows[0]], shard.row_starts[rows[-1] + 1]
                values = {layer: np.empty((last - first, width), np.float32) for layer in layers}
                for batch in length_batches(np.diff(shard.row_starts)[rows], batch_tokens):
                    ids, mask = pad(shard, rows[batch])
                    forward_to(model, ids.to(device), mask.to(device))
                    index = np.concatenate([np.r_[shard.row(int(row))] for row in rows[batch]])
                    for layer, h in values.items():
                        found = captured.outputs[layer]
                        kept = found[mask.bool().to(found.device)]
                        h[index - first] = kept.float().cpu().numpy()
                for layer, h in values.items():
                    outside = ~(np.abs(h) <= LARGEST[store_dtype]).all(axis=1)  # NaN too
                    if outside.any():
                        where = f"model {described.name} at layer {layer}"
                        tokens_outside = first + np.flatnonzero(outside)
                        raise _refusal(where, store_dtype, shard, tokens_outside)
                    file[f"layer{layer}"][first:last] = encode(h, store_dtype)
                    file[f"norm{layer}"][first:last] = np.linalg.norm(h, axis=1)


def encode(h: NDArray[np.float32], dtype: str) -> NDArray[np.generic]:
    """Return float32 values in the stored type; bfloat16 as bit patterns."""
    return hdf5.to_bfloat16_bits(h) if dtype == "bfloat16" else h.astype(STORED[dtype])


def write_index(file: h5py.File, shard: TokenShard) -> None:
    """Write which document, position and split each row belongs to."""
    file.create_dataset("document", data=shard.row_document[shard.row_of_token])
    file.create_dataset("position", data=shard.position)
    file.create_dataset("split", data=shard.row_split[shard.row_of_token])
    file.attrs["splits"] = json.dumps(shard.splits)


def _create(file: h5py.File, layer: int, rows: int, width: int, dtype: str) -> None:
    """Create the datasets of a layer, to be filled."""
    kind = np.dtype(STORED[dtype])
    chunk = max(1, min(max(rows, 1), CHUNK_BYTES // (width * kind.itemsize)))
    dataset = file.create_dataset(
        f"layer{layer}", (rows, width), kind, chunks=(chunk, width), maxshape=(None, width)
    )
    dataset.attrs["encoding"] = dtype
    file.create_dataset(f"norm{layer}", (rows,), np.float32)


def _refusal(where: str, dtype: str, shard: TokenShard, tokens: NDArray[np.int64]) -> cli.UserError:
    document = shard.row_document[shard.row_of_token[tokens[0]]]
    return cli.UserError(
        f"{where} has activations that are not finite or too large for {dtype} at {len(tokens)} "
        f"tokens or more, first in document {document}: use activations.dtype bfloat16 or "
        "float32 and compute_dtype float32, or check the weights"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and dump."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="model.json")
    parser.add_argument("--tokens", type=Path, required=True)
    parser.add_argument("--layers", type=int, nargs="+", required=True)
    parser.add_argument("--dtype", choices=sorted(STORED), default="bfloat16")
    parser.add_argument("--compute-dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--batch-tokens", type=int, default=8192)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--gpus", type=int, default=1, help="to spread the model over")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--facts", type=json.loads, default={})
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args(argv)

    def run() -> None:
        cli.set_threads(arguments.threads)
        dump_activations(
            arguments.model,
            arguments.tokens,
            arguments.layers,
            arguments.output,
            arguments.dtype,
            arguments.compute_dtype,
            arguments.batch_tokens,
            arguments.device,
            arguments.gpus,
            arguments.facts,
        )

    return cli.guarded(run)


if __name__ == "__main__":
    raise SystemExit(main())
