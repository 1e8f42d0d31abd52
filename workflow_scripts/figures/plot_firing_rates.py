"""Plot how often latents fire: unique ones against shared ones."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from workflow_scripts.common import cli, files
from workflow_scripts.figures import style
from workflow_scripts.latents.ownership import owned_by


def tidy(latents: pd.DataFrame, selection: pd.DataFrame) -> pd.DataFrame:
    """Return latent, firing rate and owner of every live latent."""
    live = selection[["latent", "unique_to"]].merge(latents, on="latent")
    return live[["latent", "unique_to", "firing_rate"]]


def plot_firing_rates(
    latents: Path, selection: Path, models: list[str], output: style.Output
) -> None:
    """Write the figure: shares of each group over firing rate, on a logarithmic axis.

    Parameters
    ----------
    latents
        scores of the latents (Parquet)
    selection
        which latents are unique (Parquet)
    models
        models of the crosscoder, in its order
    """
    everything = files.read_parquet(latents)
    table = tidy(everything, files.read_parquet(selection))
    colour = style.model_colours(models)
    groups = [("", "shared", style.GREY), *((m, f"unique to {m}", colour[m]) for m in models)]
    rates = np.log10(table["firing_rate"])
    bins = np.linspace(np.floor(rates.min()), 0, 41).tolist()
    with style.styled():
        figure, axes = plt.subplots(figsize=(style.WIDTH, 2.6))
        for owner, label, tint in groups:
            own = rates[owned_by(table["unique_to"], owner) if owner else table["unique_to"] == ""]
            if len(own):
                axes.hist(
                    own,
                    bins,
                    weights=np.full(len(own), 1 / len(own)),
                    histtype="stepfilled" if owner == "" else "step",
                    color=tint,
                    alpha=0.35 if owner == "" else 1.0,
                    linewidth=1.4,
                    label=f"{label} ({len(own)})",
                )
        ticks = np.arange(np.floor(rates.min()), 1)
        axes.set_xticks(ticks, [f"$10^{{{int(t)}}}$" for t in ticks])
        axes.set(xlabel="firing rate (share of tokens)", ylabel="share of the group's latents")
        dead = int((~everything["live"]).sum())
        title = f"{dead} of {len(everything)} latents never fire"
        both = int((table["unique_to"].str.count(r"\+") > 0).sum())
        if both:
            title += f"\n{both} are unique to several models and count for each"
        axes.legend(title=title, alignment="left")
        figure.tight_layout()
        style.save(figure, table, output)


main = cli.command(plot_firing_rates)


if __name__ == "__main__":
    raise SystemExit(main())
