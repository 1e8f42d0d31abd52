"""Estimate mean, scale and norm bound of one model at one layer on the calibration split.

Rows at position 0 are left out: there the attention sink's massive norm would set the scale. The
bound is ``c`` times the median norm; outliers beyond it enter neither mean nor scale. Sums are in
float64, because low-precision accumulators freeze after some millions of tokens.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from workflow_scripts.activations.layout import Layer
from workflow_scripts.activations.settings import NormBound
from workflow_scripts.activations.store import (
    NORMALIZER_FORMAT,
    NORMALIZER_VERSION,
    read_index,
    read_norms,
)
from workflow_scripts.common import cli, hdf5
from workflow_scripts.common.progress import Progress
from workflow_scripts.common.provenance import provenance

ROWS = 1 << 14  # rows that are read at one time


def fit_normalizer(activations: list[Path], layer: int, bound: NormBound, output: Path) -> None:
    """Write ``mean`` [D] and the attributes scale = √(mean ‖h − mean‖² / D), norm_bound, rows.

    Parameters
    ----------
    activations
        dump files of the model, in order
    layer
        layer: output of that decoder block, counted from 1
    output
        normaliser to write (HDF5)

    Raises
    ------
    UserError
        If the calibration split has fewer than two usable tokens, or no variance.
    """
    chosen = []
    norms = []
    for path in activations:
        index = read_index(path)
        kept = (index.split == index.splits.index("calibration")) & (index.position > 0)
        chosen.append(np.flatnonzero(kept))
        norms.append(read_norms(path, layer)[chosen[-1]])
    every = np.concatenate(norms)
    if len(every) < 2:
        raise cli.UserError(
            f"the calibration split has {len(every)} usable tokens: raise text.tokens or "
            "text.splits.calibration"
        )
    median = float(np.median(every))
    most = bound.norm_bound * median
    count, total, square = 0, np.zeros(0), 0.0
    progress = Progress(len(every), "tokens")
    for path, rows, norm in zip(activations, chosen, norms, strict=True):
        usable = rows[norm <= most]
        stored = Layer.open(path, layer)
        for start in range(0, len(usable), ROWS):
            h = stored.read(usable[start : start + ROWS]).astype(np.float64)
            total = h.sum(0) if not total.size else total + h.sum(0)
            square += float(np.square(h).sum())
            count += len(h)
            progress.reach(count)
    mean = total / count
    variance = (square / count - float(np.square(mean).sum())) / len(mean)
    if not variance > 0:
        raise cli.UserError(
            f"layer {layer} of {activations[0].parent} does not vary: check the model"
        )
    origin = provenance(__file__, layer=layer)
    with hdf5.atomic(output, NORMALIZER_FORMAT, NORMALIZER_VERSION, origin) as file:
        file.create_dataset("mean", data=mean)
        file.attrs["scale"] = np.sqrt(variance)
        file.attrs["median_norm"] = median
        file.attrs["norm_bound"] = most
        file.attrs["rows"] = count


main = cli.command(fit_normalizer)


if __name__ == "__main__":
    raise SystemExit(main())
