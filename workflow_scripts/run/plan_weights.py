"""What the comparison of two models' weights will cost, or which layers it suggests."""

from __future__ import annotations

from pathlib import Path

from workflow_scripts.common.tables import read_csv
from workflow_scripts.models.weight_changes import half_way
from workflow_scripts.run.comparisons import weighed_weights
from workflow_scripts.run.paths import Paths
from workflow_scripts.run.settings import Config


def weight_lines(config: Config, spectra: str) -> list[str]:
    """Return a line of the plan per comparison; ``spectra`` says what those of a model cost."""
    lines = []
    for name in weighed_weights(config):
        path = Path(Paths(config).weights(name))
        cost = spectra if config.comparison.weight_changes == "spectrum" else "reads the files"
        text = f"{cost}; needs no text and suggests layers: snakemake {path}"
        if path.exists():
            table = read_csv(path, ("layer", "change"))
            layer = half_way(zip(table["layer"], table["change"], strict=True))
            text = "no block differs"
            if layer is not None:
                text = (
                    f"half of the change is in blocks 1 to {layer}: look at layer {layer} or later"
                )
        lines.append(f"  weights      {name}: {text}")
    return lines
