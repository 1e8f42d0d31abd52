"""Jobs on one machine get GPUs of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from workflow_scripts.common import gpus

TAKE = """
import os, sys
from workflow_scripts.common import gpus
gpus.PAUSE = 0.05
gpus.take_gpus(int(sys.argv[1]))
print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
sys.stdin.read()
"""


def start(count: int, visible: str, folder: Path, **extra: str) -> subprocess.Popen[str]:
    """Start a job that takes GPUs, says which, and holds them until its input is closed."""
    own = (gpus.RANK, gpus.PROCESSES, gpus.RUN, gpus.ALLOCATION)
    free = {name: value for name, value in os.environ.items() if name not in own}
    return subprocess.Popen(
        [sys.executable, "-c", TAKE, str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=free | {"CUDA_VISIBLE_DEVICES": visible, "TMPDIR": str(folder)} | extra,
    )


def line(job: subprocess.Popen[str]) -> str:
    assert job.stdout is not None
    return job.stdout.readline().strip()


def test_jobs_hold_different_gpus_and_wait_for_free_ones(tmp_path: Path) -> None:
    first, second = (start(1, "0,1,GPU-5a", tmp_path) for _ in range(2))
    names = [line(first), line(second)]
    assert names[0] != names[1]
    both = start(2, "0,1,GPU-5a", tmp_path)
    time.sleep(1)
    first.communicate()
    assert set(line(both).split(",")) == {"0", "1", "GPU-5a"} - {names[1]}
    second.communicate()
    both.communicate()


def fit(name: str, folder: Path, visible: str = "0,1,2,3,4") -> list[subprocess.Popen[str]]:
    """Start the two processes of a fit, the second one first."""
    shared = {gpus.PROCESSES: "2", gpus.RUN: name}
    return [start(1, visible, folder, **{gpus.RANK: rank}, **shared) for rank in "10"]


def test_the_processes_of_a_fit_take_gpus_together(tmp_path: Path) -> None:
    first, second = (fit(name, tmp_path) for name in "ab")
    seen = [line(job) for job in (*first, *second)]
    third = fit("c", tmp_path)
    assert seen[0] == seen[1]
    assert seen[2] == seen[3]
    assert not set(seen[0].split(",")) & set(seen[2].split(","))
    assert all(len(gpus.split(",")) == 2 for gpus in seen)
    for job in first:
        job.communicate()
    later = [line(job) for job in third]  # one GPU alone was free before
    assert later[0] == later[1]
    assert not set(later[0].split(",")) & set(seen[2].split(","))
    for job in (*second, *third):
        job.communicate()
    assert not list(tmp_path.rglob("*.json"))


def test_a_fit_on_all_gpus_chooses_none(tmp_path: Path) -> None:
    jobs = fit("a", tmp_path, "4,7")
    assert [line(job) for job in jobs] == ["4,7", "4,7"]
    for job in jobs:
        job.communicate()


def test_allocations_have_gpus_of_their_own(tmp_path: Path) -> None:
    """Both count theirs from 0; within one, jobs share them out."""
    jobs = [start(1, "0,1", tmp_path, **{gpus.ALLOCATION: job}) for job in ("8", "9", "9")]
    assert line(jobs[0]) == "0"
    assert {line(job) for job in jobs[1:]} == {"0", "1"}
    for job in jobs:
        job.communicate()


def test_a_single_gpu_is_shared(tmp_path: Path) -> None:
    jobs = [start(1, "6", tmp_path) for _ in range(2)]
    assert [line(job) for job in jobs] == ["6", "6"]
    for job in jobs:
        job.communicate()


def test_gpus_are_those_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(gpus.VISIBLE, raising=False)
    monkeypatch.setattr(gpus, "DEVICES", tmp_path)
    for name in ("nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert gpus.visible_gpus() == ["2", "10"]
    monkeypatch.setenv(gpus.VISIBLE, "")
    assert gpus.visible_gpus() == []
