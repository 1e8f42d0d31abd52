"""Fitting: resumed runs, planted dictionaries, thresholds, files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from workflow_scripts.common.cli import UserError
from workflow_scripts.crosscoder.model import Crosscoder, initial_weights
from workflow_scripts.crosscoder.settings import Training
from workflow_scripts.crosscoder.threshold import solve_threshold
from workflow_scripts.crosscoder.training import Trainer, fit

M, D, F, K = 2, 16, 64, 4


def settings(steps: int = 40, *, warmup_steps: int = 5, **changes: Any) -> Training:
    """Return the settings of a short fit, whose k falls over the warm-up."""
    plain = Training(
        dictionary_size=F,
        k=K,
        tokens=64 * steps,
        batch=64,
        learning_rate=2e-3,
        warmup_share=warmup_steps / steps,
        k_start=2 * K,
        dead_tokens=500,
        k_aux=8,
    )
    return plain.model_copy(update=changes)


def batches(seed: int, start: int = 0) -> Iterator[Tensor]:
    """Sparse combinations of a fixed planted dictionary, the ``start``-th batch first."""
    dictionary = torch.randn(32, M, D, generator=torch.Generator().manual_seed(99))
    index = start
    while True:
        generator = torch.Generator().manual_seed(1000 * seed + index)
        f = torch.rand(64, 32, generator=generator) * (
            torch.rand(64, 32, generator=generator) < 0.1
        )
        yield torch.einsum("nf,fmd->nmd", f, dictionary)
        index += 1


def new_trainer(steps: int = 40) -> Trainer:
    return Trainer(initial_weights(F, M, D, 0, 0.3), settings(steps))


def test_resumed_fit_is_bit_equal(tmp_path: Path) -> None:
    whole = new_trainer()
    losses = [outcome.row().loss for outcome in fit(whole, batches(1))]
    broken = new_trainer()
    for outcome in fit(broken, batches(1)):
        if outcome.step == 17:
            broken.save(tmp_path / "c.safetensors", {"seed": 1})
            break
    resumed = new_trainer()
    assert not resumed.restore(tmp_path / "c.safetensors", {"seed": 2})
    assert resumed.done == 0
    assert resumed.restore(tmp_path / "c.safetensors", {"seed": 1})
    tail = [outcome.row().loss for outcome in fit(resumed, batches(1, start=17))]
    assert tail == losses[17:]
    for name, tensor in whole.weights.tensors().items():
        assert torch.equal(tensor, resumed.weights.tensors()[name])
    assert losses[-1] < losses[0]


def test_planted_dictionary_is_recovered() -> None:
    trainer = Trainer(initial_weights(F, M, D, 0, 0.3), settings(1500, dead_tokens=5000))
    last = list(fit(trainer, batches(2)))[-1].row()
    assert min(last.fve_per_model) > 0.9
    dictionary = torch.randn(32, M, D, generator=torch.Generator().manual_seed(99)).flatten(1)
    found = torch.nn.functional.normalize(trainer.weights.decoder, dim=1)
    cosine = torch.nn.functional.normalize(dictionary, dim=1) @ found.T
    assert float((cosine.max(1).values > 0.9).float().mean()) > 0.9


def test_threshold_gives_k_on_the_calibration_split() -> None:
    trainer = new_trainer(200)
    for _ in fit(trainer, batches(3)):
        pass
    data = [x for x, _ in zip(batches(4), range(20), strict=False)]
    threshold = solve_threshold(trainer.weights, iter(data), K)
    crosscoder = Crosscoder(
        ["a", "b"], trainer.weights, threshold, torch.zeros(M, D), torch.ones(M), K, {}
    )
    l0 = torch.cat([(crosscoder.encode(x) > 0).sum(1) for x in data]).double().mean()
    assert abs(float(l0) - K) < 0.01


def test_save_and_load_give_the_same_crosscoder(tmp_path: Path) -> None:
    trainer = new_trainer()
    crosscoder = Crosscoder(
        ["a", "b"], trainer.weights, 0.25, torch.randn(M, D), torch.rand(M), K, {"layer": 3}
    )
    crosscoder.save(tmp_path)
    again = Crosscoder.load(tmp_path)
    x = next(batches(5))
    assert torch.equal(again.encode(x), crosscoder.encode(x))
    assert torch.equal(again.decode(again.encode(x)), crosscoder.decode(crosscoder.encode(x)))
    assert again.models == ["a", "b"]
    assert again.settings["layer"] == 3


def test_folder_without_crosscoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        Crosscoder.load(tmp_path)


def test_divergence_stops_with_a_sentence() -> None:
    trainer = new_trainer()
    with pytest.raises(UserError, match="lower learning_rate"):
        trainer.step(torch.full((64, M * D), float("nan"))).row()


def test_schedules() -> None:
    s = settings(100, warmup_steps=10)
    assert (s.steps, s.warmup_steps) == (100, 10)
    assert s.learning_rate_at(0) == pytest.approx(s.learning_rate / 10)
    assert s.learning_rate_at(50) == s.learning_rate
    assert s.learning_rate_at(99) == pytest.approx(s.learning_rate / 20)
    assert s.k_at(0) == 2 * K
    assert s.k_at(10) == K
    assert settings(k_start=0).k_at(0) == K


def test_the_record_holds_what_follows_from_the_settings() -> None:
    chosen = settings(k_start=0, k_aux=0, shared_share=0.25)
    record = chosen.resolved(width=D)
    assert Training(**chosen.model_dump()) == chosen
    assert record == chosen.model_dump() | {
        "steps": 40,
        "warmup_steps": 5,
        "shared": F // 4,
        "k_start": K,
        "k_aux": D // 2,
    }
    assert new_trainer().recorded()["matmul"] == "float32"
