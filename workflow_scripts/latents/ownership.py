"""To which model a latent belongs: the column ``unique_to``, and Δnorm towards a model.

``unique_to`` names the model against which all others fail. Two models may each hold a latent in a
direction that the other lacks; then both are named, joined by ``+``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float64

JOIN = "+"


def owners(claims: pd.DataFrame, models: Sequence[str]) -> pd.Series[str]:
    """Return ``unique_to`` of rows with a boolean column ``unique_<own>_vs_<other>`` per pair."""
    names = pd.Series("", index=claims.index, dtype=str)
    for own in models:
        against = [claims[f"unique_{own}_vs_{other}"] for other in models if other != own]
        owned = np.logical_and.reduce([claim.to_numpy(dtype=bool) for claim in against])
        names = names.where(~owned, names + np.where(names == "", "", JOIN) + own)
    return names


def owned_by(unique_to: pd.Series[str], model: str) -> pd.Series[bool]:
    """Return which rows of ``unique_to`` name ``model``, alone or beside others."""
    owned: pd.Series[bool] = (JOIN + unique_to + JOIN).str.contains(
        JOIN + model + JOIN, regex=False
    )
    return owned


def own_norm_share(
    latents: pd.DataFrame, own: str, other: str, models: Sequence[str]
) -> Float64[np.ndarray, " latents"]:
    """Return Δnorm turned so that 1 = only ``own`` and 0 = only ``other``."""
    first, second = sorted((own, other), key=list(models).index)
    delta: Float64[np.ndarray, " latents"] = latents[f"delta_norm_{first}_{second}"].to_numpy()
    return delta if own == second else 1 - delta


def is_unique(claims: pd.DataFrame, model: str, other: str | None) -> pd.Series[bool]:
    """Return which latents are unique to ``model``: against ``other``, or against all others."""
    if other is None:
        return owned_by(claims["unique_to"], model)
    return claims[f"unique_{model}_vs_{other}"].astype(bool)
