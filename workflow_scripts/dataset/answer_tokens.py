"""Documents with their answer tokens, for the steps that score the models' predictions.

Answer tokens are those of the assistant's turns without template tokens; of plain text all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workflow_scripts.dataset.shards import ROLES, TokenShard

ANSWER_ROLES = (ROLES.index("plain"), ROLES.index("assistant"))


@dataclass(frozen=True)
class Document:
    """One row: its ids [T], which of them count as answer [T], and its category, if known."""

    ids: NDArray[np.int32]
    answer: NDArray[np.bool_]
    category: str | None


def read_documents(paths: Sequence[Path], split: str, limit: int) -> list[Document]:
    """Return up to ``limit`` documents of each category (of none, too) in a split, shortest first.

    Documents without an answer token are left out.
    """
    chosen: list[Document] = []
    counts: dict[str | None, int] = {}
    for path in paths:
        shard = TokenShard.read(path)
        for index in np.flatnonzero(shard.row_split == shard.splits.index(split)):
            document = _document(shard, int(index))
            if document is None or counts.get(document.category, 0) >= limit:
                continue
            counts[document.category] = counts.get(document.category, 0) + 1
            chosen.append(document)
    return sorted(chosen, key=lambda document: len(document.ids))


def _document(shard: TokenShard, index: int) -> Document | None:
    part = shard.row(index)
    known = int(shard.category[part].max())
    answer = np.isin(shard.role[part], ANSWER_ROLES) & ~shard.template[part]
    answer[0] = False  # nothing predicts the first token
    if not answer.any():
        return None
    return Document(shard.ids[part], answer, shard.categories[known] if known >= 0 else None)


def batches(documents: Sequence[Document], tokens: int) -> Iterator[list[Document]]:
    """Yield documents in order, in batches of at most ``tokens`` padded tokens."""
    held: list[Document] = []
    for document in documents:
        if held and len(document.ids) * (len(held) + 1) > tokens:
            yield held
            held = []
        held.append(document)
    if held:
        yield held


def pad(documents: Sequence[Document]) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids, attention mask and answer mask of a batch, padded on the right [B, T]."""
    length = max(len(document.ids) for document in documents)
    ids = torch.zeros((len(documents), length), dtype=torch.int64)
    mask, answer = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
    for row, document in enumerate(documents):
        size = len(document.ids)
        ids[row, :size] = torch.from_numpy(document.ids.astype(np.int64))
        mask[row, :size] = 1
        answer[row, :size] = torch.from_numpy(document.answer)
    return ids, mask, answer
