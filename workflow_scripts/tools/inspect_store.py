"""Describe and verify a dump: ``python -m workflow_scripts.tools.inspect_store FILE``.

Reads every chunk and compares it with its checksum; prints what the file holds and where it came
from. Ends with 2 and a sentence if the file is truncated, damaged, no dump, or of a newer version.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from workflow_scripts.activations import FORMAT, VERSION
from workflow_scripts.activations.layout import Layer
from workflow_scripts.activations.store import read_index, read_norms
from workflow_scripts.common import cli, hdf5


def inspect_store(path: Path) -> Iterator[str]:
    """Yield lines that describe a dump; every byte of its rows is read.

    Raises
    ------
    UserError
        If the file is truncated, damaged, no dump, or of a newer version.
    """
    with hdf5.open_complete(path, FORMAT, VERSION) as file:
        version = int(file.attrs["format_version"])
        layers = sorted(int(n.removeprefix("layer")) for n in file if n.startswith("layer"))
        origin = json.loads(hdf5.get_text(file, "provenance"))
    index = read_index(path)
    rows = len(index.document)
    yield f"{path}: {FORMAT} version {version}, {path.stat().st_size:,} bytes"
    yield f"  {rows:,} rows of {len(np.unique(index.document)):,} documents"
    for number, split in enumerate(index.splits):
        yield f"  split {split}: {int((index.split == number).sum()):,} rows"
    for number in layers:
        layer = Layer.open(path, number)
        layer.verify()
        norms = read_norms(path, number)
        shown = np.quantile(norms, (0, 0.5, 1)) if rows else np.zeros(3)
        yield (
            f"  layer {number}: {layer.rows:,} x {layer.width} {layer.encoding} in "
            f"{len(layer.offsets)} chunks of {layer.chunk_rows} rows, checksums agree; norms "
            f"{shown[0]:.4g} to {shown[2]:.4g}, median {shown[1]:.4g}"
        )
    for name, value in sorted(origin.items()):
        yield f"  {name}: {value if isinstance(value, str) else json.dumps(value, sort_keys=True)}"


def inspect_stores(files: list[Path], /) -> None:
    """Print what dumps hold, after comparing every byte of their rows with its checksum.

    Parameters
    ----------
    files
        dumps (HDF5)
    """
    for path in files:
        for line in inspect_store(path):
            print(line, flush=True)


main = cli.command(inspect_stores)


if __name__ == "__main__":
    raise SystemExit(main())
