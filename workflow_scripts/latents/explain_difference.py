"""How much of two models' difference do the crosscoder and baselines explain? ``difference/*.csv``.

All in one frame: Δ = x^b − x^a in normalised space, on held-out tokens, against

``pca``
    the first n principal components of Δ on the calibration split;
``sae``
    a sparse autoencoder fitted on Δ as the crosscoder was on x, with its k;
``crosscoder``
    x̂^b − x̂^a; ``unique``, ``shared``: what the latents unique to either model, and the others,
    add to that.

explained = 1 − Σ‖Δ − Δ̂‖² / Σ‖Δ − mean‖², around the calibration split's mean, which is the
Δ̂ of no component.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from workflow_scripts.activations.controls import StoreInputs
from workflow_scripts.activations.difference import DifferenceStore, moments
from workflow_scripts.activations.store import ActivationStore
from workflow_scripts.common import cli, files
from workflow_scripts.common.device import Compute
from workflow_scripts.common.tables import write_csv
from workflow_scripts.crosscoder.codes import decode, encode
from workflow_scripts.crosscoder.model import Crosscoder
from workflow_scripts.latents.token_context import TokenContext, read_context

SPLIT = "score"
BATCH = 4096  # tokens read at a time
ALL = "all"
COLUMNS = ("baseline", "candidate", "method", "size", "group", "tokens", "mean_square", "explained")
"""``size``: directions in use per token. ``group``: ``all``, or the tokens of a true category.

``mean_square``: of Δ, per coordinate, over that of all tokens: how far the models are apart there.
"""


@dataclass
class Sums:
    """Squares of residuals by method and group, float64 sums; the last group: no category."""

    groups: int
    residual: dict[str, Float64[Tensor, "groups ..."]] = field(default_factory=dict)
    active: dict[str, int] = field(default_factory=dict)
    square: Float64[Tensor, " groups"] = field(init=False)
    spread: Float64[Tensor, " groups"] = field(init=False)
    tokens: Int[Tensor, " groups"] = field(init=False)

    def __post_init__(self) -> None:
        self.square, self.spread = (torch.zeros(self.groups, dtype=torch.float64) for _ in "ab")
        self.tokens = torch.zeros(self.groups, dtype=torch.int64)

    def by_group(
        self, values: Float[Tensor, "B ..."], group: Int[Tensor, " B"]
    ) -> Float64[Tensor, "groups ..."]:
        """Return sums of values by group."""
        sums = torch.zeros((self.groups, *values.shape[1:]), dtype=torch.float64)
        return sums.index_add_(0, group, values.double().cpu())

    def add(
        self,
        name: str,
        left: Float[Tensor, "B ..."],
        group: Int[Tensor, " B"],
        active: Float[Tensor, " K"],
    ) -> None:
        """Add what a method leaves, by size if it has several, and the activations that it uses."""
        sums = self.by_group(left, group)
        self.residual[name] = self.residual[name] + sums if name in self.residual else sums
        self.active[name] = self.active.get(name, 0) + active.numel()


def sizes(k: int, width: int) -> list[int]:
    """Return the numbers of components to report: powers of two up to D, and k."""
    powers = [2**i for i in range(width.bit_length()) if 2**i <= width]
    return sorted({*powers, min(k, width), width})


def components(covariance: Float64[np.ndarray, "D D"]) -> Float[Tensor, "D D"]:
    """Return the principal components, the largest first, as columns in float32."""
    _, vectors = np.linalg.eigh(covariance)
    return torch.from_numpy(np.ascontiguousarray(vectors[:, ::-1])).float()


def squares(x: Float[Tensor, "B D"]) -> Float[Tensor, " B"]:
    """Return ‖x‖² of rows."""
    return x.square().sum(1)


@dataclass
class Methods:
    """What explains the difference of a pair."""

    pair: tuple[int, int]
    mean: Float[Tensor, " D"]
    basis: Float[Tensor, "D D"]
    sizes: list[int]
    sae: Crosscoder
    crosscoder: Crosscoder
    unique: Bool[Tensor, " F"]  # whether a latent is unique to either model
    directions: Float[Tensor, "F D"] = field(init=False)  # d^b − d^a
    bias: Float[Tensor, " D"] = field(init=False)

    def __post_init__(self) -> None:
        a, b = self.pair
        self.directions = self.crosscoder.w_dec[:, b] - self.crosscoder.w_dec[:, a]
        self.bias = self.crosscoder.b_dec[b] - self.crosscoder.b_dec[a]

    def add(self, x: Float[Tensor, "B M D"], group: Int[Tensor, " B"], sums: Sums) -> None:
        """Add normalised activations x of both models and the tokens' groups."""
        a, b = self.pair
        delta = x[:, b] - x[:, a]
        centred = delta - self.mean
        sums.square += sums.by_group(squares(delta), group)
        sums.spread += sums.by_group(squares(centred), group)
        sums.tokens += torch.bincount(group, minlength=sums.groups)
        explained = (centred @ self.basis).square().cumsum(1)[:, torch.tensor(self.sizes) - 1]
        sums.add("pca", squares(centred)[:, None] - explained, group, torch.zeros(0))
        codes = encode(self.sae, self.sae.normalize(delta[:, None]))
        guess = decode(self.sae, codes)[:, 0] * self.sae.scale[0] + self.sae.mean[0]
        sums.add("sae", squares(delta - guess), group, codes.values)
        f = encode(self.crosscoder, x)
        parts = {"crosscoder": f, "unique": f.of(self.unique), "shared": f.of(~self.unique)}
        for name, used in parts.items():
            left = squares(delta - used.times(self.directions, self.bias))
            sums.add(name, left, group, used.values)


def table(
    names: tuple[str, str], sums: Sums, methods: Methods, categories: Sequence[str]
) -> Iterator[dict[str, object]]:
    """Yield a row per method, size and group with tokens."""
    total = int(sums.tokens.sum())
    everything = float(sums.square.sum()) / total
    for name, residual in sums.residual.items():
        known = methods.sizes if name == "pca" else [sums.active[name] / total]
        left = residual if residual.ndim == 2 else residual[:, None]
        for column, size in enumerate(known):
            for group in (ALL, *categories):
                chosen = slice(None) if group == ALL else [categories.index(group)]
                tokens = int(sums.tokens[chosen].sum())
                if not tokens:
                    continue
                share = float(sums.square[chosen].sum()) / tokens / everything
                explained = 1 - float(left[chosen, column].sum() / sums.spread[chosen].sum())
                values = (*names, name, round(size, 3), group, tokens, share, explained)
                yield dict(zip(COLUMNS, values, strict=True))


def explained_shares(
    store: ActivationStore,
    difference: DifferenceStore,
    sae: Crosscoder,
    crosscoder: Crosscoder,
    unique: Int[np.ndarray, " unique"],
    context: TokenContext,
    split: str,
    batch: int,
    names: tuple[str, str],
) -> list[dict[str, object]]:
    """Return the table of a pair; ``unique`` are the latents of either model alone.

    Raises
    ------
    UserError
        If the split holds no usable token, or the models do not differ.
    """
    mean, covariance = moments(difference)
    device = crosscoder.mean.device
    mask = torch.zeros(crosscoder.latents, dtype=torch.bool)
    mask[torch.tensor(unique)] = True
    methods = Methods(
        difference.pair,
        torch.from_numpy(mean).float().to(device),
        components(covariance).to(device),
        sizes(crosscoder.k, store.width),
        sae,
        crosscoder,
        mask.to(device),
    )
    sums = Sums(len(context.categories) + 1)
    for rows, x in store.contiguous(split, batch):
        group = torch.from_numpy(context.category[rows].astype(np.int64))
        methods.add(torch.from_numpy(x).to(device), group % sums.groups, sums)
    if not int(sums.tokens.sum()):
        raise cli.UserError(f"the {split} split holds no usable token: raise text.tokens")
    return list(table(names, sums, methods, context.categories))


def unique_latents(selection: pd.DataFrame, pair: Sequence[str]) -> Int[np.ndarray, " unique"]:
    """Return the latents that are unique to either model of a pair against the other."""
    a, b = pair
    unique = selection[f"unique_{a}_vs_{b}"] | selection[f"unique_{b}_vs_{a}"]
    return selection.loc[unique, "latent"].to_numpy(dtype=np.int64)


@torch.no_grad()
def explain_difference(
    inputs: StoreInputs,
    sae: Path,
    crosscoder: Path,
    selection: Path,
    tokens: list[Path],
    compute: Compute,
    output: Path,
) -> None:
    """Write how much of two models' difference baselines and crosscoder explain.

    Parameters
    ----------
    sae
        folder of the sparse autoencoder that was fitted on the difference
    crosscoder
        folder of the crosscoder
    selection
        which latents are unique (Parquet)
    tokens
        token shards, in order
    output
        table to write, a row per method, size and group (CSV)

    Raises
    ------
    UserError
        If no difference is named.
    """
    if inputs.difference is None:
        raise cli.UserError("--difference names no pair of models: give two")
    device = compute.start()
    difference = inputs.open()
    assert isinstance(difference, DifferenceStore)
    rows = explained_shares(
        inputs.model_copy(update={"difference": None}).open(),
        difference,
        Crosscoder.load(sae).to(device),
        Crosscoder.load(crosscoder).to(device),
        unique_latents(files.read_parquet(selection), inputs.difference),
        read_context(tokens),
        SPLIT,
        BATCH,
        inputs.difference,
    )
    write_csv(output, rows, COLUMNS)


main = cli.command(explain_difference)


if __name__ == "__main__":
    raise SystemExit(main())
