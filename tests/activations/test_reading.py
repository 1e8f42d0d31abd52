"""Files that are truncated, foreign, incomplete or newer are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.activations.synthetic import token_shard, write_dump, write_normalizer
from workflow_scripts.activations.fit_normalizer import fit_normalizer
from workflow_scripts.activations.store import Normalizer, read_index, read_norms, read_rows
from workflow_scripts.cli import UserError


def attribute(name: str, value: object) -> Callable[[Path], None]:
    """Return a change that sets an attribute of a file."""

    def change(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            file.attrs[name] = value

    return change


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "does not exist"),
    "truncated": (truncate, "truncated or no HDF5 file"),
    "empty": (empty, "truncated or no HDF5 file"),
    "foreign": (attribute("format", "diffscope-tokens"), "holds 'diffscope-tokens'"),
    "newer": (attribute("format_version", 2), "newer than 1"),
    "incomplete": (attribute("complete", False), "never finished"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_dump(fault: str, tmp_path: Path) -> None:
    shard = token_shard([6, 7], splits=["calibration", "fit"])
    path = write_dump(tmp_path / "x.h5", shard, np.ones((13, 4), np.float32))
    change, told = FAULTS[fault]
    change(path)
    for read in (
        lambda: read_rows(path, 2, slice(None)),
        lambda: read_norms(path, 2),
        lambda: read_index(path),
        lambda: fit_normalizer([path], 2, 10.0, tmp_path / "n.h5"),
    ):
        with pytest.raises(UserError, match=rf"x\.h5 .*{told}"):
            read()


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_normalizer(fault: str, tmp_path: Path) -> None:
    path = write_normalizer(tmp_path / "x.h5", np.zeros(4))
    change, told = FAULTS[fault]
    change(path)
    with pytest.raises(UserError, match=rf"x\.h5 .*{told}"):
        Normalizer.read(path)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_stored_rows_read_back(dtype: str, tmp_path: Path) -> None:
    h = np.random.default_rng(0).integers(-100, 100, (13, 4)).astype(np.float32)  # exact in all
    path = write_dump(tmp_path / "x.h5", token_shard([6, 7]), h, 2, dtype)
    np.testing.assert_array_equal(read_rows(path, 2, slice(None)), h)
    for rows in ([], [3], [0, 12], [2, 3, 4], [1, 2, 9, 10]):
        chosen = np.array(rows, dtype=np.int64)
        np.testing.assert_array_equal(read_rows(path, 2, chosen), h[chosen])
