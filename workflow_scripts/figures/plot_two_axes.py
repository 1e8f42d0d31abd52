"""Plot how much better a model predicts each label's text against how far its activations moved.

What lies on both dashed lines' far sides was gained or lost; beyond one of them alone, it is used
differently or has moved; between them, nothing beyond chance was found.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from workflow_scripts.common import cli, files
from workflow_scripts.figures import style, verdict_rows
from workflow_scripts.figures.point_names import NamedPoint, name_points
from workflow_scripts.figures.verdict_rows import QUIET

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AXES = {"x": "behaviour", "y": "representation"}
TICKS = 4
"""Most values written on either side of a logarithmic axis."""
COLUMNS = 3
"""Verdicts in a row of the legend."""
WIDE = 12
"""How  the largest may be on a linear axis."""


def tidy(rows: pd.DataFrame) -> pd.DataFrame:
    """Return what is shown: labels both of whose effects were measured, with a name for each."""
    effects = [f"{effect}{end}" for effect in AXES.values() for end in ("", "_low", "_high")]
    table = rows.dropna(subset=list(AXES.values()))
    return table[["label", "verdict", "documents", *effects, *_leasts()]]


def _leasts() -> list[str]:
    return [f"{effect}_least" for effect in AXES.values()]


def least(table: pd.DataFrame, effect: str) -> float:
    """Return the least effect that would be called: the median over labels; NaN without any."""
    values = table[f"{effect}_least"].replace([math.inf, -math.inf], math.nan)
    return float(values.abs().median())


def draw(axes: Axes, table: pd.DataFrame) -> None:
    """Draw a point with both intervals per label, those that changed on top."""
    axes.axhline(0, color=style.BLACK, linewidth=0.8, zorder=0)
    axes.axvline(0, color=style.BLACK, linewidth=0.8, zorder=0)
    for row in table.iloc[::-1].to_dict("records"):
        tint, marker = style.LOOKS[str(row["verdict"])]
        quiet = row["verdict"] in QUIET
        x, y = float(row["behaviour"]), float(row["representation"])
        across, along = (
            [row[f"{name}_{end}"] for end in ("low", "high")] for name in AXES.values()
        )
        line: dict[str, Any] = {
            "color": tint,
            "linewidth": 0.9,
            "alpha": 0.7,
            "zorder": 2 if quiet else 3,
        }
        axes.plot(across, [y, y], **line)
        axes.plot([x, x], along, **line)
        axes.plot(
            x,
            y,
            marker,
            color=tint,
            markerfacecolor="white" if row["verdict"] == "unchanged" else tint,
            markeredgecolor=style.GREY if quiet else "white",
            markeredgewidth=0.8 if quiet else 0.5,
            markersize=6 if quiet else 7.5,
            zorder=2 if quiet else 4,
        )


def scale(axes: Axes, axis: str, values: Sequence[float], threshold: float) -> None:
    """Set limits with room for names, and an axis on which small and large effects are readable.

    It is linear, or beyond ``threshold`` logarithmic where the largest effect is many times that.
    """
    low, high = min(0.0, *values), max(0.0, *values)
    set_limits = getattr(axes, f"set_{axis}lim")
    if not threshold > 0 or max(-low, high) <= WIDE * threshold:
        margin = 0.12 * (high - low or 1.0)
        set_limits(low - margin, high + margin)
        return
    getattr(axes, f"set_{axis}scale")("symlog", linthresh=threshold, linscale=0.7)
    set_limits(*(_beyond(value, threshold) for value in (low, high)))
    getattr(axes, f"{axis}axis").set_major_locator(FixedLocator(_ticks(low, high, threshold)))
    getattr(axes, f"{axis}axis").set_minor_locator(NullLocator())
    getattr(axes, f"{axis}axis").set_major_formatter(FuncFormatter(lambda v, _: style.signed(v)))


def _ticks(low: float, high: float, threshold: float) -> list[float]:
    """Return round values on either side of 0, a few of them, none within ``threshold``."""
    decades = range(math.floor(math.log10(threshold)), math.ceil(math.log10(max(-low, high))) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        sizes = [step * 10.0**decade for decade in decades for step in steps]
        sizes = [size for size in sizes if threshold <= size <= 1.6 * max(-low, high)]
        if len(sizes) <= TICKS:
            break
    both = [*(-size for size in sizes), 0.0, *sizes]
    return [value for value in both if 1.6 * low <= value <= 1.6 * high]


def _beyond(value: float, threshold: float) -> float:
    """Return a limit beyond a value, by about as much wherever it lies on the axis."""
    return float(np.sign(value) * (1.6 * abs(value)) + np.sign(value or -1) * 0.3 * threshold)


def draw_least(axes: Axes, table: pd.DataFrame) -> None:
    """Draw the least effects that would be called: in either direction, and above."""
    dashed: dict[str, Any] = {
        "color": style.GREY,
        "linewidth": 0.9,
        "linestyle": (0, (4, 3)),
        "zorder": 1,
    }
    across, along = (least(table, effect) for effect in AXES.values())
    for value in (-across, across):
        if axes.get_xlim()[0] < value < axes.get_xlim()[1]:
            axes.axvline(value, **dashed)
    if axes.get_ylim()[0] < along < axes.get_ylim()[1]:
        axes.axhline(along, **dashed)


def named_points(table: pd.DataFrame) -> list[NamedPoint]:
    """Return the points with their names; those of unchanged labels are optional."""
    columns = (table[name] for name in ("behaviour", "representation", "label", "verdict"))
    return [
        NamedPoint(float(x), float(y), str(name), verdict in QUIET)
        for x, y, name, verdict in zip(*columns, strict=True)
    ]


def plot_two_axes(changes: Path, answer: Path, comparison: str, output: style.Output) -> None:
    """Write the figure.

    Parameters
    ----------
    changes
        both effects and the verdict by comparison, labeller and label (CSV)
    answer
        whose labels answer the run (JSON)
    comparison
        name of the comparison
    """
    labeller = str(files.read_json(answer)["labeller"])
    rows = verdict_rows.answering(verdict_rows.read_changes(changes), comparison, labeller)
    table = tidy(rows)
    if table.empty:
        style.save_empty("no label has both effects measured", table, output)
        return
    base, cand = rows["baseline"].iloc[0], rows["candidate"].iloc[0]
    with style.styled():
        figure, axes = plt.subplots(figsize=(style.WIDTH * 0.74, 4.5))
        for axis, effect in AXES.items():
            ends = table[[effect, f"{effect}_low", f"{effect}_high"]].to_numpy(float)
            scale(axes, axis, ends[np.isfinite(ends)].tolist(), least(table, effect))
        draw_least(axes, table)
        draw(axes, table)
        legend = _legend(table)
        axes.set_title(f"{cand} against {base}", pad=9 + 13 * math.ceil(len(legend) / COLUMNS))
        axes.set_xlabel(
            f"behaviour: nats per token\n({base} predicts better ←  → {cand} predicts better)"
        )
        axes.set_ylabel("representation: how far activations moved")
        axes.legend(
            handles=legend,
            loc="lower left",
            bbox_to_anchor=(-0.02, 0.995),
            ncols=COLUMNS,
            columnspacing=1.2,
            handletextpad=0.2,
            borderaxespad=0,
        )
        style.note(axes, _note(rows, table), -46)
        figure.tight_layout()
        name_points(axes, named_points(table), named_points(table))
        style.save(figure, table, output)


def _legend(table: pd.DataFrame) -> list[Line2D]:
    return [
        Line2D(
            [],
            [],
            linestyle="",
            marker=marker,
            color=tint,
            markerfacecolor="white" if verdict == "unchanged" else tint,
            label=f"{verdict} ({(table['verdict'] == verdict).sum()})",
        )
        for verdict, (tint, marker) in style.LOOKS.items()
        if (table["verdict"] == verdict).any()
    ]


def _note(rows: pd.DataFrame, table: pd.DataFrame) -> str:
    text = (
        f"{style.labels_note(str(rows['labeller'].iloc[0]))}; dashed: least effect called, median"
    )
    missing = len(rows) - len(table)
    return text + (f"\n{missing} without both effects not shown" if missing else "")


main = cli.command(plot_two_axes)


if __name__ == "__main__":
    raise SystemExit(main())
