"""Plot what every witness says of each label's text: its effect over its null."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from workflow_scripts.common import cli, files
from workflow_scripts.common.labellers import TRUE
from workflow_scripts.common.tables import read_csv
from workflow_scripts.comparison.verdicts import UNCHANGED
from workflow_scripts.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RANGE = 2.0
"""Effects are shown from a quarter to four times their null."""


def plot_witnesses(
    witnesses: Path,
    answer: Path,
    comparison: str,
    output: style.Output,
    planted: Path | None = None,
) -> None:
    """Write the figure: a row per label, a column per witness.

    Parameters
    ----------
    witnesses
        what every witness says (CSV)
    answer
        whose labels answer the run, and its models (JSON)
    comparison
        comparison to show
    planted
        what was planted in trained models (CSV)
    """
    facts = files.read_json(answer)
    labeller, every = str(facts["labeller"]), read_csv(witnesses)
    table = every[(every["comparison"] == comparison) & (every["labeller"] == labeller)]
    if table.empty:
        style.save_empty("no label has enough documents", table, output)
        return
    sides = (facts["baseline"], facts["candidate"])
    truth = read_truth(planted, *sides) if planted and labeller == TRUE else {}
    effects, calls = grids(table)
    with style.styled():
        figure, axes = plt.subplots(figsize=(style.WIDTH, 1.5 + 0.24 * len(effects)))
        draw(axes, effects, calls)
        names = [named(str(label), truth) for label in effects.index]
        axes.set_yticks(range(len(names)), names)
        style.note(axes, style.labels_note(labeller), -8)
        figure.tight_layout()
        style.save(figure, table, output)


def grids(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return log2 of effect over null, and which effects stand out, labels by witnesses.

    Labels for which most witnesses speak come first.
    """
    effect, null = (table[name].abs() for name in ("effect", "null"))
    with np.errstate(divide="ignore"):
        ratio = np.log2(effect / null)
    table = table.assign(ratio=ratio, out=table["stands_out"] == "yes")
    witnesses = list(dict.fromkeys(table["witness"]))
    calls = table.pivot(index="label", columns="witness", values="out").fillna(value=False)
    order = calls.sum(axis=1).sort_values(ascending=False, kind="stable").index
    ratios = table.pivot(index="label", columns="witness", values="ratio")
    return ratios.loc[order, witnesses], calls.loc[order, witnesses].astype(bool)


def draw(axes: Axes, effects: pd.DataFrame, calls: pd.DataFrame) -> None:
    """Draw the grid: colour is the effect over its null, a dot says that it stands out."""
    shown = axes.imshow(
        effects.to_numpy(dtype=float), aspect="auto", cmap="PuOr_r", vmin=-RANGE, vmax=RANGE
    )
    for row, column in zip(*np.nonzero(calls.to_numpy()), strict=True):
        axes.plot(column, row, "o", color=style.BLACK, markersize=5)
    axes.set_xticks(range(len(effects.columns)), list(effects.columns), rotation=25, ha="left")
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    figure = axes.get_figure(root=True)
    assert figure is not None
    bar = figure.colorbar(shown, ax=axes, ticks=[-2, -1, 0, 1, 2], extend="both", shrink=0.8)
    bar.set_label("effect over its null; dots stand out")
    bar.set_ticklabels(["¼", "½", "1", "2", "4"])


def read_truth(planted: Path, baseline: str, candidate: str) -> dict[str, str]:
    """Return what was planted in a pair of models, by category."""
    table = read_csv(planted)
    own = table[(table["baseline"] == baseline) & (table["candidate"] == candidate)]
    return dict(zip(own["category"], own["planted"], strict=True))


def named(label: str, truth: Mapping[str, str]) -> str:
    """Return a label in words, with what was planted in it."""
    planted = truth.get(label, UNCHANGED)
    return style.readable(label) + ("" if planted == UNCHANGED else f" ({planted})")


main = cli.command(plot_witnesses)


if __name__ == "__main__":
    raise SystemExit(main())
