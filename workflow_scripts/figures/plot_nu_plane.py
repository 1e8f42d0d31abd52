"""Plot ν^ε against ν^r of every live latent, with the region in which it is unique to a model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.patches import Rectangle

from workflow_scripts.common import cli, files
from workflow_scripts.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MANY = 4000
"""Latents from which on their density is shown, not each of them."""
LIMITS = (-0.3, 1.6)


@dataclass(frozen=True)
class Region:
    """The decision region."""

    nu_r: float
    nu_e: float
    lower: float


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
            (region.lower, region.lower),
            region.nu_r - region.lower,
            region.nu_e - region.lower,
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
    models: Sequence[str],
    region: Region,
    output: style.Output,
) -> None:
    """Write the figure: a panel per ordered pair of models."""
    table = tidy(files.read_parquet(latents), files.read_parquet(selection), models)
    pairs = list(permutations(models, 2))
    colour = style.model_colours(models)
    rows = -(-len(pairs) // 2)
    with style.styled():
        figure, grid = plt.subplots(
            rows, 2, figsize=(style.WIDTH, 3.5 * rows), sharex=True, sharey=True, squeeze=False
        )
        for axes, (own, other) in zip(grid.flat, pairs, strict=True):
            mine = table[(table["own"] == own) & (table["other"] == other)]
            draw(axes, mine, own, other, region, colour[own])
        for axes in grid[:, 0]:
            axes.set_ylabel("ν$^ε$  (error)")
        figure.tight_layout()
        style.save(figure, table, output)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latents", type=Path, required=True)
    parser.add_argument("--selection", type=Path, required=True)
    parser.add_argument("--models", nargs="+", required=True)
    parser.add_argument("--nu-r", type=float, default=0.5)
    parser.add_argument("--nu-e", type=float, default=0.2)
    parser.add_argument("--nu-lower", type=float, default=-0.1)
    style.add_output(parser)
    a = parser.parse_args(argv)
    region = Region(a.nu_r, a.nu_e, a.nu_lower)
    return cli.guarded(
        lambda: plot_nu_plane(a.latents, a.selection, a.models, region, style.output_of(a))
    )


if __name__ == "__main__":
    raise SystemExit(main())
