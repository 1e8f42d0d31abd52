"""Plot each category's share of the unique latents of either model, as mirrored bars."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.ticker import FuncFormatter
from statsmodels.stats.proportion import proportion_confint

from workflow_scripts.common import cli
from workflow_scripts.figures import category_rows, style
from workflow_scripts.figures.category_rows import ShownRows

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def tidy(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a row per category and side: count, share and Wilson's interval, in percent."""
    parts = []
    for side in ("baseline", "candidate"):
        n, total = rows[f"n_{side}"].to_numpy(), rows[f"N_{side}"].clip(lower=1).to_numpy()
        low, high = proportion_confint(n, total, method="wilson")
        parts.append(
            pd.DataFrame(
                {
                    "name": rows["name"],
                    "class": rows["class"],
                    "side": side,
                    "model": rows[side],
                    "n": n,
                    "N": total,
                    "share": 100 * n / total,
                    "low": 100 * low,
                    "high": 100 * high,
                }
            )
        )
    table = pd.concat(parts, ignore_index=True)
    order = table.groupby("name")["share"].sum().sort_values(kind="stable")
    table = table[table["name"].isin(order[order > 0].index)]
    rank = {name: i for i, name in enumerate(order.index)}
    return table.sort_values(["side", "name"], key=lambda c: c.map(lambda v: rank.get(v, 0)))


def draw(axes: Axes, table: pd.DataFrame) -> None:
    """Draw the baseline to the left of the middle and the candidate to the right."""
    names = list(dict.fromkeys(table["name"]))
    place = {name: y for y, name in enumerate(names)}
    for side, tint, sign in (("baseline", style.BASELINE, -1), ("candidate", style.CANDIDATE, 1)):
        rows = table[table["side"] == side]
        for row in category_rows.rows_of(rows):
            y = place[row.text("name")]
            axes.barh(y, sign * row.number("share"), height=0.72, color=tint, alpha=0.55)
            ends = [sign * row.number("low"), sign * row.number("high")]
            axes.plot(ends, [y, y], color=tint, linewidth=1.2)
        name = f"{rows['model'].iloc[0]} ({int(rows['N'].iloc[0])} unique latents)"
        x, align = (0.02, "left") if sign < 0 else (0.98, "right")
        axes.annotate(
            name, (x, 1.01), xycoords="axes fraction", ha=align, va="bottom", color=tint, fontsize=8
        )
    axes.axvline(0, color=style.BLACK, linewidth=0.8)
    reach = 1.05 * float(table["high"].max())
    axes.set(xlim=(-reach, reach), ylim=(-0.7, len(names) - 0.3))
    axes.set_yticks(range(len(names)), [style.readable(name) for name in names])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{abs(value):g}"))


def plot_category_shares(
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
    with style.styled():
        height = 1.0 + 0.24 * max(table["name"].nunique(), 4)
        figure, axes = plt.subplots(figsize=(style.WIDTH * 0.85, height))
        if table.empty:
            style.empty(axes, "no category has a latent unique to either model")
        else:
            draw(axes, table)
        axes.set_xlabel("share of the model's unique latents, %")
        style.note_labels(axes, [choice.labeller, *rows["labeller"]])
        style.save(figure, table, output)


main = cli.command(plot_category_shares)


if __name__ == "__main__":
    raise SystemExit(main())
