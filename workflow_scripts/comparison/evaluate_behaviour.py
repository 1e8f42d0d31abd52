"""Measure how well each model predicts the text of each category: ``behaviour.csv``.

Per document of the score split, the mean negative log-likelihood (nats) of its answer tokens, the
assistant's turns without template tokens; of plain text all tokens. Per model and category, the
mean over documents with its standard error.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from workflow_scripts.common import cli
from workflow_scripts.common.device import choose_device, set_threads
from workflow_scripts.common.tables import write_csv
from workflow_scripts.comparison.behaviour import COLUMNS
from workflow_scripts.dataset.answer_tokens import Document, batches, pad, read_documents
from workflow_scripts.models.likelihood import token_losses
from workflow_scripts.models.loading import add_running_flags, load_model

SPLIT = "score"


@torch.no_grad()
def document_losses(
    model: torch.nn.Module, documents: Sequence[Document], tokens: int, device: torch.device
) -> NDArray[np.float64]:
    """Return each document's mean negative log-likelihood per answer token, in nats."""
    losses = []
    for batch in cli.progress(list(batches(documents, tokens)), desc="behaviour"):
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
        mine = categories == category
        count = int(mine.sum())
        error = losses[mine].std(ddof=1) / math.sqrt(count) if count > 1 else math.nan
        yield {
            "model": name,
            "category": category,
            "documents": count,
            "tokens": int(tokens[mine].sum()),
            "nll": f"{losses[mine].mean():.6g}",
            "nll_se": "n/a" if math.isnan(error) else f"{error:.6g}",
        }


def evaluate_behaviour(
    models: Mapping[str, Path],
    tokens: Sequence[Path],
    limit: int,
    dtype: str,
    batch_tokens: int,
    device: str,
    output: Path,
) -> None:
    """Write the table; text of unknown category gives no row."""
    documents = [d for d in read_documents(tokens, SPLIT, limit) if d.category is not None]
    rows: list[dict[str, object]] = []
    if documents:
        where = choose_device(device)
        for name, manifest in models.items():
            model = load_model(manifest, getattr(torch, dtype), where)
            rows += summarise(
                name, documents, document_losses(model, documents, batch_tokens, where)
            )
            del model
    write_csv(output, rows, COLUMNS)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and evaluate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model", type=cli.named_path, action="append", required=True, metavar="NAME=MODEL.JSON"
    )
    parser.add_argument("--tokens", type=Path, nargs="+", required=True)
    parser.add_argument("--documents", type=int, default=200, help="per category, at most")
    add_running_flags(parser)
    parser.add_argument("--output", type=Path, required=True)
    a = parser.parse_args(argv)

    def run() -> None:
        set_threads(a.threads)
        evaluate_behaviour(
            dict(a.model),
            a.tokens,
            a.documents,
            a.compute_dtype,
            a.batch_tokens,
            a.device,
            a.output,
        )

    return cli.guarded(run)


if __name__ == "__main__":
    raise SystemExit(main())
