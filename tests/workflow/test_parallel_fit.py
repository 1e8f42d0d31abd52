"""A fit that several processes share: planned for a cluster, run for real on this machine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import yaml

from tests.run.test_settings import put, smoke
from tests.workflow import running
from tests.workflow.running import Run
from workflow_scripts.crosscoder.model import Crosscoder

pytestmark = pytest.mark.workflow

FOLDER = "results/smoke/crosscoder/pt_it/seed0"
LAUNCHED = "torch.distributed.run --standalone --nproc-per-node=2"


@pytest.fixture(scope="module")
def tree(smoke_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished run, and a config in which two processes share each fit."""
    folder = tmp_path_factory.mktemp("parallel") / "tree"
    smoke_run.copy(folder)
    shared = put(smoke(), "crosscoder.processes", 2)
    (folder / "shared.yaml").write_text(yaml.safe_dump(shared), encoding="utf-8")
    return folder


def test_a_cluster_is_asked_for_one_job_with_a_gpu_per_process(tree: Path) -> None:
    profile = tree / "profiles" / "slurm" / "config.yaml"
    asks = profile.read_text(encoding="utf-8")
    edited = asks.replace("fit_crosscoder: {gpu: 1,", "fit_crosscoder: {gpu: 2,")
    assert edited != asks
    profile.write_text(edited, encoding="utf-8")
    printed = running.snakemake(
        tree,
        *("-n", "-p", "--cores", "2", "--configfile", "shared.yaml"),
        *("--workflow-profile", "profiles/slurm", "--forcerun", "fit_crosscoder"),
    )
    jobs = re.findall(r"^rule fit_crosscoder:\n(.*?)\n\n", printed, re.MULTILINE | re.DOTALL)
    assert len(jobs) == 4
    for job in jobs:
        assert "threads: 2" in job
        assert re.search(r"resources: .*\bslurm_partition=gpu\b.*\bgpu=2\b", job)
    assert printed.count(LAUNCHED) == len(jobs)


def test_two_processes_fit_what_one_does(tree: Path) -> None:
    alone = Crosscoder.load(tree / FOLDER)
    target = f"{FOLDER}/crosscoder.safetensors"
    printed = running.snakemake(
        tree,
        "--cores",
        "2",
        "--configfile",
        "shared.yaml",
        "-p",
        "--forcerun",
        target,
        "--",
        target,
    )
    assert LAUNCHED in printed
    shared = Crosscoder.load(tree / FOLDER)
    for name, tensor in alone.weights.tensors().items():
        torch.testing.assert_close(shared.weights.tensors()[name], tensor, rtol=1e-2, atol=1e-3)
    assert shared.threshold == pytest.approx(alone.threshold, rel=1e-2)
