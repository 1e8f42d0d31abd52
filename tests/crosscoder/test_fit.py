"""Whole fits: killed and resumed, diverging, with batches that cannot be shared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from tests.crosscoder.memory_store import F, MemoryStore, fit_settings, store_of
from workflow_scripts.common.cli import UserError
from workflow_scripts.crosscoder import fit_crosscoder as module
from workflow_scripts.crosscoder.fit_crosscoder import fit_store
from workflow_scripts.crosscoder.model import WEIGHTS, Crosscoder, initial_weights
from workflow_scripts.crosscoder.parallel import Processes
from workflow_scripts.crosscoder.settings import Training
from workflow_scripts.crosscoder.training import StepOutcome, Trainer


def run(folder: Path, settings: Training | None = None, gain: float = 1.0, seed: int = 0) -> None:
    """Fit into a folder, with the checkpoint beside it."""
    with torch.no_grad():
        store = store_of(MemoryStore(gain=gain))
        chosen = settings or fit_settings()
        fit_store(store, chosen, seed, folder, folder / "checkpoint")


@pytest.mark.parametrize("variant", ["batch_topk", "topk", "l1"])
def test_killed_and_resumed_fits_end_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    settings = fit_settings(variant, shared_share=8 / F, l1_price=0.1 * (variant == "l1"))
    run(tmp_path / "whole", settings)
    monkeypatch.setattr(module, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(module, "CHECKPOINT_SHARE", float("inf"))
    step = Trainer.step

    def killed(self: Trainer, x: torch.Tensor) -> object:
        if self.done == 31:
            raise KeyboardInterrupt
        return step(self, x)

    monkeypatch.setattr(Trainer, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", settings)
    monkeypatch.setattr(Trainer, "step", step)
    assert (tmp_path / "broken/checkpoint").exists()
    run(tmp_path / "broken", settings)
    for file in (WEIGHTS, "training.csv"):
        assert (tmp_path / "broken" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert not (tmp_path / "broken/checkpoint").exists()


def test_a_checkpoint_of_another_fit_is_not_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another seed under the checkpoint's name: start anew."""
    step = Trainer.step

    def killed(self: Trainer, x: torch.Tensor) -> StepOutcome:
        if self.done == 3:
            raise KeyboardInterrupt
        return step(self, x)

    monkeypatch.setattr(module, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(module, "CHECKPOINT_SHARE", float("inf"))
    run(tmp_path / "clean", seed=1)
    monkeypatch.setattr(Trainer, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "left")
    monkeypatch.setattr(Trainer, "step", step)
    run(tmp_path / "left", seed=1)
    for file in (WEIGHTS, "training.csv"):
        assert (tmp_path / "left" / file).read_bytes() == (tmp_path / "clean" / file).read_bytes()


def test_divergence_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    """A rate of 1,000 makes the loss explode: the sentence names a checkpoint of finite weights."""
    with pytest.raises(UserError, match=r"lower learning_rate.*last good checkpoint is .*") as told:
        run(tmp_path, fit_settings(learning_rate=1000.0))
    assert str(tmp_path / "checkpoint") in str(told.value)
    assert not (tmp_path / WEIGHTS).exists()
    trainer = Trainer(initial_weights(F, 2, 16, 0, 0.1), fit_settings())
    with safe_open(tmp_path / "checkpoint", framework="pt") as file:
        course = json.loads(file.metadata()["state"])["course"]
    assert trainer.restore(tmp_path / "checkpoint", course)
    assert trainer.done > 0
    assert all(bool(w.isfinite().all()) for w in trainer.weights.tensors().values())


def test_gradients_that_overflow_stop_the_fit(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at step 0: lower learning_rate"):
        run(tmp_path, gain=1e25)


def test_a_batch_must_be_shared_evenly(tmp_path: Path) -> None:
    checkpoint, processes = tmp_path / "checkpoint", Processes(3, 0)
    store = store_of(MemoryStore())
    with pytest.raises(UserError, match="a batch of 64 cannot be shared by 3 processes"):
        fit_store(store, fit_settings(), 0, tmp_path, checkpoint, processes=processes)


def test_shared_latents_reach_the_file(tmp_path: Path) -> None:
    run(tmp_path, fit_settings(shared_share=12 / F))
    found = Crosscoder.load(tmp_path)
    assert found.costs is not None
    assert (found.costs[:12] == 0.5).all()
    assert (found.costs[12:] == 1).all()
    assert torch.equal(found.w_dec[:12, 0], found.w_dec[:12, 1])
