"""Read the output of one decoder block, and replace it while the model runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from workflow_scripts.activations.blocks import capture, decoder_blocks, forward_to
from workflow_scripts.models.likelihood import calling


def block_output(
    model: PreTrainedModel, layer: int, ids: Int[Tensor, "B T"], mask: Int[Tensor, "B T"]
) -> Float[Tensor, "B T D"]:
    """Return the output of block ``layer`` (counted from 1) for right-padded ids."""
    with capture(decoder_blocks(model), [layer]) as captured:
        forward_to(model, ids, mask)
    return captured.outputs[layer]


@contextmanager
def replaced_output(
    model: PreTrainedModel, layer: int, h: Float[Tensor, "B T D"]
) -> Iterator[None]:
    """Let block ``layer`` put out ``h`` while the context lasts.

    Of the blocks up to there only the first one runs, for the form of its output.
    """
    first, *skipped = decoder_blocks(model)[:layer]
    stand_ins: list[object] = []

    def replace(module: nn.Module, inputs: object, output: object) -> object:
        stand_ins[:] = [(h, *output[1:]) if isinstance(output, tuple) else h]
        return stand_ins[0]

    handle = first.register_forward_hook(replace)
    try:
        with ExitStack() as stack:
            for block in skipped:
                stack.enter_context(calling(block, lambda *_, **__: stand_ins[0]))
            yield
    finally:
        handle.remove()
