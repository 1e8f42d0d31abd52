"""Plot each category's gap in scores of your own against the shift of its latents.

A gap that goes with a change of latents lies in the lower left or the upper right; a change that
no score shows lies on the vertical line, a gap without a change on the horizontal one.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import pandas as pd

from workflow_scripts.common import cli
from workflow_scripts.common.labellers import usual
from workflow_scripts.common.tables import read_csv
from workflow_scripts.comparison.settings import Labelling
from workflow_scripts.figures import category_rows, style
from workflow_scripts.figures.point_names import NamedPoint, name_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SOURCES = {
    "score": "gap in score",
    "score_controlled": "gap in score, style controlled",
}
NOISE = "within noise"
"""The reading of a category in which neither score nor latents changed."""


def tidy(gaps: pd.DataFrame, comparison: str, labeller: str | None) -> pd.DataFrame:
    """Return the rows of one comparison and labeller that have a gap and a shift."""
    rows = gaps[gaps["comparison"] == comparison]
    chosen = labeller or usual(list(rows["labeller"].unique()))
    rows = rows[(rows["labeller"] == chosen) & rows["source"].isin(SOURCES)].dropna(
        subset=["gap", "delta_norm"]
    )
    return rows.sort_values(["source", "name"])


def draw(axes: Axes, table: pd.DataFrame) -> None:
    """Draw a point with both intervals per category."""
    axes.axhline(0, color=style.BLACK, linewidth=0.8, zorder=0)
    axes.axvline(0, color=style.BLACK, linewidth=0.8, zorder=0)
    for row in category_rows.rows_of(table):
        tint = style.LIGHT if row.text("reading") == NOISE else style.BLUE
        x, y = row.number("gap"), row.number("delta_norm")
        across = [row.number(f"gap_{end}") for end in ("low", "high")]
        along = [row.number(f"delta_norm_{end}") for end in ("low", "high")]
        axes.plot(across, [y, y], color=tint, linewidth=0.9, alpha=0.7)
        axes.plot([x, x], along, color=tint, linewidth=0.9, alpha=0.7)
        axes.plot(x, y, "o", color=tint, markersize=5)


def points(table: pd.DataFrame) -> list[NamedPoint]:
    """Return the points of a table, the strongest shifts first."""
    order = table["delta_norm"].abs().sort_values(ascending=False, kind="stable").index
    return [
        NamedPoint(row.number("gap"), row.number("delta_norm"), row.text("name"))
        for row in category_rows.rows_of(table.loc[order])
    ]


def plot_behaviour(gaps: Path, comparison: str, labelling: Labelling, output: style.Output) -> None:
    """Write the figure.

    Parameters
    ----------
    gaps
        gaps in score by category (CSV)
    comparison
        name of the comparison
    """
    table = tidy(read_csv(gaps), comparison, labelling.labeller)
    if table.empty:
        style.save_empty("no category has both a gap in score and a shift", table, output)
        return
    base, cand = table["baseline"].iloc[0], table["candidate"].iloc[0]
    shown = [name for name in SOURCES if name in set(table["source"])]
    with style.styled():
        figure, grid = plt.subplots(
            len(shown), 1, figsize=(style.WIDTH * 0.8, 3.6 * len(shown)), squeeze=False
        )
        for axes, source in zip(grid.flat, shown, strict=True):
            draw(axes, table[table["source"] == source])
            axes.set_xlabel(f"{SOURCES[source]}  ({base} better ←  → {cand} better)")
            axes.set_ylabel(f"shift of Δnorm  ({base} ←  → {cand})")
        style.note_labels(grid[-1, 0], table["labeller"])
        figure.tight_layout()
        for axes, source in zip(grid.flat, shown, strict=True):
            of_source = table[table["source"] == source]
            named = points(of_source[of_source["reading"] != NOISE])
            name_points(axes, named, points(of_source))
        style.save(figure, table, output)


main = cli.command(plot_behaviour)


if __name__ == "__main__":
    raise SystemExit(main())
