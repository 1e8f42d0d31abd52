"""Show the latents that carry a change in text on which they were not chosen.

A latent need not be unique to carry a change, so the contexts collected for explanations rarely
hold it. Leaves the strongest contexts of the explain split, in the form of examples.parquet.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32, Int

from workflow_scripts.activations.controls import StoreInputs
from workflow_scripts.activations.store import ActivationStore
from workflow_scripts.common import cli, files
from workflow_scripts.common.device import Compute
from workflow_scripts.common.manifest import load_tokenizer
from workflow_scripts.crosscoder.model import Crosscoder
from workflow_scripts.latents.activity import CPU
from workflow_scripts.latents.example_contexts import (
    EXPLAIN,
    SplitReader,
    find_peaks,
    frame_of,
    peaks_of,
    window_activations,
    write_windows,
)
from workflow_scripts.latents.example_windows import Windows, joined, positive_windows, spread
from workflow_scripts.latents.settings import Examples
from workflow_scripts.latents.token_context import TokenContext, read_context

RANKS = 3
"""Latents of each label that are shown: as many as the report names."""
NONE = Windows(*(np.zeros(0, dtype=np.int64) for _ in Windows._fields))


def chosen_latents(carriers: pd.DataFrame) -> Int[np.ndarray, " latents"]:
    """Return the latents shown, in ascending order."""
    return np.unique(carriers.loc[carriers["rank"] <= RANKS, "latent"].to_numpy(np.int64))


def contexts(
    store: ActivationStore,
    crosscoder: Crosscoder,
    context: TokenContext,
    latents: Int[np.ndarray, " latents"],
    settings: Examples,
    device: torch.device = CPU,
) -> tuple[pd.DataFrame, Float32[np.ndarray, " n"]]:
    """Return the windows in which each latent fires, and its activations there, end to end.

    The crosscoder has these ``latents`` alone.
    """
    peaks = peaks_of(find_peaks(store, crosscoder.to(device), context, EXPLAIN), len(latents))
    windows = [
        positive_windows(own, context, settings.window, settings.explain, [latent])
        for latent, own in zip(latents.tolist(), peaks, strict=True)
    ]
    owner = np.repeat(np.arange(len(latents)), [len(own.row) for own in windows])
    largest = np.array([own.value.max(initial=0) for own in peaks])
    table = frame_of(joined([NONE, *windows]))
    table = table.assign(latent=latents[owner], split=EXPLAIN, latent_max=largest[owner])
    reader = SplitReader(store, EXPLAIN)
    parts = [
        window_activations(reader, crosscoder, place, spread(own.start, own.end)[0])[0]
        for place, own in enumerate(windows)
    ]
    return table, np.concatenate([np.zeros(0, dtype=np.float32), *parts])


@torch.no_grad()
def show_carriers(
    inputs: StoreInputs,
    tokens: list[Path],
    crosscoder: Path,
    carriers: Path,
    tokenizer: Path,
    settings: Examples,
    compute: Compute,
    output: Path,
) -> None:
    """Write contexts of the latents that carry the changes of a comparison.

    Parameters
    ----------
    tokens
        token shards, in order
    crosscoder
        folder of the crosscoder
    carriers
        the latents that carry each label's difference (Parquet)
    tokenizer
        ``model.json`` of a model that has the tokenizer
    output
        table to write, a row per context (Parquet)
    """
    device, context = compute.start(), read_context(tokens)
    latents = chosen_latents(files.read_parquet(carriers))
    shown = Crosscoder.load(crosscoder, latents.tolist())
    windows, values = contexts(inputs.open(), shown, context, latents, settings, device)
    write_windows(output, [(windows, values)], context, load_tokenizer(tokenizer))


main = cli.command(show_carriers)


if __name__ == "__main__":
    raise SystemExit(main())
