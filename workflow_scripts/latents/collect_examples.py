"""Collect contexts of the unique latents and of a random sample of the other live ones.

Contexts from which an explanation is made come from the ``explain`` split, those on which it is
scored from the ``verify`` split. Negatives are windows of documents in which the latent never
fires: half random, half near in wording.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
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
    ShownWindows,
    SplitReader,
    find_peaks,
    frame_of,
    peaks_of,
    strongest_places,
    usable_rows,
    window_activations,
    write_windows,
)
from workflow_scripts.latents.example_windows import (
    Peaks,
    Pool,
    Windows,
    joined,
    negative_windows,
    positive_windows,
    spread,
)
from workflow_scripts.latents.settings import Examples
from workflow_scripts.latents.token_context import TokenContext, read_context

BLOCK = 200
"""Latents whose windows are in memory at once."""
CODES = {EXPLAIN: 0, VERIFY: 1}
"""Splits that windows are taken from, in the order of the table, and their part of the seeds."""


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


def draw_pool(
    store: ActivationStore, context: TokenContext, settings: Examples, seed: int, split: str
) -> Pool:
    """Return a split's random windows."""
    rng = np.random.default_rng([seed, 2, CODES[split]])
    return Pool(usable_rows(store, split), context, settings.window, settings.pool, rng)


def collect_split(
    store: ActivationStore,
    crosscoder: Crosscoder,
    context: TokenContext,
    chosen: pd.DataFrame,
    settings: Examples,
    seed: int,
    split: str,
    device: torch.device = CPU,
) -> Iterator[ShownWindows]:
    """Yield the windows of the chosen latents, those of :data:`BLOCK` at a time.

    ``crosscoder`` has the chosen latents alone.
    """
    pool = draw_pool(store, context, settings, seed, split)
    peaks = peaks_of(find_peaks(store, crosscoder.to(device), context, split), len(chosen))
    reader = SplitReader(store, split)
    windows = SplitWindows(reader, crosscoder, context, settings, seed, split, pool)
    firsts = range(0, len(chosen), BLOCK)
    for first in track(
        firsts, "latents", len(chosen), size=lambda at: min(BLOCK, len(chosen) - at)
    ):
        block = slice(first, first + BLOCK)
        yield windows.of(first, chosen.iloc[block], peaks[block])


@dataclass(frozen=True)
class SplitWindows:
    """Chooses windows of a split in which latents are shown."""

    reader: SplitReader
    crosscoder: Crosscoder
    context: TokenContext
    settings: Examples
    seed: int
    split: str
    pool: Pool

    def of(self, first: int, chosen: pd.DataFrame, peaks: Sequence[Peaks]) -> ShownWindows:
        """Return the windows of latents that stand from place ``first`` on in the crosscoder."""
        length, context = self.settings.window, self.context
        counts = self.settings.explain if self.split == EXPLAIN else self.settings.verify
        seeds = [[self.seed, 3, CODES[self.split], latent] for latent in chosen["latent"].tolist()]
        positives = [
            positive_windows(own, context, length, counts, seed)
            for own, seed in zip(peaks, seeds, strict=True)
        ]
        near = self.pool.similarity(positives, context)
        shown = [
            joined([own, negative_windows(peak, like, self.pool, context, counts, seed)])
            for own, peak, like, seed in zip(positives, peaks, near, seeds, strict=True)
        ]
        place = np.repeat(np.arange(len(shown)), [len(windows.row) for windows in shown])
        table = frame_of(joined(shown)).join(
            chosen.iloc[place].reset_index(drop=True).assign(split=self.split)
        )
        table["latent_max"] = np.array([own.value.max(initial=0) for own in peaks], float)[place]
        values, parts = zip(*map(self._activations, count(first), shown), strict=True)
        for model, part in zip(self.crosscoder.models, np.concatenate(parts).T, strict=True):
            table[f"part_{model}"] = part.astype(np.float64)
        return table, np.concatenate(values)

    def _activations(
        self, place: int, windows: Windows
    ) -> tuple[Float32[np.ndarray, " n"], Float32[np.ndarray, "windows M"]]:
        """Return a latent's activations in its windows, end to end, and its parts at the peaks."""
        index, _ = spread(windows.start, windows.end)
        active, by_model = window_activations(self.reader, self.crosscoder, place, index)
        offsets = np.concatenate([[0], np.cumsum(windows.end - windows.start)])
        return active, by_model[offsets[:-1] + strongest_places(active, offsets)]


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
    store, context = inputs.open(), read_context(tokens)
    chosen = choose_latents(files.read_parquet(selection), settings.shared_latents, seed)
    if chosen.empty:
        raise cli.UserError("no latent is live: fit on more tokens or lower fits.*.k")
    shown = Crosscoder.load(crosscoder, chosen["latent"].tolist())
    reader = load_tokenizer(tokenizer)
    parts = (
        part
        for split in CODES
        for part in collect_split(store, shown, context, chosen, settings, seed, split, device)
    )
    write_windows(examples, parts, context, reader)
    pool = draw_pool(store, context, settings, seed, EXPLAIN)
    windows = pd.DataFrame({"row": pool.row, "start": pool.start, "end": pool.end})
    write_windows(background, [(windows, None)], context, reader)
    weights = chosen[["latent", "sample_weight"]].rename(columns={"sample_weight": "weight"})
    files.write_parquet(sampled, weights)


main = cli.command(collect_examples)


if __name__ == "__main__":
    raise SystemExit(main())
