"""How much of each model's predictions survives its crosscoder: ``loss.csv``.

At the fit's layer a model's activations are replaced on the tokens that the fit uses (the others
keep their own), and the model goes on from there. Replaced by what the crosscoder reconstructs, by
zero, or by the model's mean. With ce the cross-entropy in nats per predicted token::

    recovered = 1 − (ce(reconstruction) − ce(own)) / (ce(ablation) − ce(own))

It is undefined where the ablation does not raise the loss: a model can predict text that it was
never taught worse than its own mean does. KL to the model's own predictions is always defined.

Shapes: N tokens, M models, D width.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from workflow_scripts.common import cli, statistics
from workflow_scripts.common.device import set_threads
from workflow_scripts.common.tables import write_csv
from workflow_scripts.dataset.answer_tokens import Document, batches, pad
from workflow_scripts.dataset.documents import read_sources
from workflow_scripts.dataset.shards import TokenShard
from workflow_scripts.interventions.latent_edit import Patcher, add_patching_flags
from workflow_scripts.interventions.patching import layer_output, patched
from workflow_scripts.models.likelihood import Predictions, parts, predict
from workflow_scripts.models.loading import add_running_flags, load_model

REPLACEMENTS = ("own", "reconstruction", "zero", "mean")
ALL = "all"
DRAWS = 2000
CONFIDENCE = 0.95
COLUMNS = (
    "model",
    "source",
    "documents",
    "tokens",
    *(f"ce_{name}" for name in REPLACEMENTS),
    *(f"kl_{name}" for name in REPLACEMENTS[1:]),
    *(f"recovered_{name}{end}" for name in REPLACEMENTS[2:] for end in ("", "_low", "_high")),
)
"""``source`` ``all`` is the sum of the sources; intervals are bootstraps over documents.

``kl_*`` is KL(own ‖ replaced) in nats per predicted token; ``recovered_zero`` and
``recovered_mean`` name the ablation they are measured against.
"""


@dataclass(frozen=True)
class Sample:
    """Held-out documents and the source of each."""

    documents: list[Document]
    sources: list[str]


def read_sample(
    tokens: Sequence[Path], sources: Mapping[int, str], split: str, limit: int
) -> Sample:
    """Return up to ``limit`` documents of each source in a split, the first ones, short to long.

    Every token but the first counts as predicted.
    """
    found: list[tuple[Document, str]] = []
    counts: dict[str, int] = {}
    for path in tokens:
        shard = TokenShard.read(path)
        for index in np.flatnonzero(shard.row_split == shard.splits.index(split)):
            source, part = sources[int(shard.row_document[index])], shard.row(int(index))
            length = part.stop - part.start
            if length < 2 or counts.get(source, 0) >= limit:
                continue
            counts[source] = counts.get(source, 0) + 1
            document = Document(shard.ids[part], np.arange(length) > 0, None)
            found.append((document, source))
    found.sort(key=lambda pair: len(pair[0].ids))
    return Sample([document for document, _ in found], [source for _, source in found])


def replaced(
    patcher: Patcher, flat: Tensor, real: Tensor, model: int
) -> Iterator[tuple[str, Tensor]]:
    """Yield, by name, what takes the place of a model's activations ``flat`` [N, M, D], [N, D]."""
    crosscoder = patcher.crosscoder
    usable = patcher.usable(flat, real)[:, None]
    own, mean, scale = flat[:, model], crosscoder.mean[model], crosscoder.scale[model]
    decoded = crosscoder.decode(crosscoder.encode(crosscoder.normalize(flat)))[:, model]
    yield "reconstruction", torch.where(usable, decoded * scale + mean, own)
    yield "zero", torch.where(usable, 0.0, own)
    yield "mean", torch.where(usable, mean, own)


def compare(own: Predictions, others: Sequence[Predictions], targets: Tensor) -> Tensor:
    """Return cross-entropies of own and others, then KL(own ‖ other), float64 [2·others + 1, n]."""
    found = []
    for part in parts(len(targets)):
        truth = torch.log_softmax(own.logits(part), -1)
        chosen = targets[part, None].to(truth.device)
        losses, divergences = [-truth.gather(1, chosen)[:, 0]], []
        for other in others:
            told = torch.log_softmax(other.logits(part), -1)
            losses.append(-told.gather(1, chosen)[:, 0])
            divergences.append((truth.exp() * (truth - told)).sum(-1))
        found.append(torch.stack(losses + divergences).double().cpu())
    return torch.cat(found, dim=1)


@torch.no_grad()
def measure(
    models: Sequence[PreTrainedModel],
    patcher: Patcher,
    layer: int,
    documents: Sequence[Document],
    batch_tokens: int,
) -> NDArray[np.float64]:
    """Return each model's sums per document: cross-entropies, then KLs, [M, documents, 7]."""
    sums: list[list[NDArray[np.float64]]] = [[] for _ in models]
    for batch in cli.progress(list(batches(documents, batch_tokens)), desc="replacing"):
        ids, mask, predicted = (x.to(patcher.device) for x in pad(batch))
        real, targets = mask.bool(), ids[:, 1:][predicted[:, 1:]]
        outputs = [layer_output(model, layer, ids, mask) for model in models]
        flat = torch.stack([output[real].float() for output in outputs], dim=1)
        starts = np.cumsum([0, *predicted.sum(1).tolist()])[:-1]
        for index, model in enumerate(models):
            others = []
            for _, values in replaced(patcher, flat, real, index):
                h = outputs[index].clone()
                h[real] = values.to(h.dtype)
                with patched(model, layer, h):
                    others.append(predict(model, ids, mask, predicted))
            found = compare(predict(model, ids, mask, predicted), others, targets)
            sums[index].append(np.add.reduceat(found.numpy(), starts, axis=1).T)
    return np.stack([np.concatenate(each) for each in sums])


def summarise(sums: NDArray[np.float64], tokens: NDArray[np.float64], seed: int) -> list[float]:
    """Return the figures of some documents: ``sums`` [documents, 7], ``tokens`` [documents]."""
    drawn = statistics.resample(len(sums), DRAWS, [seed, 13]) @ sums
    tail = 100 * (1 - CONFIDENCE) / 2
    figures = list(sums.sum(0) / tokens.sum())
    for ablation in (2, 3):
        ends = np.percentile(_recovered(drawn, ablation), [tail, 100 - tail])
        figures += [float(_recovered(sums.sum(0)[None], ablation)[0]), *ends]
    return [float(value) for value in figures]


def _recovered(ce: NDArray[np.float64], ablation: int) -> NDArray[np.float64]:
    """Return the share recovered against column ``ablation`` of ``ce`` [n, 4 or more], or NaN.

    Where it is undefined in any draw there is no interval.
    """
    gap = ce[:, ablation] - ce[:, 0]
    return 1 - (ce[:, 1] - ce[:, 0]) / np.where(gap > 0, gap, np.nan)


def table(
    names: Sequence[str], sample: Sample, sums: NDArray[np.float64], seed: int
) -> Iterator[dict[str, object]]:
    """Yield a row per model and source, and one per model over all of them."""
    sources = np.array(sample.sources)
    tokens = np.array([document.answer.sum() for document in sample.documents], dtype=np.float64)
    for model, name in enumerate(names):
        for source in [ALL, *sorted(set(sample.sources))]:
            chosen = np.ones(len(sources), dtype=np.bool_) if source == ALL else sources == source
            figures = summarise(sums[model][chosen], tokens[chosen], seed)
            values = (name, source, int(chosen.sum()), int(tokens[chosen].sum()), *figures)
            yield dict(zip(COLUMNS, values, strict=True))


def recover_loss(
    manifests: Mapping[str, Path],
    patcher: Patcher,
    layer: int,
    sample: Sample,
    seed: int,
    dtype: str,
    batch_tokens: int,
    output: Path,
) -> None:
    """Write the table; ``manifests`` name the crosscoder's models.

    Raises
    ------
    UserError
        If there is no document.
    """
    if not sample.documents:
        raise cli.UserError("the score split holds no document: raise text.tokens")
    names = patcher.crosscoder.models
    models = [load_model(manifests[name], getattr(torch, dtype), patcher.device) for name in names]
    sums = measure(models, patcher, layer, sample.documents, batch_tokens)
    write_csv(output, table(names, sample, sums, seed), COLUMNS)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model", type=cli.named_path, action="append", required=True, metavar="NAME=MODEL"
    )
    add_patching_flags(parser)
    parser.add_argument("--tokens", type=Path, nargs="+", required=True)
    parser.add_argument("--sources", type=Path, nargs="+", required=True, help="documents.parquet")
    parser.add_argument("--split", default="score")
    parser.add_argument("--documents", type=int, default=40, help="per source, at most")
    parser.add_argument("--seed", type=int, required=True)
    add_running_flags(parser)
    parser.add_argument("--output", type=Path, required=True)
    a = parser.parse_args(argv)

    def run() -> None:
        set_threads(a.threads)
        sample = read_sample(a.tokens, read_sources(a.sources), a.split, a.documents)
        with torch.no_grad():
            recover_loss(
                dict(a.model),
                Patcher.open(a),
                a.layer,
                sample,
                a.seed,
                a.compute_dtype,
                a.batch_tokens,
                a.output,
            )

    return cli.guarded(run)


if __name__ == "__main__":
    raise SystemExit(main())
