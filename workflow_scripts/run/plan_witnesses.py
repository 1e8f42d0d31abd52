"""What witnesses beside the crosscoders will cost, and which layers the weights suggest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from workflow_scripts.common.tables import read_csv
from workflow_scripts.models.weight_changes import half_way
from workflow_scripts.run import resources
from workflow_scripts.run.comparisons import uncontrolled, weighed_weights
from workflow_scripts.run.paths import Paths
from workflow_scripts.run.settings import Config


def label_flop(config: Config) -> float:
    """Return the operations of predictions and answers per label: 2 per parameter and token."""
    chosen, parameters = config.comparison, resources.largest(config).parameters
    read = chosen.prediction_documents * config.text.longest
    read += chosen.answer_documents * (config.text.longest + chosen.answer_tokens)
    return 2.0 * 2 * parameters * read * len(uncontrolled(config))


def spectrum_flop(config: Config) -> float:
    """Return the operations of the spectra of all comparisons; norms alone cost none."""
    if config.comparison.weight_changes != "spectrum":
        return 0.0
    return resources.spectrum_flop(config) * len(weighed_weights(config))


def weight_lines(config: Config) -> Iterator[str]:
    """Yield the layer that weights suggest where they have been compared, else how to compare."""
    for name in weighed_weights(config):
        path = Path(Paths(config).weights(name))
        text = f"suggest layers, without any text: snakemake {path}"
        if path.exists():
            table = read_csv(path, ("layer", "change"))
            layer = half_way(zip(table["layer"], table["change"], strict=True))
            text = "no block differs"
            if layer is not None:
                text = f"half of the change is in blocks 1 to {layer}: look at layer {layer} or on"
        yield f"  weights      {name}: {text}"
