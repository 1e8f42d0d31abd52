"""One smoke run that the tests of this folder share."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.workflow import running


class Run(NamedTuple):
    """A finished smoke run: its tree, what it printed, and its CPU time in seconds."""

    folder: Path
    output: str
    cpu: float


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run config/smoke.yaml in a copy of the tree."""
    folder = running.copy_tree(tmp_path_factory.mktemp("smoke"))
    before = _cpu_seconds()
    output = running.smoke(folder)
    return Run(folder, output, _cpu_seconds() - before)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
