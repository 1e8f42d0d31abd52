"""Documents with their answer tokens, for the steps that score the models' predictions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workflow_scripts.dataset.answered_rows import answer_mask, answered_rows, first_of_document
from workflow_scripts.dataset.shards import TokenShard


@dataclass(frozen=True)
class Document:
    """One row: its ids [T], which of them count as answer [T], its category, if known, its number.

    The number is ``document`` in documents.parquet: rows of one document share it.
    """

    ids: NDArray[np.int32]
    answer: NDArray[np.bool_]
    category: str | None
    number: int


def read_documents(paths: Sequence[Path], split: str, limit: int) -> list[Document]:
    """Return up to ``limit`` documents of each category (of none, too) in a split, shortest first.

    Of each, its first row with an answer token: documents without one are left out.
    """
    chosen: list[Document] = []
    counts: dict[str | None, int] = {}
    for path in paths:
        shard = TokenShard.read(path)
        for index in first_of_document(shard, answered_rows(shard, split)):
            document = _document(shard, int(index))
            if counts.get(document.category, 0) >= limit:
                continue
            counts[document.category] = counts.get(document.category, 0) + 1
            chosen.append(document)
    return _shortest_first(chosen)


def read_numbered(paths: Sequence[Path], split: str, numbers: NDArray[np.int64]) -> list[Document]:
    """Return the rows of those documents of a split, shortest first; none without an answer."""
    chosen: list[Document] = []
    for path in paths:
        shard = TokenShard.read(path)
        rows = answered_rows(shard, split)
        wanted = rows[np.isin(shard.row_document[rows], numbers)]
        chosen += [_document(shard, int(index)) for index in wanted]
    return _shortest_first(chosen)


def _shortest_first(documents: list[Document]) -> list[Document]:
    return sorted(documents, key=lambda document: len(document.ids))


def _document(shard: TokenShard, index: int) -> Document:
    part = shard.row(index)
    known = int(shard.category[part].max())
    category = shard.categories[known] if known >= 0 else None
    number = int(shard.row_document[index])
    return Document(shard.ids[part], answer_mask(shard, part), category, number)


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
