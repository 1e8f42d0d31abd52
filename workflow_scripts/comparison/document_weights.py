"""How far two models are apart on each document, and which part latents of one of them alone hold.

With x^b, x^c the normalised activations of baseline and candidate at a document's tokens t, f the
latent activations, and d^b, d^c the latents' decoder directions::

    difference = Σ_t ‖x_t^c − x_t^b‖²        energy = ½ Σ_t (‖x_t^b‖² + ‖x_t^c‖²)
    signed     = Σ_t (‖x_t^c‖² − ‖x_t^b‖²)
    A = Σ_t Σ_{j unique to b} f_tj² ‖d_j^b‖²    B likewise for c
    T = ½ Σ_t Σ_j f_tj² (‖d_j^b‖² + ‖d_j^c‖²)
    delta_norm = Σ_t Σ_j f_tj Δnorm_j / Σ_t Σ_j f_tj, Δnorm turned towards the candidate

Shapes: B tokens, M models, D width, F latents, N documents.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Float64, Int
from scipy import sparse
from torch import Tensor

from workflow_scripts.crosscoder.codes import Codes
from workflow_scripts.crosscoder.model import Crosscoder
from workflow_scripts.latents.ownership import is_unique, own_norm_share

COLUMNS = (
    "document",
    "tokens",
    "difference",
    "energy",
    "signed",
    "unique_baseline",
    "unique_candidate",
    "total",
    "delta_norm",
)
"""Columns of the table of documents; ``COLUMNS.md`` says what each means."""
CHUNK = 4096  # latents whose directions are subtracted at once


@dataclass(frozen=True)
class ComparedLatents:
    """The latents of a crosscoder as a pair of its models has them, [F] each."""

    baseline: Float64[np.ndarray, " F"]
    """‖d^b‖²"""
    candidate: Float64[np.ndarray, " F"]
    """‖d^c‖²"""
    apart: Float64[np.ndarray, " F"]
    """‖d^c − d^b‖²"""
    unique_baseline: Bool[np.ndarray, " F"]
    unique_candidate: Bool[np.ndarray, " F"]
    delta_norm: Float64[np.ndarray, " F"]
    """Towards the candidate; NaN where both directions are zero."""


def compared_latents(
    crosscoder: Crosscoder,
    latents: pd.DataFrame,
    selection: pd.DataFrame,
    baseline: str,
    candidate: str,
) -> ComparedLatents:
    """Return the latents of a crosscoder as two of its models have them.

    ``latents`` are their scores, ``selection`` says which of the live ones are unique.
    """
    models = crosscoder.models
    before, after = models.index(baseline), models.index(candidate)

    def squares(directions: Float[Tensor, "F M D"]) -> Float64[np.ndarray, " F"]:
        parts = (part.double().square().sum(1).cpu() for part in directions.split(CHUNK))
        return torch.cat(list(parts)).numpy()

    def unique(own: str, other: str) -> Bool[np.ndarray, " F"]:
        mask = np.zeros(crosscoder.latents, dtype=np.bool_)
        mask[selection.loc[is_unique(selection, own, other), "latent"].to_numpy()] = True
        return mask

    d = crosscoder.w_dec
    return ComparedLatents(
        baseline=squares(d[:, before]),
        candidate=squares(d[:, after]),
        apart=squares(d[:, after] - d[:, before]),
        unique_baseline=unique(baseline, candidate),
        unique_candidate=unique(candidate, baseline),
        delta_norm=own_norm_share(latents, candidate, baseline, models),
    )


@dataclass(frozen=True)
class DocumentCodes:
    """Latent activations of whole documents: a row per document, an entry per token and latent.

    Entries of one document and latent are not added up: products do that.
    """

    documents: Int[np.ndarray, " N"]
    tokens: Int[np.ndarray, " N"]
    activation: sparse.csr_array
    square: sparse.csr_array


def by_document(
    documents: Int[np.ndarray, " B"], starts: Int[np.ndarray, " N"], f: Codes
) -> DocumentCodes:
    """Return the activations of tokens by document.

    ``documents`` are those of the tokens, which begin at ``starts``.
    """
    ends = np.append(starts[1:], len(documents))
    entries = np.append(0, np.cumsum(f.per_token().numpy()))
    bounds = np.append(entries[starts], entries[-1])
    values, latent = f.values.double().numpy(), f.active.columns.numpy()
    shape = (len(starts), f.shape[1])
    return DocumentCodes(
        documents[starts],
        ends - starts,
        sparse.csr_array((values, latent, bounds), shape=shape),
        sparse.csr_array((values**2, latent, bounds), shape=shape),
    )


@dataclass
class DocumentWeights:
    """Accumulates the table of documents, batch by batch."""

    latents: ComparedLatents
    models: tuple[int, int]
    """Places of baseline and candidate among the crosscoder's models."""
    parts: list[dict[str, np.ndarray]] = field(default_factory=list)

    def __post_init__(self) -> None:
        of = self.latents
        masses = (
            np.where(of.unique_baseline, of.baseline, 0.0),
            np.where(of.unique_candidate, of.candidate, 0.0),
            (of.baseline + of.candidate) / 2,
        )
        self._masses = np.stack(masses, axis=1)
        known = np.isfinite(of.delta_norm)
        self._norms = np.stack([np.where(known, of.delta_norm, 0.0), known], axis=1)

    def add(
        self, x: Float[Tensor, "B M D"], starts: Int[np.ndarray, " N"], codes: DocumentCodes
    ) -> None:
        """Add whole documents: tokens, where documents start among them, and latents."""
        before, after = (x[:, place] for place in self.models)
        squares = [y.square().sum(1) for y in (before, after, after - before)]
        b, c, apart = np.add.reduceat(torch.stack(squares).double().cpu().numpy(), starts, axis=1)
        unique_baseline, unique_candidate, total = (codes.square @ self._masses).T
        weighted, weight = (codes.activation @ self._norms).T
        with np.errstate(invalid="ignore"):
            delta_norm = weighted / weight
        columns = (
            codes.documents,
            codes.tokens,
            apart,
            (b + c) / 2,
            c - b,
            unique_baseline,
            unique_candidate,
            total,
            delta_norm,
        )
        self.parts.append(dict(zip(COLUMNS, columns, strict=True)))

    def table(self) -> pd.DataFrame:
        """Return a row per document, by number."""
        none = dict.fromkeys(COLUMNS, np.zeros(0))
        parts = [pd.DataFrame(part) for part in self.parts or [none]]
        whole = pd.concat(parts, ignore_index=True).astype(
            {"document": np.int64, "tokens": np.int64}
        )
        return whole.sort_values("document", ignore_index=True)
