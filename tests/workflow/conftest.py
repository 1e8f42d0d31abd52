"""One smoke run that the tests of this folder share."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.workflow import running


class Run(NamedTuple):
    """A finished smoke run: its tree, what it printed and how long it took."""

    folder: Path
    output: str
    seconds: float


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run config/smoke.yaml in a copy of the tree."""
    folder = running.copy_tree(tmp_path_factory.mktemp("smoke"))
    start = time.monotonic()
    output = running.smoke(folder)
    return Run(folder, output, time.monotonic() - start)
