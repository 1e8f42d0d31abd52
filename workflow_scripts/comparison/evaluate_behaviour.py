"""Measure how well each model predicts the text of each category: ``behaviour.csv``.

Per document of the score split, the mean negative log-likelihood (nats) of its answer tokens, the
assistant's turns without template tokens; of plain text all tokens. Per model and category, the
mean over documents with its standard error.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from workflow_scripts.activations.settings import Batches, Precision
from workflow_scripts.common import cli
from workflow_scripts.common.device import Compute
from workflow_scripts.common.tables import write_csv
from workflow_scripts.comparison.behaviour import COLUMNS
from workflow_scripts.comparison.settings import BehaviourSample
from workflow_scripts.dataset.answer_tokens import Document, pad, read_documents
from workflow_scripts.dataset.answer_tokens import batches as batched
from workflow_scripts.models.likelihood import token_losses
from workflow_scripts.models.loading import load_model

SPLIT = "score"


@torch.no_grad()
def document_losses(
    model: torch.nn.Module, documents: Sequence[Document], tokens: int, device: torch.device
) -> NDArray[np.float64]:
    """Return each document's mean negative log-likelihood per answer token, in nats."""
    losses = []
    for batch in cli.progress(list(batched(documents, tokens)), desc="behaviour"):
        ids, mask, answer = (x.to(device) for x in pad(batch))
        kept = answer[:, 1:]
        loss = token_losses(model, ids, mask, answer)
        sums = torch.zeros(len(batch), dtype=torch.float64, device=device)
        sums.index_add_(0, kept.nonzero()[:, 0], loss.double())
        losses.append((sums / kept.sum(1)).cpu().numpy())
    return np.concatenate(losses) if losses else np.zeros(0)


def summarise(
    name: str, documents: Sequence[Document], losses: NDArray[np.float64]
) -> Iterator[dict[str, object]]:
    """Yield a row per category of one model."""
    categories = np.array([str(document.category) for document in documents])
    tokens = np.array([int(document.answer.sum()) for document in documents])
    for category in sorted(set(categories.tolist())):
        chosen = categories == category
        count = int(chosen.sum())
        error = losses[chosen].std(ddof=1) / math.sqrt(count) if count > 1 else math.nan
        yield {
            "model": name,
            "category": category,
            "documents": count,
            "tokens": int(tokens[chosen].sum()),
            "nll": f"{losses[chosen].mean():.6g}",
            "nll_se": "n/a" if math.isnan(error) else f"{error:.6g}",
        }


def evaluate_behaviour(
    models: dict[str, Path],
    tokens: list[Path],
    sample: BehaviourSample,
    precision: Precision,
    batches: Batches,
    compute: Compute,
    output: Path,
) -> None:
    """Write how well each model predicts each category's text; unknown text gives no row.

    Parameters
    ----------
    models
        manifest of each model
    tokens
        token shards, in order
    output
        table to write, a row per model and category (CSV)
    """
    device = compute.start()
    limit = sample.behaviour_documents
    documents = [d for d in read_documents(tokens, SPLIT, limit) if d.category is not None]
    rows: list[dict[str, object]] = []
    for name, manifest in models.items() if documents else ():
        model = load_model(manifest, getattr(torch, precision.compute_dtype), device)
        losses = document_losses(model, documents, batches.batch_tokens, device)
        rows += summarise(name, documents, losses)
        del model
    write_csv(output, rows, COLUMNS)


main = cli.command(evaluate_behaviour)


if __name__ == "__main__":
    raise SystemExit(main())
