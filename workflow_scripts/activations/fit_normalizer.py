"""Estimate mean, scale and norm bound of one model at one layer on the calibration split.

Rows at position 0 are left out: there the attention sink's massive norm would set the scale. The
bound is ``c`` times the median norm; outliers beyond it enter neither mean nor scale. Sums are in
float64, because low-precision accumulators freeze after some millions of tokens.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from workflow_scripts.activations.layout import Layer
from workflow_scripts.activations.store import (
    NORMALIZER_FORMAT,
    NORMALIZER_VERSION,
    read_index,
    read_norms,
)
from workflow_scripts.common import cli, hdf5
from workflow_scripts.common.provenance import provenance

ROWS = 1 << 14  # rows that are read at one time


def fit_normalizer(
    shards: Sequence[Path],
    layer: int,
    bound: float,
    output: Path,
) -> None:
    """Write ``mean`` [D] and the attributes scale = √(mean ‖h − mean‖² / D), norm_bound, rows.

    Raises
    ------
    UserError
        If the calibration split has fewer than two usable tokens, or no variance.
    """
    chosen = []
    norms = []
    for path in shards:
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
    count, total, square = 0, np.zeros(0), 0.0
    for path, rows, norm in zip(shards, chosen, norms, strict=True):
        usable = rows[norm <= bound * median]
        found = Layer.open(path, layer)
        for start in range(0, len(usable), ROWS):
            h = found.read(usable[start : start + ROWS]).astype(np.float64)
            total = h.sum(0) if not total.size else total + h.sum(0)
            square += float(np.square(h).sum())
            count += len(h)
    mean = total / count
    variance = (square / count - float(np.square(mean).sum())) / len(mean)
    if not variance > 0:
        raise cli.UserError(f"layer {layer} of {shards[0].parent} does not vary: check the model")
    origin = provenance(__file__, layer=layer)
    with hdf5.atomic(output, NORMALIZER_FORMAT, NORMALIZER_VERSION, origin) as file:
        file.create_dataset("mean", data=mean)
        file.attrs["scale"] = np.sqrt(variance)
        file.attrs["median_norm"] = median
        file.attrs["norm_bound"] = bound * median
        file.attrs["rows"] = count


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and estimate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--activations", type=Path, nargs="+", required=True)
    parser.add_argument("--layer", type=int, required=True)
    parser.add_argument("--norm-bound", type=float, default=10.0, help="in median norms")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args(argv)
    return cli.guarded(
        lambda: fit_normalizer(
            arguments.activations,
            arguments.layer,
            arguments.norm_bound,
            arguments.output,
        )
    )


if __name__ == "__main__":
    raise SystemExit(main())
