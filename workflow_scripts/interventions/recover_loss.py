"""How much of each model's predictions survives its crosscoder: ``loss.csv``.

At the fit's layer a model's activations are replaced on the tokens that the fit uses (the others
keep their own), and the model continues from there. The replacement is what the crosscoder
reconstructs, zero, or the model's mean. With ce the cross-entropy in nats per predicted token::

    recovered = 1 − (ce(reconstruction) − ce(own)) / (ce(ablation) − ce(own))

It is undefined where the ablation does not raise the loss: a model can predict text that it was
never taught worse than its own mean does. KL to the model's own predictions is always defined.

Shapes: N tokens, M models, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from workflow_scripts.activations.settings import Batches, Precision
from workflow_scripts.common import cli
from workflow_scripts.common.device import Compute
from workflow_scripts.common.intervals import resample
from workflow_scripts.common.tables import write_csv
from workflow_scripts.crosscoder.codes import decode
from workflow_scripts.dataset.answer_tokens import Document
from workflow_scripts.dataset.documents import ALL, read_sources
from workflow_scripts.dataset.shards import TokenShard
from workflow_scripts.interventions.latent_editor import EditorInputs, LatentEditor
from workflow_scripts.interventions.patched_runs import load_models, read_documents_in_batches
from workflow_scripts.models.likelihood import compare

SPLIT = "score"
REPLACEMENTS = ("own", "reconstruction", "zero", "mean")
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

    Every token but the first counts as predicted; of a document in several rows, the first row.
    """
    pairs: list[tuple[Document, str]] = []
    counts: dict[str, int] = {}
    for path in tokens:
        shard = TokenShard.read(path)
        for index in np.flatnonzero(shard.row_split == shard.splits.index(split)):
            number, part = int(shard.row_document[index]), shard.row(int(index))
            source = sources[number]
            length = part.stop - part.start
            if index and shard.row_document[index - 1] == number:
                continue
            if length < 2 or counts.get(source, 0) >= limit:
                continue
            counts[source] = counts.get(source, 0) + 1
            document = Document(shard.ids[part], np.arange(length) > 0, None, number)
            pairs.append((document, source))
    pairs.sort(key=lambda pair: len(pair[0].ids))
    return Sample([document for document, _ in pairs], [source for _, source in pairs])


def replacements(
    editor: LatentEditor,
    h: Float[Tensor, "N M D"],
    decoded: Float[Tensor, "N M D"],
    real: Bool[Tensor, "B T"],
    model: int,
) -> Iterator[tuple[str, Float[Tensor, "N D"]]]:
    """Yield, by name, what takes the place of a model's activations h.

    ``decoded`` is their reconstruction, normalised.
    """
    crosscoder = editor.crosscoder
    usable = editor.usable(h, real)[:, None]
    own, mean, scale = h[:, model], crosscoder.mean[model], crosscoder.scale[model]
    yield "reconstruction", torch.where(usable, decoded[:, model] * scale + mean, own)
    yield "zero", torch.where(usable, 0.0, own)
    yield "mean", torch.where(usable, mean, own)


def measure(
    models: Sequence[PreTrainedModel],
    editor: LatentEditor,
    documents: Sequence[Document],
    batch_tokens: int,
) -> Float[np.ndarray, "M documents 7"]:
    """Return each model's sums per document: cross-entropies, then KLs."""
    sums: list[list[NDArray[np.float64]]] = [[] for _ in models]
    for batch in read_documents_in_batches(models, editor, documents, batch_tokens):
        h = batch.activations
        decoded = decode(editor.crosscoder, editor.encode(h))
        for index, model in enumerate(models):
            others = [
                batch.predictions(model, batch.replaced(index, values))
                for _, values in replacements(editor, h, decoded, batch.real, index)
            ]
            compared = torch.cat(compare(batch.predictions(model), others))
            sums[index] += [values.sum(1) for values in batch.by_document(compared)]
    return np.stack([np.stack(each) for each in sums])


def summarise(
    sums: Float[np.ndarray, "documents 7"], tokens: Float[np.ndarray, " documents"], seed: int
) -> list[float]:
    """Return the figures of some documents."""
    drawn = resample(len(sums), DRAWS, [seed, 13]) @ sums
    tail = 100 * (1 - CONFIDENCE) / 2
    figures = list(sums.sum(0) / tokens.sum())
    for ablation in (2, 3):
        ends = np.percentile(_recovered(drawn, ablation), [tail, 100 - tail])
        figures += [float(_recovered(sums.sum(0)[None], ablation)[0]), *ends]
    return [float(value) for value in figures]


def _recovered(ce: Float[np.ndarray, "n 7"], ablation: int) -> Float[np.ndarray, " n"]:
    """Return the share recovered against column ``ablation`` of ``ce``, or NaN.

    Where it is undefined in any draw there is no interval.
    """
    gap = ce[:, ablation] - ce[:, 0]
    share: NDArray[np.float64] = 1 - (ce[:, 1] - ce[:, 0]) / np.where(gap > 0, gap, np.nan)
    return share


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
    models: dict[str, Path],
    inputs: EditorInputs,
    tokens: list[Path],
    sources: list[Path],
    documents: int,
    seed: int,
    precision: Precision,
    batches: Batches,
    compute: Compute,
    output: Path,
) -> None:
    """Measure how well models predict from what a crosscoder reconstructs.

    Parameters
    ----------
    models
        manifests of the crosscoder's models
    tokens
        token shards
    sources
        tables of the documents, which name the source of each
    documents
        documents per source, at most
    seed
        seed of the bootstrap
    output
        table to write (CSV)
    """
    editor = inputs.open(compute.start())
    sample = read_sample(tokens, read_sources(sources), SPLIT, documents)
    with torch.no_grad():
        rows = losses(models, editor, sample, seed, precision, batches)
    write_csv(output, rows, COLUMNS)


def losses(
    manifests: Mapping[str, Path],
    editor: LatentEditor,
    sample: Sample,
    seed: int,
    precision: Precision,
    batches: Batches,
) -> list[dict[str, object]]:
    """Return the table's rows; ``manifests`` are those of the crosscoder's models.

    Raises
    ------
    UserError
        If there is no document.
    """
    if not sample.documents:
        raise cli.UserError(f"the {SPLIT} split holds no document: raise text.tokens")
    names = editor.crosscoder.models
    models = load_models(manifests, names, precision, editor.device)
    sums = measure(models, editor, sample.documents, batches.batch_tokens)
    return list(table(names, sample, sums, seed))


main = cli.command(recover_loss)


if __name__ == "__main__":
    raise SystemExit(main())
