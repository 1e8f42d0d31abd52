"""Collect contexts of the unique latents and of a random sample of the other live ones.

Contexts from which an explanation is made come from the ``explain`` split, those on which it is
scored from the ``verify`` split. Negatives are windows of documents in which the latent never
fires: half random, half near in wording.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32

from workflow_scripts.activations.controls import StoreInputs
from workflow_scripts.activations.store import ActivationStore
from workflow_scripts.common import cli, files
from workflow_scripts.common.device import Compute
from workflow_scripts.common.manifest import load_tokenizer
from workflow_scripts.common.progress import track
from workflow_scripts.crosscoder.model import Crosscoder
from workflow_scripts.latents.activity import CPU
from workflow_scripts.latents.example_contexts import (
    EXPLAIN,
    VERIFY,
    SplitReader,
    find_peaks,
    frame_of,
    peaks_of,
    strongest_places,
    window_activations,
    write_windows,
)
from workflow_scripts.latents.example_windows import (
    Pool,
    joined,
    negative_windows,
    positive_windows,
    spread,
)
from workflow_scripts.latents.settings import Examples
from workflow_scripts.latents.token_context import TokenContext, read_context


def choose_latents(selection: pd.DataFrame, shared: int, seed: int) -> pd.DataFrame:
    """Return the latents to show: ``latent``, ``unique_to``, ``sample_weight``, by latent.

    Every latent that is unique against some model is shown; of the others a random sample, each
    standing for live/sampled of them.
    """
    claims = [name for name in selection.columns if name.startswith("unique_") and "_vs_" in name]
    unique = selection[claims].any(axis=1)
    others = selection[~unique]
    rng = np.random.default_rng([seed, 1])
    picked = others.iloc[np.sort(rng.permutation(len(others))[:shared])]
    weight = len(others) / max(len(picked), 1)
    chosen = pd.concat(
        [
            selection[unique][["latent", "unique_to"]].assign(sample_weight=1.0),
            picked[["latent", "unique_to"]].assign(sample_weight=weight),
        ]
    )
    return chosen.sort_values("latent").reset_index(drop=True)


def collect_split(
    store: ActivationStore,
    crosscoder: Crosscoder,
    context: TokenContext,
    chosen: pd.DataFrame,
    settings: Examples,
    seed: int,
    split: str,
    device: torch.device = CPU,
) -> tuple[pd.DataFrame, Float32[np.ndarray, " n"], Pool]:
    """Return the windows of every chosen latent, their activations end to end, and the pool."""
    counts = settings.explain if split == EXPLAIN else settings.verify
    code = 0 if split == EXPLAIN else 1
    reader = SplitReader(store, split)
    rng = np.random.default_rng([seed, 2, code])
    pool = Pool(reader.kept, context, settings.window, settings.pool, rng)
    latents = chosen["latent"].to_numpy()
    strongest_tokens = find_peaks(store, crosscoder.to(device), context, latents, split)
    peaks = peaks_of(strongest_tokens, latents)
    seeds = [[seed, 3, code, latent] for latent in latents.tolist()]
    positives = [
        positive_windows(own, context, settings.window, counts, own_seed)
        for own, own_seed in zip(peaks, seeds, strict=True)
    ]
    parts, values, strongest, at_peak = [], [], [], []
    each = zip(latents.tolist(), peaks, positives, seeds, strict=True)
    near = pool.similarity(positives, context)
    for latent, own, positive, own_seed in track(each, "latents", len(latents)):
        negative = negative_windows(own, next(near), pool, context, counts, own_seed)
        both = joined([positive, negative])
        index, _ = spread(both.start, both.end)
        active, by_model = window_activations(reader, crosscoder, latent, index)
        offsets = np.concatenate([[0], np.cumsum(both.end - both.start)])
        at_peak.append(by_model[offsets[:-1] + strongest_places(active, offsets)])
        values.append(active)
        parts.append(both)
        strongest.append(float(own.value.max()) if len(own.value) else 0.0)
    place = np.repeat(np.arange(len(parts)), [len(part.row) for part in parts])
    windows = frame_of(joined(parts)).join(
        chosen.iloc[place].reset_index(drop=True).assign(split=split)
    )
    windows["latent_max"] = np.array(strongest)[place]
    for model, part in zip(crosscoder.models, np.concatenate(at_peak).T, strict=True):
        windows[f"part_{model}"] = part.astype(np.float64)
    return windows, np.concatenate(values), pool


@torch.no_grad()
def collect_examples(
    inputs: StoreInputs,
    tokens: list[Path],
    crosscoder: Path,
    selection: Path,
    tokenizer: Path,
    settings: Examples,
    seed: int,
    compute: Compute,
    examples: Path,
    background: Path,
    sampled: Path,
) -> None:
    """Write contexts of the unique latents and of a sample of the others.

    Parameters
    ----------
    tokens
        token shards, in order
    crosscoder
        folder of the crosscoder
    selection
        which latents are unique (Parquet)
    tokenizer
        ``model.json`` of a model that has the tokenizer
    seed
        seed of the samples
    examples
        table to write, a row per context (Parquet)
    background
        table to write: the explain split's random windows, for reference counts (Parquet)
    sampled
        table to write: the latents shown, and how many each stands for (Parquet)

    Raises
    ------
    UserError
        If no latent is live.
    """
    device = compute.start()
    store, fitted, context = inputs.open(), Crosscoder.load(crosscoder), read_context(tokens)
    chosen = choose_latents(files.read_parquet(selection), settings.shared_latents, seed)
    if chosen.empty:
        raise cli.UserError("no latent is live: fit on more tokens or lower fits.*.k")
    reader = load_tokenizer(tokenizer)
    (windows, values, pool), (verify, verify_values, _) = (
        collect_split(store, fitted, context, chosen, settings, seed, split, device)
        for split in (EXPLAIN, VERIFY)
    )
    windows = pd.concat([windows, verify], ignore_index=True)
    values = np.concatenate([values, verify_values])
    write_windows(examples, windows, values, context, reader)
    windows = pd.DataFrame({"row": pool.row, "start": pool.start, "end": pool.end})
    write_windows(background, windows, None, context, reader)
    weights = chosen[["latent", "sample_weight"]].rename(columns={"sample_weight": "weight"})
    files.write_parquet(sampled, weights)


main = cli.command(collect_examples)


if __name__ == "__main__":
    raise SystemExit(main())
