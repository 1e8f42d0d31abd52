"""Weigh documents of every label: how far are two models apart on them, and by what latents?

They are the documents whose likelihood is measured. Leaves a row for each that has a usable token
(``document_weights.py``), and the latents that carry the difference on each label's text
(``carriers.py``). One pass, O(non-zeros).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workflow_scripts.activations.controls import StoreInputs
from workflow_scripts.activations.store import ActivationStore
from workflow_scripts.common import cli, files
from workflow_scripts.common.device import Compute
from workflow_scripts.comparison.carriers import CarrierSums, carrier_table
from workflow_scripts.comparison.document_weights import (
    ComparedLatents,
    DocumentWeights,
    by_document,
    compared_latents,
)
from workflow_scripts.comparison.label_sample import sample_labels
from workflow_scripts.comparison.settings import LabelSample
from workflow_scripts.crosscoder.codes import Codes, encode
from workflow_scripts.crosscoder.model import Crosscoder
from workflow_scripts.dataset.answered_rows import answered_documents
from workflow_scripts.dataset.labels import read_labels
from workflow_scripts.latents.document_batches import document_groups
from workflow_scripts.latents.token_context import TokenContext, read_context

SPLIT = "score"
BATCH = 4096  # tokens encoded at once


class Weighing:
    """Both tables in the making; ``models`` are the places of baseline and candidate."""

    def __init__(
        self, latents: ComparedLatents, models: tuple[int, int], labels: pd.DataFrame
    ) -> None:
        self.latents = latents
        self.weights = DocumentWeights(latents, models)
        self.carriers = CarrierSums(labels, len(latents.apart))

    def add(
        self,
        context: TokenContext,
        rows: Int[np.ndarray, " B"],
        x: Float[Tensor, "B M D"],
        f: Codes,
    ) -> None:
        """Add whole documents: global tokens, their activations, and latents (on the CPU)."""
        starts = np.flatnonzero(np.diff(context.document[rows], prepend=-1))
        codes = by_document(context.document[rows], starts, f)
        self.weights.add(x, starts, codes)
        self.carriers.add(codes)

    def tables(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the tables of documents and of carriers."""
        return self.weights.table(), carrier_table(self.carriers, self.latents)


def weigh(
    store: ActivationStore,
    crosscoder: Crosscoder,
    context: TokenContext,
    latents: ComparedLatents,
    models: tuple[str, str],
    labels: pd.DataFrame,
    batch: int = BATCH,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the tables of labelled documents and of carriers for (baseline, candidate).

    Both are empty where no document has a usable token.
    """
    before, after = (crosscoder.models.index(model) for model in models)
    weighing = Weighing(latents, (before, after), labels)
    documents = np.unique(labels["document"].to_numpy(np.int64))
    for _, rows, array in document_groups(store, SPLIT, context, 1, batch, documents):
        x = array.to(crosscoder.mean.device)
        weighing.add(context, rows, x, encode(crosscoder, x).to("cpu"))
    return weighing.tables()


@torch.no_grad()
def weigh_documents(
    inputs: StoreInputs,
    crosscoder: Path,
    latents: Path,
    selection: Path,
    baseline: str,
    candidate: str,
    tokens: list[Path],
    labels: list[Path],
    sample: LabelSample,
    seed: int,
    compute: Compute,
    documents: Path,
    carriers: Path,
) -> None:
    """Write how far two models are apart on each document, and which latents carry it.

    Parameters
    ----------
    crosscoder
        folder of the crosscoder
    latents
        scores of its latents
    selection
        which of them are unique
    baseline
        model before
    candidate
        model after
    tokens
        token shards, in order
    labels
        tables of labels of the documents
    seed
        seed of the choice of documents
    documents
        table to write, a row per document (Parquet)
    carriers
        table to write, the latents that carry each label's difference (Parquet)
    """
    device, models = compute.start(), (baseline, candidate)
    fitted, context = Crosscoder.load(crosscoder).to(device), read_context(tokens)
    pair = compared_latents(
        fitted, files.read_parquet(latents), files.read_parquet(selection), *models
    )
    answered = answered_documents(tokens, SPLIT)
    sampled = sample_labels(read_labels(labels), answered, sample.documents_per_label, seed)
    weighed, carrying = weigh(inputs.open(), fitted, context, pair, models, sampled)
    files.write_parquet(documents, weighed)
    files.write_parquet(carriers, carrying)


main = cli.command(weigh_documents)


if __name__ == "__main__":
    raise SystemExit(main())
