"""Score every latent of a crosscoder on held-out documents, in one pass.

Leaves one Parquet row per latent; ``COLUMNS.md`` beside this file states every column.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float64, Int, Integer, Shaped
from scipy import stats
from torch import Tensor

from workflow_scripts.activations.controls import StoreInputs
from workflow_scripts.activations.store import ActivationStore
from workflow_scripts.common import cli, files
from workflow_scripts.common.device import Compute
from workflow_scripts.crosscoder.codes import Codes, decode, encode
from workflow_scripts.crosscoder.model import Crosscoder, inner_products
from workflow_scripts.dataset.documents import read_sources
from workflow_scripts.dataset.shards import ROLES
from workflow_scripts.latents.document_batches import document_groups
from workflow_scripts.latents.scaling import Ratio, ScalingSums, latent_scaling
from workflow_scripts.latents.settings import Scoring
from workflow_scripts.latents.token_context import TokenContext, read_context

POSITION_STARTS = (9, 65)
POSITIONS = ("1_8", "9_64", "65_up")


@dataclass(frozen=True)
class Factor:
    """A property of tokens by which a latent's activation mass is shared out."""

    name: str
    labels: Sequence[str]
    codes: Callable[[Int[np.ndarray, " B"]], Integer[np.ndarray, " B"]]
    """Of global tokens, their places in ``labels``."""


def token_factors(context: TokenContext, sources: Mapping[int, str] | None) -> list[Factor]:
    """Return role, position and, where the documents' sources are known, source."""
    factors = [
        Factor("role", ROLES, lambda rows: context.role[rows]),
        Factor(
            "position", POSITIONS, lambda rows: np.digitize(context.position[rows], POSITION_STARTS)
        ),
    ]
    if sources:
        names = sorted(set(sources.values()))
        source = np.zeros(max(sources) + 1, dtype=np.int64)
        source[list(sources)] = [names.index(name) for name in sources.values()]
        factors.append(Factor("source", names, lambda rows: source[context.document[rows]]))
    return factors


class ActivationSums:
    """Activation statistics per latent, float64 sums; C categories and one for template tokens."""

    def __init__(self, latents: int, categories: int, factors: Sequence[Factor]) -> None:
        self.fired = torch.zeros(latents, dtype=torch.int64)
        self.documents = torch.zeros(latents, dtype=torch.int64)
        self.mass = torch.zeros(latents, dtype=torch.float64)
        self.maximum = torch.zeros(latents)
        self.category_mass = torch.zeros((latents, categories + 1), dtype=torch.float64)
        self.category_tokens = torch.zeros(categories + 1, dtype=torch.int64)
        self.factors = [
            (factor, torch.zeros((latents, len(factor.labels)), dtype=torch.float64))
            for factor in factors
        ]
        self.template_mass = torch.zeros(latents, dtype=torch.float64)
        self.rows = 0

    def add(self, rows: Int[np.ndarray, " B"], f: Codes, context: TokenContext) -> None:
        """Add a batch: global token indices and activations.

        A document lies within one batch, so that documents are counted once.
        """
        token, latent, values = f.active.rows, f.active.columns, f.values
        mass = values.double()
        self.rows += len(rows)
        self.fired += f.per_latent()
        self.mass.index_add_(0, latent, mass)
        self.maximum.scatter_reduce_(0, latent, values, "amax")
        document = torch.from_numpy(context.document[rows].astype(np.int64))
        several = int(document.max()) + 1
        pairs = np.sort((latent * several + document[token]).numpy())
        first = torch.from_numpy(pairs[np.diff(pairs, prepend=-1) > 0])
        self.documents += torch.bincount(first // several, minlength=len(self.fired))
        template = torch.from_numpy(context.template[rows])
        self.template_mass.index_add_(0, latent, mass * template[token])
        for factor, sums in self.factors:
            code = torch.from_numpy(factor.codes(rows).astype(np.int64))
            _add_by_code(sums, latent, code[token], mass)
        category = torch.from_numpy(context.category[rows].astype(np.int64))
        category[category < 0] = self.category_mass.shape[1] - 1
        _add_by_code(self.category_mass, latent, category[token], mass)
        self.category_tokens += torch.bincount(category, minlength=len(self.category_tokens))


def _add_by_code(
    sums: Float64[Tensor, "F C"],
    latent: Int[Tensor, " K"],
    code: Int[Tensor, " K"],
    mass: Float64[Tensor, " K"],
) -> None:
    """Add mass to ``sums`` at (latent, code)."""
    latents, codes = sums.shape
    by_code = torch.bincount(latent * codes + code, weights=mass, minlength=latents * codes)
    sums += by_code.view(latents, codes)


def latent_scores(
    store: ActivationStore,
    crosscoder: Crosscoder,
    context: TokenContext,
    rule: Scoring,
    split: str = "score",
    batch: int = 4096,
    sources: Mapping[int, str] | None = None,
) -> pd.DataFrame:
    """Return one row per latent, scored on ``split``; ``sources`` tells each document's.

    Raises
    ------
    UserError
        If the split holds no usable token.
    """
    scaling = ScalingSums(crosscoder.w_dec, rule.groups)
    factors = token_factors(context, sources)
    activity = ActivationSums(crosscoder.latents, len(context.categories), factors)
    for group, rows, array in document_groups(store, split, context, rule.groups, batch):
        x = array.to(crosscoder.mean.device)
        f = encode(crosscoder, x)
        scaling.add(group, f, x, decode(crosscoder, f))
        activity.add(rows, f.to("cpu"), context)
    if not activity.rows:
        raise cli.UserError(f"the {split} split holds no usable token: raise text.tokens")
    table = _activity_columns(activity, context.categories)
    products = inner_products(crosscoder.w_dec)
    for name, values in _decoder_columns(products, crosscoder.models).items():
        table[name] = values
    live = table["live"].to_numpy()
    documents = table["documents"].to_numpy()
    for own, other in permutations(range(len(crosscoder.models)), 2):
        pair = f"{crosscoder.models[own]}_vs_{crosscoder.models[other]}"
        ratios = latent_scaling(scaling, products, own, other)
        for name, column in _claim_columns(*ratios, live, documents, rule).items():
            table[f"{name}_{pair}" if not name.endswith("_se") else f"{name[:-3]}_{pair}_se"] = (
                column
            )
    return table


def _activity_columns(activity: ActivationSums, categories: list[str]) -> pd.DataFrame:
    fired = activity.fired.numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        table = pd.DataFrame(
            {
                "latent": np.arange(len(fired)),
                "live": fired > 0,
                "firing_rate": fired / activity.rows,
                "documents": activity.documents.numpy(),
                "activation_mean": activity.mass.numpy() / fired,
                "activation_max": activity.maximum.numpy().astype(np.float64),
                "template_share": (activity.template_mass / activity.mass).numpy(),
            }
        )
        for factor, sums in activity.factors:
            for label, mass in zip(factor.labels, sums.T, strict=True):
                table[f"{factor.name}_share_{label}"] = (mass / activity.mass).numpy()
    if categories:
        names, shares = true_categories(
            activity.category_mass.numpy(), activity.category_tokens.numpy(), categories
        )
        table["true_category"], table["true_share"] = names, shares
    return table


def true_categories(
    mass: Float64[np.ndarray, "F C"], tokens: Int[np.ndarray, " C"], categories: Sequence[str]
) -> tuple[list[str], Float64[np.ndarray, " F"]]:
    """Return the true category of each latent, and its share of normalised activation mass.

    ``mass`` is activation mass per category (the last column: tokens of no category, as template
    tokens are), ``tokens`` the tokens of each. Mass is divided by the
    category's tokens; a latent has a category when one has at least half of the total, else
    ``none``.
    """
    density = mass / np.maximum(tokens, 1)
    total = density.sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = density / total[:, None]
    best = np.where(total > 0, np.argmax(density, axis=1), len(categories))
    top = np.where(total > 0, np.nan_to_num(share).max(1), 0.0)
    labels = [*categories, "none"]
    return [labels[b] if s >= 0.5 else "none" for b, s in zip(best, top, strict=True)], top


def _decoder_columns(
    products: Float64[np.ndarray, "F M M"], models: Sequence[str]
) -> dict[str, Float64[np.ndarray, " F"]]:
    """Return decoder norms per model; Δnorm and cosine per pair of models [Minder et al. 2025].

    Δnorm = ½(1 + (‖d^b‖ − ‖d^a‖) / max(‖d^a‖, ‖d^b‖)): 0 = only a, ½ = shared, 1 = only b.
    """
    norms = np.sqrt(np.einsum("fmm->fm", products))
    columns = {f"decoder_norm_{m}": norms[:, i] for i, m in enumerate(models)}
    with np.errstate(divide="ignore", invalid="ignore"):
        for a, b in combinations(range(len(models)), 2):
            pair = f"{models[a]}_{models[b]}"
            larger = np.maximum(norms[:, a], norms[:, b])
            columns[f"delta_norm_{pair}"] = 0.5 * (1 + (norms[:, b] - norms[:, a]) / larger)
            columns[f"cosine_{pair}"] = products[:, a, b] / (norms[:, a] * norms[:, b])
    return columns


def _claim_columns(
    nu_r: Ratio,
    nu_e: Ratio,
    live: Bool[np.ndarray, " F"],
    documents: Int[np.ndarray, " F"],
    rule: Scoring,
) -> dict[str, Shaped[np.ndarray, " F"]]:
    """Return the columns of one claim «unique to own, not in other».

    The test is of H0 «ν^r ≥ bound or ν^ε ≥ bound»: p is the larger of the two one-sided jackknife
    p-values; q controls the false discovery rate over live latents (Benjamini-Hochberg).
    """
    status = np.full(len(live), "ok", dtype="<U16")
    median = np.nanmedian(nu_e.own[live]) if live.any() else np.nan
    median_r = np.nanmedian(nu_r.own[live]) if live.any() else np.nan
    weak = ~(nu_e.own > rule.min_beta * median) | ~(nu_r.own > rule.min_beta * median_r)
    flipped = (nu_r.value < rule.nu_lower) | (nu_e.value < rule.nu_lower)
    status[flipped] = "sign_flip"
    status[weak] = "undefined_beta"
    status[documents < rule.min_documents] = "few_documents"
    status[~live] = "dead"
    defined = np.isin(status, ["ok", "sign_flip"])
    p = np.maximum(nu_r.p_below(rule.nu_r), nu_e.p_below(rule.nu_e))
    p = np.where(defined & np.isfinite(p), p, np.nan)
    q = np.full(len(p), np.nan)
    tested = np.isfinite(p)
    if tested.any():
        q[tested] = stats.false_discovery_control(p[tested])
    return {
        "nu_r": np.where(defined, nu_r.value, np.nan),
        "nu_e": np.where(defined, nu_e.value, np.nan),
        "nu_r_se": np.where(defined, nu_r.error, np.nan),
        "nu_e_se": np.where(defined, nu_e.error, np.nan),
        "p": p,
        "q": q,
        "status": status,
    }


@torch.no_grad()
def score_latents(
    inputs: StoreInputs,
    tokens: list[Path],
    documents: list[Path],
    crosscoder: Path,
    rule: Scoring,
    compute: Compute,
    output: Path,
) -> None:
    """Write the scores of every latent.

    Parameters
    ----------
    tokens
        token shards, in order
    documents
        tables of the documents
    crosscoder
        folder of the crosscoder
    output
        table to write, a row per latent (Parquet)
    """
    device = compute.start()
    table = latent_scores(
        inputs.open(),
        Crosscoder.load(crosscoder).to(device),
        read_context(tokens),
        rule,
        sources=read_sources(documents),
    )
    files.write_parquet(output, table)


main = cli.command(score_latents)


if __name__ == "__main__":
    raise SystemExit(main())
