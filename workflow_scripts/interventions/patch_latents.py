"""Do a pair's latents cause the difference of its models? ``cause.csv``.

Model ``source``'s activations at the fit's layer are moved towards model ``target``'s by the
latents of a set S, ``target`` goes on from there, and its predictions are held against its own
[Minder et al. 2025]. In raw space, with σ, μ the normaliser's scale and mean::

    h_source + Σ_{j∈S} f_j (σ_t d_j^t − σ_s d_j^s)

The set ``all`` moves the biases and means too, ``error`` moves only what the crosscoder does not
reconstruct: both together give ``target``'s own activations. Tokens that the fit would drop keep
``source``'s activations in every set.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from workflow_scripts.common import cli, files, statistics
from workflow_scripts.common.device import set_threads
from workflow_scripts.common.tables import write_csv
from workflow_scripts.dataset.answer_tokens import Document, batches, pad, read_documents
from workflow_scripts.interventions.latent_edit import Patcher, add_patching_flags, matched
from workflow_scripts.interventions.patching import layer_output, log_probabilities, patched
from workflow_scripts.models.loading import add_running_flags, load_model

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
    models: tuple[PreTrainedModel, PreTrainedModel],
    patcher: Patcher,
    pair: tuple[int, int],
    layer: int,
    sets: Mapping[str, Tensor | str],
    documents: Sequence[Document],
    batch_tokens: int,
) -> dict[str, list[NDArray[np.float64]]]:
    """Return, by set, each document's KL(target ‖ patched target) per answer token, in nats."""
    source, target = models
    found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in sets}
    for batch in cli.progress(list(batches(documents, batch_tokens)), desc="patching"):
        ids, mask, answer = (x.to(patcher.device) for x in pad(batch))
        own = log_probabilities(target, ids, mask, answer)
        real = mask.bool()
        outputs = [layer_output(model, layer, ids, mask) for model in (source, target)]
        flat = torch.stack([output[real].float() for output in outputs], dim=1)
        usable = patcher.usable(flat, real)
        counts = answer.sum(1).tolist()
        for name, chosen in sets.items():
            h = outputs[0].clone()
            moved = patcher.move(flat, *pair, chosen)
            h[real] = torch.where(usable[:, None], moved, flat[:, pair[0]]).to(h.dtype)
            with patched(target, layer, h):
                told = log_probabilities(target, ids, mask, answer)
            kl = (own.exp() * (own - told)).sum(-1).double().cpu().numpy()
            found[name] += np.split(kl, np.cumsum(counts)[:-1])
    return found


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
    draws = statistics.resample(len(documents), DRAWS, [seed, 6])
    tail = 100 * (1 - CONFIDENCE) / 2
    rows: list[dict[str, object]] = []
    for part in PARTS:
        masks = [token_parts(document.answer)[part] for document in documents]
        tokens = np.array([mask.sum() for mask in masks], dtype=np.float64)
        sums = {
            name: np.array([values[mask].sum() for values, mask in zip(found, masks, strict=True)])
            for name, found in kl.items()
        }
        with np.errstate(divide="ignore", invalid="ignore"):
            gap, gaps = sums["none"].sum(), draws @ sums["none"]
            for name, total in sums.items():
                drawn = draws @ total
                low, high = np.nanpercentile(drawn / (draws @ tokens), [tail, 100 - tail])
                ends = np.nanpercentile(1 - drawn / gaps, [tail, 100 - tail])
                values = (
                    *(name, part, sizes.get(name, ""), len(documents), int(tokens.sum())),
                    *(float(v) for v in (total.sum() / tokens.sum(), low, high)),
                    *(float(v) for v in (1 - total.sum() / gap, *ends)),
                )
                rows.append(dict(zip(COLUMNS[2:], values, strict=True)))
    return rows


def patch_latents(
    manifests: tuple[Path, Path],
    names: tuple[str, str],
    patcher: Patcher,
    layer: int,
    latents: pd.DataFrame,
    selection: pd.DataFrame,
    tokens: Sequence[Path],
    limit: int,
    seed: int,
    dtype: str,
    batch_tokens: int,
    output: Path,
) -> None:
    """Write the table; ``names`` and ``manifests`` are those of source and target.

    Raises
    ------
    UserError
        If the verify split holds no document with an answer.
    """
    documents = read_documents(tokens, SPLIT, limit)
    if not documents:
        raise cli.UserError(f"the {SPLIT} split holds no answer tokens: raise text.tokens")
    crosscoder, where = patcher.crosscoder, patcher.device
    source, target = (crosscoder.models.index(name) for name in names)
    models = [load_model(manifest, getattr(torch, dtype), where) for manifest in manifests]
    chosen = choose_sets(latents, selection, *names, seed)
    masks: dict[str, Tensor | str] = {"none": torch.zeros(crosscoder.latents, device=where)}
    for name, members in chosen.items():
        mask = torch.zeros(crosscoder.latents, device=where)
        mask[torch.tensor(members, device=where)] = 1
        masks[name] = mask
    masks |= {"all": "all", "error": "error"}
    kl = divergences(
        (models[0], models[1]),
        patcher,
        (source, target),
        layer,
        masks,
        documents,
        batch_tokens,
    )
    sizes = {"none": 0, **{name: len(members) for name, members in chosen.items()}}
    sizes["all"] = int(latents["live"].sum())
    pair = {"source": names[0], "target": names[1]}
    rows = ({**pair, **row} for row in summarise(kl, documents, sizes, seed))
    write_csv(output, rows, COLUMNS)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and patch."""
    parser = argparse.ArgumentParser(description=__doc__)
    for side in ("source", "target"):
        parser.add_argument(f"--{side}", type=cli.named_path, required=True, metavar="NAME=MODEL")
    add_patching_flags(parser)
    parser.add_argument("--latents", type=Path, required=True)
    parser.add_argument("--selection", type=Path, required=True)
    parser.add_argument("--tokens", type=Path, nargs="+", required=True)
    parser.add_argument("--documents", type=int, default=20, help="per category, at most")
    parser.add_argument("--seed", type=int, required=True)
    add_running_flags(parser)
    parser.add_argument("--output", type=Path, required=True)
    a = parser.parse_args(argv)

    def run() -> None:
        set_threads(a.threads)
        (source, start), (target, end) = a.source, a.target
        with torch.no_grad():
            patch_latents(
                (start, end),
                (source, target),
                Patcher.open(a),
                a.layer,
                files.read_parquet(a.latents),
                files.read_parquet(a.selection),
                a.tokens,
                a.documents,
                a.seed,
                a.compute_dtype,
                a.batch_tokens,
                a.output,
            )

    return cli.guarded(run)


if __name__ == "__main__":
    raise SystemExit(main())
