"""Plot a fit's training: loss, FVE per model, L0 and dead share, a thin line per seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.ticker import FuncFormatter

from workflow_scripts.common import cli
from workflow_scripts.common.tables import read_csv
from workflow_scripts.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = 500
"""Points drawn of a curve at most."""


def tidy(logs: Sequence[Path]) -> pd.DataFrame:
    """Return the training logs in one table, with a column ``run`` (0, 1, …)."""
    parts = []
    for run, path in enumerate(logs):
        log = read_csv(path, missing=("nan",))
        parts.append(log.iloc[:: max(len(log) // POINTS, 1)].assign(run=run))
    return pd.concat(parts, ignore_index=True)


def draw(axes: Axes, table: pd.DataFrame, lines: dict[str, tuple[str, str]], label: str) -> None:
    """Draw ``lines`` (column: (label, colour)) against tokens, a line per run."""
    for column, (name, colour) in lines.items():
        for run, rows in table.groupby("run"):
            axes.plot(
                rows["tokens"],
                rows[column],
                color=colour,
                linewidth=1.1,
                alpha=1.0 if run == 0 else 0.45,
                label=name if run == 0 else None,
            )
    axes.set_ylabel(label)
    axes.xaxis.set_major_formatter(FuncFormatter(_tokens))
    if len(lines) > 1:
        axes.legend()


def _tokens(value: float, _: float) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def plot_training_curves(logs: list[Path], models: list[str], output: style.Output) -> None:
    """Write the figure.

    Parameters
    ----------
    logs
        training log of each seed (CSV)
    models
        models of the crosscoder, in its order
    """
    table = tidy(logs)
    colour = style.model_colours(models)
    with style.styled():
        figure, grid = plt.subplots(2, 2, figsize=(style.WIDTH, 4.2), sharex=True)
        per_model = {f"loss_{m}": (m, colour[m]) for m in models}
        draw(grid[0, 0], table, per_model, "reconstruction loss")
        grid[0, 0].set_yscale("log")
        unexplained = {f"unexplained_{m}": (m, colour[m]) for m in models}
        table[list(unexplained)] = 1 - table[[f"fve_{m}" for m in models]]
        draw(grid[0, 1], table, unexplained, "1 − FVE")
        grid[0, 1].set_yscale("log")
        draw(grid[1, 0], table, {"l0": ("L0", style.BLACK)}, "latents per token (L0)")
        draw(grid[1, 1], table, {"dead_share": ("dead", style.BLACK)}, "share of dead latents")
        grid[1, 1].set_ylim(bottom=0)
        for axes in grid[1]:
            axes.set_xlabel("tokens")
        figure.tight_layout()
        style.save(figure, table, output)


main = cli.command(plot_training_curves)


if __name__ == "__main__":
    raise SystemExit(main())
