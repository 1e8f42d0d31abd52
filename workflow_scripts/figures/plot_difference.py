"""Plot how much of two models' difference each method explains, and where they differ most."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import pandas as pd

from workflow_scripts.common import cli
from workflow_scripts.common.tables import read_csv
from workflow_scripts.figures import category_rows, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METHODS = {
    "sae": ("sparse autoencoder on the difference", style.ORANGE, "s"),
    "crosscoder": ("crosscoder", style.BLUE, "o"),
    "unique": ("its unique latents", style.GREEN, "^"),
    "shared": ("its other latents", style.SKY, "v"),
}
ALL = "all"


def draw_explained(axes: Axes, table: pd.DataFrame) -> None:
    """Draw the share explained against the directions in use per token."""
    every = table[table["group"] == ALL]
    pca = every[every["method"] == "pca"].sort_values("size")
    axes.plot(
        pca["size"], 100 * pca["explained"], "-", color=style.BLACK, label="principal components"
    )
    sets = every[every["method"].isin(list(METHODS)) & (every["size"] > 0)]
    for row in category_rows.rows_of(sets):
        label, tint, marker = METHODS[row.text("method")]
        axes.plot(
            row.number("size"),
            100 * row.number("explained"),
            marker,
            color=tint,
            markersize=6,
            label=label,
        )
    axes.axhline(0, color=style.BLACK, linewidth=0.8, zorder=0)
    axes.set_xscale("log", base=2)
    axes.set_xlabel("directions in use per token")
    axes.set_ylabel("of the difference explained, %")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncol=2)


def draw_sizes(axes: Axes, table: pd.DataFrame) -> None:
    """Draw how far the models are apart on each category's tokens, against all tokens."""
    known = table[(table["method"] == "crosscoder") & (table["group"] != ALL)]
    known = known.sort_values("mean_square")
    axes.barh(range(len(known)), known["mean_square"], color=style.SKY, height=0.7)
    axes.axvline(1, color=style.BLACK, linewidth=0.8)
    axes.set_yticks(range(len(known)), [style.readable(str(name)) for name in known["group"]])
    axes.set_xlabel("mean squared difference on its text, all text = 1")


def plot_difference(difference: Path, output: style.Output) -> None:
    """Write the figure: a panel of methods, and one of categories where their text is known.

    Parameters
    ----------
    difference
        what explains the difference (CSV)
    """
    table = read_csv(difference)
    count = table.loc[table["group"] != ALL, "group"].nunique()
    lower = 0.7 + 0.22 * count
    with style.styled():
        figure, grid = plt.subplots(
            1 + (count > 0),
            1,
            figsize=(style.WIDTH * 0.9, 3.2 + lower * (count > 0)),
            squeeze=False,
            height_ratios=[2.6, lower] if count else [1],
        )
        draw_explained(grid[0, 0], table)
        if count:
            draw_sizes(grid[1, 0], table)
        figure.tight_layout()
        style.save(figure, table, output)


main = cli.command(plot_difference)


if __name__ == "__main__":
    raise SystemExit(main())
