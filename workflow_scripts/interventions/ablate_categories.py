"""How much harder a category's text gets without its latents: ``ablation/<comparison>.csv``.

From each model's activations at the fit's layer, what the category's unique latents write into
that model is removed, and the model continues from there. Per document of the verify split: the
rise of its negative log-likelihood per answer token, in nats; on the category's own documents,
and on all others. Beside it the same for as many latents of the category that are not unique, of
similar firing rate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from transformers import PreTrainedModel

from workflow_scripts.activations.settings import Batches, Precision
from workflow_scripts.common import cli, statistics
from workflow_scripts.common.artifacts import FitFiles, LabelledLatents, read_labelled_latents
from workflow_scripts.common.device import Compute
from workflow_scripts.common.labellers import usual
from workflow_scripts.common.tables import write_csv
from workflow_scripts.common.taxonomy import WITHOUT_CATEGORY, load_taxonomy
from workflow_scripts.dataset.answer_tokens import Document, read_documents
from workflow_scripts.interventions.latent_editor import EditorInputs, LatentEditor, matched
from workflow_scripts.interventions.patched_runs import load_models, read_documents_in_batches
from workflow_scripts.latents.ownership import is_unique
from workflow_scripts.models.likelihood import Predictions, compare

SPLIT = "verify"
OTHERS = 2  # documents of each other category
COLUMNS = (
    "comparison",
    "labeller",
    "model",
    "category",
    "latents_are",
    "latents",
    "own_documents",
    "other_documents",
    "own_rise",
    "other_rise",
    "specific_rise",
    "low",
    "high",
)
"""Columns of the table; ``COLUMNS.md`` says what each means."""


@dataclass(frozen=True)
class Ablation:
    """Latents of one category that are taken away from one model."""

    model: str
    category: str
    latents_are: str
    latents: NDArray[np.int64]


def ablations(labelled: LabelledLatents, names: tuple[str, str]) -> Iterator[Ablation]:
    """Yield, per model of a pair and category, its unique latents and as many shared ones."""
    frame = labelled.frame
    masks = [
        is_unique(frame, own, other).to_numpy(dtype=bool) for own, other in (names, names[::-1])
    ]
    latents = frame["latent"].to_numpy(dtype=np.int64)
    rate = np.zeros(int(latents.max()) + 1)
    rate[latents] = frame["firing_rate"]
    for model, mask in zip(names, masks, strict=True):
        for category in sorted(set(frame["category"]) - set(WITHOUT_CATEGORY)):
            of_category = (frame["category"] == category).to_numpy()
            own = latents[mask & of_category]
            if len(own):
                yield Ablation(model, category, "unique", own)
                rest = latents[of_category & ~masks[0] & ~masks[1]]
                if len(rest):
                    yield Ablation(model, category, "shared", matched(rest, own, rate))


def mean_losses(predictions: Predictions, counts: Int[np.ndarray, " B"]) -> NDArray[np.float64]:
    """Return each document's mean negative log-likelihood per answer token, in nats, [B].

    ``counts`` are the documents' numbers of answer tokens.
    """
    losses = compare(predictions, [])[0][0].double().cpu().numpy()
    starts = np.cumsum([0, *counts])[:-1]
    means: NDArray[np.float64] = np.add.reduceat(losses, starts) / counts
    return means


def tested_on(wanted: Sequence[Ablation], documents: Sequence[Document]) -> NDArray[np.bool_]:
    """Return which documents each ablation is tested on, [ablations, documents].

    All of its category, and the first ``OTHERS`` of each other one.
    """
    category = np.array([str(document.category) for document in documents])
    first = np.zeros(len(documents), dtype=bool)
    for name in sorted(set(category.tolist())):
        first[np.flatnonzero(category == name)[:OTHERS]] = True
    return np.array([first | (category == ablation.category) for ablation in wanted])


def rises(
    models: Sequence[PreTrainedModel],
    editor: LatentEditor,
    wanted: Sequence[Ablation],
    documents: Sequence[Document],
    batch_tokens: int,
) -> Float[np.ndarray, "ablations documents"]:
    """Return the rise of each document's loss under each ablation.

    ``models`` are those of the crosscoder. NaN where a document is not among those of
    :func:`tested_on`.
    """
    names = editor.crosscoder.models
    tested = tested_on(wanted, documents)
    rise = np.full(tested.shape, np.nan)
    first = 0
    for batch in read_documents_in_batches(models, editor, documents, batch_tokens):
        h, counts = batch.activations, batch.predicted.sum(1).cpu().numpy()
        f = editor.usable_codes(h, batch.real)
        before = {
            name: mean_losses(batch.predictions(models[names.index(name)]), counts)
            for name in {ablation.model for ablation in wanted}
        }
        columns = np.arange(first, first + len(counts))
        for number, ablation in enumerate(wanted):
            rows = np.flatnonzero(tested[number, columns])
            if len(rows):
                place = names.index(ablation.model)
                left = h[:, place] - editor.written(f, place, ablation.latents)
                ablated = batch.predictions(models[place], batch.replaced(place, left), rows)
                after = mean_losses(ablated, counts[rows])
                rise[number, columns[rows]] = after - before[ablation.model][rows]
        first += len(counts)
    return rise


def rows_of(
    name: str,
    labeller: str,
    wanted: Sequence[Ablation],
    rise: NDArray[np.float64],
    documents: Sequence[Document],
    confidence: float,
) -> Iterator[dict[str, object]]:
    """Yield a row per ablation whose category has documents: Welch's interval for own − others."""
    category = np.array([str(document.category) for document in documents])
    for ablation, values in zip(wanted, rise, strict=True):
        known = ~np.isnan(values)
        own = values[known & (category == ablation.category)]
        others = values[known & (category != ablation.category)]
        if min(len(own), len(others)) < 2:
            continue
        specific = statistics.mean_difference(own, others, confidence=confidence)
        numbers = (own.mean(), others.mean(), specific.estimate, specific.low, specific.high)
        yield {
            "comparison": name,
            "labeller": labeller,
            "model": ablation.model,
            "category": ablation.category,
            "latents_are": ablation.latents_are,
            "latents": len(ablation.latents),
            "own_documents": len(own),
            "other_documents": len(others),
            **dict(zip(COLUMNS[8:], (f"{value:.6g}" for value in numbers), strict=True)),
        }


def ablate_categories(
    comparison: str,
    pair: tuple[str, str],
    fit: dict[str, FitFiles],
    taxonomy: Path,
    models: dict[str, Path],
    inputs: EditorInputs,
    tokens: list[Path],
    documents: int,
    confidence: float,
    precision: Precision,
    batches: Batches,
    compute: Compute,
    output: Path,
    labeller: str | None = None,
) -> None:
    """Measure whose text becomes harder to predict without a category's latents.

    Parameters
    ----------
    comparison
        name of the comparison
    pair
        its baseline and candidate
    fit
        the artifacts of its crosscoder, by the name of the fit
    taxonomy
        classes and categories (YAML)
    models
        manifests of the crosscoder's models
    tokens
        token shards
    documents
        documents per category, at most
    confidence
        level of the intervals
    output
        table to write (CSV)
    labeller
        who named the latents; none, or one that named none: true categories, an LLM's, lexical
    """
    editor = inputs.open(compute.start())
    artifacts = next(iter(fit.values()))
    class_of = load_taxonomy(taxonomy).class_of
    labelled = read_labelled_latents(artifacts.models, artifacts.first, class_of)
    chosen = labeller if labeller in labelled else usual(list(labelled)) or ""
    texts = [d for d in read_documents(tokens, SPLIT, documents) if d.category is not None]
    present = {document.category for document in texts}
    wanted = [a for a in ablations(labelled[chosen], pair) if a.category in present]
    rows: list[dict[str, object]] = []
    if wanted:
        with torch.no_grad():
            loaded = load_models(models, editor.crosscoder.models, precision, editor.device)
            rise = rises(loaded, editor, wanted, texts, batches.batch_tokens)
        rows = list(rows_of(comparison, chosen, wanted, rise, texts, confidence))
    write_csv(output, rows, COLUMNS)


main = cli.command(ablate_categories)


if __name__ == "__main__":
    raise SystemExit(main())
