"""Plot the histogram of Δnorm, with the unique latents and, where there is one, the null's."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from workflow_scripts.common import cli, files
from workflow_scripts.figures import style
from workflow_scripts.latents.ownership import owned_by

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = [i / 50 for i in range(51)]


def tidy(latents: pd.DataFrame, selection: pd.DataFrame, models: Sequence[str]) -> pd.DataFrame:
    """Return a row per live latent and pair of models: Δnorm and the model it is unique to."""
    live = selection.merge(latents, on="latent")
    parts = [
        pd.DataFrame(
            {
                "latent": live["latent"],
                "first": first,
                "second": second,
                "delta_norm": live[f"delta_norm_{first}_{second}"],
                "unique_to": live["unique_to"],
            }
        )
        for first, second in combinations(models, 2)
    ]
    return pd.concat(parts, ignore_index=True)


def null_values(path: Path) -> np.ndarray:
    """Return Δnorm of a null fit's live latents, for its first pair of models."""
    table = files.read_parquet(path)
    column = next((name for name in table.columns if name.startswith("delta_norm_")), None)
    if column is None:
        raise cli.UserError(f"{path} has no column delta_norm: delete it and run again")
    values: np.ndarray = table.loc[table["live"], column].dropna().to_numpy(dtype=np.float64)
    return values


def draw(axes: Axes, rows: pd.DataFrame, first: str, second: str, null: np.ndarray | None) -> None:
    """Draw one panel; counts on a logarithmic axis."""
    values = rows["delta_norm"].dropna()
    axes.hist(values, BINS, color=style.LIGHT, label=f"all live ({len(values)})")
    for model, colour in ((first, style.BASELINE), (second, style.CANDIDATE)):
        owned = rows.loc[owned_by(rows["unique_to"], model), "delta_norm"]
        label = f"unique to {model} ({len(owned)})"
        axes.hist(owned, BINS, histtype="step", color=colour, linewidth=1.4, label=label)
    if null is not None:
        axes.hist(
            null,
            BINS,
            weights=np.full(len(null), len(values) / max(len(null), 1)),
            histtype="step",
            color=style.BLACK,
            linewidth=1,
            label="null, scaled to as many",
        )
    axes.set_yscale("log")
    axes.set(xlim=(0, 1), ylim=(0.7, None))
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
    axes.set_xticklabels([f"0\nonly {first}", "¼", "½\nshared", "¾", f"1\nonly {second}"])
    axes.set(xlabel="Δnorm", ylabel="latents")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))


def plot_delta_norm(
    latents: Path,
    selection: Path,
    models: list[str],
    output: style.Output,
    null: Path | None = None,
) -> None:
    """Write the figure: a panel per pair of models.

    Parameters
    ----------
    latents
        scores of the latents (Parquet)
    selection
        which latents are unique (Parquet)
    models
        models of the crosscoder, in its order
    null
        scores of the latents of a null fit (Parquet)
    """
    table = tidy(files.read_parquet(latents), files.read_parquet(selection), models)
    pairs = list(combinations(models, 2))
    with style.styled():
        figure, grid = plt.subplots(
            len(pairs), 1, figsize=(style.WIDTH, 2.6 * len(pairs)), squeeze=False
        )
        for axes, (first, second) in zip(grid.flat, pairs, strict=True):
            rows = table[(table["first"] == first) & (table["second"] == second)]
            draw(axes, rows, first, second, null_values(null) if null else None)
        figure.tight_layout()
        style.save(figure, table, output)


main = cli.command(plot_delta_norm)


if __name__ == "__main__":
    raise SystemExit(main())
