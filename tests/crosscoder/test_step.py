"""The sparse step against the dense reference."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.crosscoder.dense import as_double, as_leaves, dense_loss
from workflow_scripts.crosscoder import step
from workflow_scripts.crosscoder.auxiliary import AuxK, DeadLatents
from workflow_scripts.crosscoder.model import Weights, initial_weights
from workflow_scripts.crosscoder.products import DenseProducts, SparseProducts, products
from workflow_scripts.crosscoder.settings import Training
from workflow_scripts.crosscoder.sparsity import L1, Active, BatchTopK, TopK, sparsity_rule
from workflow_scripts.crosscoder.training import Trainer

B, M, D, F, K = 64, 2, 16, 96, 5


def make(seed: int = 0) -> tuple[Tensor, Weights]:
    """Return a float64 batch and weights that are in general position."""
    generator = torch.Generator().manual_seed(seed)
    weights = as_double(initial_weights(F, M, D, seed, 0.5))
    for tensor in weights.tensors().values():
        tensor += 0.1 * torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
    return torch.randn(B, M * D, generator=generator, dtype=torch.float64), weights


def forward(x: Tensor, weights: Weights) -> tuple[Tensor, step.Forward]:
    pre = weights.pre_activations(x)
    active = BatchTopK().select(pre * weights.norms().sum(1), K)
    return pre, step.decode(x, pre, active, weights)


def test_gradients_equal_autograd() -> None:
    x, weights = make()
    _, state = forward(x, weights)
    leaves = as_leaves(weights)
    loss = dense_loss(x, leaves, K)
    loss.backward()
    torch.testing.assert_close(step.reconstruction_loss(state), loss, rtol=1e-12, atol=0)
    gradients = step.gradients(x, state, weights)
    for name, leaf in leaves.tensors().items():
        assert leaf.grad is not None
        torch.testing.assert_close(gradients.tensors()[name], leaf.grad, rtol=1e-10, atol=1e-14)


def test_l1_gradients_equal_autograd() -> None:
    x, weights = make(3)
    price, norms = 0.7, weights.norms()
    pre = weights.pre_activations(x)
    state = step.decode(x, pre, L1(price).select(pre * norms.sum(1), 0), weights)
    leaves = as_leaves(weights)
    f = torch.addmm(leaves.encoder_bias, x, leaves.encoder.T).relu()
    error = torch.addmm(leaves.decoder_bias, f, leaves.decoder) - x
    paid = (f * leaves.norms().sum(1)).sum() / error.numel()
    loss = error.square().mean() + price * paid
    loss.backward()
    paid_by_step = step.ActivityPrice(price, norms)
    torch.testing.assert_close(
        step.reconstruction_loss(state) + paid_by_step.of(state), loss.detach()
    )
    gradients = step.gradients(x, state, weights, paid_by_step)
    for name, leaf in leaves.tensors().items():
        assert leaf.grad is not None
        torch.testing.assert_close(gradients.tensors()[name], leaf.grad, rtol=1e-10, atol=1e-14)


def test_dense_products_equal_sparse_ones() -> None:
    x, weights = make(6)
    pre = weights.pre_activations(x)
    active = BatchTopK().select(pre, K)
    values = pre[active.rows, active.columns]
    shape = (pre.shape[0], pre.shape[1])
    by_entry, dense = SparseProducts(active, shape), DenseProducts(active, shape)
    bias = weights.decoder_bias
    for one, other in (
        (
            by_entry.matmul(values, weights.decoder, bias),
            dense.matmul(values, weights.decoder, bias),
        ),
        (by_entry.transposed(values, x), dense.transposed(values, x)),
        (by_entry.sampled(x, weights.decoder), dense.sampled(x, weights.decoder)),
    ):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)
    everything = L1(1.0).select(pre, 0)
    assert isinstance(products(active, shape), SparseProducts)
    assert isinstance(products(everything, shape), DenseProducts)


def test_bfloat16_only_chooses_latents() -> None:
    """With a rounded encoder, codes and gradients are those of float32 for the latents chosen."""
    x, weights = make(7)
    x, weights = x.float(), weights.map(Tensor.float)
    pre = weights.pre_activations(x, torch.bfloat16)
    exact = weights.pre_activations(x)
    assert 0 < float((pre - exact).abs().max()) < 0.05 * float(exact.abs().max())
    active = BatchTopK().select(pre, K)
    rounded = step.decode(x, pre, active, weights, rounded=True)
    state = step.decode(x, exact, active, weights)
    torch.testing.assert_close(rounded.codes, state.codes, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(rounded.residual, state.residual, rtol=1e-4, atol=1e-4)


def test_topk_keeps_the_largest_of_every_token() -> None:
    scores = torch.randn((50, 20), generator=torch.Generator().manual_seed(0))
    scores[0] = -1.0
    active = TopK().select(scores, 3)
    for row in range(50):
        mine = active.columns[active.rows == row]
        best = scores[row].topk(3)
        assert mine.tolist() == sorted(best.indices[best.values > 0].tolist())
    assert torch.equal(active.rows, active.rows.sort().values)


def test_every_variant_has_its_rule() -> None:
    for variant, kind in (("batch_topk", BatchTopK), ("topk", TopK), ("l1", L1)):
        rule = sparsity_rule(variant, 0.5)
        assert isinstance(rule, kind)
        assert rule.price == (0.5 if variant == "l1" else 0)
        assert rule.solved == (variant != "l1")


def test_auxk_gradients_equal_autograd_and_are_not_zero() -> None:
    x, weights = make(1)
    pre, state = forward(x, weights)
    dead = torch.tensor([3, 10, 40, 41, 90])
    to = weights.map(torch.zeros_like)
    loss = AuxK(3, 1 / 32).add_gradients(x, pre, state.residual, dead, weights, to)
    leaves = as_leaves(weights)
    own = torch.addmm(leaves.encoder_bias, x, leaves.encoder.T)[:, dead]
    top = own.topk(3, dim=1)
    codes = torch.zeros_like(own).scatter(1, top.indices, top.values)
    target = -state.residual
    variance = (target - target.mean(0)).square().mean()
    expected = (codes @ leaves.decoder[dead] - target).square().mean() / variance / 32
    expected.backward()
    torch.testing.assert_close(loss, expected.detach())
    for name in ("encoder", "encoder_bias", "decoder"):
        gradient = leaves.tensors()[name].grad
        assert gradient is not None
        assert float(gradient.abs().max()) > 0
        torch.testing.assert_close(to.tensors()[name], gradient, rtol=1e-10, atol=1e-15)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(0, 10_000),
    st.floats(0, 3),
)
def test_batch_topk_is_exact(b: int, f: int, k: int, seed: int, carried: float) -> None:
    """Against a sort, with ties, negative scores and any carried-over threshold."""
    generator = torch.Generator().manual_seed(seed)
    scores = (torch.randn(b, f, generator=generator) * 3).round() / 2
    rule = BatchTopK()
    rule.last_threshold = torch.tensor(carried) if carried else None
    active = rule.select(scores, k)
    chosen = scores[active.rows, active.columns]
    positive = scores[scores > 0].sort(descending=True).values
    assert chosen.numel() == min(b * k, positive.numel())
    assert torch.equal(chosen.sort(descending=True).values, positive[: chosen.numel()])
    assert len({(int(r), int(c)) for r, c in zip(active.rows, active.columns, strict=True)}) == len(
        active.rows
    )


def test_loss_curve_equals_the_dense_reference() -> None:
    """Fifty Adam steps in float64 end within 1e-8 of autograd's."""
    x, weights = make(2)
    leaves = as_leaves(weights)
    optimizer = torch.optim.Adam(list(leaves.tensors().values()), lr=1e-3)
    trainer = Trainer(
        weights,
        Training(
            k=K,
            tokens=50 * B,
            batch=B,
            learning_rate=1e-3,
            warmup_share=0.0,
            decay_share=0.0,
            clip_norm=1e9,
            dead_tokens=10**9,
            k_aux=4,
        ),
    )
    for _ in range(49):
        loss = dense_loss(x, leaves, K)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert abs(trainer.step(x).row().loss - loss.item()) < 1e-8


def test_dead_latents_are_counted_in_tokens() -> None:
    dead = DeadLatents(4, patience=100)
    dead.update(Active(torch.tensor([0, 0]), torch.tensor([1, 2])), tokens=60)
    assert dead.dead().tolist() == []
    dead.update(Active(torch.tensor([0]), torch.tensor([1])), tokens=60)
    assert dead.dead().tolist() == [0, 3]
