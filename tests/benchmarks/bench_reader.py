"""The reader of shuffled batches against the disk, row-wise reads, and what a fit consumes.

``python -m tests.benchmarks.bench_reader`` (part of ``make bench``). The page cache is told to
forget the files before each measurement; widening to float32 is part of the reading. The rate is
that of a fit's later epochs: the first one also touches its memory for the first time.
"""

from __future__ import annotations

import os
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import h5py
import numpy as np
import torch

from tests.activations.synthetic import encode, token_shard, write_normalizer
from tests.benchmarks.report import Figure, at_least, at_most, record
from workflow_scripts.activations import FORMAT, VERSION
from workflow_scripts.activations.dump_activations import write_index
from workflow_scripts.activations.layout import LayerWriter, as_tensor
from workflow_scripts.activations.store import ActivationStore
from workflow_scripts.common import hdf5
from workflow_scripts.crosscoder.model import initial_weights
from workflow_scripts.crosscoder.settings import Training
from workflow_scripts.crosscoder.training import Trainer

MODELS, D, LAYER, LENGTH, BATCH = ("a", "b"), 512, 1, 128, 1024
SHARD = 1024 * LENGTH  # tokens
SHARDS = 8
RANDOM_ROWS = 2000
F, K = 16_384, 32


def write_shard(path: Path, seed: int, tokens: int = SHARD, width: int = D) -> Path:
    """Write a shard of random bfloat16 activations."""
    rng = np.random.default_rng(seed)
    with hdf5.atomic(path, FORMAT, VERSION, {}) as file:
        write_index(file, token_shard([LENGTH] * (tokens // LENGTH)))
        writer = LayerWriter(file, LAYER, tokens, width, "bfloat16")
        for _ in range(8):
            h = rng.standard_normal((tokens // 8, width), dtype=np.float32)
            writer.write(encode(h, "bfloat16"), np.linalg.norm(h, axis=1).astype(np.float32))
        writer.close()
    with path.open("rb") as written:
        os.fsync(written.fileno())
    return path


def forget(files: dict[str, list[Path]]) -> None:
    """Drop the files from the page cache."""
    for paths in files.values():
        for path in paths:
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def timed(files: dict[str, list[Path]], action: Callable[[], None], repeats: int = 2) -> float:
    """Return the shortest time of an action on files that are not in memory, in seconds."""
    times = []
    for _ in range(repeats):
        forget(files)
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return min(times)


def open_store(
    files: dict[str, list[Path]], normalizers: dict[str, Path], shards: int = SHARDS
) -> ActivationStore:
    """Return a store over the first shards, larger than its buffer."""
    first = {model: paths[:shards] for model, paths in files.items()}
    return ActivationStore(first, LAYER, normalizers)


def sequential(files: dict[str, list[Path]]) -> None:
    """Read all files from begin to end."""
    buffer = bytearray(1 << 23)
    for paths in files.values():
        for path in paths:
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass


def epoch(store: ActivationStore) -> None:
    """Read every batch once."""
    take(store.shuffled("fit", BATCH, 0), store.count("fit") // BATCH)


def take(batches: Iterator[torch.Tensor], count: int) -> None:
    """Read so many batches."""
    for _ in islice(batches, count):
        pass


def row_wise(files: dict[str, list[Path]]) -> None:
    """Read aligned random rows one by one, as a plain HDF5 dataset would be used."""
    rows = np.random.default_rng(0).integers(0, SHARD, RANDOM_ROWS)
    opened = [h5py.File(paths[0], "r")[f"layer{LAYER}"] for paths in files.values()]
    for row in rows:
        for values in opened:
            as_tensor(values[row], "bfloat16").float()
    for values in opened:
        values.file.close()


def fit_rate(store: ActivationStore, steps: int = 3) -> float:
    """Return the tokens that a fit consumes per second, the first step apart."""
    settings = Training(k=K, tokens=10 * BATCH, batch=BATCH, dead_tokens=10**9, auxk_weight=0.0)
    trainer = Trainer(initial_weights(F, len(MODELS), D, 0, 0.1), settings)
    batches = [x.flatten(1) for x in islice(store.shuffled("fit", BATCH, 0), 2)]
    times = []
    for step in range(steps):
        started = time.perf_counter()
        trainer.step(batches[step % 2])
        times.append(time.perf_counter() - started)
    return BATCH / min(times[1:])


def peak(store: ActivationStore) -> int:
    """Return the peak of memory while an epoch is read, in bytes."""
    tracemalloc.start()
    epoch(store)
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


def measure(folder: Path) -> list[Figure]:
    """Return the ratios."""
    threads = torch.get_num_threads()
    files = {
        model: [write_shard(folder / f"{model}{n}.h5", n) for n in range(SHARDS)]
        for model in MODELS
    }
    normalizers = {m: write_normalizer(folder / f"{m}.norm.h5", np.zeros(D)) for m in MODELS}
    store = open_store(files, normalizers)
    tokens = store.count("fit") // BATCH * BATCH
    size = sum(path.stat().st_size for paths in files.values() for path in paths)
    disk = size / timed(files, lambda: sequential(files))
    torch.set_num_threads(1)  # as in the workflow's fits
    stream = store.shuffled("fit", BATCH, 0)
    take(stream, tokens // BATCH)  # a fit touches its memory for the first time once
    seconds = timed(files, lambda: take(stream, tokens // BATCH))
    rows = RANDOM_ROWS / timed(files, lambda: row_wise(files), repeats=1)
    peaks = [peak(open_store(files, normalizers, shards)) for shards in (SHARDS // 2, SHARDS)]
    torch.set_num_threads(threads)
    with torch.no_grad():
        consumed = fit_rate(store)
    name = "reader"
    return [
        at_least(name, "bytes, of the disk's sequential rate", size / seconds / disk, "x", 0.5),
        at_least(name, "rows, of row-wise random reads", tokens / seconds / rows, "x", 10),
        at_least(name, "tokens, of what a fit consumes", tokens / seconds / consumed, "x", 5),
        at_most(name, "peak of memory at 2x the tokens", peaks[1] / peaks[0], "x", 1.2),
        Figure(name, "disk, sequential", disk / 1e6, "MB/s"),
        Figure(name, "shuffled batches", tokens / seconds, "tokens/s"),
    ]


def main() -> None:
    """Measure and record."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        record(measure(Path(folder)))


if __name__ == "__main__":
    main()
