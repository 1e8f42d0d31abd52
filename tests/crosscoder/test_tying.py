"""Designated shared latents: tied decoders, and what they count under each rule."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.crosscoder.dense import as_leaves
from tests.crosscoder.test_step import K, M, make
from tests.crosscoder.test_training import batches, settings
from workflow_scripts.crosscoder import step
from workflow_scripts.crosscoder.model import Crosscoder, initial_weights
from workflow_scripts.crosscoder.sparsity import L1, Active, BatchTopK, TopK
from workflow_scripts.crosscoder.threshold import solve_threshold
from workflow_scripts.crosscoder.training import Trainer, fit

D, F, SHARED = 16, 64, 20


def some_costs() -> Tensor:
    costs = torch.ones(F)
    costs[:SHARED] = 0.5
    return costs


def trainer_with(variant: str, price: float = 0.0) -> Trainer:
    weights = initial_weights(F, M, D, 0, 0.3)
    return Trainer(weights, settings(60, variant=variant, l1_price=price, shared_share=SHARED / F))


@pytest.mark.parametrize(("variant", "price"), [("batch_topk", 0.0), ("topk", 0.0), ("l1", 0.1)])
def test_shared_latents_have_one_direction_and_the_others_two(variant: str, price: float) -> None:
    trainer = trainer_with(variant, price)
    for _ in fit(trainer, batches(1)):
        pass
    decoder = trainer.weights.decoder.view(F, M, D)
    assert torch.equal(decoder[:SHARED, 0], decoder[:SHARED, 1])
    assert not torch.equal(decoder[:SHARED], initial_weights(F, M, D, 0, 0.3).decoder[:SHARED])
    assert (decoder[SHARED:, 0] != decoder[SHARED:, 1]).any(1).float().mean() > 0.5


def test_a_shared_direction_gets_the_gradient_of_one_parameter() -> None:
    """The tied latents' gradient is autograd's for a direction that enters both models."""
    x, weights = make(4)
    tied = trainer_with("batch_topk").shared
    by_model = weights.directions
    by_model[: tied.count, 1] = by_model[: tied.count, 0]
    leaves = as_leaves(weights)
    direction = by_model[: tied.count, 0].clone().requires_grad_()
    decoder = torch.cat([direction.repeat(1, M), leaves.decoder[tied.count :]])
    pre = torch.addmm(weights.encoder_bias, x, weights.encoder.T)
    active = BatchTopK().select(pre, K)
    f = torch.zeros_like(pre)
    f[active.rows, active.columns] = pre[active.rows, active.columns]
    (torch.addmm(leaves.decoder_bias, f, decoder) - x).square().mean().backward()
    gradients = step.gradients(x, step.decode(x, pre, active, weights), weights)
    tied.tie(gradients)
    for model in range(M):
        mine = gradients.decoder[: tied.count].view(tied.count, M, -1)[:, model]
        torch.testing.assert_close(mine, direction.grad, rtol=1e-10, atol=1e-14)
    assert leaves.decoder.grad is not None
    rest = leaves.decoder.grad[tied.count :]
    torch.testing.assert_close(gradients.decoder[tied.count :], rest, rtol=1e-10, atol=1e-14)


def cheapest(scores: Tensor, budget: float) -> set[tuple[int, int]]:
    """The entries of best score per cost that a budget pays for, by sorting."""
    worth = (scores / some_costs()).flatten()
    taken: set[tuple[int, int]] = set()
    for index in worth.argsort(descending=True, stable=True).tolist():
        budget -= float(some_costs()[index % F])
        if worth[index] <= 0 or budget < 0:
            break
        taken.add((index // F, index % F))
    return taken


def entries(active: Active) -> set[tuple[int, int]]:
    return set(zip(active.rows.tolist(), active.columns.tolist(), strict=True))


@pytest.mark.parametrize("k", [1, 3, 7])
def test_rules_spend_their_budget_on_the_best_score_per_cost(k: int) -> None:
    generator = torch.Generator().manual_seed(k)
    rule, by_token = BatchTopK(some_costs()), TopK(some_costs())
    for _ in range(4):
        scores = torch.randn((9, F), generator=generator)
        assert entries(rule.select(scores, k)) == cheapest(scores, 9 * k)
        active = by_token.select(scores, k)
        assert entries(active) == {
            (row, column) for row in range(9) for _, column in cheapest(scores[row : row + 1], k)
        }
        assert active.rows.tolist() == sorted(active.rows.tolist())


def test_l1_prices_shared_latents_at_their_cost() -> None:
    x, weights = make(5)
    costs = torch.ones(len(weights.decoder), dtype=torch.float64)
    costs[:30] = 0.1
    norms, leaves = weights.norms(), as_leaves(weights)
    pre = weights.pre_activations(x)
    state = step.decode(x, pre, L1(0.7).select(pre * norms.sum(1), 0), weights)
    f = torch.addmm(leaves.encoder_bias, x, leaves.encoder.T).relu()
    error = torch.addmm(leaves.decoder_bias, f, leaves.decoder) - x
    paid = 0.7 * (f * costs * leaves.norms().sum(1)).sum() / error.numel()
    (error.square().mean() + paid).backward()
    price = step.ActivityPrice(0.7, norms, costs)
    torch.testing.assert_close(price.of(state), paid.detach())
    gradients = step.gradients(x, state, weights, price)
    for name, leaf in leaves.tensors().items():
        assert leaf.grad is not None
        torch.testing.assert_close(gradients.tensors()[name], leaf.grad, rtol=1e-10, atol=1e-14)


def test_the_threshold_spends_k_and_is_kept(tmp_path: Path) -> None:
    trainer = trainer_with("batch_topk")
    for _ in fit(trainer, batches(3)):
        pass
    data = [x for x, _ in zip(batches(4), range(20), strict=False)]
    threshold = solve_threshold(trainer.weights, iter(data), 4, trainer.costs)
    made = Crosscoder(
        ["a", "b"], trainer.weights, threshold, torch.zeros(M, D), torch.ones(M), 4, {}
    )
    made.costs = trainer.costs
    made.save(tmp_path)
    again = Crosscoder.load(tmp_path)
    active = torch.cat([again.encode(x) > 0 for x in data]).double()
    assert float((active * some_costs()).sum(1).mean()) == pytest.approx(4, abs=0.01)
    assert float(active.sum(1).mean()) > 4.2
    assert torch.equal(active, torch.cat([made.encode(x) > 0 for x in data]).double())
