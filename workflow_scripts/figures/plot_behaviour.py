"""Plot each category's gap in score against the shift of its latents, a panel per score.

A gap that goes with a change of latents lies in the lower left or the upper right; a change that
no score shows lies on the vertical line, a gap without a change on the horizontal one.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from workflow_scripts.common import cli
from workflow_scripts.common.labellers import usual
from workflow_scripts.common.tables import read_csv
from workflow_scripts.comparison.settings import Labelling
from workflow_scripts.figures import category_rows, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SOURCES = {
    "likelihood": "likelihood gap less the median category's, nats per token",
    "score": "gap in score",
    "score_controlled": "gap in score, style controlled",
}
PLACES = {
    (6, 3): ("left", "bottom"),
    (6, -3): ("left", "top"),
    (-6, 3): ("right", "bottom"),
    (-6, -3): ("right", "top"),
    (6, 14): ("left", "bottom"),
    (-6, 14): ("right", "bottom"),
    (6, -14): ("left", "top"),
    (-6, -14): ("right", "top"),
    (14, 26): ("left", "bottom"),
    (-14, 26): ("right", "bottom"),
    (14, -26): ("left", "top"),
    (-14, -26): ("right", "top"),
    (24, 40): ("left", "bottom"),
    (-24, 40): ("right", "bottom"),
    (24, -40): ("left", "top"),
    (-24, -40): ("right", "top"),
}
"""Where a name may stand: its offset from the point in points, and how it is aligned."""
NEAR = 10
"""Points of offset beyond which a line leads from the point to its name."""


def tidy(gaps: pd.DataFrame, comparison: str, labeller: str | None) -> pd.DataFrame:
    """Return the rows of one comparison and labeller that have a gap and a shift."""
    rows = gaps[gaps["comparison"] == comparison]
    chosen = labeller or usual(list(rows["labeller"].unique()))
    rows = rows[rows["labeller"] == chosen].dropna(subset=["gap", "delta_norm"])
    return rows.sort_values(["source", "name"])


def draw(axes: Axes, table: pd.DataFrame) -> None:
    """Draw a point with both intervals per category."""
    axes.axhline(0, color=style.BLACK, linewidth=0.8, zorder=0)
    axes.axvline(0, color=style.BLACK, linewidth=0.8, zorder=0)
    for row in category_rows.rows_of(table):
        tint = style.VERDICTS[row.text("verdict")]
        x, y = row.number("gap"), row.number("delta_norm")
        across = [row.number(f"gap_{end}") for end in ("low", "high")]
        along = [row.number(f"delta_norm_{end}") for end in ("low", "high")]
        axes.plot(across, [y, y], color=tint, linewidth=0.9, alpha=0.7)
        axes.plot([x, x], along, color=tint, linewidth=0.9, alpha=0.7)
        axes.plot(x, y, "o", color=tint, markersize=5)


def name_points(axes: Axes, table: pd.DataFrame) -> None:
    """Write each name beside its point where there is room; the strongest shifts come first."""
    points = axes.transData.transform(table[["gap", "delta_norm"]].to_numpy())
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in points]
    left = axes.get_window_extent().x0
    order = table["delta_norm"].abs().sort_values(ascending=False, kind="stable").index
    for row in category_rows.rows_of(table.loc[order]):
        name = axes.annotate(
            style.readable(row.text("name")),
            (row.number("gap"), row.number("delta_norm")),
            (0, 0),
            textcoords="offset points",
            fontsize=7,
            arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": style.GREY, "shrinkB": 2},
        )
        for place, (side, level) in PLACES.items():
            name.set(position=place, ha=side, va=level)
            name.get_window_extent()  # places it
            box = Text.get_window_extent(name).padded(2)  # without the line
            if name.arrow_patch is not None:
                name.arrow_patch.set_visible(abs(place[1]) > NEAR)
            free = not any(box.overlaps(other) for other in taken)
            if free and box.x0 >= left:
                break
        taken.append(box)


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
        handles = [
            Line2D([], [], linestyle="", marker="o", color=tint, label=word)
            for word, tint in style.VERDICTS.items()
            if word in set(table["verdict"])
        ]
        grid[0, 0].legend(handles=handles, loc="center left", bbox_to_anchor=(1.02, 0.5))
        style.note_labels(grid[-1, 0], table["labeller"])
        figure.tight_layout()
        for axes, source in zip(grid.flat, shown, strict=True):
            of_source = table[table["source"] == source]
            name_points(axes, of_source[of_source["reading"] != "within noise"])
        style.save(figure, table, output)


main = cli.command(plot_behaviour)


if __name__ == "__main__":
    raise SystemExit(main())
