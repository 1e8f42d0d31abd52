"""Plot each category's gap in score against the shift of its latents.

A score gap that a shift explains lies in the lower left or the upper right; a shift that no score
shows lies on the vertical line, a gap without a shift on the horizontal one.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.lines import Line2D

from workflow_scripts import cli
from workflow_scripts.figures import category_rows, style
from workflow_scripts.figures.category_rows import Choice, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = (
    "name",
    "class",
    "likelihood_gap",
    "likelihood_gap_low",
    "likelihood_gap_high",
    "delta_norm",
    "delta_norm_low",
    "delta_norm_high",
    "verdict",
)
NAME = (150.0, 13.0)
"""Room that a name takes beside its point, in pixels."""
CHANGED = ("gained", "lost", "changed, direction unclear")


def tidy(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the categories with a score and a shift, and how the two go together.

    Raises
    ------
    UserError
        If there is none.
    """
    shown = rows.dropna(subset=["likelihood_gap", "delta_norm"])
    if shown.empty:
        raise cli.UserError("no category has both a likelihood gap and a shift of Δnorm")
    table = shown[list(COLUMNS)].copy()
    table["reading"] = [reading(row) for row in category_rows.rows_of(shown)]
    return table.sort_values("name")


def reading(row: Row) -> str:
    """Say how a category's score gap and its latents' change go together.

    A gap counts when its interval excludes 0, a change when the verdict says so; they agree when
    the verdict's direction, or where it has none the shift of Δnorm, has the sign of the gap.
    """
    gap = row.number("likelihood_gap")
    clear = row.number("likelihood_gap_low") > 0 or row.number("likelihood_gap_high") < 0
    word = row.text("verdict")
    if word not in CHANGED:
        return "gap without a change of latents" if clear else "within noise"
    if not clear:
        return "change of latents that no score shows"
    sign = {"gained": 1.0, "lost": -1.0}.get(word, row.number("delta_norm"))
    return "gap with a change of latents" if gap * sign > 0 else "gap and change opposed"


def draw(axes: Axes, table: pd.DataFrame) -> None:
    """Draw a point with both intervals per category, with its name where something happens."""
    axes.axhline(0, color=style.BLACK, linewidth=0.8, zorder=0)
    axes.axvline(0, color=style.BLACK, linewidth=0.8, zorder=0)
    for row in category_rows.rows_of(table):
        tint = style.VERDICTS[row.text("verdict")]
        x, y = row.number("likelihood_gap"), row.number("delta_norm")
        across = [row.number(f"likelihood_gap_{end}") for end in ("low", "high")]
        along = [row.number(f"delta_norm_{end}") for end in ("low", "high")]
        axes.plot(across, [y, y], color=tint, linewidth=0.9, alpha=0.7)
        axes.plot([x, x], along, color=tint, linewidth=0.9, alpha=0.7)
        axes.plot(x, y, "o", color=tint, markersize=5)
    name_points(axes, table[table["reading"] != "within noise"])


def name_points(axes: Axes, table: pd.DataFrame) -> None:
    """Write the names beside their points, moved up where they would overlap."""
    placed: list[tuple[float, float]] = []
    for row in category_rows.rows_of(table.sort_values("delta_norm")):
        point = (row.number("likelihood_gap"), row.number("delta_norm"))
        x, y = axes.transData.transform(point)
        free = y
        for other_x, other_y in placed:
            if abs(other_x - x) < NAME[0] and free < other_y + NAME[1]:
                free = other_y + NAME[1]
        placed.append((x, free))
        axes.annotate(
            style.readable(row.text("name")),
            point,
            (5, 2 + 0.72 * (free - y)),
            textcoords="offset points",
            fontsize=7,
        )


def plot_behaviour(rows: pd.DataFrame, choice: Choice, output: style.Output) -> None:
    """Write the figure."""
    table = tidy(rows)
    base, cand = rows["baseline"].iloc[0], rows["candidate"].iloc[0]
    with style.styled():
        figure, axes = plt.subplots(figsize=(style.WIDTH * 0.8, style.WIDTH * 0.55))
        draw(axes, table)
        axes.set_xlabel(f"likelihood gap, nats per token  ({base} better ←  → {cand} better)")
        axes.set_ylabel(f"shift of Δnorm  ({base} ←  → {cand})")
        handles = [
            Line2D([], [], linestyle="", marker="o", color=tint, label=word)
            for word, tint in style.VERDICTS.items()
            if word in set(table["verdict"])
        ]
        axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.02, 0.5))
        style.note(axes, style.labels_note(choice.labeller))
        style.save(figure, table, output)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    category_rows.add_choice(parser)
    style.add_output(parser)
    a = parser.parse_args(argv)

    def run() -> None:
        rows, choice = category_rows.choose(a)
        plot_behaviour(rows, choice, style.output_of(a))

    return cli.guarded(run)


if __name__ == "__main__":
    raise SystemExit(main())
