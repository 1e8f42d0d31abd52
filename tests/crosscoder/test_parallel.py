"""Several processes, each with its part of the latents, fit what one fits."""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import pytest
import torch
from torch import Tensor, distributed

from tests.crosscoder import memory_store
from tests.crosscoder.memory_store import F, MemoryStore
from workflow_scripts.common.provenance import ROOT
from workflow_scripts.crosscoder.model import Crosscoder, initial_weights
from workflow_scripts.crosscoder.parallel import joined
from workflow_scripts.crosscoder.training import Trainer

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tests.crosscoder.test_parallel"])  # imports torch once for all


def start(rank: int, count: int, port: int, name: str, *arguments: object) -> None:
    """Call a function of this module or the store's in one of several processes."""
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(count), LOCAL_RANK=str(rank))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    {"main": memory_store.main, "count_values": count_values}[name](*arguments)  # type: ignore[operator]


def together(count: int, name: str, *arguments: object) -> None:
    """Call a function in several processes that know of each other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [
        SERVER.Process(target=start, args=(rank, count, port, name, *arguments))
        for rank in range(count)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0] * count


def check_equal(one: Path, several: Path) -> None:
    """Compare two fits: weights, threshold and log within rounding."""
    alone, shared = (Crosscoder.load(folder) for folder in (one, several))
    for name, tensor in alone.weights.tensors().items():
        torch.testing.assert_close(shared.weights.tensors()[name], tensor, rtol=1e-3, atol=1e-4)
    assert shared.threshold == pytest.approx(alone.threshold, rel=1e-3)
    logs = [pd.read_csv(folder / "training.csv") for folder in (one, several)]
    pd.testing.assert_frame_equal(logs[0], logs[1], rtol=1e-3, atol=1e-5)


def test_torchrun_starts_the_processes(tmp_path: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launcher, "-m", "tests.crosscoder.memory_store", str(tmp_path / "two"), "topk"]
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    memory_store.main(tmp_path / "one", "topk")
    check_equal(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize(
    ("variant", "count"), [("batch_topk", 2), ("batch_topk", 4), ("topk", 4), ("l1", 2)]
)
def test_processes_fit_what_one_fits(tmp_path: Path, variant: str, count: int) -> None:
    """Of a number of latents that they cannot share evenly."""
    together(count, "main", tmp_path / "several", variant, F + 1)
    memory_store.main(tmp_path / "one", variant, F + 1)
    check_equal(tmp_path / "one", tmp_path / "several")
    if variant != "l1":
        log = pd.read_csv(tmp_path / "one/training.csv")
        assert (log["dead_share"] > 0).any()
        assert (log["auxk_loss"] > 0).any()


def test_a_checkpoint_is_that_of_one_process(tmp_path: Path) -> None:
    """Two processes stop, one goes on; one stops, four go on."""
    memory_store.main(tmp_path / "whole", "batch_topk")
    together(2, "main", tmp_path / "down", "batch_topk", F, 31)
    assert (tmp_path / "down/checkpoint").exists()
    memory_store.main(tmp_path / "down", "batch_topk")
    memory_store.main(tmp_path / "up", "batch_topk", F, 31)
    together(4, "main", tmp_path / "up", "batch_topk")
    for name in ("down", "up"):
        check_equal(tmp_path / "whole", tmp_path / name)
        assert not (tmp_path / name / "checkpoint").exists()


def count_values(folder: Path, latents: int) -> None:
    """Make some steps and write how many values a process sends in the last one."""
    sent = [0]
    reduce, gather = distributed.all_reduce, distributed.all_gather

    def reduced(tensor: Tensor) -> None:
        sent[0] += tensor.numel()
        reduce(tensor)

    def gathered(parts: list[Tensor], tensor: Tensor) -> None:
        sent[0] += tensor.numel()
        gather(parts, tensor)

    torch.set_num_threads(1)
    counted: dict[str, Any] = {"all_reduce": reduced, "all_gather": gathered}
    counting = mock.patch.multiple(distributed, **counted)
    with joined("cpu") as (processes, _), torch.no_grad(), counting:
        own = processes.latents(latents)
        weights = initial_weights(latents, 2, 16, 0, 0.1, own)
        settings = memory_store.fit_settings(dictionary_size=latents, dead_tokens=10**9)
        trainer = Trainer(weights, settings, processes)
        x = torch.from_numpy(MemoryStore().x[:64]).flatten(1)
        for _ in range(5):
            sent[0] = 0
            trainer.step(x)
        if processes.rank == 0:
            (folder / str(latents)).write_text(str(sent[0]))


def test_what_is_sent_does_not_grow_with_the_latents(tmp_path: Path) -> None:
    """It is the reconstruction [B, M·D], and scores of some more than B·k candidates."""
    for latents in (F, 20 * F):
        together(2, "count_values", tmp_path, latents)
    few, many = (int((tmp_path / str(latents)).read_text()) for latents in (F, 20 * F))
    assert few > 64 * 2 * 16
    assert many < 64 * 2 * 16 + 2 * 64 * 8 < 20 * F * 2 * 16
