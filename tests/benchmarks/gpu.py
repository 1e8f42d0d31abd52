"""What a GPU does, in at most eight minutes, the most valuable first: ``make bench-gpu``.

``python -m tests.benchmarks.gpu [PART ...]`` runs some parts alone. With BENCH_DEVICE=cpu all is
tiny, and goes to results/trial.csv: the script runs through, before there is a GPU.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import yaml

from tests.activations.synthetic import write_normalizer
from tests.benchmarks import bench_dump, bench_latents, gpu_step
from tests.benchmarks.bench_reader import LAYER, write_shard
from tests.benchmarks.report import TABLE, Figure, at_least, at_most, record
from tests.benchmarks.sizes import Size, new_trainer
from tests.run.test_settings import put, smoke
from tests.workflow import running
from workflow_scripts.activations.store import ActivationStore

LIMIT = 480.0  # seconds
FIT = "results/smoke/crosscoder/pt_it/seed0/evaluation.json"
TINY = Size(F=256, D=16, k=4, B=32)
SIZES = (Size(F=73_728, D=2304, k=100, B=4096), Size(F=114_688, D=3584, k=100, B=4096))
STEPS = 40  # that are fed from disk


def workflow(device: torch.device) -> list[Figure]:
    """Run the smoke config up to a crosscoder on the CPU, and from the dumps on on the device."""
    with tempfile.TemporaryDirectory() as temporary:
        tree = running.copy_tree(Path(temporary) / "tree")
        fves = []
        for name, forced in (("cpu", ()), (device.type, ("--forcerun", "dump_activations"))):
            config = put(smoke(), "activations.device", name)
            (tree / "device.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
            cores = str(os.cpu_count())
            arguments = ("--cores", cores, "--configfile", "device.yaml", *forced, "--", FIT)
            running.snakemake(tree, *arguments)
            found = json.loads((tree / FIT).read_text(encoding="utf-8"))["fve"]
            fves.append(np.array(list(found.values())))
    apart = float(np.abs(fves[0] - fves[1]).max())
    return [at_most(f"workflow_{device.type}", "FVE, from the CPU's", apart, "", 0.01)]


def step(device: torch.device, place: int) -> list[Figure]:
    """Time the crosscoder step of one size."""
    if device.type == "cpu":
        return gpu_step.measure(TINY, device, compiled=False, side=64)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return gpu_step.measure(SIZES[place], device)


def feed(device: torch.device) -> list[Figure]:
    """Compare steps that are fed from disk with steps on a batch that is there."""
    size, tokens = (TINY, 8192) if device.type == "cpu" else (SIZES[1], 1 << 18)
    with tempfile.TemporaryDirectory() as temporary, torch.no_grad():
        shard = write_shard(Path(temporary) / "shard.h5", 0, tokens, size.D)
        normal = write_normalizer(Path(temporary) / "normal.h5", np.zeros(size.D))
        files, normals = {"a": [shard], "b": [shard]}, {"a": normal, "b": normal}
        store = ActivationStore(files, LAYER, normals, memory=tokens * size.D * 2)
        trainer = new_trainer(size, dtype=torch.bfloat16, device=device)
        batches = store.shuffled("fit", size.B, 0, device=device)
        x = next(batches).flatten(1)
        resident = gpu_step.seconds(lambda: trainer.step(x), device)
        started = time.perf_counter()
        for fed in islice(batches, STEPS):
            outcome = trainer.step(fed.flatten(1))
        outcome.row()
        took = (time.perf_counter() - started) / STEPS
    name = f"fit_feed_{device.type}"
    return [
        at_least(name, "rate, of that without a feed", resident / took, "x", 0.9),
        Figure(name, "tokens", size.B / took, "tokens/s"),
    ]


def dump(device: torch.device) -> list[Figure]:
    """Compare a dump with the forward passes alone."""
    case = bench_dump.LARGE
    if device.type == "cpu":
        case = bench_dump.Case(32, 64, 2, 2, 16, 128, 1, rows=4, batch_tokens=2048, bound=0.7)
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        return bench_dump.measure(case, Path(folder), device)


def scoring(device: torch.device) -> list[Figure]:
    """Compare scoring with the encode pass."""
    size = bench_latents.ON_GPU
    if device.type == "cpu":
        size = bench_latents.Size(F=128, D=16, K=4, tokens=16 * bench_latents.LENGTH)
    with torch.no_grad():
        return bench_latents.measure(size, device)


@dataclass(frozen=True)
class Part:
    """What is measured, and the seconds that it is expected to take."""

    measure: Callable[[torch.device], list[Figure]]
    seconds: float


PARTS = {
    "workflow": Part(workflow, 120),
    "step": Part(partial(step, place=0), 60),
    "large_step": Part(partial(step, place=1), 90),
    "feed": Part(feed, 60),
    "dump": Part(dump, 60),
    "scoring": Part(scoring, 60),
}
"""By worth: where time runs out, the last ones are left out."""


@contextmanager
def ended_after(seconds: float) -> Iterator[None]:
    """End what takes longer with an error."""

    def end(number: int, frame: object) -> None:
        raise TimeoutError(f"it took more than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run(names: Sequence[str], device: torch.device, limit: float, table: Path) -> int:
    """Measure parts and record each when it is done; return how many failed.

    One that fails ends no other; one for which the time is too short is left out.
    """
    started, failed = time.monotonic(), 0
    for name in names:
        left = limit - (time.monotonic() - started)
        if left < (PARTS[name].seconds if device.type == "cuda" else 1):
            print(f"{name}: left out, {left:.0f} s are left", flush=True)
            continue
        try:
            with ended_after(left):
                record(PARTS[name].measure(device), table)
        except Exception:
            failed += 1
            traceback.print_exc()
            print(f"{name}: failed", flush=True)
    return failed


if __name__ == "__main__":
    chosen = torch.device(os.environ.get("BENCH_DEVICE", "cuda"))
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("error: there is no CUDA GPU: BENCH_DEVICE=cpu is a trial")
    table = TABLE if chosen.type == "cuda" else TABLE.with_name("trial.csv")
    raise SystemExit(run(sys.argv[1:] or list(PARTS), chosen, LIMIT, table))
