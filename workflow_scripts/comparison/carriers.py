"""Which latents carry the difference of two models on a label's text: by degree, unique or not.

A latent's part of the difference on a text is Σ_t f_tj² ‖d_j^c − d_j^b‖²: the square of what it
adds to the candidate's activations c and not to the baseline's b.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from jaxtyping import Int
from scipy import sparse

from workflow_scripts.comparison.document_weights import ComparedLatents, DocumentCodes

COLUMNS = ("labeller", "label", "latent", "part", "share", "own", "delta_norm", "rank")
"""Columns of the table of carriers; ``COLUMNS.md`` says what each means."""
SHOWN = 20
HELD = 1 << 22  # entries of documents that are held before they are added up


class CarrierSums:
    """Sums of squared activations by label and latent: float64, and sparse.

    Memory grows with the latents that fire on a label's text, not with labels × latents.
    """

    def __init__(self, labels: pd.DataFrame, latents: int) -> None:
        names = ["labeller", "label"]
        self.keys = labels[names].drop_duplicates().sort_values(names, ignore_index=True)
        numbered = labels.merge(self.keys.reset_index(names="key"), on=names)
        self._labels = numbered[["document", "key"]]
        self.tokens: Int[np.ndarray, " keys"] = np.zeros(len(self.keys), dtype=np.int64)
        self._squares = sparse.csr_array((len(self.keys), latents))
        self._held: list[DocumentCodes] = []

    def add(self, codes: DocumentCodes) -> None:
        """Add whole documents."""
        self._held.append(codes)
        if sum(held.square.nnz for held in self._held) >= HELD:
            self._add_up()

    def squares(self) -> sparse.csr_array:
        """Return Σ_t f_tj² by label, in the order of ``keys``, and latent."""
        self._add_up()
        return self._squares

    def _add_up(self) -> None:
        if not self._held:
            return
        documents = np.concatenate([held.documents for held in self._held])
        tokens = np.concatenate([held.tokens for held in self._held])
        places = pd.DataFrame({"document": documents, "place": np.arange(len(documents))})
        labelled = places.merge(self._labels, on="document")
        key, place = labelled["key"].to_numpy(), labelled["place"].to_numpy()
        np.add.at(self.tokens, key, tokens[place])
        shape = (len(self.keys), len(documents))
        of_label = sparse.csr_array((np.ones(len(key)), (key, place)), shape=shape)
        self._squares += of_label @ sparse.vstack([held.square for held in self._held])
        self._held = []


def carrier_table(sums: CarrierSums, latents: ComparedLatents) -> pd.DataFrame:
    """Return the latents that carry most of the difference on each label's text.

    Ranked by ``part · own``, where ``own`` is how much of the latent's part lies on this label's
    text: per token, among the labels of its labeller.
    """
    blocks = list(_blocks(sums, latents))
    return pd.concat(blocks, ignore_index=True) if blocks else pd.DataFrame(columns=list(COLUMNS))


def _blocks(sums: CarrierSums, latents: ComparedLatents) -> Iterator[pd.DataFrame]:
    """Yield the carriers of each label."""
    squares = sums.squares()
    for labeller, keys in sums.keys.groupby("labeller"):
        per_token = 1 / np.maximum(sums.tokens[keys.index], 1)
        total = (squares[keys.index].T @ per_token) * latents.apart
        for key, label, scale in zip(keys.index, keys["label"], per_token, strict=True):
            row = squares[[key]].sorted_indices()
            part = row.data * latents.apart[row.indices]
            latent, part = row.indices[part > 0], part[part > 0]
            own = part * scale / total[latent]
            top = np.argsort(-part * own, kind="stable")[:SHOWN]
            columns = {
                "labeller": str(labeller),
                "label": str(label),
                "latent": latent[top].astype(np.int64),
                "part": part[top],
                "share": part[top] / part.sum(),
                "own": own[top],
                "delta_norm": latents.delta_norm[latent[top]],
                "rank": np.arange(1, len(top) + 1),
            }
            yield pd.DataFrame(columns, columns=list(COLUMNS))
