"""kill -9 in each long step, and a rerun, end with the artifacts of an undisturbed run."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.workflow import running
from tests.workflow.running import Run
from workflow_scripts.run import store_keys

pytestmark = pytest.mark.workflow

LONG_STEPS = ("train_organism", "dump_activations", "fit_crosscoder", "score_latents")
TARGET = "results/smoke/latents/it_simpo/seed0/selection.parquet"
FLAGS = ("--cores", "2", "--configfile", "config/smoke.yaml", "--", TARGET)
WORK_SECONDS = 2.5  # into a step: past its imports, before its end
LIMIT = 300.0


def kill_in(folder: Path, step: str) -> None:
    """Run until ``step`` is at work, then kill Snakemake and all its jobs."""
    process = subprocess.Popen(
        running.command(*FLAGS),
        cwd=folder,
        env=running.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(process, step)
        time.sleep(WORK_SECONDS)
    finally:
        family = [process.pid, *(p.pid for p in psutil.Process(process.pid).children(True))]
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def wait_for(process: subprocess.Popen[bytes], step: str) -> None:
    """Return when a job of ``step`` runs below ``process``."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        assert process.poll() is None, f"the run ended before {step} was seen"
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if child.cmdline()[1:3] == ["-m", step]:
                    return
        time.sleep(0.05)
    raise AssertionError(f"{step} did not start")


def test_kill_in_each_long_step(smoke_run: Run, tmp_path: Path) -> None:
    folder = running.copy_tree(tmp_path / "tree", smoke_run.folder)
    stages = {name.split(".")[1]: name for name in store_keys.steps()}
    for step in LONG_STEPS:
        kill_in(folder, f"workflow_scripts.{stages[step]}")
        running.smoke(folder, "--unlock")
    running.snakemake(folder, *FLAGS)
    undisturbed = running.hashes(smoke_run.folder / "results")
    killed = running.hashes(folder / "results")
    assert set(killed) <= set(undisturbed)
    assert {name for name in killed if killed[name] != undisturbed[name]} == set()
    shutil.rmtree(folder)
