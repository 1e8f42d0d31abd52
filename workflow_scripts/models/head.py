"""A model's log-likelihoods without the logits of a whole batch, which exceed the model itself.

The decoder runs once; the model's own head (with its scaling and soft-capping) then sees a few
chosen positions at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

CHUNK = 512  # positions whose logits exist at one time


@contextmanager
def calling(module: nn.Module, forward: Callable[..., object]) -> Iterator[None]:
    """Let ``forward`` answer in place of a module while the context lasts."""
    before = vars(module).get("forward")  # of a model that is spread over GPUs
    vars(module)["forward"] = forward
    try:
        yield
    finally:
        del vars(module)["forward"]
        if before is not None:
            vars(module)["forward"] = before


@torch.no_grad()
def token_losses(model: nn.Module, ids: Tensor, mask: Tensor, chosen: Tensor) -> Tensor:
    """Return −log p of the chosen tokens in nats, float32 [n], in the order of ``chosen``.

    ``ids``, ``mask`` and ``chosen`` are [B, T], right-padded; the first token of a row, which
    nothing predicts, cannot be chosen.
    """
    decoder = cast(Any, model).base_model
    output = decoder(input_ids=ids, attention_mask=mask, use_cache=False)
    kept = chosen[:, 1:]
    hidden, targets = output.last_hidden_state[:, :-1][kept], ids[:, 1:][kept]
    losses = [hidden.new_zeros(0, dtype=torch.float32)]
    for first in range(0, len(hidden), CHUNK):
        part = slice(first, first + CHUNK)
        answer = replace(output, last_hidden_state=hidden[None, part])
        with calling(decoder, lambda *_, answer=answer, **__: answer):
            logits = model(input_ids=targets[None, part], use_cache=False).logits[0]
        losses.append(functional.cross_entropy(logits.float(), targets[part], reduction="none"))
    return torch.cat(losses)
