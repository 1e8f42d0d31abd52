"""Replace the output of one decoder block while a model runs, and read what it then predicts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from workflow_scripts.activations.blocks import capture, decoder_blocks, forward_to
from workflow_scripts.models.likelihood import calling


def layer_output(model: PreTrainedModel, layer: int, ids: Tensor, mask: Tensor) -> Tensor:
    """Return the output of block ``layer`` (counted from 1) for right-padded ids, [B, T, D]."""
    with capture(decoder_blocks(model), [layer]) as captured:
        forward_to(model, ids, mask)
    return captured.outputs[layer]


@contextmanager
def patched(model: PreTrainedModel, layer: int, h: Tensor) -> Iterator[None]:
    """Let block ``layer`` answer ``h`` [B, T, D] while the context lasts.

    Of the blocks up to there only the first one runs, for the form of its answer.
    """
    first, *skipped = decoder_blocks(model)[:layer]
    answers: list[object] = []

    def replace(module: nn.Module, inputs: object, output: object) -> object:
        answers[:] = [(h, *output[1:]) if isinstance(output, tuple) else h]
        return answers[0]

    handle = first.register_forward_hook(replace)
    try:
        with ExitStack() as stack:
            for block in skipped:
                stack.enter_context(calling(block, lambda *_, **__: answers[0]))
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
