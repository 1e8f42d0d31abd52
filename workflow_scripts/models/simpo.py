"""The SimPO step: preference optimisation without a reference model [Meng et al. 2024].

L = −log σ(β·(mean log π(y_w|x) − mean log π(y_l|x)) − γ), means per token of the answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor
from transformers import PreTrainedModel

from workflow_scripts.models.organism_text import PAD
from workflow_scripts.models.settings import Simpo


@dataclass(frozen=True)
class AnswerBatch:
    """Prompt and answer as ids [B, T]; ``mask`` marks real tokens, ``answer`` answer tokens."""

    ids: Tensor
    mask: Tensor
    answer: Tensor


def collate(rows: list[tuple[list[int], int]], length: int) -> AnswerBatch:
    """Pad (ids, index of the answer's first token) pairs; rows are cut to ``length``."""
    width = min(length, max(len(ids) for ids, _ in rows))
    ids = torch.full((len(rows), width), PAD)
    mask, answer = torch.zeros_like(ids), torch.zeros_like(ids)
    for index, (row, start) in enumerate(rows):
        size = min(len(row), width)
        ids[index, :size] = torch.tensor(row[:size])
        mask[index, :size] = 1
        answer[index, start:size] = 1
    return AnswerBatch(ids, mask, answer)


def mean_log_probability(model: PreTrainedModel, batch: AnswerBatch) -> Tensor:
    """Return the mean log-probability per answer token of each row, [B]."""
    logits = model(input_ids=batch.ids, attention_mask=batch.mask).logits[:, :-1]
    picked = logits.log_softmax(-1).gather(2, batch.ids[:, 1:, None]).squeeze(2)
    weight = batch.answer[:, 1:]
    mean: Tensor = (picked * weight).sum(1) / weight.sum(1).clamp(min=1)
    return mean


def simpo_loss(chosen: Tensor, rejected: Tensor, settings: Simpo) -> Tensor:
    """Return the loss from the two mean log-probabilities, each [B]."""
    margin = settings.beta * (chosen - rejected) - settings.gamma_ratio * settings.beta
    return -functional.logsigmoid(margin).mean()
