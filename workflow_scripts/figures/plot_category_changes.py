"""Plot the percent change of each category's share of unique latents, with intervals.

Filled: significant at the false discovery rate; hollow: not, or not robust over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from workflow_scripts.common import cli
from workflow_scripts.figures import category_rows, style
from workflow_scripts.figures.category_rows import ShownRows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EDGE = 16.0
"""Largest ratio on the axis; what lies beyond is drawn at the edge as an arrow."""
TICKS = {1 / 16: "≤ −94 %", 1 / 4: "−75 %", 1: "0", 4: "+300 %", 16: "≥ +1500 %"}


def tidy(rows: pd.DataFrame, fdr: float) -> pd.DataFrame:
    """Return the rows shown, sorted by change: categories with a unique latent on either side."""
    shown = rows[rows["n_baseline"] + rows["n_candidate"] > 0].copy()
    shown["solid"] = (shown["q"] <= fdr) & (shown["robust"] != "no")
    ratio = (shown["share_candidate"] / shown["share_baseline"]).replace(math.inf, 1e6)
    shown["ratio"] = ratio
    order = pd.DataFrame({"ratio": ratio, "name": shown["name"]}).sort_values(["ratio", "name"])
    columns = ["name", "class", "n_baseline", "n_candidate", "percent_change", "low", "high"]
    return shown.loc[order.index, [*columns, "ratio", "p", "q", "solid", "robust"]]


def draw(axes: Axes, table: pd.DataFrame, colour: Mapping[str, str]) -> None:
    """Draw one line per category on a logarithmic axis of ratios."""
    axes.axvline(0, color=style.BLACK, linewidth=0.8)
    reach = math.log(EDGE)
    for y, row in enumerate(category_rows.rows_of(table)):
        tint, ratio = colour[row.text("class")], row.number("ratio")
        ends = (row.number("low") / 100 + 1, row.number("high") / 100 + 1, ratio)
        low, high, x = (float(np.clip(_log(value), -reach, reach)) for value in ends)
        axes.plot([low, high], [y, y], color=tint, linewidth=1.4, solid_capstyle="butt", zorder=2)
        axes.plot(
            x,
            y,
            "o" if 1 / EDGE < ratio < EDGE else ("<" if ratio < 1 else ">"),
            color=tint,
            markerfacecolor=tint if row.text("solid") == "True" else "white",
            markersize=6,
            clip_on=False,
            zorder=3,
        )
        axes.annotate(
            f"{row.count('n_baseline')} vs {row.count('n_candidate')}",
            (1.02, y),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=8,
        )
    axes.set_yticks(range(len(table)), [style.readable(n) for n in table["name"]])
    axes.set_xticks([math.log(r) for r in TICKS], list(TICKS.values()))
    axes.set_xticks([math.log(r) for r in (1 / 8, 1 / 2, 2, 8)], minor=True)
    axes.set(xlim=(-reach, reach), ylim=(-0.7, len(table) - 0.3))
    axes.annotate(
        "n = before vs after",
        (1.02, len(table) - 0.4),
        xycoords=("axes fraction", "data"),
        fontsize=7,
        va="bottom",
        color=style.GREY,
    )


def _log(ratio: float) -> float:
    if math.isnan(ratio):
        return 0.0
    return math.log(ratio) if ratio > 0 else -math.inf


def legend(axes: Axes, classes: Mapping[str, str], fdr: float) -> None:
    """Tell the classes by colour, and what filled and hollow mean."""
    handles = [
        Line2D([], [], color=tint, linewidth=2, label=style.readable(name))
        for name, tint in classes.items()
    ]
    for label, face in ((f"q ≤ {fdr:g}", style.GREY), (f"q > {fdr:g}, or not robust", "white")):
        handles.append(
            Line2D(
                [],
                [],
                marker="o",
                linestyle="",
                color=style.GREY,
                markerfacecolor=face,
                label=label,
            )
        )
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.18, 0.5))


def plot_category_changes(
    categories: Path, comparison: str, shown: ShownRows, fdr: float, output: style.Output
) -> None:
    """Write the figure.

    Parameters
    ----------
    categories
        table of the comparisons (CSV)
    comparison
        name of the comparison
    fdr
        false discovery rate at which a change is drawn filled
    """
    rows, choice = category_rows.choose(categories, comparison, shown)
    table = tidy(rows, fdr)
    base, cand = choice.baseline, choice.candidate
    colour = style.colours(sorted(rows["class"].unique()), style.CLASSES)
    with style.styled():
        height = 0.9 + 0.24 * max(len(table), 4)
        figure, axes = plt.subplots(figsize=(style.WIDTH * 0.72, height))
        if table.empty:
            style.empty(axes, "no category has a latent unique to either model")
        else:
            draw(axes, table, colour)
            legend(axes, {c: t for c, t in colour.items() if c in set(table["class"])}, fdr)
        axes.set_xlabel(f"change of the share of unique latents, {base} → {cand}")
        style.note_labels(axes, [choice.labeller, *rows["labeller"]])
        style.save(figure, table, output)


main = cli.command(plot_category_changes)


if __name__ == "__main__":
    raise SystemExit(main())
