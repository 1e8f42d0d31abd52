"""Measure how models predict documents of every label: losses, and divergences of two.

Per document of the score split, the negative log-likelihood (nats) of each of its answer tokens,
the assistant's turns without template tokens, of plain text all tokens; and how far apart the two
predictions are. All models read the same documents, so that they can be compared token by token.
Two models are held at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from workflow_scripts.activations.settings import Batches, Precision
from workflow_scripts.common import cli, files
from workflow_scripts.common.device import Compute
from workflow_scripts.common.progress import track
from workflow_scripts.comparison.behaviour import DIVERGENCE_COLUMNS, LOSS_COLUMNS
from workflow_scripts.comparison.label_sample import sample_labels
from workflow_scripts.comparison.settings import LabelSample
from workflow_scripts.dataset.answer_tokens import Document, pad, read_numbered
from workflow_scripts.dataset.answer_tokens import batches as batched
from workflow_scripts.dataset.answered_rows import answered_documents
from workflow_scripts.dataset.labels import read_labels
from workflow_scripts.models.likelihood import compare, predict
from workflow_scripts.models.loading import load_model

SPLIT = "score"


class Readings(NamedTuple):
    """What two models make of a document's answer tokens, in nats: [tokens] each, float32."""

    baseline: NDArray[np.float32]
    """−log p"""
    candidate: NDArray[np.float32]
    """−log p"""
    divergence: NDArray[np.float32]
    """KL(candidate ‖ baseline) of the predicted distributions"""


@torch.no_grad()
def read_pair(
    baseline: nn.Module,
    candidate: nn.Module,
    documents: Sequence[Document],
    tokens: int,
    device: torch.device,
) -> dict[int, Readings]:
    """Return what two models make of each document, those of its rows joined, by its number."""
    joined: dict[int, list[NDArray[np.float32]]] = {}
    for batch in track(list(batched(documents, tokens)), "batches"):
        ids, mask, answer = (x.to(device) for x in pad(batch))
        counts = answer[:, 1:].sum(1).tolist()
        after, before = (predict(model, ids, mask, answer) for model in (candidate, baseline))
        losses, divergence = compare(after, [before])
        values = torch.cat([losses.flip(0), divergence]).cpu().split(counts, dim=1)
        for document, of_row in zip(batch, values, strict=True):
            joined.setdefault(document.number, []).append(of_row.numpy())
    return {
        number: Readings(*np.concatenate(rows, axis=1)) for number, rows in sorted(joined.items())
    }


def loss_table(model: str, place: int, readings: Mapping[int, Readings]) -> pd.DataFrame:
    """Return the rows of one model, which has this place in a pair."""
    losses = [of_document[place] for of_document in readings.values()]
    table = pd.DataFrame({"document": list(readings), "model": model})
    table["tokens"] = [len(of_document) for of_document in losses]
    return table.assign(losses=pd.Series(losses, dtype=object))


def divergence_table(
    baseline: str, candidate: str, readings: Mapping[int, Readings]
) -> pd.DataFrame:
    """Return the rows of one pair."""
    means = [float(r.divergence.mean(dtype=np.float64)) for r in readings.values()]
    table = pd.DataFrame({"document": list(readings), "divergence": means})
    return table.assign(baseline=baseline, candidate=candidate)


def joined_table(parts: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    """Return tables one below the other, or an empty one."""
    none = pd.DataFrame(columns=list(columns)).astype({"document": "int64"})
    return pd.concat(parts, ignore_index=True)[list(columns)] if parts else none


def evaluate_behaviour(
    models: dict[str, Path],
    pairs: list[str],
    tokens: list[Path],
    labels: list[Path],
    sample: LabelSample,
    seed: int,
    precision: Precision,
    batches: Batches,
    compute: Compute,
    losses: Path,
    divergences: Path,
) -> None:
    """Write how well each model predicts labelled documents, and how differently two do.

    Text without a label gives no row.

    Parameters
    ----------
    models
        manifest of each model
    pairs
        baseline and candidate of each comparison, one after the other
    tokens
        token shards, in order
    labels
        tables of labels of the documents
    seed
        seed of the choice of documents
    losses
        table to write, a row per document and model (Parquet)
    divergences
        table to write, a row per document and comparison (Parquet)
    """
    device = compute.start()
    answered = answered_documents(tokens, SPLIT)
    sampled = sample_labels(read_labels(labels), answered, sample.documents_per_label, seed)
    documents = read_numbered(tokens, SPLIT, np.unique(sampled["document"].to_numpy(np.int64)))
    dtype, held = precision.on(device), dict[str, nn.Module]()
    of_model, of_pair = dict[str, pd.DataFrame](), list[pd.DataFrame]()
    for pair in zip(pairs[::2], pairs[1::2], strict=True) if documents else ():
        held = {name: model for name, model in held.items() if name in pair}
        held |= {n: load_model(models[n], dtype, device) for n in pair if n not in held}
        before, after = (held[name] for name in pair)
        readings = read_pair(before, after, documents, batches.batch_tokens, device)
        of_pair.append(divergence_table(*pair, readings))
        of_model |= {name: loss_table(name, place, readings) for place, name in enumerate(pair)}
    by_model = [of_model[name] for name in models if name in of_model]
    files.write_parquet(losses, joined_table(by_model, LOSS_COLUMNS))
    files.write_parquet(divergences, joined_table(of_pair, DIVERGENCE_COLUMNS))


main = cli.command(evaluate_behaviour)


if __name__ == "__main__":
    raise SystemExit(main())
