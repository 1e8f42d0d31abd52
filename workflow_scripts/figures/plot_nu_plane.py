"""Plot ν^ε against ν^r of every live latent, with the region in which it is unique to a model."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.patches import Rectangle

from workflow_scripts.common import cli, files
from workflow_scripts.figures import style
from workflow_scripts.latents.settings import Region

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MANY = 4000
"""Latents from which on their density is shown, not each of them."""
LIMITS = (-0.3, 1.6)


def tidy(latents: pd.DataFrame, selection: pd.DataFrame, models: Sequence[str]) -> pd.DataFrame:
    """Return a row per live latent and ordered pair of models: ν^r, ν^ε, status, unique."""
    live = selection.merge(latents, on="latent")
    parts = [
        pd.DataFrame(
            {
                "latent": live["latent"],
                "own": own,
                "other": other,
                "nu_r": live[f"nu_r_{own}_vs_{other}"],
                "nu_e": live[f"nu_e_{own}_vs_{other}"],
                "status": live[f"status_{own}_vs_{other}"],
                "unique": live[f"unique_{own}_vs_{other}"].astype(bool),
            }
        )
        for own, other in permutations(models, 2)
    ]
    return pd.concat(parts, ignore_index=True)


def draw(axes: Axes, rows: pd.DataFrame, own: str, other: str, region: Region, colour: str) -> None:
    """Draw one panel: is a latent of ``own`` absent from ``other``?"""
    known = rows.dropna(subset=["nu_r", "nu_e"])
    x, y = known["nu_r"].clip(*LIMITS), known["nu_e"].clip(*LIMITS)
    unique = known["unique"].to_numpy()
    if len(known) > MANY:
        axes.hexbin(
            x, y, gridsize=55, bins="log", cmap="Greys", mincnt=1, extent=(*LIMITS, *LIMITS)
        )
    else:
        axes.scatter(x[~unique], y[~unique], s=7, color=style.GREY, alpha=0.45, linewidths=0)
    axes.scatter(x[unique], y[unique], s=9, color=colour, alpha=0.8, linewidths=0)
    axes.add_patch(
        Rectangle(
            (region.nu_lower, region.nu_lower),
            region.nu_r - region.nu_lower,
            region.nu_e - region.nu_lower,
            fill=False,
            edgecolor=colour,
            linestyle="--",
            linewidth=1,
        )
    )
    axes.set(xlim=LIMITS, ylim=LIMITS, aspect="equal")
    axes.set_xticks([0, 0.5, 1, 1.5])
    axes.set_yticks([0, 0.5, 1, 1.5])
    axes.set_xlabel("ν$^r$  (reconstruction)")
    axes.set_title(
        f"{own} against {other}: {unique.sum()} of {len(rows)} live latents unique", fontsize=8
    )


def plot_nu_plane(
    latents: Path,
    selection: Path,
    models: list[str],
    region: Region,
    output: style.Output,
) -> None:
    """Write the figure: a panel per ordered pair of models.

    Parameters
    ----------
    latents
        scores of the latents (Parquet)
    selection
        which latents are unique (Parquet)
    models
        models of the crosscoder, in its order
    """
    table = tidy(files.read_parquet(latents), files.read_parquet(selection), models)
    pairs = list(permutations(models, 2))
    colour = style.model_colours(models)
    rows = -(-len(pairs) // 2)
    with style.styled():
        figure, grid = plt.subplots(
            rows, 2, figsize=(style.WIDTH, 3.5 * rows), sharex=True, sharey=True, squeeze=False
        )
        for axes, (own, other) in zip(grid.flat, pairs, strict=True):
            of_pair = table[(table["own"] == own) & (table["other"] == other)]
            draw(axes, of_pair, own, other, region, colour[own])
        for axes in grid[:, 0]:
            axes.set_ylabel("ν$^ε$  (error)")
        figure.tight_layout()
        style.save(figure, table, output)


main = cli.command(plot_nu_plane)


if __name__ == "__main__":
    raise SystemExit(main())
