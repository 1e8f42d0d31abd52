"""Read a split document by document: batches of whole documents, dealt to groups."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workflow_scripts.activations.store import ActivationStore
from workflow_scripts.common.prefetch import prefetch
from workflow_scripts.common.progress import track
from workflow_scripts.latents.token_context import TokenContext


def document_groups(
    store: ActivationStore,
    split: str,
    context: TokenContext,
    groups: int,
    batch: int,
    documents: Int[np.ndarray, " N"] | None = None,
) -> Iterator[tuple[int, Int[np.ndarray, " B"], Float[Tensor, "B M D"]]]:
    """Yield (group, rows, x): whole documents, dealt to groups in order.

    ``documents`` are the numbers of those to read; none: all. Batches hold about ``batch`` tokens
    and never cut a document. The next one is read while one is used.
    """
    rows = store.rows(split)
    if documents is not None:
        rows = rows[np.isin(context.document[rows], documents)]

    def read(
        part: tuple[int, Int[np.ndarray, " B"]],
    ) -> tuple[int, Int[np.ndarray, " B"], Float[Tensor, "B M D"]]:
        return *part, torch.from_numpy(store.read(part[1]))

    batches = prefetch(read, _parts(rows, context.document[rows], groups, batch))
    yield from track(batches, "tokens", len(rows), size=lambda part: len(part[1]))


def _parts(
    rows: Int[np.ndarray, " N"], documents: Int[np.ndarray, " N"], groups: int, batch: int
) -> Iterator[tuple[int, Int[np.ndarray, " B"]]]:
    """Yield (group, rows)."""
    starts = np.flatnonzero(np.diff(documents, prepend=-1))
    ends = np.append(starts[1:], len(rows))
    group_of = np.arange(len(starts)) * groups // max(len(starts), 1)
    first = 0
    while first < len(starts):
        last = first
        while (
            last + 1 < len(starts)
            and group_of[last + 1] == group_of[first]
            and ends[last + 1] - starts[first] <= batch
        ):
            last += 1
        yield int(group_of[first]), rows[starts[first] : ends[last]]
        first = last + 1
