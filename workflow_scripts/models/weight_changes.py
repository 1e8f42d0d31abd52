"""Where two models' weights differ: the places of tensors, and the layer that sees half of it."""

from __future__ import annotations

import re
from collections.abc import Iterable

COLUMNS = (
    "baseline",
    "candidate",
    "tensor",
    "layer",
    "module",
    "values",
    "norm",
    "change",
    "relative",
    "effective_rank",
    "leading_share",
    "full_rank",
)
"""Columns of ``weights/<comparison>.csv``; ``COLUMNS.md`` says what each means."""
BLOCK = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.(.+?)(?:\.weight)?$")


def place_of(tensor: str) -> tuple[int, str]:
    """Return the decoder block of a tensor, counted from 1, and its name there; 0: in none."""
    if match := BLOCK.search(tensor):
        return int(match[1]) + 1, match[2]
    return 0, tensor.removeprefix("model.").removesuffix(".weight")


def half_way(changes: Iterable[tuple[int, float]]) -> int | None:
    """Return the first block up to which half of the blocks' squared change lies; None: no change.

    ``changes`` are (layer, norm of the change) of tensors. The output of an earlier layer shows
    less than half of what changed.
    """
    by_layer: dict[int, float] = {}
    for layer, change in changes:
        if layer:
            by_layer[layer] = by_layer.get(layer, 0.0) + change**2
    total, passed = sum(by_layer.values()), 0.0
    for layer, square in sorted(by_layer.items()):
        passed += square
        if total > 0 and passed >= total / 2:
            return layer
    return None
