"""Plot where two models' weights differ: how far and in how many directions, by layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import pandas as pd

from workflow_scripts.common import cli
from workflow_scripts.common.tables import read_csv
from workflow_scripts.figures import style
from workflow_scripts.models.weight_changes import half_way

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = {
    "relative": ("‖ΔW‖ / ‖W‖, %", 100.0),
    "spread": ("effective rank of ΔW, % of full", 100.0),
}


def draw(axes: Axes, table: pd.DataFrame, column: str) -> None:
    """Draw one column as a grid of modules by layers."""
    label, factor = PANELS[column]
    grid = factor * table.pivot(index="module", columns="layer", values=column)
    modules = list(dict.fromkeys(table["module"]))
    grid = grid.reindex(modules)
    shown = axes.imshow(grid.to_numpy(dtype=float), aspect="auto", cmap="cividis", vmin=0)
    step = max(1, len(grid.columns) // 12)
    axes.set_xticks(range(0, len(grid.columns), step), [str(n) for n in grid.columns[::step]])
    axes.set_yticks(range(len(modules)), modules)
    axes.tick_params(length=0)
    axes.set_xlabel("decoder block")
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.colorbar(shown, ax=axes, shrink=0.9).set_label(label)


def plot_weights(weights: Path, output: style.Output) -> None:
    """Write the figure: relative change and effective rank of each module in each block.

    Parameters
    ----------
    weights
        how far the tensors of two models are apart (CSV)
    """
    table = read_csv(weights)
    blocks = table[table["layer"] > 0].copy()
    if blocks.empty or not (blocks["change"] > 0).any():
        style.save_empty("the models share no tensors of decoder blocks that differ", table, output)
        return
    blocks["spread"] = blocks["effective_rank"] / pd.to_numeric(blocks["full_rank"])
    known = [column for column in PANELS if blocks[column].notna().any()]
    modules = blocks["module"].nunique()
    with style.styled():
        figure, axes = plt.subplots(
            1, len(known), figsize=(style.WIDTH, 0.9 + 0.2 * modules), squeeze=False, sharey=True
        )
        for one, column in zip(axes[0], known, strict=True):
            draw(one, blocks, column)
        layer = half_way(zip(blocks["layer"], blocks["change"], strict=True))
        style.note(axes[0, -1], f"half of the change lies in blocks 1 to {layer}")
        figure.tight_layout()
        style.save(figure, table, output)


main = cli.command(plot_weights)


if __name__ == "__main__":
    raise SystemExit(main())
