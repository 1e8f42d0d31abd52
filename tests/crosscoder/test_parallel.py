"""Two processes fit what one fits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from tests.crosscoder import memory_store
from workflow_scripts.common.provenance import ROOT
from workflow_scripts.crosscoder.model import Crosscoder


@pytest.mark.parametrize("variant", ["batch_topk", "topk"])
def test_two_processes_equal_one(tmp_path: Path, variant: str) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launcher, "-m", "tests.crosscoder.memory_store", str(tmp_path / "two"), variant]
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    memory_store.main(tmp_path / "one", variant)
    one, two = (Crosscoder.load(tmp_path / name) for name in ("one", "two"))
    for name, tensor in one.weights.tensors().items():
        torch.testing.assert_close(two.weights.tensors()[name], tensor, rtol=1e-3, atol=1e-4)
    assert two.threshold == pytest.approx(one.threshold, rel=1e-3)
    logs = [pd.read_csv(tmp_path / name / "training.csv") for name in ("one", "two")]
    assert (logs[0]["dead_share"].to_numpy() > 0).any()
    assert (logs[0]["auxk_loss"].to_numpy() > 0).any()
    pd.testing.assert_frame_equal(logs[0], logs[1], rtol=1e-3, atol=1e-5)
