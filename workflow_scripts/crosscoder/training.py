"""The training loop of a crosscoder: one optimiser step, checkpoints."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from workflow_scripts.common.cli import UserError
from workflow_scripts.common.files import atomic_path
from workflow_scripts.crosscoder import step
from workflow_scripts.crosscoder.auxiliary import AuxK, DeadLatents
from workflow_scripts.crosscoder.model import Weights, score_scales
from workflow_scripts.crosscoder.parallel import Processes
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


class Trainer:
    """Fits the weights of a crosscoder, step by step, on the device that holds them."""

    def __init__(
        self,
        weights: Weights,
        settings: Training,
        processes: Processes | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """``dtype`` is the type of the encoder's product, which chooses the active latents."""
        self.weights = weights
        self.settings = settings
        self.processes = processes or Processes()
        self.dtype = dtype
        latents, device = weights.latents, weights.device
        self.shared = SharedLatents(settings.shared, settings.shared_cost)
        self.costs = self.shared.costs(latents, device)
        self.rule = sparsity_rule(settings.variant, settings.l1_price, self.costs, self.processes)
        self.auxk = AuxK(settings.aux_latents(weights.width), settings.auxk_weight, self.processes)
        self.dead = DeadLatents(latents, settings.dead_tokens, self.processes, device)
        parameters = list(weights.tensors().values())
        self.optimizer = torch.optim.Adam(parameters, lr=settings.learning_rate, fused=True)
        self.done = 0

    def recorded(self) -> dict[str, object]:
        """Return what decides the training, for the crosscoder's file and for checkpoints."""
        matmul = str(self.dtype).removeprefix("torch.")
        return {**self.settings.resolved(self.weights.width), "matmul": matmul}

    def step(self, x: Float[Tensor, "B MD"]) -> LogRow:
        """Make one optimiser step on normalised activations.

        With several processes, x is this one's part of the batch.

        Raises
        ------
        DivergedError
            If loss or gradients are no longer finite, or the loss explodes.
        """
        rate = self.settings.learning_rate_at(self.done)
        norms = self.weights.norms()
        pre = self.weights.pre_activations(x, self.dtype)
        active = self.rule.select(pre * score_scales(norms), self.settings.k_at(self.done))
        forward = step.decode(x, pre, active, self.weights, self.dtype == torch.bfloat16)
        loss = self.processes.mean(step.reconstruction_loss(forward))
        self._check(loss, x)
        gradients = step.gradients(x, forward, self.weights, self._price(norms))
        dead = self.dead.dead()
        auxk_loss = self.auxk.add_gradients(
            x, pre, forward.residual, dead, self.weights, to=gradients
        )
        self.shared.tie(gradients)
        self._apply(gradients, rate)
        tokens = x.shape[0] * self.processes.count
        self.dead.update(active, tokens)
        self.done += 1
        per_model, explained = self._per_model(x, forward.residual)
        entries = self.processes.sum(torch.tensor(active.rows.numel(), device=x.device))
        return LogRow(
            step=self.done,
            tokens=self.done * tokens,
            loss=loss.item(),
            auxk_loss=self.processes.mean(auxk_loss).item(),
            loss_per_model=per_model,
            fve_per_model=explained,
            l0=entries.item() / tokens,
            dead_share=dead.numel() / self.weights.latents,
            learning_rate=rate,
        )

    def _price(self, norms: Float[Tensor, "F M"]) -> ActivityPrice | None:
        if not self.rule.price:
            return None
        weight = self.rule.price * self.settings.warmup(self.done)
        return ActivityPrice(weight, norms, self.costs)

    def _check(self, loss: Float[Tensor, ""], x: Float[Tensor, "B MD"]) -> None:
        """Stop when the loss is not finite, or far above that of predicting the mean."""
        bound = EXPLODED * self.processes.mean(x.square().mean())
        if not bool(loss <= bound):
            raise self._diverged(f"loss is {loss.item():.3g}")

    def _diverged(self, symptom: str) -> DivergedError:
        return DivergedError(
            f"the crosscoder's {symptom} at step {self.done}: lower learning_rate, "
            "or look at the activations' norm bound"
        )

    def _apply(self, gradients: Weights, rate: float) -> None:
        tensors = gradients.tensors()
        for gradient in tensors.values():
            self.processes.mean(gradient)
        total = torch.linalg.vector_norm(
            torch.stack([torch.linalg.vector_norm(g) for g in tensors.values()])
        )
        if not bool(torch.isfinite(total)):
            raise self._diverged("gradient is no longer finite")
        scale = min(1.0, self.settings.clip_norm / (float(total) + 1e-12))
        for name, parameter in self.weights.tensors().items():
            parameter.grad = tensors[name] if scale == 1.0 else tensors[name].mul_(scale)
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.step()

    def _per_model(
        self, x: Float[Tensor, "B MD"], residual: Float[Tensor, "B MD"]
    ) -> tuple[list[float], list[float]]:
        """Return the mean squared residual and the batch's FVE of each model."""
        models, mean = self.weights.models, self.processes.mean(x.mean(0))
        lost = residual.unflatten(1, (models, -1)).square().mean(dim=(0, 2))
        total = (x - mean).unflatten(1, (models, -1)).square().mean(dim=(0, 2))
        lost, total = self.processes.mean(lost), self.processes.mean(total)
        return lost.tolist(), (1 - lost / total).tolist()

    def save(self, path: Path, course: Mapping[str, object]) -> None:
        """Write a checkpoint: weights, moments, dead counters, and what decides the ``course``."""
        tensors = {f"weights.{k}": v for k, v in self.weights.tensors().items()}
        for name, parameter in self.weights.tensors().items():
            state = self.optimizer.state[parameter]
            tensors |= {f"{key}.{name}": state[key] for key in MOMENTS}
        tensors["silent_tokens"] = self.dead.silent_tokens
        with atomic_path(path) as temporary:
            state = json.dumps({"course": dict(course), "done": self.done})
            save_file(tensors, temporary, metadata={"state": state})

    def restore(self, path: Path, course: Mapping[str, object]) -> bool:
        """Continue from a checkpoint of this very course; return whether it is one."""
        device = self.weights.decoder.device
        with safe_open(path, framework="pt", device=str(device)) as file:
            state: dict[str, object] = json.loads(file.metadata()["state"])
            if state.get("course") != json.loads(json.dumps(dict(course))):
                return False
            for name, parameter in self.weights.tensors().items():
                parameter.copy_(file.get_tensor(f"weights.{name}"))
                self.optimizer.state[parameter] = {
                    key: file.get_tensor(f"{key}.{name}") for key in MOMENTS
                }
            self.dead.silent_tokens = file.get_tensor("silent_tokens")
        self.done = int(str(state["done"]))
        return True


def fit(trainer: Trainer, batches: Iterator[Float[Tensor, "B M D"]]) -> Iterator[LogRow]:
    """Yield a log row per optimiser step until the set number of steps is done.

    ``batches`` starts with the batch after ``trainer.done`` steps.
    """
    while trainer.done < trainer.settings.steps:
        x = trainer.processes.part(next(batches).flatten(1))
        yield trainer.step(x.to(trainer.weights.device))
