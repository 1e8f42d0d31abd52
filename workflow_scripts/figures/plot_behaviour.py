"""Plot each label's gap in scores of your own against its gap in likelihood, a panel per score.

Scores and likelihoods that go together lie in the lower left or the upper right; a change that no
score shows lies on the vertical line, a gap without a change on the horizontal one.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.lines import Line2D

from workflow_scripts.common import cli, files
from workflow_scripts.common.tables import read_csv
from workflow_scripts.figures import category_rows, style
from workflow_scripts.figures.point_names import NamedPoint, name_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SOURCES = {
    "score": "gap in score",
    "score_controlled": "gap in score, style controlled",
}
NOISE = "within noise"
"""The reading of a label in which neither score nor models changed."""


def tidy(gaps: pd.DataFrame, comparison: str, labeller: str) -> pd.DataFrame:
    """Return the rows of one comparison and labeller that have both gaps."""
    rows = gaps[(gaps["comparison"] == comparison) & (gaps["labeller"] == labeller)]
    return rows.dropna(subset=["gap", "behaviour"]).sort_values(["source", "label"])


def draw(axes: Axes, table: pd.DataFrame) -> None:
    """Draw a point with both intervals per label."""
    axes.axhline(0, color=style.BLACK, linewidth=0.8, zorder=0)
    axes.axvline(0, color=style.BLACK, linewidth=0.8, zorder=0)
    for row in category_rows.rows_of(table):
        tint, marker = style.LOOKS[row.text("verdict")]
        x, y = row.number("gap"), row.number("behaviour")
        across = [row.number(f"gap_{end}") for end in ("low", "high")]
        along = [row.number(f"behaviour_{end}") for end in ("low", "high")]
        axes.plot(across, [y, y], color=tint, linewidth=0.9, alpha=0.7)
        axes.plot([x, x], along, color=tint, linewidth=0.9, alpha=0.7)
        axes.plot(x, y, marker, color=tint, markersize=5)


def points(table: pd.DataFrame) -> list[NamedPoint]:
    """Return the points of a table, the largest gaps in likelihood first."""
    order = table["behaviour"].abs().sort_values(ascending=False, kind="stable").index
    return [
        NamedPoint(row.number("gap"), row.number("behaviour"), row.text("label"))
        for row in category_rows.rows_of(table.loc[order])
    ]


def plot_behaviour(gaps: Path, answer: Path, comparison: str, output: style.Output) -> None:
    """Write the figure.

    Parameters
    ----------
    gaps
        gaps in score by label (CSV)
    answer
        whose labels answer the run (JSON)
    comparison
        name of the comparison
    """
    labeller = str(files.read_json(answer)["labeller"])
    table = tidy(read_csv(gaps), comparison, labeller)
    if table.empty:
        style.save_empty("no label has both a score and a likelihood", table, output)
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
            axes.set_ylabel("behaviour: nats per token")
        handles = [
            Line2D([], [], linestyle="", marker=marker, color=tint, label=word)
            for word, (tint, marker) in style.LOOKS.items()
            if word in set(table["verdict"])
        ]
        grid[0, 0].legend(handles=handles, loc="center left", bbox_to_anchor=(1.02, 0.5))
        style.note(grid[-1, 0], style.labels_note(labeller))
        figure.tight_layout()
        for axes, source in zip(grid.flat, shown, strict=True):
            of_source = table[table["source"] == source]
            name_points(axes, points(of_source[of_source["reading"] != NOISE]), points(of_source))
        style.save(figure, table, output)


main = cli.command(plot_behaviour)


if __name__ == "__main__":
    raise SystemExit(main())
