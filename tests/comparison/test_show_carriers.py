"""Contexts of the latents that carry a change, on activations whose every value is known."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.latents.test_collect_examples import (
    COUNTS,
    FIRING,
    LENGTH,
    SETTINGS,
    WINDOW,
    Letters,
    peak_of,
    planted,
)
from workflow_scripts.activations.controls import StoreInputs
from workflow_scripts.common.device import Compute
from workflow_scripts.comparison import show_carriers as step


def carriers(ranks: dict[int, int]) -> pd.DataFrame:
    """Return a table of carriers: rank by latent."""
    table = pd.DataFrame(list(ranks.items()), columns=["latent", "rank"])
    return table.assign(labeller="true", label="only")


def shown(folder: Path, table: pd.DataFrame) -> pd.DataFrame:
    """Run the step and return what it writes."""
    store, crosscoder, context = planted()
    crosscoder.save(folder)
    table.to_parquet(folder / "carriers.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StoreInputs, "open", lambda self: store)
        patch.setattr(step, "read_context", lambda shards: context)
        patch.setattr(step, "load_tokenizer", lambda path: Letters())
        step.show_carriers(
            StoreInputs(activations={}, normalizers={}, layer=1),
            [],
            folder,
            folder / "carriers.parquet",
            folder / "model.json",
            SETTINGS,
            Compute(device="cpu"),
            folder / "contexts.parquet",
        )
    return pd.read_parquet(folder / "contexts.parquet")


def test_the_strongest_contexts_come_from_the_explain_split(tmp_path: Path) -> None:
    table = shown(tmp_path, carriers({0: 1, 1: 2}))
    assert set(table["latent"]) == {0}  # the other fires nowhere
    assert len(table) == COUNTS.top + COUNTS.quantile
    assert set(table["split"]) == {"explain"}
    assert (table["document"] % 2 == 0).all()
    last = table["document"].max()
    assert last == max(d for d in range(FIRING * 2) if d % 4 == 0)
    row = table[table["document"] == last].iloc[0]
    assert row["max_activation"] == row["latent_max"] == 2.0 + last
    assert len(row["pieces"]) == len(row["activations"]) == min(WINDOW, LENGTH)
    assert row["activations"][row["peak"]] == row["max_activation"]
    assert row["start"] + row["peak"] == last * LENGTH + peak_of(last)


def test_only_the_first_of_each_label_are_shown(tmp_path: Path) -> None:
    assert step.chosen_latents(carriers({5: 1, 2: step.RANKS, 7: step.RANKS + 1})).tolist() == [
        2,
        5,
    ]
    empty = shown(tmp_path, carriers({0: step.RANKS + 1}))
    assert empty.empty
    assert {"latent", "kind", "pieces", "activations", "latent_max"} <= set(empty.columns)
