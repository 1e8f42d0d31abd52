"""The training loop of a crosscoder: settings, schedule, one optimiser step, checkpoints."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from workflow_scripts.cli import UserError
from workflow_scripts.crosscoder import step
from workflow_scripts.crosscoder.auxiliary import AuxK, DeadLatents
from workflow_scripts.crosscoder.model import Weights
from workflow_scripts.crosscoder.sparsity import sparsity_rule
from workflow_scripts.crosscoder.step import ActivityPrice
from workflow_scripts.crosscoder.tying import SharedLatents
from workflow_scripts.files import atomic_path


@dataclass(frozen=True)
class Training:
    """Settings of one fit."""

    steps: int
    k: int
    batch: int
    learning_rate: float
    warmup_steps: int  # linear, from 0
    decay_share: float  # the last share of the steps, linear to 0
    k_start: float  # k is annealed linearly from here to k over the warm-up
    clip_norm: float  # largest gradient norm
    dead_tokens: int  # a latent silent for so many tokens is dead
    k_aux: int
    auxk_weight: float
    variant: str = "batch_topk"
    l1_price: float = 0.0  # μ, rising linearly over the warm-up
    shared: int = 0  # designated shared latents, the first of all
    shared_cost: float = 0.5  # what one of them counts; others 1


@dataclass
class LogRow:
    """One line of the training log."""

    step: int
    tokens: int
    loss: float
    auxk_loss: float
    loss_per_model: list[float]
    fve_per_model: list[float]
    l0: float
    dead_share: float
    learning_rate: float


class Trainer:
    """Fits the weights of a crosscoder, step by step."""

    def __init__(self, weights: Weights, settings: Training) -> None:
        self.weights = weights
        self.settings = settings
        latents = weights.decoder.shape[0]
        self.shared = SharedLatents(settings.shared, settings.shared_cost)
        self.costs = self.shared.costs(latents)
        self.rule = sparsity_rule(settings.variant, settings.l1_price, self.costs)
        self.auxk = AuxK(settings.k_aux, settings.auxk_weight)
        self.dead = DeadLatents(latents, settings.dead_tokens)
        parameters = list(weights.tensors().values())
        self.optimizer = torch.optim.Adam(parameters, lr=settings.learning_rate, fused=True)
        self.done = 0

    def step(self, x: Tensor, models: int) -> LogRow:
        """Make one optimiser step on normalised activations x [B, M·D].

        Raises
        ------
        UserError
            If the loss is no longer finite.
        """
        rate, k = learning_rate(self.done, self.settings), active_latents(self.done, self.settings)
        pre = step.encode(x, self.weights)
        norms = self.weights.norms(models)
        active = self.rule.select(pre * norms.sum(1), k)
        forward = step.decode(x, pre, active, self.weights)
        loss = step.reconstruction_loss(forward)
        if not torch.isfinite(loss):
            raise UserError(
                f"the crosscoder's loss is {loss.item()} at step {self.done}: lower learning_rate, "
                "or look at the activations' norm bound"
            )
        gradients = step.gradients(x, forward, self.weights, self._price(norms))
        dead = self.dead.dead()
        auxk_loss = self.auxk.add_gradients(
            x, pre, forward.residual, dead, self.weights, to=gradients
        )
        self.shared.tie(gradients, models)
        self._apply(gradients, rate)
        self.dead.update(active, x.shape[0])
        self.done += 1
        per_model, explained = _per_model(x, forward.residual, models)
        return LogRow(
            step=self.done,
            tokens=self.done * x.shape[0],
            loss=loss.item(),
            auxk_loss=auxk_loss.item(),
            loss_per_model=per_model,
            fve_per_model=explained,
            l0=active.rows.numel() / x.shape[0],
            dead_share=dead.numel() / self.weights.decoder.shape[0],
            learning_rate=rate,
        )

    def _price(self, norms: Tensor) -> ActivityPrice | None:
        if not self.rule.price:
            return None
        weight = self.rule.price * warmth(self.done, self.settings)
        return ActivityPrice(weight, norms, self.costs)

    def _apply(self, gradients: Weights, rate: float) -> None:
        tensors = gradients.tensors()
        total = torch.linalg.vector_norm(
            torch.stack([torch.linalg.vector_norm(g) for g in tensors.values()])
        )
        scale = min(1.0, self.settings.clip_norm / (float(total) + 1e-12))
        for name, parameter in self.weights.tensors().items():
            parameter.grad = tensors[name] if scale == 1.0 else tensors[name].mul_(scale)
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.step()

    def save(self, path: Path, position: dict[str, object]) -> None:
        """Write a checkpoint: weights, moments, dead counters and ``position``."""
        tensors = {f"weights.{k}": v for k, v in self.weights.tensors().items()}
        for name, parameter in self.weights.tensors().items():
            state = self.optimizer.state[parameter]
            tensors |= {f"{key}.{name}": state[key] for key in ("exp_avg", "exp_avg_sq", "step")}
        tensors["silent_tokens"] = self.dead.silent_tokens
        state_of_run = json.dumps(position | {"done": self.done})
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, metadata={"state": state_of_run})

    def restore(self, path: Path) -> dict[str, object]:
        """Continue from a checkpoint; return the position that was saved with it."""
        with safe_open(path, framework="pt") as file:
            state: dict[str, object] = json.loads(file.metadata()["state"])
            for name, parameter in self.weights.tensors().items():
                parameter.copy_(file.get_tensor(f"weights.{name}"))
                self.optimizer.state[parameter] = {
                    key: file.get_tensor(f"{key}.{name}")
                    for key in ("exp_avg", "exp_avg_sq", "step")
                }
            self.dead.silent_tokens = file.get_tensor("silent_tokens")
        self.done = int(str(state["done"]))
        return state


def warmth(done: int, settings: Training) -> float:
    """Return how far the warm-up is at the step after ``done`` steps, 0 … 1."""
    return min(1.0, (done + 1) / max(settings.warmup_steps, 1))


def learning_rate(done: int, settings: Training) -> float:
    """Return the rate for the step after ``done`` steps: warm-up, plateau, linear decay."""
    warm = warmth(done, settings)
    decay_steps = max(math.ceil(settings.steps * settings.decay_share), 1)
    cool = min(1.0, (settings.steps - done) / decay_steps)
    return settings.learning_rate * warm * cool


def active_latents(done: int, settings: Training) -> float:
    """Return k for the step after ``done`` steps, annealed from ``k_start`` over the warm-up."""
    share = min(1.0, done / max(settings.warmup_steps, 1))
    return settings.k_start + (settings.k - settings.k_start) * share


def fit(trainer: Trainer, batches: Iterator[Tensor], models: int) -> Iterator[LogRow]:
    """Yield a log row per optimiser step until the set number of steps is done.

    ``batches`` yields [B, M, D], starting with the batch after ``trainer.done`` steps.
    """
    while trainer.done < trainer.settings.steps:
        yield trainer.step(next(batches).flatten(1), models)


def _per_model(x: Tensor, residual: Tensor, models: int) -> tuple[list[float], list[float]]:
    """Return the mean squared residual and the batch's FVE of each model."""
    lost = residual.unflatten(1, (models, -1)).square().mean(dim=(0, 2))
    total = (x - x.mean(0)).unflatten(1, (models, -1)).square().mean(dim=(0, 2))
    explained = 1 - lost / total
    return [float(v) for v in lost], [float(v) for v in explained]
