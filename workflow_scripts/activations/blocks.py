"""The decoder blocks of a Hugging Face model, and a forward pass that stops after one.

Layer L is the output of the L-th decoder block, counted from 1: ``hidden_states[L]`` of
``output_hidden_states``, except for the last layer, which Hugging Face gives after the final norm.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from workflow_scripts.common.cli import UserError

# Where the architectures of transformers keep their blocks.
BLOCK_LISTS = ("layers", "h", "blocks")


class _DeepEnough(Exception):  # noqa: N818 - a signal, not an error
    """Raised by the hook on the deepest layer of interest."""


def decoder_blocks(model: PreTrainedModel) -> Sequence[nn.Module]:
    """Return the decoder blocks in order.

    Raises
    ------
    UserError
        If the architecture keeps them elsewhere than those of transformers.
    """
    inner = model.get_decoder() if hasattr(model, "get_decoder") else model.base_model
    for module in (inner, model.base_model):
        for name in BLOCK_LISTS:
            blocks = getattr(module, name, None)
            if isinstance(blocks, nn.ModuleList):
                return list(blocks)
    raise UserError(
        f"{type(model).__name__} keeps its decoder blocks in none of {', '.join(BLOCK_LISTS)}: "
        "this architecture is not supported"
    )


def check_layers(layers: Sequence[int], available: int, name: str) -> None:
    """Refuse a layer that the model lacks.

    Raises
    ------
    UserError
        If a layer is not in 1 … available.
    """
    for layer in layers:
        if not 1 <= layer <= available:
            raise UserError(
                f"model {name} has layers 1 to {available}, not {layer}: change layers in the "
                "config"
            )


class Captured:
    """Outputs of the hooked blocks of the last forward pass, by layer."""

    def __init__(self) -> None:
        self.outputs: dict[int, Tensor] = {}


@contextmanager
def capture(blocks: Sequence[nn.Module], layers: Sequence[int]) -> Iterator[Captured]:
    """Keep the outputs of ``layers`` while the block lasts; see :func:`forward_to`."""
    captured = Captured()
    deepest = max(layers)

    def hook(layer: int) -> object:
        def keep(module: nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
            captured.outputs[layer] = output[0] if isinstance(output, tuple) else output
            if layer == deepest:
                raise _DeepEnough

        return keep

    handles = [
        blocks[layer - 1].register_forward_hook(hook(layer))  # type: ignore[arg-type]
        for layer in sorted(layers)
    ]
    try:
        yield captured
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def forward_to(model: PreTrainedModel, ids: Tensor, mask: Tensor) -> None:
    """Run the model on right-padded ids [B, T] until the deepest hooked layer has answered."""
    try:
        model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
    except _DeepEnough:
        return
