"""Activations of two models from a dictionary that is known, and how well a fit recovers it.

Features are shared, in one model only, rescaled (three times as strong in the second), or rotated
(another direction in the second). Their frequencies follow a power law; one in four fires only
beside another, so that features are correlated; noise is added.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize, stats

from workflow_scripts.crosscoder.codes import decode, encode
from workflow_scripts.crosscoder.model import Crosscoder, initial_weights, inner_products
from workflow_scripts.crosscoder.settings import Training, Variant
from workflow_scripts.crosscoder.threshold import solve_threshold
from workflow_scripts.crosscoder.training import Trainer, fit
from workflow_scripts.latents.scaling import ScalingSums, latent_scaling

KINDS = ("shared", "only_a", "only_b", "rescaled", "rotated")
MATCHED = 0.9
GROUPS = 20


@dataclass(frozen=True)
class Truth:
    """A known dictionary: directions [J, 2, D], kind of each, how often it fires."""

    directions: NDArray[np.float64]
    kinds: NDArray[np.str_]
    rates: NDArray[np.float64]
    partner: NDArray[np.int64]
    scale: float = 1.0
    noise: float = 0.02

    def activations(self, tokens: int, seed: int) -> NDArray[np.float32]:
        """Return normalised activations [N, 2, D]."""
        rng = np.random.default_rng([seed, 1])
        fires = rng.random((tokens, len(self.rates))) < self.rates
        tied = self.partner >= 0
        fires[:, tied] &= fires[:, self.partner[tied]] | (rng.random((tokens, tied.sum())) < 0.3)
        f = fires * rng.gamma(4.0, 0.25, fires.shape)
        x = np.einsum("nj,jmd->nmd", f, self.directions)
        x += self.noise * rng.standard_normal(x.shape)
        scaled: NDArray[np.float32] = (x * self.scale).astype(np.float32)
        return scaled


def known_dictionary(features: int, width: int, seed: int) -> Truth:
    """Draw a dictionary in which 15 % of the features are exclusive to either model."""
    rng = np.random.default_rng(seed)
    kinds = rng.choice(KINDS, features, p=(0.55, 0.15, 0.15, 0.1, 0.05))
    directions = rng.standard_normal((features, 1, width)).repeat(2, axis=1)
    other = rng.standard_normal((features, width))
    directions[kinds == "rotated", 1] = other[kinds == "rotated"]
    directions /= np.linalg.norm(directions, axis=2, keepdims=True)
    directions[kinds == "only_a", 1] = 0.0
    directions[kinds == "only_b", 0] = 0.0
    directions[kinds == "rescaled", 1] *= 3.0
    rates = np.clip(0.25 * (1 + rng.permutation(features)) ** -0.6, 0.008, None)
    partner = np.where(rng.random(features) < 0.25, rng.integers(0, features, features), -1)
    rates = np.where(partner >= 0, np.maximum(rates, 0.05), rates)
    truth = Truth(directions, kinds, rates, partner)
    spread = truth.activations(2000, 99).std()
    return Truth(directions, kinds, rates, partner, float(1 / spread))


def fitted(
    truth: Truth, variant: Variant, latents: int, k: int, steps: int, seed: int, price: float = 0.0
) -> Crosscoder:
    """Fit a crosscoder of a variant to the truth's activations."""
    width = truth.directions.shape[2]
    settings = Training(
        k=k,
        tokens=512 * steps,
        batch=512,
        learning_rate=3e-3,
        decay_share=0.3,
        dead_tokens=30_000,
        auxk_weight=0.0 if variant == "l1" else 1 / 32,
        variant=variant,
        l1_price=price,
    )
    trainer = Trainer(initial_weights(latents, 2, width, seed, 0.1), settings)
    data = torch.from_numpy(truth.activations(100_000, seed))

    def batches() -> Iterator[torch.Tensor]:
        rng = np.random.default_rng([seed, 2])
        while True:
            yield data[torch.from_numpy(rng.integers(0, len(data), 512))]

    for _ in fit(trainer, batches()):
        pass
    threshold = 0.0
    if trainer.rule.solved:
        threshold = solve_threshold(trainer.weights, iter(data[:8192].split(1024)), k)
    return Crosscoder(
        ["a", "b"], trainer.weights, threshold, torch.zeros(2, width), torch.ones(2), k, {}
    )


@dataclass(frozen=True)
class Scores:
    """Scores of every latent, [F]: ν of either claim, Δnorm, and whether it fires at all."""

    nu_r: NDArray[np.float64]  # [F, 2], unique to a, unique to b
    nu_e: NDArray[np.float64]
    delta_norm: NDArray[np.float64]
    fires: NDArray[np.bool_]


def scores_of(crosscoder: Crosscoder, x: NDArray[np.float32]) -> Scores:
    """Score latents on held-out activations [N, 2, D], as the stage does."""
    sums = ScalingSums(crosscoder.w_dec, GROUPS)
    fired = torch.zeros(crosscoder.latents)
    for group, part in enumerate(np.array_split(x, GROUPS)):
        batch = torch.from_numpy(part)
        f = encode(crosscoder, batch)
        fired += f.per_latent()
        sums.add(group, f, batch, decode(crosscoder, f))
    products = inner_products(crosscoder.w_dec)
    claims = [latent_scaling(sums, products, own, 1 - own) for own in (0, 1)]
    norms = crosscoder.decoder_norms().numpy()
    delta = 0.5 * (1 + (norms[:, 1] - norms[:, 0]) / norms.max(1).clip(1e-12))
    return Scores(
        np.stack([nu_r.value for nu_r, _ in claims], 1),
        np.stack([nu_e.value for _, nu_e in claims], 1),
        delta,
        fired.numpy() >= 30,
    )


def matches(crosscoder: Crosscoder, truth: Truth) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return each feature's latent and their cosine, one to one, the sum of cosines largest."""
    d = crosscoder.weights.decoder.numpy().astype(np.float64)
    d = d / np.linalg.norm(d, axis=1, keepdims=True).clip(1e-12)
    t = truth.directions.reshape(len(truth.kinds), -1)
    cosine = (t / np.linalg.norm(t, axis=1, keepdims=True)) @ d.T
    feature, latent = optimize.linear_sum_assignment(-cosine)
    assert np.array_equal(feature, np.arange(len(t)))
    return latent, cosine[feature, latent]


@dataclass(frozen=True)
class Recovery:
    """What a fit recovers of the truth, and how well ν tells exclusive features."""

    mean_cosine: float
    matched: float
    auroc: float
    precision: float
    recall: float


def recovery(crosscoder: Crosscoder, truth: Truth, x: NDArray[np.float32]) -> Recovery:
    """Hold a fit against the truth; «exclusive» as latent scaling's thresholds say it.

    The uniqueness score of a latent is −max(ν^r, ν^ε) of its better claim; AUROC, precision and
    recall are over matched latents that fire.
    """
    latent, cosine = matches(crosscoder, truth)
    scores = scores_of(crosscoder, x)
    good: NDArray[np.bool_] = (cosine > MATCHED) & scores.fires[latent]
    ratio = np.maximum(scores.nu_r, scores.nu_e)
    weak = np.nanmin(np.where(np.isfinite(ratio), ratio, np.inf), axis=1)[latent]
    exclusive: NDArray[np.bool_] = np.isin(truth.kinds, ("only_a", "only_b"))
    inside: NDArray[np.bool_] = (scores.nu_r < 0.5) & (scores.nu_e < 0.2) & (ratio > -0.1)
    called = np.asarray(inside.any(axis=1))[latent]
    auroc = stats.mannwhitneyu(-weak[good & exclusive], -weak[good & ~exclusive]).statistic
    auroc /= (good & exclusive).sum() * (good & ~exclusive).sum()
    hits = (called & exclusive & good).sum()
    return Recovery(
        float(cosine.mean()),
        float((cosine > MATCHED).mean()),
        float(auroc),
        float(hits / max((called & good).sum(), 1)),
        float(hits / max((exclusive & good).sum(), 1)),
    )
