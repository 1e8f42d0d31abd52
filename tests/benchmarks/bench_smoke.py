"""CPU time of the run ``smoke``, in units of the start of Python with torch.

``python -m tests.benchmarks.bench_smoke`` (part of ``make bench``). Starting processes is most of
what that run does; a machine that needs 1.4 s for a start has two minutes on two cores.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.report import Figure, at_most, record
from tests.workflow import running

CORES, SECONDS, START = 2, 120, 1.4


def measure(folder: Path) -> list[Figure]:
    """Return the CPU time of the run in a new copy of the tree."""
    running.copy_tree(folder)
    starts = [cpu_of(import_torch) for _ in range(2)]
    cpu = cpu_of(lambda: running.smoke(folder))
    starts += [cpu_of(import_torch) for _ in range(2)]
    ratio = cpu / statistics.median(starts)
    return [at_most("smoke", "CPU time", ratio, "starts", CORES * SECONDS / START)]


def import_torch() -> None:
    """Start Python with torch."""
    subprocess.run([sys.executable, "-c", "import torch"], check=True)


def cpu_of(action: Callable[[], object]) -> float:
    """Return the CPU seconds of the processes that an action starts."""
    before = _used()
    action()
    return _used() - before


def _used() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        record(measure(Path(temporary) / "smoke"))
