"""Choose the contexts from which a latent is explained, and others that score the explanation.

`contexts.parquet` has a row per latent and context, without any model's name, `latents.parquet` a
row per latent: `latent`, `status`, counts. Training contexts come from the explain split, held-out
ones from the verify split; a held-out context that nearly repeats a training one, or a document
that is in both splits, is dropped.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from workflow_scripts.autointerp.annotation_tables import INSUFFICIENT, OK
from workflow_scripts.autointerp.context_schema import (
    CONTEXT_SCHEMA,
    HARD,
    HELD_OUT,
    POSITIVE,
    RANDOM,
    TRAIN,
)
from workflow_scripts.autointerp.latent_tables import LatentTable
from workflow_scripts.autointerp.prompting.near_duplicates import drop_near_duplicates
from workflow_scripts.autointerp.settings import ContextCounts
from workflow_scripts.autointerp.windows import largest_by_window, read_windows
from workflow_scripts.common import cli, files

ROUNDING = 0.01
"""How far above the weakest positive rounding may lift a negative, as a share of the strongest."""

BATCH = 100
"""Latents at once, which bounds memory; it changes no result."""
NEEDED = ("latent", "split", "kind", "document", "pieces", "activations")


def select_contexts(
    examples: Path, counts: ContextCounts, seed: int, contexts: Path, latents: Path
) -> None:
    """Write the contexts that explain a latent, those that score it, and each latent's status.

    Parameters
    ----------
    examples
        examples of the latents of a fit (Parquet)
    seed
        seed of the contexts' choice
    contexts
        table to write, a row per latent and context (Parquet)
    latents
        table to write, a row per latent (Parquet)

    Raises
    ------
    UserError
        If a negative context is clearly active, or the table lacks a column.
    """
    table = LatentTable(examples, NEEDED, ("stratum", "template", "role"))
    statuses: list[pd.DataFrame] = []
    with (
        files.atomic_path(contexts) as temporary,
        pq.ParquetWriter(temporary, CONTEXT_SCHEMA, compression="zstd") as out,
    ):
        for part in table.batches(table.latents(), BATCH):
            rows = _describe(part)
            _check_negatives(rows, examples)
            chosen = _order(rows.loc[_choose(rows, part, counts, seed)])
            chosen["context"] = chosen.groupby("latent").cumcount()
            out.write_table(_contexts(part, chosen))
            statuses.append(_status(rows, chosen, counts))
    status = pd.concat(statuses, ignore_index=True)
    files.write_parquet(latents, status)
    total = int(status.filter(regex="^(train|held_out)_").to_numpy().sum())
    short = int((status["status"] == INSUFFICIENT).sum())
    cli.log(f"{len(status)} latents, {total} contexts, {short} latents with too few")


def _describe(table: pa.Table) -> pd.DataFrame:
    scalars = ["latent", "split", "kind", "document"]
    rows: pd.DataFrame = table.select(scalars).to_pandas()
    rows["stratum"] = table["stratum"].to_pandas() if "stratum" in table.column_names else "none"
    windows = read_windows(table)
    window = windows.window_of_token
    rows["peak_value"] = largest_by_window(window, windows.activation, len(windows))
    rows["length"] = np.diff(windows.offsets)
    rows["part"] = np.where(rows["split"] == "verify", HELD_OUT, TRAIN)
    return rows


def _check_negatives(rows: pd.DataFrame, path: Path) -> None:
    """Refuse a negative that is clearly active.

    Silence is decided in batches and the activations shown are computed window by window, so
    rounding may lift a negative over the latent's threshold. It then stands no higher than the
    weakest positive; such a window is neither, and :func:`_choose` drops it.
    """
    positive = (rows["kind"] == POSITIVE) & (rows["peak_value"] > 0)
    peak = rows["peak_value"].where(positive).groupby(rows["latent"])
    bound = peak.transform("min") + ROUNDING * peak.transform("max")
    active = rows[(rows["kind"] != POSITIVE) & (rows["peak_value"] > bound)]
    if len(active):
        latent = int(active["latent"].iloc[0])
        raise cli.UserError(
            f"{path}: a negative context of latent {latent} has an activation, "
            "so it is no negative: collect the examples again"
        )


def _choose(
    rows: pd.DataFrame, table: pa.Table, counts: ContextCounts, seed: int
) -> NDArray[np.int64]:
    """Return the indices of the rows to keep."""
    consistent = (rows["kind"] == POSITIVE) == (rows["peak_value"] > 0)
    usable = rows[(rows["length"] > 0) & consistent]
    pair = usable["latent"] * (int(usable["document"].max()) + 1) + usable["document"]
    seen = pair[usable["part"] == TRAIN].unique()
    usable = usable[(usable["part"] == TRAIN) | ~pair.isin(seen)]
    # Training contexts first, so that of two near-duplicates across the parts the held-out goes.
    order = _order(usable)
    unique = drop_near_duplicates(
        read_windows(table), order.index.to_numpy(), order["latent"].to_numpy(), counts.similarity
    )
    left = usable.loc[unique, ["latent", "part", "kind"]]
    opens = np.flatnonzero((left != left.shift()).any(axis=1))
    kept = [
        _sample(rows, _limit(part, kind, counts), [seed, int(latent)])
        for rows, latent, part, kind in zip(
            np.split(unique, opens[1:]), *(left[name].iloc[opens] for name in left), strict=True
        )
    ]
    return np.sort(np.concatenate([np.zeros(0, np.int64), *kept]))


def _order(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows by latent, part (training first) and kind, the strongest first."""
    return rows.sort_values(
        ["latent", "part", "kind", "peak_value"],
        ascending=[True, False, False, False],
        kind="stable",
    )


def _limit(part: str, kind: str, counts: ContextCounts) -> int:
    if part == TRAIN:
        return counts.train_positive if kind == POSITIVE else counts.train_negative // 2
    return counts.held_out_positive if kind == POSITIVE else counts.held_out_negative // 2


def _sample(ordered: NDArray[np.int64], count: int, seed: list[int]) -> NDArray[np.int64]:
    """Keep at most ``count`` rows: half the strongest, the rest spread over the values."""
    if len(ordered) <= count:
        return ordered
    top = count // 2
    rest = ordered[top:]
    edges = np.linspace(0, len(rest), count - top + 1)
    draw = np.random.default_rng(seed).random(count - top)
    picks = (edges[:-1] + draw * np.diff(edges)).astype(int)
    return np.concatenate([ordered[:top], rest[np.minimum(picks, len(rest) - 1)]]).astype(np.int64)


def _contexts(table: pa.Table, chosen: pd.DataFrame) -> pa.Table:
    picked = table.take(pa.array(chosen.index.to_numpy()))
    columns: dict[str, object] = {
        name: pa.array(chosen[name].to_numpy(), from_pandas=True)
        for name in ("latent", "context", "part", "kind", "stratum", "document")
    }
    windows = read_windows(picked)
    strongest = chosen.groupby("latent")["peak_value"].transform("max").to_numpy()
    scale = np.repeat(np.maximum(strongest, 1e-12), np.diff(windows.offsets))
    offsets = pa.array(windows.offsets.astype(np.int32))
    columns["pieces"] = pa.ListArray.from_arrays(
        offsets, pa.array(windows.vocabulary, pa.string()).take(pa.array(windows.piece))
    )
    relative = (windows.activation / scale).astype(np.float32)
    columns["activations"] = pa.ListArray.from_arrays(offsets, pa.array(relative))
    columns["template"] = pa.ListArray.from_arrays(offsets, pa.array(windows.template))
    columns["role"] = pa.ListArray.from_arrays(offsets, pa.array(windows.role))
    return pa.table(columns).cast(CONTEXT_SCHEMA)


def _status(rows: pd.DataFrame, chosen: pd.DataFrame, counts: ContextCounts) -> pd.DataFrame:
    status = pd.DataFrame({"latent": np.sort(rows["latent"].unique())})
    for part in (TRAIN, HELD_OUT):
        for kind in (POSITIVE, RANDOM, HARD):
            some = chosen[(chosen["part"] == part) & (chosen["kind"] == kind)]
            count = some.groupby("latent").size()
            status[f"{part}_{kind}"] = status["latent"].map(count).fillna(0).astype(int)
    few = pd.Series(False, index=status.index)
    for part in (TRAIN, HELD_OUT):
        negatives = status[f"{part}_{RANDOM}"] + status[f"{part}_{HARD}"]
        few |= status[f"{part}_{POSITIVE}"] < counts.least_positive
        few |= negatives < counts.least_positive
    status.insert(1, "status", np.where(few, INSUFFICIENT, OK))
    return status


main = cli.command(select_contexts)


if __name__ == "__main__":
    raise SystemExit(main())
