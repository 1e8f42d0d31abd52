"""Plot the direct share: how many of a category's latents the two models do not share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.lines import Line2D

from workflow_scripts.common import cli
from workflow_scripts.figures import category_rows, style
from workflow_scripts.figures.category_rows import ShownRows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = (
    "name",
    "class",
    "unique",
    "live",
    "unique_share",
    "unique_share_low",
    "unique_share_high",
    "reference_share",
    "placebo_share",
)


def tidy(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the categories that have latents, by direct share.

    Raises
    ------
    UserError
        If the comparison is not a direct one.
    """
    shown = rows.dropna(subset=["unique_share"])
    if len(rows) and (rows["kind"] != "direct").all():
        raise cli.UserError("no direct share: both sides of the comparison must lie in one fit")
    return shown.sort_values(["unique_share", "name"])[list(COLUMNS)]


def draw(axes: Axes, table: pd.DataFrame) -> None:
    """Draw a bar per category with its interval, the reference and the placebo beside."""
    for y, row in enumerate(category_rows.rows_of(table)):
        axes.barh(y, 100 * row.number("unique_share"), height=0.7, color=style.BLUE, alpha=0.45)
        ends = [100 * row.number(f"unique_share_{end}") for end in ("low", "high")]
        axes.plot(ends, [y, y], color=style.BLUE, lw=1.6)
        reference, placebo = row.number("reference_share"), row.number("placebo_share")
        axes.plot(100 * reference, y, "|", color=style.BLACK, markersize=9, mew=1.2)
        axes.plot(100 * placebo, y, "x", color=style.BLACK, markersize=4)
        axes.annotate(
            f"{row.number('unique'):.0f} of {row.number('live'):.0f}",
            (1.02, y),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=8,
        )
    axes.set_yticks(range(len(table)), [style.readable(n) for n in table["name"]])
    axes.set(xlim=(0, None), ylim=(-0.7, len(table) - 0.3))


def legend(axes: Axes, table: pd.DataFrame) -> None:
    """Tell the marks."""
    marks = {"|": "reference"}
    if table["placebo_share"].notna().any():
        marks["x"] = "placebo"
    handles = [
        Line2D([], [], linestyle="", marker=marker, color=style.BLACK, label=label)
        for marker, label in marks.items()
    ]
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.2, 0.5))


def plot_direct_shares(
    categories: Path, comparison: str, shown: ShownRows, output: style.Output
) -> None:
    """Write the figure.

    Parameters
    ----------
    categories
        table of the comparisons (CSV)
    comparison
        name of the comparison
    """
    rows, choice = category_rows.choose(categories, comparison, shown)
    table = tidy(rows)
    base, cand = choice.baseline, choice.candidate
    if table.empty:
        style.save_empty("no live latent has a category", table, output)
        return
    with style.styled():
        figure, axes = plt.subplots(figsize=(style.WIDTH * 0.72, 0.9 + 0.24 * max(len(table), 4)))
        draw(axes, table)
        legend(axes, table)
        axes.set_xlabel(f"live latents unique to {base} or to {cand}, %")
        style.note_labels(axes, [choice.labeller, *rows["labeller"]])
        style.save(figure, table, output)


main = cli.command(plot_direct_shares)


if __name__ == "__main__":
    raise SystemExit(main())
