"""One smoke run that the tests of this folder share."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.workflow import running


class Run(NamedTuple):
    """A finished smoke run: its tree, what it printed, its CPU time in seconds.

    ``start`` is what it takes to start Python with torch, at that time on that machine.
    """

    folder: Path
    output: str
    cpu: float
    start: float


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run config/smoke.yaml in a copy of the tree."""
    folder = running.copy_tree(tmp_path_factory.mktemp("smoke"))
    starts = [_cpu_of(_import_torch) for _ in range(2)]
    output: list[str] = []
    cpu = _cpu_of(lambda: output.append(running.smoke(folder)))
    starts += [_cpu_of(_import_torch) for _ in range(2)]
    return Run(folder, output[0], cpu, statistics.median(starts))


def _import_torch() -> None:
    subprocess.run([sys.executable, "-c", "import torch"], check=True)


def _cpu_of(action: Callable[[], object]) -> float:
    """Return the CPU seconds of the processes that an action starts."""
    used = []
    for do in (lambda: None, action):
        do()
        found = resource.getrusage(resource.RUSAGE_CHILDREN)
        used.append(found.ru_utime + found.ru_stime)
    return used[1] - used[0]
