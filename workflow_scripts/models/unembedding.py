"""What directions of the residual stream promote: the logit lens.

A direction is read as the last layer's output would be, by the model's own final norm and
unembedding [nostalgebraist 2020]. Blocks between are left out, so that it says what a direction
writes directly, the less of what it does the earlier its layer is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

IN_A_LIST = re.compile(r"(^|\.)\d+(\.|$)")
"""Names of modules within a list, such as those of decoder blocks."""


class Unembedding:
    """A model's final norm and output layer, without their biases."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.norm = final_norm(model)
        self.head = cast(Callable[[Tensor], Tensor], model.get_output_embeddings())
        self.device, self.dtype = model.device, model.dtype

    @torch.no_grad()
    def read(self, directions: Float[Tensor, "N D"]) -> Float[Tensor, "N V"]:
        """Return the logits that each direction alone gives, less their mean, float32.

        Only the direction counts, not its length: a norm leaves none. A bias cancels out.
        """
        length = directions.square().mean(1, keepdim=True).sqrt().clamp(min=1e-30)
        x = (directions / length).to(self.device, self.dtype)
        logits = _odd(self.head, _odd(self.norm, x)).float()
        return logits - logits.mean(1, keepdim=True)


def _odd(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return the part of a function that turns with its argument: without an added bias."""
    return (function(x) - function(-x)) / 2


@torch.no_grad()
def final_norm(model: PreTrainedModel) -> Callable[[Tensor], Tensor]:
    """Return what gives the decoder's last states, the identity where there is no such norm.

    Architectures name it differently, so it is found by running some tokens: the module outside of
    all blocks whose output is the decoder's.
    """
    outputs: list[tuple[nn.Module, Any]] = []
    base = model.base_model
    handles = [
        module.register_forward_hook(lambda module, _, output: outputs.append((module, output)))
        for name, module in base.named_modules()
        if name and not IN_A_LIST.search(name)
    ]
    try:
        ids = torch.arange(4, device=model.device)[None]  # that of padding gives zeros throughout
        states = base(input_ids=ids, use_cache=False).last_hidden_state
    finally:
        for handle in handles:
            handle.remove()
    same = (
        module
        for module, output in outputs
        if isinstance(output, Tensor)
        and output.numel() == states.numel()
        and torch.equal(output.flatten(), states.flatten())  # some reshape it
    )
    return cast(Callable[[Tensor], Tensor], next(same, nn.Identity()))


def strongest(
    logits: Float[Tensor, "N V"], count: int
) -> tuple[Float[Tensor, "N count"], Float[Tensor, "N count"]]:
    """Return the largest logits of each row, in standard deviations of the row, and their ids."""
    scaled = logits / logits.std(1, keepdim=True).clamp(min=1e-30)
    values, ids = scaled.topk(min(count, logits.shape[1]), dim=1)
    return values, ids
