"""A model's log-probabilities without the logits of a whole batch, which exceed the model itself.

The decoder runs once; the model's own output layer (with its scaling and soft-capping) then
sees a few chosen positions at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

CHUNK = 512  # positions whose logits exist at one time


@contextmanager
def calling(module: nn.Module, forward: Callable[..., object]) -> Iterator[None]:
    """Let ``forward`` stand in for a module while the context lasts."""
    before = vars(module).get("forward")  # of a model that is spread over GPUs
    vars(module)["forward"] = forward
    try:
        yield
    finally:
        del vars(module)["forward"]
        if before is not None:
            vars(module)["forward"] = before


@dataclass(frozen=True)
class Predictions:
    """A decoder's last states where it predicts n chosen tokens, before the output layer."""

    model: nn.Module
    output: Any  # the decoder's answer, with states [1, n, D]
    targets: Tensor  # the chosen tokens, int64 [n]

    @torch.no_grad()
    def logits(self, part: slice) -> Tensor:
        """Return the logits of some of the predictions, float32 [·, V]."""
        decoder = cast(Any, self.model).base_model
        states = self.output.last_hidden_state[:, part]
        answer = replace(self.output, last_hidden_state=states)
        shape = torch.zeros(states.shape[:2], dtype=torch.int64, device=states.device)
        with calling(decoder, lambda *_, **__: answer):
            logits: Tensor = cast(Any, self.model)(input_ids=shape, use_cache=False).logits[0]
        return logits.float()

    def log_probabilities(self, part: slice) -> Tensor:
        """Return the log-probabilities of some of the predictions, float32 [·, V]."""
        return torch.log_softmax(self.logits(part), -1)


@torch.no_grad()
def predict(model: nn.Module, ids: Tensor, mask: Tensor, chosen: Tensor) -> Predictions:
    """Run the decoder once, and keep its states where it predicts the chosen tokens.

    ``ids``, ``mask`` and ``chosen`` are [B, T], right-padded; the first token of a row, which
    nothing predicts, cannot be chosen.
    """
    output = cast(Any, model).base_model(input_ids=ids, attention_mask=mask, use_cache=False)
    states = output.last_hidden_state[:, :-1][chosen[:, 1:]]
    targets = ids[:, 1:][chosen[:, 1:]]
    return Predictions(model, replace(output, last_hidden_state=states[None]), targets)


def parts(count: int) -> Iterator[slice]:
    """Yield the predictions whose logits exist at one time."""
    return (slice(first, first + CHUNK) for first in range(0, count, CHUNK))


@torch.no_grad()
def compare(own: Predictions, others: Sequence[Predictions]) -> tuple[Tensor, Tensor]:
    """Return −log p of the chosen tokens and KL(own ‖ other), in nats, float32.

    The first is [1 + others, n], of own and of each other; the second [others, n], over the tokens
    that both know (one vocabulary may be padded). All predict the same tokens.
    """
    count, device = len(own.targets), own.targets.device
    losses, divergences = torch.zeros(1 + len(others), count), torch.zeros(len(others), count)
    losses, divergences = losses.to(device), divergences.to(device)
    for part in parts(count):
        log_p = own.log_probabilities(part)
        targets = own.targets[part, None].to(log_p.device)
        losses[0, part] = -log_p.gather(1, targets)[:, 0].to(device)
        for index, other in enumerate(others):
            log_q = other.log_probabilities(part)
            losses[1 + index, part] = -log_q.gather(1, targets)[:, 0].to(device)
            known = min(log_p.shape[1], log_q.shape[1])
            ours = log_p[:, :known]
            divergence = (ours.exp() * (ours - log_q[:, :known])).sum(-1)
            divergences[index, part] = divergence.to(device)
    return losses, divergences
