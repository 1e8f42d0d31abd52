"""Time and memory of the crosscoder step on a small grid of sizes, with a plot.

``python -m tests.benchmarks.bench_grid`` (part of ``make bench``); the plot is
``results/benchmarks_grid.png``. Times are of a whole step over that of the encoder's product at the
same size; memory is the growth of a process that holds the trainer and has stepped, over F·D.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import matplotlib as mpl
import torch

from tests.benchmarks.bench_crosscoder import seconds
from tests.benchmarks.report import Figure, at_most, record
from tests.benchmarks.sizes import M, Size, new_trainer

PLOT = Path("results/benchmarks_grid.png")


BASE = Size(F=8192, D=256, k=32, B=512)
AXES: dict[str, tuple[int, ...]] = {
    "F": (2048, 4096, 8192, 16_384),
    "B": (128, 256, 512, 1024),
    "k": (8, 16, 32, 64),
    "D": (64, 128, 256, 512),
}


@dataclass(frozen=True)
class Cost:
    """Seconds of the encoder's product and of a step; bytes that the process grew by."""

    encoder: float
    step: float
    memory: float


def peak() -> float:
    """Return the largest resident size of this process so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def cost(size: Size) -> Cost:
    """Measure one size; meant for a process of its own."""
    torch.manual_seed(0)
    x = torch.randn(size.B, M * size.D)
    before = peak()
    trainer = new_trainer(size)
    with torch.no_grad():
        encoder = seconds(lambda: trainer.weights.pre_activations(x), 7)
        whole = seconds(lambda: trainer.step(x), 7)
    return Cost(encoder, whole, peak() - before)


def measured() -> dict[tuple[str, int], Cost]:
    """Measure every size, each in a fresh process."""
    found = {}
    context = multiprocessing.get_context("spawn")
    for axis, values in AXES.items():
        for value in values:
            with context.Pool(1) as pool:
                found[axis, value] = pool.apply(cost, (replace(BASE, **{axis: value}),))
    return found


def plot(found: dict[tuple[str, int], Cost]) -> None:
    """Draw the time of a step and of the encoder's product along each axis."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(AXES), figsize=(11, 3), sharey=True)
    for axes, (name, values) in zip(panels, AXES.items(), strict=True):
        costs = [found[name, value] for value in values]
        axes.loglog(values, [c.step for c in costs], "o-", label="whole step")
        axes.loglog(values, [c.encoder for c in costs], "s--", label="encoder product")
        fixed = ", ".join(f"{k} {v}" for k, v in asdict(BASE).items() if k != name)
        axes.set_title(fixed, fontsize=8)
        axes.set_xlabel(name)
        axes.set_xticks(values, [str(value) for value in values])
        axes.minorticks_off()
    panels[0].set_ylabel("seconds")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="upper center", ncol=2)
    figure.tight_layout(rect=(0, 0, 1, 0.92))
    PLOT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PLOT, dpi=120)


def figures(found: dict[tuple[str, int], Cost]) -> list[Figure]:
    """Return ratios along the axes, and how far memory is from linear in F·D."""
    name = "crosscoder_grid"
    rows = []
    for (axis, value), c in found.items():
        rows.append(Figure(name, f"step / encoder product, {axis}={value}", c.step / c.encoder, ""))
    big = {axis: values[-2:] for axis, values in AXES.items() if axis in "FD"}
    for axis, (half, whole) in big.items():
        ratio = found[axis, whole].memory / found[axis, half].memory
        rows.append(at_most(name, f"memory, {axis}={whole} / {axis}={half}", ratio, "ratio", 2.2))
    held = found["F", AXES["F"][-1]].memory / (AXES["F"][-1] * M * BASE.D * 4)
    rows.append(Figure(name, "memory in copies of encoder's size, largest F", held, ""))
    return rows


if __name__ == "__main__":
    costs = measured()
    plot(costs)
    record(figures(costs))
