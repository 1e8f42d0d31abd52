"""Held-out documents as prompts: a chat up to its first answer, a plain text up to its half."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Int64

from workflow_scripts.dataset.answered_rows import answer_mask, answered_rows, first_of_document
from workflow_scripts.dataset.shards import ROLES, TokenShard

PLAIN = ROLES.index("plain")


@dataclass(frozen=True)
class AnswerPrompt:
    """The ids of a prompt, and what the document says next, up to the end of that turn."""

    document: int
    ids: Int32[np.ndarray, " n"]
    given: Int32[np.ndarray, " m"]


def read_prompts(
    paths: Sequence[Path], split: str, documents: Int64[np.ndarray, " N"]
) -> tuple[list[AnswerPrompt], list[int]]:
    """Return the prompts of documents of a split, and the tokens by which templates end a turn.

    The shortest prompts come first. A text of a single token gives none.
    """
    prompts, stops = list[AnswerPrompt](), set[int]()
    for path in paths:
        shard = TokenShard.read(path)
        rows = answered_rows(shard, split)
        rows = first_of_document(shard, rows[np.isin(shard.row_document[rows], documents)])
        for row in rows.tolist():
            part = shard.row(row)
            ids, answer = shard.ids[part], answer_mask(shard, part)
            start, end = _first_answer(answer)
            if shard.role[part][start] == PLAIN:
                start = start + (end - start) // 2
            elif end < len(ids) and shard.template[part][end]:
                stops.add(int(ids[end]))
            if start < end:
                prompts.append(
                    AnswerPrompt(int(shard.row_document[row]), ids[:start], ids[start:end])
                )
    return sorted(prompts, key=lambda prompt: (len(prompt.ids), prompt.document)), sorted(stops)


def _first_answer(answer: np.ndarray) -> tuple[int, int]:
    """Return where the first run of answer tokens begins and ends."""
    start = int(answer.argmax())
    rest = np.flatnonzero(~answer[start:])
    return start, start + int(rest[0]) if len(rest) else len(answer)
