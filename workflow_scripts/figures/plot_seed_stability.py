"""Plot in how many other seeds the latents of a fit come back: unique ones beside shared ones."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from workflow_scripts import cli, files
from workflow_scripts.figures import style
from workflow_scripts.latents.ownership import JOIN

SHARED = "unique to none"


def tidy(table: pd.DataFrame, models: Sequence[str]) -> pd.DataFrame:
    """Return, per owner and number of other seeds, the share of latents that recur so often.

    ``share`` counts any match, ``share_same_owner`` only those that are unique to the same one.
    """
    others = max(table["seed"].nunique() - 1, 1)
    rows = []
    several = sorted({name for name in table["unique_to"] if JOIN in name})
    for owner in (*models, *several, ""):
        mine = table[table["unique_to"] == owner]
        for count in range(others + 1):
            shares = [
                float((np.rint(mine[name] * others) == count).mean()) if len(mine) else float("nan")
                for name in ("recurrence", "recurrence_unique")
            ]
            told = f"unique to {owner.replace(JOIN, ' and ')}" if owner else SHARED
            rows.append((told, count, len(mine), *shares))
    return pd.DataFrame(
        rows, columns=["owner", "other_seeds", "latents", "share", "share_same_owner"]
    )


def plot_seed_stability(stability: Path, models: Sequence[str], output: style.Output) -> None:
    """Write the figure: bars per number of other seeds; filled where the owner is the same."""
    table = tidy(files.read_parquet(stability), models)
    owners = list(table["owner"].unique())
    colours = list(style.model_colours(models).values())
    several = [style.BLACK] * (len(owners) - len(colours) - 1)
    tints = dict(zip(owners, [*colours, *several, style.GREY], strict=True))
    width = 0.8 / len(owners)
    with style.styled():
        figure, axes = plt.subplots(figsize=(style.WIDTH * 0.72, 2.6))
        for place, owner in enumerate(owners):
            rows = table[table["owner"] == owner]
            x = rows["other_seeds"].to_numpy() + width * (place - (len(owners) - 1) / 2)
            count = int(rows["latents"].iloc[0])
            axes.bar(x, 100 * rows["share"], width, color="white", edgecolor=tints[owner])
            axes.bar(
                x,
                100 * rows["share_same_owner"],
                width,
                color=tints[owner],
                alpha=0.55,
                label=f"{owner} ({count} latents of all seeds)",
            )
        axes.set_xticks(sorted(table["other_seeds"].unique()))
        axes.set_xlabel("other seeds in which the latent recurs")
        axes.set_ylabel("latents, %")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1))
        style.note(axes, "outline: any match; filled: a match with the same owner")
        figure.tight_layout()
        style.save(figure, table, output)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stability", type=Path, required=True)
    parser.add_argument("--models", nargs="+", required=True)
    style.add_output(parser)
    a = parser.parse_args(argv)
    return cli.guarded(lambda: plot_seed_stability(a.stability, a.models, style.output_of(a)))


if __name__ == "__main__":
    raise SystemExit(main())
