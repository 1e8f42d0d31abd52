"""A crosscoder in other layouts: weights for raw activations, ``dictionary_learning``, SAELens.

Shapes: M models, D width of the residual stream, F latents. With x^m = (h^m − μ^m)/σ^m folded in,
the same latents read raw activations h::

    W'^m = W^m/σ^m     b' = b − Σ_m W^m μ^m/σ^m     d'^m = σ^m d^m     b'_dec^m = σ^m b_dec^m + μ^m

Tensors are float32, computed in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workflow_scripts.crosscoder.import_crosscoder import NOTHING, SUM_OF_NORMS
from workflow_scripts.crosscoder.model import Crosscoder, Weights

NEVER = torch.finfo(torch.float32).max
"""Threshold of a latent that never fires."""


def folded(crosscoder: Crosscoder) -> Crosscoder:
    """Return the crosscoder of raw activations: mean 0 and scale 1, the same scores."""
    models, width = len(crosscoder.models), crosscoder.width
    mean, scale = crosscoder.mean.double(), crosscoder.scale.double()
    encoder = crosscoder.weights.encoder.view(-1, models, width).double() / scale[:, None]
    decoder = crosscoder.w_dec.double() * scale[:, None]
    weights = Weights(
        encoder.flatten(1).float(),
        (crosscoder.weights.encoder_bias - torch.einsum("fmd,md->f", encoder, mean)).float(),
        decoder.flatten(1).float(),
        (crosscoder.b_dec * scale[:, None] + mean).flatten().float(),
        models,
    )
    scores = crosscoder.score_scales().double()
    norms = torch.linalg.vector_norm(decoder, dim=2).sum(1)
    return Crosscoder(
        models=crosscoder.models,
        weights=weights,
        threshold=crosscoder.threshold,
        mean=torch.zeros_like(crosscoder.mean),
        scale=torch.ones_like(crosscoder.scale),
        k=crosscoder.k,
        settings=crosscoder.settings | {"normalizer": "folded into the weights"},
        costs=torch.where(scores > 0, norms / scores, 1.0).float(),
    )


def dictionary_learning(
    crosscoder: Crosscoder, statistics: tuple[Tensor, Tensor] | None
) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Return tensors and config of the layout of ``import_crosscoder``.

    ``statistics`` are the means [M, D] and scales [M] of the activations in float64, as the fit
    reads them; without, the crosscoder is one of raw activations. Where latents have costs, which
    the layout does not know, each latent is scaled so that its activation is its score.
    """
    models, width, latents = len(crosscoder.models), crosscoder.width, crosscoder.latents
    encoder = crosscoder.weights.encoder.view(latents, models, width)
    bias, decoder = crosscoder.weights.encoder_bias, crosscoder.w_dec
    if crosscoder.costs is not None:
        scales = crosscoder.score_scales()
        encoder, bias = encoder * scales[:, None, None], bias * scales
        decoder = decoder / torch.where(scales > 0, scales, 1.0)[:, None, None]
    normalization = SUM_OF_NORMS if crosscoder.costs is None else NOTHING
    if statistics is None:  # by NaN, the layout says that it normalises nothing
        mean, scale = torch.full((models, width), torch.nan), torch.ones(models)
    else:
        mean, scale = statistics
    deviation = (scale / width**0.5)[:, None] + 0 * mean
    tensors = {
        "encoder.weight": encoder.permute(1, 2, 0),
        "encoder.bias": bias,
        "decoder.weight": decoder.permute(1, 0, 2),
        "decoder.bias": crosscoder.b_dec,
        "code_normalization_id": torch.tensor(normalization),
        "target_rms": torch.tensor(1.0),
        "activation_mean": mean,
        "activation_std": deviation,
        "activation_global_scale": 1 / scale,
    }
    config: dict[str, object] = {
        "activation_dim": width,
        "dict_size": latents,
        "num_layers": models,
        "code_normalization": {SUM_OF_NORMS: "CROSSCODER", NOTHING: "NONE"}[normalization],
    }
    if crosscoder.variant != "l1":
        tensors["k"] = torch.tensor(crosscoder.k, dtype=torch.int32)
        tensors["threshold"] = torch.tensor(crosscoder.threshold, dtype=torch.float64)
        config["k"] = crosscoder.k
    return {name: tensor.contiguous() for name, tensor in tensors.items()}, config


def sae_of_model(crosscoder: Crosscoder, model: int) -> dict[str, Tensor]:
    """Return the tensors of one model's view as SAELens names them, for its raw activations.

    The crosscoder reads all models at once. The view takes the others to be at their mean, which is
    0 where they are normalised, so that its own encoder alone is left.
    """
    models, width = len(crosscoder.models), crosscoder.width
    mean, scale = crosscoder.mean[model].double(), float(crosscoder.scale[model])
    encoder = crosscoder.weights.encoder.view(-1, models, width)[:, model].double() / scale
    scales = crosscoder.score_scales().double()
    threshold = torch.where(scales > 0, crosscoder.threshold / scales, NEVER)
    tensors = {
        "W_enc": encoder.T,
        "b_enc": crosscoder.weights.encoder_bias - encoder @ mean,
        "W_dec": crosscoder.w_dec[:, model].double() * scale,
        "b_dec": crosscoder.b_dec[model].double() * scale + mean,
        "threshold": threshold.clamp(max=NEVER),
    }
    return {name: tensor.float().contiguous() for name, tensor in tensors.items()}
