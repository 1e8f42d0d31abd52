"""The training loop of a crosscoder: one optimiser step, checkpoints."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workflow_scripts.common.cli import UserError
from workflow_scripts.crosscoder import checkpoint, step
from workflow_scripts.crosscoder.auxiliary import AuxK, DeadLatents
from workflow_scripts.crosscoder.model import Weights, score_scales
from workflow_scripts.crosscoder.parallel import ALONE, Processes
from workflow_scripts.crosscoder.settings import Training
from workflow_scripts.crosscoder.sparsity import sparsity_rule
from workflow_scripts.crosscoder.step import ActivityPrice
from workflow_scripts.crosscoder.tying import SharedLatents

EXPLODED = 100.0
"""A loss of so many times the input's mean square is taken for divergence."""
MOMENTS = ("exp_avg", "exp_avg_sq", "step")


class DivergedError(UserError):
    """The loss is no longer finite, or explodes; the weights are those of the step before."""


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


@dataclass(frozen=True)
class StepOutcome:
    """What a step leaves on the device; its line of the log is made on request."""

    trainer: Trainer
    step: int
    learning_rate: float
    dead: int  # of this process's latents
    entries: int  # of this process's latents that are active
    losses: Float[Tensor, " 2"]  # of the reconstruction, of AuxK
    x: Float[Tensor, "B MD"]
    residual: Float[Tensor, "B MD"]

    def row(self) -> LogRow:
        """Return the line of the log, after one wait for the device.

        Raises
        ------
        DivergedError
            If this step or one before was bad.
        """
        trainer, models, tokens = self.trainer, self.trainer.weights.models, len(self.x)
        lost = self.residual.unflatten(1, (models, -1)).square().mean(dim=(0, 2))
        total = (self.x - self.x.mean(0)).unflatten(1, (models, -1)).square().mean(dim=(0, 2))
        parts = (self.losses, lost, 1 - lost / total)
        known = torch.cat([trainer.failure, *(part.double() for part in parts)]).tolist()
        trainer.tell(*known[:3])
        loss, auxk_loss, *per_model = known[3:]
        return LogRow(
            step=self.step,
            tokens=self.step * tokens,
            loss=loss,
            auxk_loss=auxk_loss,
            loss_per_model=per_model[:models],
            fve_per_model=per_model[models:],
            l0=sum(trainer.processes.numbers(self.entries)) / tokens,
            dead_share=sum(trainer.processes.numbers(self.dead)) / trainer.latents,
            learning_rate=self.learning_rate,
        )


class Trainer:
    """Fits the weights of a crosscoder, step by step, on the device that holds them."""

    def __init__(
        self,
        weights: Weights,
        settings: Training,
        processes: Processes = ALONE,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """``weights`` are those of this process's latents.

        ``dtype`` is the type of the encoder's product, which chooses the active latents.
        """
        self.weights = weights
        self.settings = settings
        self.processes = processes
        self.dtype = dtype
        self.latents = sum(processes.numbers(weights.latents))
        self.own = processes.latents(self.latents)
        self.shared = SharedLatents(settings.shared, settings.shared_cost, self.own.start)
        self.costs = self.shared.costs(weights.latents, weights.device)
        self.rule = sparsity_rule(settings.variant, settings.l1_price, self.costs, processes)
        self.auxk = AuxK(settings.aux_latents(weights.width), settings.auxk_weight, processes)
        self.dead = DeadLatents(weights.latents, settings.dead_tokens, weights.device)
        parameters = list(weights.tensors().values())
        self.optimizer: Any = torch.optim.Adam(parameters, lr=settings.learning_rate, fused=True)
        self.healthy = torch.ones((), dtype=torch.bool, device=weights.device)
        self.failure = torch.full((3,), -1.0, dtype=torch.float64, device=weights.device)
        self.done = 0

    def recorded(self) -> dict[str, object]:
        """Return what decides the training, for the crosscoder's file and for checkpoints."""
        matmul = str(self.dtype).removeprefix("torch.")
        return {**self.settings.resolved(self.weights.width), "matmul": matmul}

    def step(self, x: Float[Tensor, "B MD"]) -> StepOutcome:
        """Make one optimiser step on normalised activations.

        Where loss or gradients are not finite, or the loss explodes, this step and all that follow
        change nothing; :meth:`check` and the outcome's row tell.
        """
        rate = self.settings.learning_rate_at(self.done)
        norms = self.weights.norms()
        pre = self.weights.pre_activations(x, self.dtype)
        active = self.rule.select(pre * score_scales(norms), self.settings.k_at(self.done))
        rounded = self.dtype == torch.bfloat16
        forward = step.decode(x, pre, active, self.weights, rounded, self.processes)
        loss = step.reconstruction_loss(forward)
        gradients = step.gradients(x, forward, self.weights, self._price(norms))
        dead = self.dead.dead()
        auxk_loss = self.auxk.add_gradients(
            x, pre, forward.residual, dead, self.weights, to=gradients
        )
        self.shared.tie(gradients)
        norm = self._norm(gradients)
        healthy = self._judge(loss, norm, x)
        self._apply(gradients, norm, rate, healthy)
        self.dead.update(active, len(x), healthy)
        self.done += 1
        return StepOutcome(
            trainer=self,
            step=self.done,
            learning_rate=rate,
            dead=dead.numel(),
            entries=active.rows.numel(),
            losses=torch.stack([loss, auxk_loss]),
            x=x,
            residual=forward.residual,
        )

    def _price(self, norms: Float[Tensor, "F M"]) -> ActivityPrice | None:
        if not self.rule.price:
            return None
        weight = self.rule.price * self.settings.warmup(self.done)
        return ActivityPrice(weight, norms, self.costs)

    def _norm(self, gradients: Weights) -> Float[Tensor, ""]:
        """Return the length of the gradients of all processes."""
        tensors = gradients.tensors().values()
        norms = torch.stack([torch.linalg.vector_norm(tensor) for tensor in tensors])
        if self.processes.count > 1:
            *_, shared = norms  # the decoder's bias, which all have
            own = torch.linalg.vector_norm(norms[:-1])
            norms = torch.stack([self.processes.sum(own.square()).sqrt(), shared])
        norm: Tensor = torch.linalg.vector_norm(norms)
        return norm

    def _judge(
        self, loss: Float[Tensor, ""], norm: Float[Tensor, ""], x: Float[Tensor, "B MD"]
    ) -> Bool[Tensor, ""]:
        """Return whether this step and all before were good, and keep what the first bad one had.

        The loss must not be far above that of predicting the mean.
        """
        bound = EXPLODED * x.square().mean()
        good = (loss <= bound) & norm.isfinite()
        here = torch.stack([torch.full_like(loss, self.done), loss, bound]).double()
        self.failure = torch.where(self.healthy & ~good, here, self.failure)
        self.healthy = self.healthy & good
        return self.healthy

    def check(self) -> None:
        """Wait for the device, and stop where a step was bad.

        Raises
        ------
        DivergedError
            If loss or gradients were no longer finite, or the loss exploded.
        """
        self.tell(*self.failure.tolist())

    def tell(self, done: float, loss: float, bound: float) -> None:
        """Raise :meth:`check`'s error if a step was bad: ``done`` is its number, else negative."""
        if done < 0:
            return
        self.done = int(done)
        symptom = f"loss is {loss:.3g}" if not loss <= bound else "gradient is no longer finite"
        raise DivergedError(
            f"the crosscoder's {symptom} at step {self.done}: lower learning_rate, "
            "or look at the activations' norm bound"
        )

    def _apply(
        self,
        gradients: Weights,
        norm: Float[Tensor, ""],
        rate: float,
        healthy: Bool[Tensor, ""],
    ) -> None:
        """Make Adam's step with clipped gradients, or none; the device alone knows which."""
        for name, parameter in self.weights.tensors().items():
            parameter.grad = gradients.tensors()[name]
        divisor = (norm / self.settings.clip_norm).clamp_min_(1.0).float()
        # On the CPU a look costs nothing, and to divide by 1 a pass over the gradients.
        unclipped = divisor.device.type == "cpu" and float(divisor) == 1
        self.optimizer.grad_scale = None if unclipped else divisor
        self.optimizer.found_inf = (~healthy).float()
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.step()

    def save(self, path: Path, course: Mapping[str, object]) -> None:
        """Write a checkpoint: weights, moments, dead counters, and what decides the ``course``."""
        state = json.dumps({"course": dict(course), "done": self.done})
        checkpoint.write(path, self._tensors(), self.latents, state, self.processes)

    def restore(self, path: Path, course: Mapping[str, object]) -> bool:
        """Continue from a checkpoint of this very course; return whether it is one."""
        state: dict[str, object] = json.loads(checkpoint.read_state(path))
        if state.get("course") != json.loads(json.dumps(dict(course))):
            return False
        for parameter in self.weights.tensors().values():
            likes = (parameter, parameter, torch.zeros((), device=parameter.device))
            self.optimizer.state[parameter] = {
                key: torch.empty_like(like) for key, like in zip(MOMENTS, likes, strict=True)
            }
        own = self._tensors()
        for name, tensor in checkpoint.read(path, own, self.own):
            own[name].copy_(tensor)
        self.done = int(str(state["done"]))
        return True

    def _tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint holds of this process's latents."""
        tensors = {f"weights.{name}": tensor for name, tensor in self.weights.tensors().items()}
        for name, parameter in self.weights.tensors().items():
            state = self.optimizer.state[parameter]
            tensors |= {f"{key}.{name}": state[key] for key in MOMENTS}
        return {**tensors, "silent_tokens": self.dead.silent_tokens}

    def whole_weights(self) -> Weights | None:
        """Return the weights of all latents; in all processes but the first one nothing."""
        if self.processes.count == 1:
            return self.weights
        whole = checkpoint.whole(self.weights.tensors(), self.latents, self.processes)
        return Weights(**whole, models=self.weights.models) if whole else None


def fit(trainer: Trainer, batches: Iterator[Float[Tensor, "B M D"]]) -> Iterator[StepOutcome]:
    """Yield the outcome of each optimiser step until the set number of steps is done.

    ``batches`` starts with the batch after ``trainer.done`` steps, on the trainer's device; of
    several processes each has its part of every batch.
    """
    while trainer.done < trainer.settings.steps:
        yield trainer.step(trainer.processes.whole(next(batches).flatten(1)))
