"""Plot in how many other seeds the latents of a fit come back: unique ones beside shared ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from workflow_scripts.common import cli, files
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
        own = table[table["unique_to"] == owner]
        for count in range(others + 1):
            shares = [
                float((np.rint(own[name] * others) == count).mean()) if len(own) else float("nan")
                for name in ("recurrence", "recurrence_unique")
            ]
            label = f"unique to {owner.replace(JOIN, ' and ')}" if owner else SHARED
            rows.append((label, count, len(own), *shares))
    return pd.DataFrame(
        rows, columns=["owner", "other_seeds", "latents", "share", "share_same_owner"]
    )


def plot_seed_stability(stability: Path, models: list[str], output: style.Output) -> None:
    """Write the figure: bars per number of other seeds; filled where the owner is the same.

    Parameters
    ----------
    stability
        how often each latent recurs (Parquet)
    models
        models of the crosscoder, in its order
    """
    table = tidy(files.read_parquet(stability), models)
    owners = list(table["owner"].unique())
    colours = list(style.model_colours(models).values())
    several = [style.BLACK] * (len(owners) - len(colours) - 1)
    tints = dict(zip(owners, [*colours, *several, style.GREY], strict=True))
    named = {
        owner: f"{owner} ({rows['latents'].iloc[0]} latents of all seeds)"
        for owner, rows in table.groupby("owner", sort=False)
    }
    bars = table.assign(owner=table["owner"].map(named), any=100 * table["share"])
    bars["same"] = 100 * table["share_same_owner"]
    palette = {named[owner]: tint for owner, tint in tints.items()}
    common = {"x": "other_seeds", "hue": "owner", "palette": palette, "errorbar": None}
    with style.styled():
        figure, axes = plt.subplots(figsize=(style.WIDTH * 0.72, 2.6))
        sns.barplot(bars, y="any", fill=False, linewidth=1, legend=False, ax=axes, **common)
        sns.barplot(bars, y="same", saturation=1, alpha=0.55, ax=axes, **common)
        axes.set_xlabel("other seeds in which the latent recurs")
        axes.set_ylabel("latents, %")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), title=None)
        style.note(axes, "outline: any match; filled: a match with the same owner")
        figure.tight_layout()
        style.save(figure, table, output)


main = cli.command(plot_seed_stability)


if __name__ == "__main__":
    raise SystemExit(main())
