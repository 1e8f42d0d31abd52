"""How often a step waits for the GPU, and that it gives there what it gives on the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.crosscoder.test_training import D, F, M, batches, settings
from tests.emulator import pretended_gpu
from workflow_scripts.crosscoder.model import initial_weights
from workflow_scripts.crosscoder.training import Trainer, fit

STEPS = 12
RULES: dict[str, dict[str, Any]] = {
    "batch_topk": {},
    "shared": {"shared_share": 0.25},
    "topk": {"variant": "topk"},
    "l1": {"variant": "l1", "l1_price": 0.1},
}


def trainer_on(device: str, rule: str) -> Trainer:
    """Return a trainer whose latents soon die."""
    weights = initial_weights(F, M, D, 0, 0.3).map(lambda tensor: tensor.to(device))
    return Trainer(weights, settings(STEPS, k=1, k_start=0, dead_tokens=64, **RULES[rule]))


@pytest.mark.parametrize("rule", RULES)
@torch.no_grad()
def test_a_step_waits_seldom(rule: str) -> None:
    """Once for the active latents, once for the dead ones; once more for a line of the log."""
    with pretended_gpu() as gpu:
        trainer = trainer_on("cuda", rule)
        data = [x.to("cuda") for x, _ in zip(batches(1), range(STEPS), strict=False)]
        for x in data:
            gpu.waits.clear()
            outcome = trainer.step(x.flatten(1))
        waits = gpu.waits.copy()
        gpu.waits.clear()
        assert (outcome.row().dead_share > 0) == (rule != "l1")  # AuxK is at work
        assert gpu.waits.total() == 1, gpu.waits
    assert 2 <= waits.total() <= (3 if rule == "shared" else 2), waits


@pytest.mark.parametrize("rule", RULES)
@torch.no_grad()
def test_the_gpu_fits_what_the_cpu_fits(rule: str) -> None:
    one = trainer_on("cpu", rule)
    rows = [outcome.row() for outcome in fit(one, batches(1))]
    with pretended_gpu():
        other = trainer_on("cuda", rule)
        fed = (x.to("cuda") for x in batches(1))
        last = [outcome.row() for outcome in fit(other, fed)][-1]
        weights = other.weights.map(torch.Tensor.cpu)
    assert last.loss == pytest.approx(rows[-1].loss, rel=1e-4)
    assert last.l0 == rows[-1].l0
    for name, tensor in one.weights.tensors().items():
        torch.testing.assert_close(weights.tensors()[name], tensor, rtol=1e-3, atol=1e-4)
