"""Plot what the unique latents cause: patched into the other model, and taken away by category."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.lines import Line2D

from workflow_scripts.common import cli
from workflow_scripts.common.tables import read_csv
from workflow_scripts.figures import category_rows, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SETS = {
    "unique": "unique latents",
    "shared": "as many shared ones",
    "random": "as many random ones",
    "error": "reconstruction error only",
    "all": "all latents",
}
PARTS = {"all": style.BLACK, "first9": style.ORANGE, "rest": style.SKY}
PART_NAMES = {"all": "all answer tokens", "first9": "first 9 of an answer", "rest": "the rest"}


def draw_sets(axes: Axes, cause: pd.DataFrame, source: str, target: str) -> None:
    """Draw the share of the gap between the models that each set of latents closes."""
    for row in category_rows.rows_of(cause[cause["set"].isin(list(SETS))]):
        y = list(SETS).index(row.text("set")) + 0.22 * (list(PARTS).index(row.text("tokens")) - 1)
        tint = PARTS[row.text("tokens")]
        low, high, x = (100 * row.number(f"closed{end}") for end in ("_low", "_high", ""))
        axes.plot([low, high], [y, y], color=tint, linewidth=1.3)
        axes.plot(x, y, "o", color=tint, markersize=4)
    axes.axvline(0, color=style.BLACK, linewidth=0.8, zorder=0)
    axes.set_yticks(range(len(SETS)), list(SETS.values()))
    axes.invert_yaxis()
    axes.set_xlabel(f"share of KL({target} ‖ {target} from {source}'s activations) closed, %")
    handles = [
        Line2D([], [], marker="o", color=tint, label=PART_NAMES[part])
        for part, tint in PARTS.items()
    ]
    axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncol=3)


def draw_ablations(axes: Axes, ablation: pd.DataFrame, models: Sequence[str]) -> None:
    """Draw, by category and model, the rise of its text's loss without its unique latents."""
    tints = style.model_colours(models)
    unique = ablation[ablation["latents_are"] == "unique"]
    names = list(unique.groupby("category")["specific_rise"].max().sort_values().index)
    for row in category_rows.rows_of(unique):
        y = names.index(row.text("category")) + 0.18 * (2 * models.index(row.text("model")) - 1)
        low, high = row.number("low"), row.number("high")
        tint = tints[row.text("model")]
        axes.plot([low, high], [y, y], color=tint, linewidth=1.3)
        clear = low > 0 or high < 0
        axes.plot(
            row.number("specific_rise"),
            y,
            "o",
            color=tint,
            markersize=4,
            markerfacecolor=tint if clear else "white",
        )
    axes.axvline(0, color=style.BLACK, linewidth=0.8, zorder=0)
    axes.set_yticks(range(len(names)), [style.readable(name) for name in names])
    axes.set_ylim(-0.7, len(names) - 0.3)
    axes.set_xlabel("rise of the loss on its text beyond other text, nats per token")
    handles = [
        Line2D([], [], marker="o", color=tint, label=f"taken from {model}")
        for model, tint in tints.items()
    ]
    axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncol=2)


def plot_cause(cause: Path, output: style.Output, ablation: Path | None = None) -> None:
    """Write the figure: a panel of sets, and one of categories where their text is known.

    Parameters
    ----------
    cause
        what patched latents cause (CSV)
    ablation
        what taking latents away does to each category's text (CSV)
    """
    sets = read_csv(cause)
    taken = read_csv(ablation) if ablation else pd.DataFrame()
    models = [str(sets["source"].iloc[0]), str(sets["target"].iloc[0])]
    count = taken["category"].nunique() if len(taken) else 0
    with style.styled():
        figure, grid = plt.subplots(
            1 + (count > 0),
            1,
            figsize=(style.WIDTH * 0.9, 2.4 + (0.9 + 0.26 * count) * (count > 0)),
            squeeze=False,
            height_ratios=[2.0, 0.9 + 0.26 * count] if count else [1],
        )
        draw_sets(grid[0, 0], sets, *models)
        if count:
            draw_ablations(grid[1, 0], taken, models)
            style.note_labels(grid[1, 0], taken["labeller"])
        figure.tight_layout()
        table = pd.concat([sets.assign(panel="patch"), taken.assign(panel="ablation")])
        style.save(figure, table, output)


main = cli.command(plot_cause)


if __name__ == "__main__":
    raise SystemExit(main())
