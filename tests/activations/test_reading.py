"""Files that are truncated, foreign, incomplete or newer are refused by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.activations.synthetic import read_rows, token_shard, write_dump, write_normalizer
from workflow_scripts.activations import FORMAT, VERSION
from workflow_scripts.activations.fit_normalizer import fit_normalizer
from workflow_scripts.activations.layout import Layer, LayerWriter
from workflow_scripts.activations.settings import NormBound
from workflow_scripts.activations.store import Normalizer, read_index, read_norms
from workflow_scripts.common import hdf5
from workflow_scripts.common.cli import UserError
from workflow_scripts.tools.inspect_store import main


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


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def without_checksums(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        for name in [n for n in file if n.startswith("crc32")]:
            del file[name]
        for dataset in file.values():
            dataset.attrs.pop("crc32", None)


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "does not exist"),
    "truncated": (truncate, "truncated or no HDF5 file"),
    "empty": (empty, "truncated or no HDF5 file"),
    "cut": (cut, "truncated or no HDF5 file"),
    "foreign": (attribute("format", "diffscope-tokens"), "holds 'diffscope-tokens'"),
    "newer": (attribute("format_version", 9), "newer than [12]:"),
    "incomplete": (attribute("complete", False), "never finished"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_dump(fault: str, tmp_path: Path) -> None:
    shard = token_shard([6, 7], splits=["calibration", "fit"])
    path = write_dump(tmp_path / "x.h5", shard, np.ones((13, 4), np.float32))
    change, told = FAULTS[fault]
    change(path)
    for read in (
        lambda: read_rows(path, 2),
        lambda: read_norms(path, 2),
        lambda: read_index(path),
        lambda: fit_normalizer([path], 2, NormBound(), tmp_path / "n.h5"),
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
    np.testing.assert_array_equal(read_rows(path, 2), h)
    for rows in ([], [3], [0, 12], [2, 3, 4], [1, 2, 9, 10]):
        chosen = np.array(rows, dtype=np.int64)
        np.testing.assert_array_equal(Layer.open(path, 2).read(chosen), h[chosen])


def everything(path: Path) -> list[bytes]:
    """Return all that the file holds, as read."""
    index = read_index(path)
    parts = (index.document, index.position, index.split, read_norms(path, 2))
    return [str(index.splits).encode()] + [part.tobytes() for part in (*parts, read_rows(path, 2))]


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_bit_that_flips_anywhere_is_found(dtype: str, tmp_path: Path) -> None:
    """Wherever it flips, reading is refused by name, or gives what was written."""
    h = np.random.default_rng(0).normal(size=(40, 16)).astype(np.float32)
    path = write_dump(tmp_path / "x.h5", token_shard([20, 20]), h, 2, dtype)
    before, good = everything(path), path.read_bytes()
    rows = good.index(read_stored(path, 0))
    inside = range(rows, rows + 16 * 40 * (2 if dtype == "bfloat16" else 4), 41)
    refused = set()
    for place in {*range(0, len(good), 53), *inside}:
        broken = bytearray(good)
        broken[place] ^= 1 << (place % 8)
        path.write_bytes(bytes(broken))
        told = refusal(path, before)
        assert told == "" or ("x.h5" in told and "\n" not in told), told
        if told:
            refused.add(place)
    assert refused >= set(inside)


def refusal(path: Path, expected: list[bytes]) -> str:
    """Return why a file is refused; nothing where all that it held comes back."""
    try:
        found = everything(path)
    except UserError as error:
        return str(error)
    assert found == expected
    return ""


def read_stored(path: Path, row: int) -> bytes:
    """Return a row as it is stored."""
    with h5py.File(path) as file:
        stored: bytes = file["layer2"][row].tobytes()
        return stored


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_file_that_lost_its_end_while_it_was_open(share: float, tmp_path: Path) -> None:
    h = np.random.default_rng(0).normal(size=(4000, 64)).astype(np.float32)
    path = write_dump(tmp_path / "x.h5", token_shard([2000, 2000]), h)
    layer = Layer.open(path, 2)
    os.truncate(path, int(share * path.stat().st_size))
    with pytest.raises(UserError, match=r"x\.h5 ends within layer2: it is damaged"):
        layer.read(np.arange(4000))


def test_a_file_of_the_first_version_is_refused(tmp_path: Path) -> None:
    path = write_dump(tmp_path / "x.h5", token_shard([6, 7]), np.ones((13, 4), np.float32))
    without_checksums(path)
    for read in (read_index, lambda p: read_norms(p, 2), lambda p: read_rows(p, 2)):
        with pytest.raises(UserError, match=r"x\.h5 has no .* with a checksum: it is damaged"):
            read(path)


def test_chunks_are_read_where_they_lie(tmp_path: Path) -> None:
    """Against HDF5's own reading, for rows of any pattern and layers written in turns."""
    rng = np.random.default_rng(1)
    h = {layer: rng.normal(size=(9000, 64)).astype(np.float32) for layer in (1, 2)}
    with hdf5.atomic(tmp_path / "x.h5", FORMAT, VERSION, {}) as file:
        writers = {layer: LayerWriter(file, layer, 9000, 64, "float32") for layer in h}
        for first, last in ((0, 10), (10, 5000), (5000, 9000)):
            for layer, writer in writers.items():
                writer.write(h[layer][first:last], np.ones(last - first, np.float32))
        for writer in writers.values():
            writer.close()
    for number, values in h.items():
        found = Layer.open(tmp_path / "x.h5", number)
        assert len(found.offsets) == 18
        found.verify()
        for share in (1.0, 0.3, 0.002):
            rows = np.flatnonzero(rng.random(9000) < share)
            np.testing.assert_array_equal(found.read(rows), values[rows])


def test_inspection(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shard = token_shard([6, 7], splits=["calibration", "fit"])
    path = write_dump(tmp_path / "x.h5", shard, np.ones((13, 4), np.float32), 2, "bfloat16")
    empty_one = write_dump(tmp_path / "y.h5", token_shard([]), np.ones((0, 4), np.float32))
    assert main([str(path), str(empty_one)]) == 0
    told = capsys.readouterr().out
    assert "x.h5: diffscope-activations version 2" in told
    assert "13 rows of 2 documents" in told
    assert "split calibration: 6 rows" in told
    assert "layer 2: 13 x 4 bfloat16 in 1 chunks of 13 rows, checksums agree; norms 2 to 2" in told
    stored = read_stored(path, 0)
    path.write_bytes(path.read_bytes().replace(stored, b"\0" * len(stored), 1))
    assert main([str(path)]) == 2
    assert "x.h5 differs from its checksum in layer2, rows 0 to 12" in capsys.readouterr().err
    (tmp_path / "z.h5").write_text("no HDF5")
    assert main([str(tmp_path / "z.h5")]) == 2
    assert "z.h5 cannot be read as HDF5" in capsys.readouterr().err
