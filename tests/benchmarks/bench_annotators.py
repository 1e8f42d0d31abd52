"""Whether the memory of the annotators' steps grows with the latents, at the workflow's batches.

``python -m tests.benchmarks.bench_annotators`` (part of ``make bench``); on Linux, which
tells the peak.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.autointerp.llm_run import make_contexts
from tests.autointerp.memory import make_examples, run
from tests.benchmarks.report import Figure, at_most, record

COPIES = 125, 500
"""Of four latents: 500, which is the largest batch, and four times as many."""


def measure(folder: Path) -> list[Figure]:
    """Return the ratios of the peaks, and the larger ones."""
    make_contexts(folder)
    few, many = (peaks_of(folder, copies) for copies in COPIES)
    name = "annotators"
    ratios = [
        at_most(name, f"peak of {step} at 4x the latents", many[step] / few[step], "x", 1.3)
        for step in many
    ]
    return [*ratios, *(Figure(name, f"peak of {s}", many[s] / 1e6, "MB") for s in many)]


def peaks_of(data: Path, copies: int) -> dict[str, int]:
    """Return each step's peak in bytes."""
    folder = data / str(copies)
    folder.mkdir()
    make_examples(data, folder, copies)
    return {step: process for step, (process, _) in run(folder, 0).items()}


def main() -> None:
    """Measure and record."""
    with tempfile.TemporaryDirectory() as folder:
        record(measure(Path(folder)))


if __name__ == "__main__":
    main()
