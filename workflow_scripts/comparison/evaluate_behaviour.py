"""Measure how well each model predicts documents of every label: ``losses.parquet``.

Per document of the score split, the negative log-likelihood (nats) of each of its answer tokens,
the assistant's turns without template tokens; of plain text all tokens. All models read the same
documents, so that they can be compared token by token.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from workflow_scripts.activations.settings import Batches, Precision
from workflow_scripts.common import cli, files
from workflow_scripts.common.device import Compute
from workflow_scripts.comparison.behaviour import COLUMNS
from workflow_scripts.comparison.label_sample import draw
from workflow_scripts.comparison.settings import LabelSample
from workflow_scripts.dataset.answer_tokens import (
    Document,
    answered_documents,
    pad,
    read_numbered,
)
from workflow_scripts.dataset.answer_tokens import batches as batched
from workflow_scripts.dataset.labels import read_labels
from workflow_scripts.models.likelihood import token_losses
from workflow_scripts.models.loading import load_model

SPLIT = "score"


@torch.no_grad()
def document_losses(
    model: torch.nn.Module, documents: Sequence[Document], tokens: int, device: torch.device
) -> list[NDArray[np.float32]]:
    """Return −log p of each document's answer tokens, in nats."""
    losses: list[NDArray[np.float32]] = []
    for batch in cli.progress(list(batched(documents, tokens)), desc="behaviour"):
        ids, mask, answer = (x.to(device) for x in pad(batch))
        counts = answer[:, 1:].sum(1).tolist()
        losses += [x.numpy() for x in token_losses(model, ids, mask, answer).cpu().split(counts)]
    return losses


def evaluate_behaviour(
    models: dict[str, Path],
    tokens: list[Path],
    labels: Path,
    sample: LabelSample,
    seed: int,
    precision: Precision,
    batches: Batches,
    compute: Compute,
    output: Path,
) -> None:
    """Write how well each model predicts labelled documents; text without a label gives no row.

    Parameters
    ----------
    models
        manifest of each model
    tokens
        token shards, in order
    labels
        labels of the documents
    seed
        seed of the choice of documents
    output
        table to write, a row per document and model (Parquet)
    """
    device = compute.start()
    known, answered = read_labels(labels), answered_documents(tokens, SPLIT)
    chosen = draw(known, answered, sample.documents_per_label, seed)
    documents = read_numbered(tokens, SPLIT, chosen)
    table = pd.DataFrame(
        {
            "document": np.array([document.number for document in documents], dtype=np.int64),
            "tokens": np.array([document.answer.sum() for document in documents], dtype=np.int64),
        }
    )
    parts = []
    for name, manifest in models.items() if documents else ():
        model = load_model(manifest, getattr(torch, precision.compute_dtype), device)
        losses = document_losses(model, documents, batches.batch_tokens, device)
        of_model = table.assign(model=name, losses=pd.Series(losses, dtype=object))
        parts.append(of_model.sort_values("document"))
        del model
    whole = pd.concat(parts, ignore_index=True) if parts else table.assign(model="", losses=None)
    files.write_parquet(output, whole[list(COLUMNS)])


main = cli.command(evaluate_behaviour)


if __name__ == "__main__":
    raise SystemExit(main())
