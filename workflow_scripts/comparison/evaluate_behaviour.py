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
from workflow_scripts.dataset.answer_tokens import Document, pad, read_numbered
from workflow_scripts.dataset.answer_tokens import batches as batched
from workflow_scripts.dataset.answered_rows import answered_documents
from workflow_scripts.dataset.labels import read_labels
from workflow_scripts.models.likelihood import token_losses
from workflow_scripts.models.loading import load_model

SPLIT = "score"


@torch.no_grad()
def row_losses(
    model: torch.nn.Module, documents: Sequence[Document], tokens: int, device: torch.device
) -> list[NDArray[np.float32]]:
    """Return −log p of the answer tokens of each row, in nats."""
    losses: list[NDArray[np.float32]] = []
    for batch in cli.progress(list(batched(documents, tokens)), desc="behaviour"):
        ids, mask, answer = (x.to(device) for x in pad(batch))
        counts = answer[:, 1:].sum(1).tolist()
        losses += [x.numpy() for x in token_losses(model, ids, mask, answer).cpu().split(counts)]
    return losses


def by_number(
    documents: Sequence[Document], losses: Sequence[NDArray[np.float32]]
) -> dict[int, NDArray[np.float32]]:
    """Return the losses of each document, those of its rows joined, in order of its number."""
    joined: dict[int, list[NDArray[np.float32]]] = {}
    for document, of_row in zip(documents, losses, strict=True):
        joined.setdefault(document.number, []).append(of_row)
    return {number: np.concatenate(rows) for number, rows in sorted(joined.items())}


def evaluate_behaviour(
    models: dict[str, Path],
    tokens: list[Path],
    labels: list[Path],
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
        tables of labels of the documents
    seed
        seed of the choice of documents
    output
        table to write, a row per document and model (Parquet)
    """
    device = compute.start()
    known, answered = read_labels(labels), answered_documents(tokens, SPLIT)
    chosen = draw(known, answered, sample.documents_per_label, seed)
    documents = read_numbered(tokens, SPLIT, chosen)
    parts = [pd.DataFrame(columns=list(COLUMNS)).astype({"document": "int64", "tokens": "int64"})]
    for name, manifest in models.items() if documents else ():
        model = load_model(manifest, getattr(torch, precision.compute_dtype), device)
        rows = row_losses(model, documents, batches.batch_tokens, device)
        losses = by_number(documents, rows)
        table = pd.DataFrame({"document": list(losses), "model": name})
        table["tokens"] = [len(of_document) for of_document in losses.values()]
        parts.append(table.assign(losses=pd.Series(list(losses.values()), dtype=object)))
        del model
    files.write_parquet(output, pd.concat(parts[1:] or parts, ignore_index=True)[list(COLUMNS)])


main = cli.command(evaluate_behaviour)


if __name__ == "__main__":
    raise SystemExit(main())
