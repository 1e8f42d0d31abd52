"""Does it matter that unique latents are chosen on the documents that they weigh?

``python -m tests.comparison.tabulate_cross_fit results/quickstart`` chooses the unique latents of
the planted pair's first crosscoder on one half of the score split's documents and weighs both
halves with them, and the other way round. Each document is so weighed twice, by latents chosen on
its own half and on the other one; a line per true category gives both means of its unique mass, the
paired difference with an interval over documents, and the mass by latents chosen on all documents.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from workflow_scripts.activations.store import ActivationStore
from workflow_scripts.common import files
from workflow_scripts.common.intervals import percentile_interval, resample
from workflow_scripts.comparison.document_weights import compared_latents
from workflow_scripts.comparison.weigh_documents import weigh
from workflow_scripts.crosscoder.model import Crosscoder
from workflow_scripts.latents.score_latents import latent_scores
from workflow_scripts.latents.select_latents import decide
from workflow_scripts.latents.settings import Scoring, Selection
from workflow_scripts.latents.token_context import TokenContext, read_context

FIT, MODELS, LAYER = "it_simpo", ("it", "simpo"), 3
DRAWS = 2000


class Half(ActivationStore):
    """A store of which every second document is read, or all."""

    context: TokenContext
    half: int | None = None

    def rows(self, split: str) -> NDArray[np.int64]:
        """Return the usable tokens of those documents of a split."""
        rows = super().rows(split)
        if self.half is None:
            return rows
        place = np.unique(self.context.row_of(rows), return_inverse=True)[1]
        kept: NDArray[np.int64] = rows[place % 2 == self.half]
        return kept


def opened(results: Path) -> Half:
    """Open the activations of the planted pair."""
    folders = {m: results / "activations" / m / f"layer{LAYER}" for m in MODELS}
    shards = {m: sorted(folder.glob("shard*.h5")) for m, folder in folders.items()}
    store = Half(shards, LAYER, {m: folder / "normalizer.h5" for m, folder in folders.items()})
    store.context = read_context(sorted((results / "dataset" / "tokens").glob("shard*.h5")))
    return store


def unique_mass(
    store: Half, crosscoder: Crosscoder, latents: pd.DataFrame, selection: pd.DataFrame
) -> pd.Series[float]:
    """Return the unique mass of each document of the store."""
    pair = compared_latents(crosscoder, latents, selection, *MODELS)
    every = np.unique(store.context.document).astype(np.int64)
    labels = pd.DataFrame({"document": every, "labeller": "all", "label": "all"})
    table, _ = weigh(store, crosscoder, store.context, pair, MODELS, labels)
    table = table.set_index("document")
    mass: pd.Series[float] = (table["unique_baseline"] + table["unique_candidate"]) / table["total"]
    return mass


@torch.no_grad()
def tabulate(results: Path) -> pd.DataFrame:
    """Return a row per true category, and one for all text."""
    rule = json.loads((results / "provenance.json").read_text(encoding="utf-8"))["settings"]
    scoring = Scoring(**{name: rule["latents"][name] for name in Scoring.model_fields})
    choice = Selection(**{name: rule["latents"][name] for name in Selection.model_fields})
    crosscoder, store = Crosscoder.load(results / "crosscoder" / FIT / "seed0"), opened(results)
    masses: dict[tuple[str, int], pd.Series[float]] = {}
    chosen = []
    for half in (0, 1):
        store.half = half
        latents = latent_scores(store, crosscoder, store.context, scoring)
        selection = decide(latents, MODELS, choice)
        chosen.append(set(selection.loc[selection["unique_to"] != "", "latent"]))
        masses["own", half] = unique_mass(store, crosscoder, latents, selection)
        store.half = 1 - half
        masses["other", half] = unique_mass(store, crosscoder, latents, selection)
    print(f"unique latents: {len(chosen[0])}, {len(chosen[1])}, both {len(chosen[0] & chosen[1])}")
    own, other = (pd.concat([masses[by, half] for half in (0, 1)]) for by in ("own", "other"))
    store.half = None
    folder = results / "latents" / FIT / "seed0"
    tables = (files.read_parquet(folder / f"{name}.parquet") for name in ("latents", "selection"))
    whole = unique_mass(store, crosscoder, *tables)
    context = store.context
    names = np.array([*context.categories, "none"], dtype=object)
    first = context.row_starts[:-1]
    category = np.maximum.reduceat(context.category, first)  # BOS has none
    label = pd.Series(names[category], index=context.document[first])
    rows = []
    for name in ["all", *sorted(set(label[own.index]))]:
        of_label = own.index if name == "all" else own.index[label[own.index] == name]
        gaps = np.asarray((own - other)[of_label], dtype=np.float64)
        drawn = resample(len(gaps), DRAWS, 0) @ gaps / len(gaps)
        gap = percentile_interval(float(gaps.mean()), drawn)
        means = (mass[of_label].mean() for mass in (whole, own, other))
        rows.append((name, len(of_label), *means, gap.estimate, gap.low, gap.high))
    columns = ["label", "documents", "by_all", "by_own_half", "by_other_half", "gap", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and tabulate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    print(tabulate(parser.parse_args(argv).results).to_string(index=False, float_format="%.4f"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
