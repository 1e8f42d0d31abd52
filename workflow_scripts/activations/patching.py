"""Replace the output of one decoder block while a model runs, and read what it then predicts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from workflow_scripts.activations.blocks import capture, decoder_blocks, forward_to


def layer_output(model: PreTrainedModel, layer: int, ids: Tensor, mask: Tensor) -> Tensor:
    """Return the output of block ``layer`` (counted from 1) for right-padded ids, [B, T, D]."""
    with capture(decoder_blocks(model), [layer]) as captured:
        forward_to(model, ids, mask)
    return captured.outputs[layer]


@contextmanager
def patched(model: PreTrainedModel, layer: int, h: Tensor) -> Iterator[None]:
    """Let block ``layer`` answer ``h`` [B, T, D] while the context lasts."""

    def replace(module: nn.Module, inputs: object, output: object) -> object:
        if isinstance(output, tuple):
            return (h, *output[1:])
        return h

    handle = decoder_blocks(model)[layer - 1].register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def log_probabilities(
    model: PreTrainedModel, ids: Tensor, mask: Tensor, predicted: Tensor
) -> Tensor:
    """Return the log-probabilities with which chosen tokens are predicted, float32 [n, V].

    ``predicted`` [B, T] marks the n tokens; the one at position 0 is predicted by nothing.
    """
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return torch.log_softmax(logits[:, :-1][predicted[:, 1:]].float(), dim=-1)
