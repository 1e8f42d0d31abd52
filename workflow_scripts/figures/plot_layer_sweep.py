"""Plot the direct share of each category against the layer at which two models are compared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import pandas as pd

from workflow_scripts.common import cli
from workflow_scripts.figures import category_rows, style
from workflow_scripts.figures.category_rows import ShownPair, ShownRows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = (
    "name",
    "labeller",
    "unique",
    "live",
    "unique_share",
    "unique_share_low",
    "unique_share_high",
    "reference_share",
)


def sweep(
    categories: Path, layers: Mapping[str, int], shown: ShownRows
) -> tuple[pd.DataFrame, ShownPair]:
    """Return the rows of every comparison with its layer, and what was chosen of the first."""
    parts, choices = [], []
    for name, layer in layers.items():
        rows, choice = category_rows.choose(categories, name, shown)
        parts.append(rows.dropna(subset=["unique_share"])[list(COLUMNS)].assign(layer=layer))
        choices.append(choice)
    return pd.concat(parts).sort_values(["name", "layer"], ignore_index=True), choices[0]


def draw(axes: Axes, table: pd.DataFrame) -> None:
    """Draw a line per category, in colour where some layer's interval is above the reference."""
    layers = sorted(table["layer"].unique())
    above = table.loc[table["unique_share_low"] > table["reference_share"], "name"]
    tints = style.colours(list(above), style.CLASSES)
    for name, block in table.groupby("name"):
        tint = tints.get(str(name), style.LIGHT)
        y = 100 * block["unique_share"]
        reach = [y - 100 * block["unique_share_low"], 100 * block["unique_share_high"] - y]
        axes.errorbar(
            block["layer"],
            y,
            yerr=reach,
            fmt="o-",
            color=tint,
            markersize=4,
            linewidth=1.3,
            elinewidth=0.8,
            zorder=2 + (name in tints),
        )
        if name in tints:
            axes.annotate(
                style.readable(str(name)),
                (block["layer"].iloc[-1], y.iloc[-1]),
                xytext=(8, 0),
                textcoords="offset points",
                va="center",
                color=tint,
                fontsize=8,
            )
    axes.set_xticks(layers)
    axes.set(xlabel="layer", ylim=(0, None))


def plot_layer_sweep(
    categories: Path, layers: dict[str, int], shown: ShownRows, output: style.Output
) -> None:
    """Write the figure.

    Parameters
    ----------
    categories
        table of the comparisons (CSV)
    layers
        layer of each comparison
    """
    table, choice = sweep(categories, layers, shown)
    if table.empty:
        style.save_empty("no live latent has a category", table, output)
        return
    with style.styled():
        figure, axes = plt.subplots(figsize=(style.WIDTH * 0.72, 3.4))
        draw(axes, table)
        axes.set_ylabel(f"live latents unique to {choice.baseline} or to {choice.candidate}, %")
        style.note_labels(axes, table["labeller"])
        style.save(figure, table, output)


main = cli.command(plot_layer_sweep)


if __name__ == "__main__":
    raise SystemExit(main())
