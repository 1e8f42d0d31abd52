"""What all tests share: one smoke run, and how pytest's parallel processes divide the work."""

from __future__ import annotations

import os

import pytest
from filelock import FileLock

from tests import checked_shapes  # noqa: F401  # before the packages that it checks
from tests.workflow import running
from tests.workflow.running import Run

WORKER = os.environ.get("PYTEST_XDIST_WORKER")
os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # as in the workflow
if WORKER:
    # Processes side by side have a core each.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put whole runs and lint first, so that short tests fill idle cores at the end."""
    items.sort(
        key=lambda item: (
            item.get_closest_marker("workflow") is None
            and not item.nodeid.startswith("tests/workflow/")
        )
    )


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run config/smoke.yaml in a copy of the tree, once for all of pytest's processes."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if WORKER else base) / "smoke"
    record = folder.with_suffix(".txt")
    with FileLock(folder.with_suffix(".lock")):
        if not record.exists():
            record.write_text(running.smoke(running.copy_tree(folder)), encoding="utf-8")
    return Run(folder, record.read_text(encoding="utf-8"))
