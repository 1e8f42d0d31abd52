"""A known dictionary is recovered, and ν tells what belongs to one model where norms do not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.crosscoder import synthetic
from workflow_scripts.crosscoder.settings import Variant

STEPS = 1500


@pytest.fixture(scope="module")
def truth() -> synthetic.Truth:
    return synthetic.known_dictionary(features=64, width=32, seed=0)


@pytest.mark.parametrize("variant", ["batch_topk", "topk"])
def test_exclusive_features_are_told_from_the_others(
    truth: synthetic.Truth, variant: Variant
) -> None:
    crosscoder = synthetic.fitted(truth, variant, latents=96, k=5, steps=STEPS, seed=0)
    x = truth.activations(20_000, seed=77)
    found = synthetic.recovery(crosscoder, truth, x)
    assert found.auroc >= 0.95
    assert min(found.precision, found.recall) >= 0.9
    assert found.mean_cosine > 0.85
    active = (crosscoder.encode(torch.from_numpy(x)) > 0).sum(1).float().mean()
    assert float(active) == pytest.approx(5, rel=0.08)


def test_a_feature_three_times_as_strong_in_one_model_is_shared(truth: synthetic.Truth) -> None:
    crosscoder = synthetic.fitted(truth, "topk", latents=96, k=5, steps=STEPS, seed=0)
    scores = synthetic.scores_of(crosscoder, truth.activations(20_000, seed=77))
    latent, cosine = synthetic.matches(crosscoder, truth)
    mine = latent[(truth.kinds == "rescaled") & (cosine > synthetic.MATCHED)]
    assert len(mine) >= 4
    assert np.median(scores.delta_norm[mine]) > 0.8  # far from ½: the norms say «of b»
    assert np.median(scores.nu_e[mine, 1]) == pytest.approx(1 / 3, abs=0.05)  # ν: a third is in a


def test_l1_shrinks_latents_out_of_a_model_that_holds_them_and_nu_sees_it(
    truth: synthetic.Truth,
) -> None:
    """Complete shrinkage and decoupling [Minder et al. 2025]: norms call what ν rejects."""
    crosscoder = synthetic.fitted(truth, "l1", latents=96, k=5, steps=STEPS, seed=0, price=4.0)
    scores = synthetic.scores_of(crosscoder, truth.activations(20_000, seed=77))
    by_norm = scores.fires & ((scores.delta_norm < 0.1) | (scores.delta_norm > 0.9))
    by_nu = scores.fires & ((scores.nu_r < 0.5) & (scores.nu_e < 0.2)).any(1)
    assert by_norm.sum() >= 15
    assert (by_norm & ~by_nu).sum() >= 0.5 * by_norm.sum()
    latent, cosine = synthetic.matches(crosscoder, truth)
    rescaled = latent[(truth.kinds == "rescaled") & (cosine > synthetic.MATCHED)]
    assert len(rescaled) >= 4
    shrunk = rescaled[scores.delta_norm[rescaled] > 0.9]
    assert len(shrunk) >= 2
    assert (scores.nu_e[shrunk, 1] > 0.2).all()
