"""Throughput of a dump against the forward passes alone: same model, batches and depth.

``python -m tests.benchmarks.bench_dump`` (part of ``make bench``). For ``make bench-gpu`` the model
has the shape of Gemma-2-9B in bfloat16 and the layer is 20 of 42.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tests.activations.synthetic import token_shard
from tests.benchmarks.report import Figure, at_least, record
from workflow_scripts.activations.blocks import capture, decoder_blocks, forward_to
from workflow_scripts.activations.dump_activations import (
    held_tokens,
    length_batches,
    pad,
    stretches,
    write_dump,
)
from workflow_scripts.dataset.shards import TokenShard

CPU = torch.device("cpu")
REPEATS = 3


@dataclass(frozen=True)
class Case:
    """A model's shape and the layer that is dumped."""

    width: int
    inner: int
    layers: int
    heads: int
    head_dim: int
    vocabulary: int
    layer: int
    rows: int  # of 64 to 512 tokens
    batch_tokens: int
    bound: float


SMALL = Case(512, 2048, 8, 8, 64, 4096, 5, rows=64, batch_tokens=8192, bound=0.8)
LARGE = Case(3584, 14336, 42, 16, 256, 256_000, 20, rows=512, batch_tokens=16384, bound=0.7)


def build(case: Case, device: torch.device) -> PreTrainedModel:
    """Return a Gemma-2 model with random weights on a device."""
    config = AutoConfig.for_model(
        "gemma2",
        hidden_size=case.width,
        intermediate_size=case.inner,
        num_hidden_layers=case.layers,
        num_attention_heads=case.heads,
        num_key_value_heads=case.heads // 2,
        head_dim=case.head_dim,
        vocab_size=case.vocabulary,
    )
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    with device:
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.eval()
    return model


def forward(model: PreTrainedModel, shard: TokenShard, case: Case) -> None:
    """Run the forward passes of a dump and forget what they give."""
    lengths = np.diff(shard.row_starts)
    with capture(decoder_blocks(model), [case.layer]):
        for rows in stretches(shard.row_starts, held_tokens([case.layer], case.width)):
            for batch in length_batches(lengths[rows], case.batch_tokens):
                ids, mask = pad(shard, rows[batch])
                forward_to(model, ids.to(model.device), mask.to(model.device))
    _finish(model.device)


def dump(model: PreTrainedModel, shard: TokenShard, case: Case, folder: Path) -> None:
    """Dump the layer in bfloat16."""
    path = folder / "shard000.h5"
    write_dump(model, "model", shard, [case.layer], path, "bfloat16", case.batch_tokens, {})
    _finish(model.device)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def matmul_rate(device: torch.device, size: int = 8192, repeats: int = 20) -> float:
    """Return the FLOP/s of a large matrix product in the model's type: the roof."""
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    for _ in range(3):
        a @ a
    _finish(device)
    started = time.perf_counter()
    for _ in range(repeats):
        a @ a
    _finish(device)
    return 2 * size**3 * repeats / (time.perf_counter() - started)


def measure(case: Case, folder: Path, device: torch.device = CPU) -> list[Figure]:
    """Return the ratio of both, alternating, and the rates."""
    model = build(case, device)
    lengths = np.random.default_rng(0).integers(64, 512, case.rows)
    shard = token_shard(lengths.tolist())
    times: dict[str, list[float]] = {"forward": [], "dump": []}
    forward(model, shard, case)  # warm
    for _ in range(REPEATS):
        started = time.perf_counter()
        forward(model, shard, case)
        times["forward"].append(time.perf_counter() - started)
        started = time.perf_counter()
        dump(model, shard, case, folder)
        times["dump"].append(time.perf_counter() - started)
    ratio = min(times["forward"]) / min(times["dump"])
    rate = shard.tokens / min(times["dump"])
    name = f"dump on {device.type}"
    figures = [
        at_least(name, "throughput, of the forward passes alone", ratio, "x", case.bound),
        Figure(name, "tokens", rate, "tokens/s"),
    ]
    if device.type == "cuda":
        deep = decoder_blocks(model)[: case.layer + 1]
        used = sum(parameter.numel() for block in deep for parameter in block.parameters())
        share = 2 * used * rate / matmul_rate(device)
        figures.append(Figure(name, "model FLOPs, of a large matmul's rate", share, "x"))
    return figures


def main() -> None:
    """Measure and record."""
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        record(measure(SMALL, Path(folder)))


if __name__ == "__main__":
    main()
