"""Does a category's text need the latents that carry its name? ``ablation/<comparison>.csv``.

From each model's activations at the fit's layer, what the category's unique latents write into
that model is taken away, and the model goes on from there. Per document of the verify split: the
rise of its negative log-likelihood per answer token, in nats; on the category's own documents,
and on all others. Beside it the same for as many latents of the category that are not unique, of
like firing rate.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from workflow_scripts.common import cli, statistics
from workflow_scripts.common.artifacts import FitFiles, LabelledLatents, read_labelled_latents
from workflow_scripts.common.device import set_threads
from workflow_scripts.common.labels import usual
from workflow_scripts.common.tables import write_csv
from workflow_scripts.common.taxonomy import WITHOUT_CATEGORY, load_taxonomy
from workflow_scripts.dataset.answer_tokens import Document, batches, pad, read_documents
from workflow_scripts.interventions.latent_edit import Patcher, add_patching_flags, matched
from workflow_scripts.interventions.patching import layer_output, patched
from workflow_scripts.latents.ownership import is_unique
from workflow_scripts.models.likelihood import token_losses
from workflow_scripts.models.loading import add_running_flags, load_model

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
            mine = (frame["category"] == category).to_numpy()
            own = latents[mask & mine]
            if len(own):
                yield Ablation(model, category, "unique", own)
                rest = latents[mine & ~masks[0] & ~masks[1]]
                if len(rest):
                    yield Ablation(model, category, "shared", matched(rest, own, rate))


def answer_losses(
    model: PreTrainedModel, ids: Tensor, mask: Tensor, answer: Tensor
) -> NDArray[np.float64]:
    """Return each document's mean negative log-likelihood per answer token, in nats."""
    losses, counts = token_losses(model, ids, mask, answer), answer.sum(1)
    row = torch.repeat_interleave(torch.arange(len(ids), device=ids.device), counts)
    sums = torch.zeros(len(ids), dtype=torch.float64, device=ids.device)
    means: NDArray[np.float64] = (sums.index_add(0, row, losses.double()) / counts).cpu().numpy()
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
    models: dict[str, PreTrainedModel],
    patcher: Patcher,
    layer: int,
    wanted: Sequence[Ablation],
    documents: Sequence[Document],
    batch_tokens: int,
    device: torch.device,
) -> NDArray[np.float64]:
    """Return the rise of each document's loss under each ablation, [ablations, documents].

    NaN where a document is not among those of :func:`tested_on`.
    """
    order = patcher.crosscoder.models
    tested = tested_on(wanted, documents)
    rise = np.full(tested.shape, np.nan)
    first = 0
    for batch in cli.progress(list(batches(documents, batch_tokens)), desc="ablation"):
        ids, mask, answer = (x.to(device) for x in pad(batch))
        real = mask.bool()
        outputs = {name: layer_output(models[name], layer, ids, mask) for name in order}
        flat = torch.stack([outputs[name][real].float() for name in order], dim=1)
        f = patcher.activations(flat, real)
        before = {
            name: answer_losses(models[name], ids, mask, answer)
            for name in {ablation.model for ablation in wanted}
        }
        columns = np.arange(first, first + len(batch))
        for number, ablation in enumerate(wanted):
            rows = np.flatnonzero(tested[number, columns])
            if len(rows):
                h = outputs[ablation.model].clone()
                taken = patcher.written(f, order.index(ablation.model), ablation.latents)
                h[real] -= taken.to(h.dtype)
                with patched(models[ablation.model], layer, h[rows]):
                    after = answer_losses(
                        models[ablation.model], ids[rows], mask[rows], answer[rows]
                    )
                rise[number, columns[rows]] = after - before[ablation.model][rows]
        first += len(batch)
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
    names: tuple[str, str],
    labeller: str,
    labelled: LabelledLatents,
    manifests: dict[str, Path],
    patcher: Patcher,
    layer: int,
    documents: Sequence[Document],
    confidence: float,
    dtype: str,
    batch_tokens: int,
    device: torch.device,
    output: Path,
) -> None:
    """Write the table of one comparison of two models, ``names``."""
    known = [document for document in documents if document.category is not None]
    present = {document.category for document in known}
    wanted = [a for a in ablations(labelled, names) if a.category in present]
    rows: list[dict[str, object]] = []
    if wanted:
        models = {
            name: load_model(manifest, getattr(torch, dtype), device)
            for name, manifest in manifests.items()
        }
        rise = rises(models, patcher, layer, wanted, known, batch_tokens, device)
        rows = list(rows_of(comparison, labeller, wanted, rise, known, confidence))
    write_csv(output, rows, COLUMNS)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and ablate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--comparison", required=True)
    parser.add_argument("--pair", nargs=2, required=True, metavar=("BASELINE", "CANDIDATE"))
    parser.add_argument("--fit", required=True, help="JSON: {fit: {models, seeds: {S: files}}}")
    parser.add_argument("--taxonomy", type=Path, required=True)
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument("--labeller", default=None, help="default: true, an LLM's, lexical")
    parser.add_argument(
        "--model", type=cli.named_path, action="append", required=True, metavar="NAME=MODEL.JSON"
    )
    add_patching_flags(parser)
    parser.add_argument("--tokens", type=Path, nargs="+", required=True)
    parser.add_argument("--documents", type=int, default=8, help="per category, at most")
    add_running_flags(parser)
    parser.add_argument("--output", type=Path, required=True)
    a = parser.parse_args(argv)

    def run() -> None:
        set_threads(a.threads)
        fits = cli.parse(a.fit, dict[str, FitFiles], "--fit")
        fit = next(iter(fits.values()))
        found = read_labelled_latents(fit.models, fit.first, load_taxonomy(a.taxonomy).class_of)
        labeller = a.labeller or usual(list(found)) or ""
        patcher = Patcher.open(a)
        with torch.no_grad():
            ablate_categories(
                a.comparison,
                (a.pair[0], a.pair[1]),
                labeller,
                found[labeller],
                dict(a.model),
                patcher,
                a.layer,
                read_documents(a.tokens, SPLIT, a.documents),
                a.confidence,
                a.compute_dtype,
                a.batch_tokens,
                patcher.device,
                a.output,
            )

    return cli.guarded(run)


if __name__ == "__main__":
    raise SystemExit(main())
