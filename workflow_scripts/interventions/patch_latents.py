"""Do the latents of a pair of models cause their difference? ``cause.csv``.

Model ``source``'s activations at the fit's layer are moved towards model ``target``'s by the
latents of a set S, ``target`` continues from there, and its predictions are compared with its own
[Minder et al. 2025]. In raw space, with σ, μ the normaliser's scale and mean::

    h_source + Σ_{j∈S} f_j (σ_t d_j^t − σ_s d_j^s)

The set ``all`` moves the biases and means too, ``error`` moves only what the crosscoder does not
reconstruct: both together give ``target``'s own activations. Tokens that the fit would drop keep
``source``'s activations in every set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from workflow_scripts.activations.settings import Batches, Precision
from workflow_scripts.common import cli, files
from workflow_scripts.common.device import Compute
from workflow_scripts.common.intervals import percentile_interval, resample
from workflow_scripts.common.tables import write_csv
from workflow_scripts.dataset.answer_tokens import Document, read_documents
from workflow_scripts.interventions.latent_editor import EditorInputs, LatentEditor, matched
from workflow_scripts.interventions.patched_runs import load_models, read_documents_in_batches
from workflow_scripts.models.likelihood import compare

SPLIT = "verify"
SETS = ("none", "unique", "shared", "random", "all", "error")
PARTS = ("all", "first9", "rest")
FIRST = 9
DRAWS = 2000
CONFIDENCE = 0.95
COLUMNS = (
    "source",
    "target",
    "set",
    "tokens",
    "latents",
    "documents",
    "answer_tokens",
    "kl",
    "kl_low",
    "kl_high",
    "closed",
    "closed_low",
    "closed_high",
)
"""Columns of ``cause.csv``; ``COLUMNS.md`` says what each means."""


def choose_sets(
    latents: pd.DataFrame, selection: pd.DataFrame, source: str, target: str, seed: int
) -> dict[str, NDArray[np.int64]]:
    """Return the latents unique to either model, as many shared ones of like rate, as many random.

    Shared and random ones are drawn from the live latents that are unique to neither.
    """
    unique = selection[f"unique_{source}_vs_{target}"] | selection[f"unique_{target}_vs_{source}"]
    own = selection.loc[unique, "latent"].to_numpy(dtype=np.int64)
    rest = selection.loc[~unique, "latent"].to_numpy(dtype=np.int64)
    rate = latents.set_index("latent")["firing_rate"].reindex(
        range(int(latents["latent"].max()) + 1)
    )
    rng = np.random.default_rng([seed, 5])
    return {
        "unique": own,
        "shared": matched(rest, own, rate.to_numpy(dtype=np.float64)),
        "random": np.sort(rng.permutation(rest)[: len(own)]),
    }


def token_parts(answer: NDArray[np.bool_]) -> dict[str, NDArray[np.bool_]]:
    """Return which of a document's answer tokens [n] belong to each part."""
    early = np.arange(int(answer.sum())) < FIRST
    return {"all": np.ones_like(early), "first9": early, "rest": ~early}


def divergences(
    models: Sequence[PreTrainedModel],
    editor: LatentEditor,
    sets: Mapping[str, Bool[Tensor, " F"] | str],
    documents: Sequence[Document],
    batch_tokens: int,
    source: int,
    target: int,
) -> dict[str, list[NDArray[np.float64]]]:
    """Return, by set, each document's KL(target ‖ patched target) per answer token, in nats.

    ``models`` are those of the crosscoder, source and target the places of two of them.
    """
    by_set: dict[str, list[NDArray[np.float64]]] = {name: [] for name in sets}
    for batch in read_documents_in_batches(models, editor, documents, batch_tokens):
        h = batch.activations
        f, usable = editor.encode(h), editor.usable(h, batch.real)[:, None]
        patched = []
        for chosen in sets.values():
            values = torch.where(usable, editor.move(h, f, source, target, chosen), h[:, source])
            patched.append(batch.predictions(models[target], batch.replaced(source, values)))
        _, kl = compare(batch.predictions(models[target]), patched)
        for document in batch.by_document(kl):
            for name, of_set in zip(sets, document, strict=True):
                by_set[name].append(of_set)
    return by_set


def summarise(
    kl: Mapping[str, Sequence[NDArray[np.float64]]],
    documents: Sequence[Document],
    sizes: Mapping[str, int],
    seed: int,
) -> list[dict[str, object]]:
    """Return a row per set and part: mean KL per token and the share of the gap that it closes.

    Intervals are percentile bootstraps over documents, the same draws for every set, so that
    ``closed`` = 1 − KL(set)/KL(none) is a paired comparison.
    """
    draws = resample(len(documents), DRAWS, [seed, 6])
    rows: list[dict[str, object]] = []
    for part in PARTS:
        masks = [token_parts(document.answer)[part] for document in documents]
        tokens = np.array([mask.sum() for mask in masks], dtype=np.float64)
        sums = {
            name: np.array([values[mask].sum() for values, mask in zip(each, masks, strict=True)])
            for name, each in kl.items()
        }
        with np.errstate(divide="ignore", invalid="ignore"):
            gap, gaps = sums["none"].sum(), draws @ sums["none"]
            for name, total in sums.items():
                drawn = draws @ total
                kl_token = percentile_interval(
                    float(total.sum() / tokens.sum()), drawn / (draws @ tokens), CONFIDENCE
                )
                closed = percentile_interval(
                    float(1 - total.sum() / gap), 1 - drawn / gaps, CONFIDENCE
                )
                values = (
                    *(name, part, sizes.get(name, ""), len(documents), int(tokens.sum())),
                    *(kl_token.estimate, kl_token.low, kl_token.high),
                    *(closed.estimate, closed.low, closed.high),
                )
                rows.append(dict(zip(COLUMNS[2:], values, strict=True)))
    return rows


def patch_latents(
    models: dict[str, Path],
    pair: tuple[str, str],
    inputs: EditorInputs,
    latents: Path,
    selection: Path,
    tokens: list[Path],
    documents: int,
    seed: int,
    precision: Precision,
    batches: Batches,
    compute: Compute,
    output: Path,
) -> None:
    """Measure how far a model's predictions follow another's latents.

    Parameters
    ----------
    models
        manifests of the crosscoder's models
    pair
        source, whose activations are moved, and target, which goes on from them
    latents
        scores of the latents (Parquet)
    selection
        which latents are unique (Parquet)
    tokens
        token shards
    documents
        documents per category, at most
    seed
        seed of the random latents and of the bootstrap
    output
        table to write (CSV)
    """
    editor = inputs.open(compute.start())
    texts = read_documents(tokens, SPLIT, documents)
    scores, unique = files.read_parquet(latents), files.read_parquet(selection)
    with torch.no_grad():
        rows = effects(models, pair, editor, scores, unique, texts, seed, precision, batches)
    write_csv(output, rows, COLUMNS)


def effects(
    manifests: Mapping[str, Path],
    pair: tuple[str, str],
    editor: LatentEditor,
    latents: pd.DataFrame,
    selection: pd.DataFrame,
    documents: Sequence[Document],
    seed: int,
    precision: Precision,
    batches: Batches,
) -> list[dict[str, object]]:
    """Return the table's rows; ``manifests`` are those of the crosscoder's models.

    Raises
    ------
    UserError
        If there is no document with an answer.
    """
    if not documents:
        raise cli.UserError(f"the {SPLIT} split holds no answer tokens: raise text.tokens")
    names, device = editor.crosscoder.models, editor.device
    source, target = (names.index(name) for name in pair)
    models = load_models(manifests, names, precision, device)
    chosen = choose_sets(latents, selection, *pair, seed)
    none = torch.zeros(editor.crosscoder.latents, dtype=torch.bool, device=device)
    sets: dict[str, Tensor | str] = {"none": none}
    for name, members in chosen.items():
        mask = none.clone()
        mask[torch.tensor(members, device=device)] = True
        sets[name] = mask
    sets |= {"all": "all", "error": "error"}
    kl = divergences(models, editor, sets, documents, batches.batch_tokens, source, target)
    sizes = {"none": 0, **{name: len(members) for name, members in chosen.items()}}
    sizes["all"] = int(latents["live"].sum())
    sides = {"source": pair[0], "target": pair[1]}
    return [{**sides, **row} for row in summarise(kl, documents, sizes, seed)]


main = cli.command(patch_latents)


if __name__ == "__main__":
    raise SystemExit(main())
