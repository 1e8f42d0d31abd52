"""Activations in memory, in place of a store of dumps; ``python -m`` fits a crosscoder on them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray

from tests.crosscoder.test_training import settings
from workflow_scripts.activations.store import CPU, EVERY, ActivationStore
from workflow_scripts.crosscoder import fit_crosscoder
from workflow_scripts.crosscoder.fit_crosscoder import fit_store
from workflow_scripts.crosscoder.parallel import joined
from workflow_scripts.crosscoder.settings import Training
from workflow_scripts.crosscoder.training import StepOutcome, Trainer

M, D, F = 2, 16, 96


class MemoryStore:
    """What a fit asks of a store, of sparse sums of a dictionary that is known."""

    models: tuple[str, ...] = ("a", "b")
    width, layer = D, 1

    def __init__(self, tokens: int = 2000, gain: float = 1.0, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        dictionary = rng.standard_normal((40, M, D)) / 4
        f = rng.random((tokens, 40)) * (rng.random((tokens, 40)) < 0.1)
        x = np.einsum("nf,fmd->nmd", f, dictionary)
        self.x: NDArray[np.float32] = (gain * x / x.std()).astype(np.float32)

    def rows(self, split: str) -> NDArray[np.int64]:
        return np.arange(len(self.x))

    def count(self, split: str) -> int:
        return len(self.x)

    def shuffled(
        self,
        split: str,
        batch: int,
        seed: int,
        start_batch: int = 0,
        device: torch.device = CPU,
        part: slice = EVERY,
    ) -> Iterator[torch.Tensor]:
        position = start_batch
        while True:
            rng = np.random.default_rng([seed, position])
            x = self.x[rng.permutation(len(self.x))[:batch]][part]
            yield torch.from_numpy(x).to(device)
            position += 1

    def contiguous(
        self, split: str, batch: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        for first in range(0, len(self.x), batch):
            part = np.arange(first, min(first + batch, len(self.x)))
            yield part, self.x[part]

    def normalization(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return np.zeros((M, D)), np.ones(M)

    def dropped(self, split: str) -> dict[str, float]:
        return {}


def store_of(memory: MemoryStore) -> ActivationStore:
    """Pass a store in memory for one of dumps."""
    return cast(ActivationStore, memory)


def fit_settings(variant: str = "batch_topk", **changes: Any) -> Training:
    """Return the settings of a short fit, in which latents die and AuxK works."""
    own = {"variant": variant, "dictionary_size": F, "dead_tokens": 300, **changes}
    return settings(60, **own)


def main(folder: Path, variant: str, latents: int = F, stop: int | None = None) -> None:
    """Fit with as many processes as were started; stop with a checkpoint before step ``stop``."""
    torch.set_num_threads(1)
    chosen = fit_settings(variant, dictionary_size=latents)
    if variant == "l1":
        chosen = chosen.model_copy(update={"l1_price": 0.1})
    if variant != "topk":
        chosen = chosen.model_copy(update={"shared_share": 10 / F})
    with joined("cpu") as (processes, device), torch.no_grad(), stopping(stop):
        store = store_of(MemoryStore())
        fit_store(store, chosen, 0, folder, folder / "checkpoint", device, processes)


@contextmanager
def stopping(stop: int | None) -> Iterator[None]:
    """Stop a fit at a step of choice, with a checkpoint of the one before."""
    if stop is None:
        yield
        return
    step = Trainer.step

    def stopped(self: Trainer, x: torch.Tensor) -> StepOutcome:
        if self.done == stop:
            raise KeyboardInterrupt
        return step(self, x)

    always: dict[str, Any] = {"CHECKPOINT_SECONDS": 0.0, "CHECKPOINT_SHARE": float("inf")}
    with (
        mock.patch.object(Trainer, "step", stopped),
        mock.patch.multiple(fit_crosscoder, **always),
        suppress(KeyboardInterrupt),
    ):
        yield


def threads() -> list[str]:
    """Return the names of this process's native threads, where the system tells them."""
    return [task.read_text().strip() for task in Path("/proc/self/task").glob("*/comm")]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
    left = [name for name in threads() if "gloo" in name]
    assert not left, left  # they abort the process at its exit, now and then
