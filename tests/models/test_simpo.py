"""The SimPO step against the formula of its publication."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from workflow_scripts.models.settings import Simpo
from workflow_scripts.models.simpo import collate, mean_log_probability, simpo_loss

ROWS = [([1, 5, 6, 7, 8], 2), ([1, 9, 3, 4, 5, 6, 7], 4), ([1, 4, 8], 1)]


def tiny() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=12,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        initializer_range=0.5,
    )
    model: LlamaForCausalLM = LlamaForCausalLM(config)
    model.eval()
    return model


def test_loss_is_the_formula() -> None:
    chosen, rejected = [-1.0, -0.25], [-1.5, -0.125]
    settings = Simpo(pairs=2, beta=2.0, gamma_ratio=0.5)
    losses = [
        -math.log(1 / (1 + math.exp(-(2.0 * (w - r) - 1.0))))
        for w, r in zip(chosen, rejected, strict=True)
    ]
    found = simpo_loss(torch.tensor(chosen), torch.tensor(rejected), settings)
    assert found.item() == pytest.approx(sum(losses) / 2, rel=1e-6)


@torch.no_grad()
def test_means_are_over_answer_tokens_whatever_the_padding() -> None:
    model = tiny()
    found = mean_log_probability(model, collate(ROWS, 20))
    for value, (ids, start) in zip(found.tolist(), ROWS, strict=True):
        chances = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        mine = [float(chances[t - 1, ids[t]]) for t in range(start, len(ids))]
        assert value == pytest.approx(sum(mine) / len(mine), rel=1e-4)


def test_rows_are_cut_to_the_length() -> None:
    side = collate(ROWS, 5)
    assert side.ids.tolist()[1] == [1, 9, 3, 4, 5]
    assert side.answer.tolist() == [[0, 0, 1, 1, 1], [0, 0, 0, 0, 1], [0, 1, 1, 0, 0]]
    assert side.mask.tolist()[2] == [1, 1, 1, 0, 0]


def test_steps_widen_the_margin() -> None:
    model = tiny()
    better, worse = collate([([1, 5, 6], 1)], 9), collate([([1, 7, 8], 1)], 9)
    settings = Simpo(pairs=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    margins = []
    for _ in range(5):
        sides = mean_log_probability(model, better), mean_log_probability(model, worse)
        margins.append((sides[0] - sides[1]).item())
        optimizer.zero_grad()
        simpo_loss(*sides, settings).backward()
        optimizer.step()
    assert margins[-1] > margins[0]
