"""Sparse activations: the same entries, sums and choices as dense matrices give."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from workflow_scripts.crosscoder.codes import Codes, decode, encode
from workflow_scripts.crosscoder.model import Crosscoder, initial_weights
from workflow_scripts.crosscoder.products import SparseProducts
from workflow_scripts.crosscoder.sparsity import Active, TopK, positions_above

B, F, M, D = 40, 60, 2, 8


def codes(f: Tensor) -> Codes:
    """Return the entries of a dense matrix [B, F] that are not zero."""
    rows, columns = torch.nonzero(f, as_tuple=True)
    return Codes(Active(rows, columns), f[rows, columns], (f.shape[0], f.shape[1]))


def crosscoder(threshold: float, costs: Tensor | None = None) -> Crosscoder:
    """Return a random crosscoder; its last latent has no decoder direction."""
    weights = initial_weights(F, M, D, 0, 1.0)
    generator = torch.Generator().manual_seed(1)
    weights.decoder += torch.randn(F, M * D, generator=generator)
    weights.decoder[-1] = 0
    weights.encoder_bias += 0.1
    mean, scale = torch.zeros(M, D), torch.ones(M)
    return Crosscoder(["a", "b"], weights, threshold, mean, scale, 4, {}, costs)


def tokens() -> Tensor:
    """Return activations [B, M, D]; the last token is zero everywhere."""
    x = torch.randn(B, M, D, generator=torch.Generator().manual_seed(2))
    x[-1] = 0
    return x


@pytest.mark.parametrize("threshold", [0.0, 1.5, 8.0, 1e6])
@pytest.mark.parametrize("costly", [False, True])
def test_entries_are_those_of_the_dense_encoder(threshold: float, costly: bool) -> None:
    costs = torch.linspace(0.2, 1.0, F) if costly else None
    fitted, x = crosscoder(threshold, costs), tokens()
    dense, sparse = fitted.encode(x), encode(fitted, x)
    expected = codes(dense)
    assert torch.equal(sparse.active.rows, expected.active.rows)
    assert torch.equal(sparse.active.columns, expected.active.columns)
    assert torch.equal(sparse.values, expected.values)
    assert torch.equal(sparse.per_token(), (dense > 0).sum(1))
    assert torch.equal(sparse.per_latent(), (dense > 0).sum(0))
    torch.testing.assert_close(decode(fitted, sparse), fitted.decode(dense))


def test_tokens_that_are_encoded_apart_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted, x = crosscoder(1.5), tokens()
    whole = encode(fitted, x)
    monkeypatch.setattr("workflow_scripts.crosscoder.codes.HELD", 7 * F)
    parts = encode(fitted, x)
    assert parts.shape == whole.shape
    assert torch.equal(parts.active.rows, whole.active.rows)
    assert torch.equal(parts.active.columns, whole.active.columns)
    torch.testing.assert_close(parts.values, whole.values)


def test_an_entry_at_the_threshold_is_not_active() -> None:
    fitted, x = crosscoder(0.0), tokens()
    scores = fitted.pre_activations(x).relu() * fitted.score_scales()
    fitted.threshold = float(scores[3, 5])
    assert fitted.threshold > 0
    assert int(encode(fitted, x).per_token()[3]) == int((scores[3] > fitted.threshold).sum())


def test_some_latents_and_products() -> None:
    f = torch.randn(B, F, generator=torch.Generator().manual_seed(3)).sub(1).relu()
    mask = torch.arange(F) % 3 == 0
    some = codes(f).of(mask)
    right, left = torch.randn(F, 5), torch.randn(B, 5)
    torch.testing.assert_close(some.times(right), (f * mask) @ right)
    torch.testing.assert_close(some.times(right, left[0]), (f * mask) @ right + left[0])
    dots = (left @ right.T)[some.active.rows, some.active.columns]
    torch.testing.assert_close(some.sampled(left, right), dots)


def test_entries_by_column_stay_in_order() -> None:
    f = torch.randn(B, F, generator=torch.Generator().manual_seed(4)).relu()
    active = codes(f).active
    pointers, rows, order = SparseProducts(active, (B, F))._sort()
    expected = torch.argsort(active.columns, stable=True)
    assert torch.equal(order, expected)
    assert torch.equal(rows, active.rows[expected])
    assert torch.equal(pointers.diff(), torch.bincount(active.columns, minlength=F))


@pytest.fixture(params=[1, 8])
def _threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """numpy's way and torch's way."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("bound", [0.5, torch.linspace(-1, 1, F)])
def test_positions_above(bound: float | Tensor) -> None:
    x = torch.randn(B, F, generator=torch.Generator().manual_seed(5))
    assert torch.equal(positions_above(x, bound), torch.nonzero((x > bound).flatten()).squeeze(1))


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("k", [0, 1, 7, F])
def test_largest_of_every_row(k: int, positive: bool, tied: bool) -> None:
    x = torch.randn(B, F, generator=torch.Generator().manual_seed(6)).sub(1)
    if tied:
        x = x.mul(2).round()
    active = TopK(positive=positive).select(x, k)
    values = torch.full((B, F), -torch.inf)
    values[active.rows, active.columns] = x[active.rows, active.columns]
    found = values.sort(dim=1, descending=True).values[:, :k]
    expected = x.sort(dim=1, descending=True).values[:, :k]
    if positive:
        expected = expected.where(expected > 0, -torch.inf)
    assert torch.equal(found, expected)
    order = active.rows * F + active.columns
    assert bool((order.diff() > 0).all())
