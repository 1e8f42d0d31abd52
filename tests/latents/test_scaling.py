"""Latent scaling against brute-force least squares, and the jackknife's coverage."""

from __future__ import annotations

import numpy as np
import torch

from workflow_scripts.latents.scaling import ScalingSums, latent_scaling

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
        sums.add(group, f[part].to_sparse_csr(), x[part], reconstruction[part])
    for own, other in ((0, 1), (1, 0), (2, 0)):
        nu_r, nu_e = latent_scaling(sums, own, other)
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
    sums.add(0, f.to_sparse_csr(), x, reconstruction)
    for ratio in latent_scaling(sums, 0, 1):
        assert (ratio.value == 1).all()


def test_jackknife_interval_covers() -> None:
    """Nominal 95 % intervals on ν^ε cover 93-97 % of the truth; latents fire in 30+ documents."""
    rng = np.random.default_rng(2)
    documents, tokens, groups, latents = 200, 5, 50, 400
    share = 0.4  # the other model holds 0.4 of the latent
    direction = torch.zeros(latents, 2, 2)
    direction[:, 0, 0] = 1.0
    direction[:, 1, 0] = share
    sums = ScalingSums(direction, groups)
    active = rng.random((documents, latents)) < 0.3
    strength = rng.gamma(2.0, 1.0, (documents, latents))
    for group in range(groups):
        chosen = np.flatnonzero(np.arange(documents) * groups // documents == group)
        f = np.repeat((active * strength)[chosen], tokens, axis=0)
        # each latent's own error, correlated within a document, is the same for all coordinates
        for j in range(latents):
            noise = np.repeat(rng.normal(0, 0.5, (len(chosen), 2)), tokens, axis=0)
            noise += rng.normal(0, 0.5, noise.shape)
            x = np.zeros((len(f), 2, 2), dtype=np.float32)
            x[:, 0, 0], x[:, 1, 0] = noise[:, 0], noise[:, 1]
            one = np.zeros_like(f, dtype=np.float32)
            one[:, j] = f[:, j]
            sums.add(
                group,
                torch.from_numpy(one).to_sparse_csr(),
                torch.from_numpy(x),
                torch.zeros(len(f), 2, 2),
            )
    _, nu_e = latent_scaling(sums, 0, 1)
    from scipy import stats

    half = stats.t.ppf(0.975, nu_e.freedom) * nu_e.error
    covered = np.abs(nu_e.value - share) <= half
    assert 0.92 <= covered.mean() <= 0.975
