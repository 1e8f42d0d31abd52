"""A model's log-likelihoods without the logits of a whole batch, which exceed the model itself.

The decoder runs once; the model's own output layer (with its scaling and soft-capping) then
sees a few chosen positions at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

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


@torch.no_grad()
def predict(model: nn.Module, ids: Tensor, mask: Tensor, chosen: Tensor) -> Predictions:
    """Run the decoder once, and keep its states where it predicts the chosen tokens.

    ``ids``, ``mask`` and ``chosen`` are [B, T], right-padded; the first token of a row, which
    nothing predicts, cannot be chosen.
    """
    output = cast(Any, model).base_model(input_ids=ids, attention_mask=mask, use_cache=False)
    states = output.last_hidden_state[:, :-1][chosen[:, 1:]]
    return Predictions(model, replace(output, last_hidden_state=states[None]))


def parts(count: int) -> Iterator[slice]:
    """Yield the predictions whose logits exist at one time."""
    return (slice(first, first + CHUNK) for first in range(0, count, CHUNK))


@torch.no_grad()
def token_losses(model: nn.Module, ids: Tensor, mask: Tensor, chosen: Tensor) -> Tensor:
    """Return −log p of the chosen tokens in nats, float32 [n], in the order of ``chosen``.

    Shapes as of :func:`predict`.
    """
    predictions = predict(model, ids, mask, chosen)
    targets = ids[:, 1:][chosen[:, 1:]]
    losses = [
        functional.cross_entropy(predictions.logits(part), targets[part], reduction="none")
        for part in parts(len(targets))
    ]
    return torch.cat([torch.zeros(0, device=ids.device), *losses])
