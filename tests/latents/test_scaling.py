"""Latent scaling against brute-force least squares, and the jackknife's coverage."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from scipy import stats

from tests.crosscoder.test_codes import codes
from workflow_scripts.crosscoder.model import inner_products
from workflow_scripts.latents.scaling import Ratio, ScalingSums, latent_scaling

N, M, D, F, G = 300, 3, 8, 20, 10


def test_nu_equals_brute_force_least_squares() -> None:
    """β from an explicit regression on all coordinates, for both targets, float64."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(N, M, D, generator=generator, dtype=torch.float64)
    w_dec = torch.randn(F, M, D, generator=generator, dtype=torch.float64)
    f = torch.randn(N, F, generator=generator, dtype=torch.float64).relu()
    f = f * (torch.rand(N, F, generator=generator) < 0.3)
    reconstruction = torch.einsum("nf,fmd->nmd", f, w_dec) + 0.1
    sums = ScalingSums(w_dec, G)
    for group in range(G):
        part = slice(group * N // G, (group + 1) * N // G)
        sums.add(group, codes(f[part]), x[part], reconstruction[part])
    for own, other in ((0, 1), (1, 0), (2, 0)):
        nu_r, nu_e = latent_scaling(sums, inner_products(w_dec), own, other)
        for j in range(F):
            direction = w_dec[j, own]
            design = torch.outer(f[:, j], direction).flatten()

            def beta(target: torch.Tensor, design: torch.Tensor = design) -> float:
                return float(torch.linalg.lstsq(design[:, None], target.flatten()[:, None])[0])

            betas_r = [beta(reconstruction[:, m]) for m in (own, other)]
            betas_e = [
                beta(x[:, m] - reconstruction[:, m] + torch.outer(f[:, j], w_dec[j, m]))
                for m in (own, other)
            ]
            np.testing.assert_allclose(nu_r.value[j], betas_r[1] / betas_r[0], rtol=1e-9)
            np.testing.assert_allclose(nu_e.value[j], betas_e[1] / betas_e[0], rtol=1e-9)
            np.testing.assert_allclose(nu_r.own[j], betas_r[0], rtol=1e-9)
            np.testing.assert_allclose(nu_e.own[j], betas_e[0], rtol=1e-9)


def test_equal_models_give_one_exactly() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(N, 1, D, generator=generator).expand(-1, 2, -1).contiguous()
    w_dec = torch.randn(F, 1, D, generator=generator).expand(-1, 2, -1).contiguous()
    f = torch.randn(N, F, generator=generator).relu()
    reconstruction = torch.einsum("nf,fmd->nmd", f, w_dec)
    sums = ScalingSums(w_dec, 1)
    sums.add(0, codes(f), x, reconstruction)
    for ratio in latent_scaling(sums, inner_products(w_dec), 0, 1):
        assert (ratio.value == 1).all()


def coverage(firing: int, seed: int, latents: int = 3000) -> float:
    """Return how often nominal 95 % intervals on ν^ε hold the truth, over simulated latents.

    Each fires in ``firing`` of 600 documents, five tokens each; errors go together within one.
    """
    documents, tokens, groups, share = 600, 5, 50, 0.4
    rng = np.random.default_rng(seed)
    w_dec = torch.zeros(latents, 2, 2)
    w_dec[:, 0, 0], w_dec[:, 1, 0] = 1.0, share
    sums = ScalingSums(w_dec, groups)
    f = rng.gamma(2.0, 1.0, (documents, latents))
    f[np.argsort(rng.random((documents, latents)), axis=0) >= firing] = 0.0
    group = np.arange(documents) * groups // documents
    for model in range(2):
        mean = rng.normal(0, 0.5, f.shape) + rng.normal(0, 0.5 / np.sqrt(tokens), f.shape)
        products = tokens * f * mean
        for g in range(groups):
            sums.error[g, :, 0, model] = torch.from_numpy(products[group == g].sum(0))
    for g in range(groups):
        sums.square[g] = torch.from_numpy(tokens * np.square(f[group == g]).sum(0))
    _, nu_e = latent_scaling(sums, inner_products(w_dec), 0, 1)
    half = stats.t.ppf(0.975, nu_e.freedom) * nu_e.error
    return float((np.abs(nu_e.value - share) <= half).mean())


@pytest.mark.parametrize("firing", [30, 60, 150])
def test_jackknife_interval_covers(firing: int) -> None:
    """93-97 % for a nominal 95 %, from 30 documents on."""
    assert 0.93 <= coverage(firing, seed=1) <= 0.97


def test_a_wrong_shape_is_refused() -> None:
    """Tests check the shapes of arrays as they do those of tensors."""
    two, three = np.zeros(2), np.zeros(3)
    with pytest.raises(TypeCheckError):
        Ratio(two, two, three, two)
