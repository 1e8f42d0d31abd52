"""Plot what every statistic measures in each category beside what was planted there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from workflow_scripts.common import cli
from workflow_scripts.common.labellers import usual
from workflow_scripts.common.tables import read_csv
from workflow_scripts.comparison.settings import Labelling
from workflow_scripts.figures import category_rows, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PLANTED = {"gained": style.VERMILION, "lost": style.BLUE, "unchanged": style.GREY}
PANELS = {
    "behaviour": ("behaviour, nats per token", 1.0, None),
    "representation": ("representation", 1.0, None),
    "direct_share": ("direct share, %", 100.0, None),
    "anchored_counts": ("anchored change, %", 1.0, (-110.0, 510.0)),
}
"""Statistic: axis label, factor, and limits beyond which a value is drawn at the edge."""


def tidy(recovery: pd.DataFrame, labeller: str | None) -> pd.DataFrame:
    """Return the rows shown: one pair of models, one labeller, first seed.

    Of several pairs, the first in which anything was planted. Counts are those of the anchored
    comparison where there is one.
    """
    if recovery.empty:
        return recovery
    changed = recovery[recovery["planted"] != "unchanged"]
    first = (changed if len(changed) else recovery).iloc[0]
    pair = ["baseline", "candidate"]
    recovery = recovery[(recovery[pair] == first[pair]).all(axis=1)]
    known = list(recovery["labeller"].unique())
    chosen = labeller if labeller in known else usual(known)
    rows = recovery[recovery["labeller"] == chosen]
    rows = rows[rows["seed"] == rows["seed"].iloc[0]]
    shared = rows["comparison"].isin(rows.loc[rows["statistic"] == "direct_share", "comparison"])
    counts = rows["statistic"] == "anchored_counts"
    if shared.any() and not shared.all():  # counts of two crosscoders, the rest of one
        rows = rows[shared != counts]
    first_of = rows.groupby("statistic")["comparison"].transform("first")
    rows = rows[rows["comparison"] == first_of]
    rows = rows[rows["statistic"].isin(list(PANELS))].copy()
    rows["dose"] = (rows["candidate_tokens"] - rows["baseline_tokens"]).astype(float)
    rank = rows["planted"].map({"gained": 1, "unchanged": 0, "lost": -1})
    ordered = rows.assign(rank=rank).sort_values(["rank", "dose", "category"])
    shown: pd.DataFrame = ordered.drop(columns="rank")
    return shown


def draw(axes: Axes, rows: pd.DataFrame, place: dict[str, int], statistic: str) -> None:
    """Draw one statistic: effect and interval of each category."""
    label, factor, limits = PANELS[statistic]
    for row in category_rows.rows_of(rows):
        tint, y = PLANTED[row.text("planted")], place[row.text("category")]
        low, high, x = (factor * row.number(name) for name in ("low", "high", "effect"))
        x = high if np.isnan(x) and np.isinf(high) else x
        beyond = limits is not None and high > limits[1]
        if limits:
            low, high, x = (float(np.clip(v, *limits)) for v in (low, high, x))
        if beyond:
            axes.plot(high, y, ">", color=tint, markersize=4, clip_on=False)
        axes.plot([low, high], [y, y], color=tint, linewidth=1.3)
        face = tint if row.text("called") == "True" else "white"
        axes.plot(x, y, "o", color=tint, markerfacecolor=face, markersize=5, clip_on=False)
    if statistic not in ("direct_share", "representation"):
        axes.axvline(0, color=style.BLACK, linewidth=0.8, zorder=0)
    if limits:
        axes.set_xlim(*limits)
    axes.set_xlabel(label)


def plot_recovery(recovery: Path, labelling: Labelling, output: style.Output) -> None:
    """Write the figure: a panel per statistic, a line per category.

    Parameters
    ----------
    recovery
        what each statistic finds of what was planted (CSV)
    """
    table = tidy(read_csv(recovery), labelling.labeller)
    if table.empty:
        style.save_empty("no category of the planted pair was compared", table, output)
        return
    place = {name: y for y, name in enumerate(dict.fromkeys(table["category"]))}
    shown = [name for name in PANELS if name in set(table["statistic"])]
    with style.styled():
        figure, grid = plt.subplots(
            1,
            len(shown),
            figsize=(style.WIDTH * 1.15, 1.1 + 0.22 * len(place)),
            sharey=True,
            squeeze=False,
        )
        for axes, statistic in zip(grid.flat, shown, strict=True):
            draw(axes, table[table["statistic"] == statistic], place, statistic)
        grid[0, 0].set_yticks(range(len(place)), [style.readable(name) for name in place])
        grid[0, 0].set_ylim(-0.7, len(place) - 0.3)
        handles = [
            Line2D([], [], color=tint, linewidth=2, label=f"planted: {word}")
            for word, tint in PLANTED.items()
        ]
        for label, face in (("called", style.GREY), ("not called", "white")):
            dot = Line2D([], [], marker="o", linestyle="", color=style.GREY, label=label)
            dot.set_markerfacecolor(face)
            handles.append(dot)
        figure.legend(handles=handles, loc="lower center", ncol=5, bbox_to_anchor=(0.5, 1.0))
        style.note_labels(grid[0, -1], table["labeller"])
        figure.tight_layout()
        style.save(figure, table, output)


main = cli.command(plot_recovery)


if __name__ == "__main__":
    raise SystemExit(main())
