"""Mean, scale and norm bound against numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.activations.synthetic import read_rows, token_shard, write_dump
from workflow_scripts.activations import fit_normalizer as step
from workflow_scripts.activations.fit_normalizer import fit_normalizer, main
from workflow_scripts.activations.settings import NormBound
from workflow_scripts.activations.store import (
    NORMALIZER_FORMAT,
    NORMALIZER_VERSION,
    Normalizer,
)
from workflow_scripts.common import hdf5
from workflow_scripts.common.cli import UserError

SPLITS = ["fit", "calibration", "score", "calibration"]
LENGTHS = [30, 200, 10, 100]
D = 8


def two_shards(
    folder: Path, shift: float = 0.0, dtype: str = "float32"
) -> tuple[list[Path], NDArray[np.float32]]:
    """Write two shards with sinks at position 0 and one outlier; return calibration rows > 0."""
    paths, kept = [], []
    for number in (0, 1):
        shard = token_shard(LENGTHS, 10 * number, SPLITS)
        h = np.random.default_rng(number).normal(shift, 1.5, (shard.tokens, D)).astype(np.float32)
        h[shard.position == 0] *= 1000
        h[shard.row(0)] += 50  # another split
        if number:
            h[shard.row(1).start + 5] *= 500
        paths.append(write_dump(folder / f"{number}.h5", shard, h, 2, dtype))
        calibration = shard.row_split[shard.row_of_token] == 1
        kept.append(read_rows(paths[-1], 2)[calibration & (shard.position > 0)])
    return paths, np.concatenate(kept)


@pytest.mark.parametrize(("shift", "dtype"), [(0.0, "float32"), (0.5, "bfloat16")])
def test_against_numpy(shift: float, dtype: str, tmp_path: Path) -> None:
    paths, rows = two_shards(tmp_path, shift, dtype)
    fit_normalizer(paths, 2, NormBound(), tmp_path / "n.h5")
    found = Normalizer.read(tmp_path / "n.h5")
    norms = np.linalg.norm(rows.astype(np.float64), axis=1)
    bound = 10 * np.median(norms)
    h = rows[norms <= bound].astype(np.float64)
    assert len(h) == len(rows) - 1  # the outlier
    assert found.norm_bound == pytest.approx(bound, rel=5e-3 if dtype == "bfloat16" else 1e-6)
    np.testing.assert_allclose(found.mean, h.mean(0), rtol=1e-12, atol=1e-12)
    assert found.scale == pytest.approx(np.sqrt(((h - h.mean(0)) ** 2).sum(1).mean() / D))
    with hdf5.open_complete(tmp_path / "n.h5", NORMALIZER_FORMAT, NORMALIZER_VERSION) as file:
        assert file.attrs["rows"] == len(h)
        assert file.attrs["median_norm"] == pytest.approx(found.norm_bound / 10)
    x = (h - found.mean) / found.scale
    assert np.square(x).mean() == pytest.approx(1)


def test_far_from_the_origin(tmp_path: Path) -> None:
    shard = token_shard([2000], splits=["calibration"])
    h = np.random.default_rng(3).normal(3000, 1, (2000, D)).astype(np.float32)
    path = write_dump(tmp_path / "x.h5", shard, h)
    fit_normalizer([path], 2, NormBound(), tmp_path / "n.h5")
    assert Normalizer.read(tmp_path / "n.h5").scale == pytest.approx(
        h[1:].astype(np.float64).std(0).mean(), rel=1e-3
    )


def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    none = write_dump(tmp_path / "fit.h5", token_shard([9]), np.ones((9, D), np.float32))
    with pytest.raises(UserError, match="the calibration split has 0 usable tokens"):
        fit_normalizer([none], 2, NormBound(), tmp_path / "n.h5")
    shard = token_shard([9], splits=["calibration"])
    flat = write_dump(tmp_path / "flat.h5", shard, np.ones((9, D), np.float32))
    with pytest.raises(UserError, match="does not vary"):
        fit_normalizer([flat], 2, NormBound(), tmp_path / "n.h5")
    flags = ["--activations", str(flat), "--layer", "4", "--output", str(tmp_path / "n.h5")]
    assert main(flags) == 2
    assert "flat.h5 holds no layer 4" in capsys.readouterr().err
    assert not (tmp_path / "n.h5").exists()


def test_rows_beyond_the_memory_give_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, _ = two_shards(tmp_path)
    fit_normalizer(paths, 2, NormBound(), tmp_path / "whole.h5")
    monkeypatch.setattr(step, "ROWS", 37)
    fit_normalizer(paths, 2, NormBound(), tmp_path / "parts.h5")
    whole, parts = (Normalizer.read(tmp_path / f"{name}.h5") for name in ("whole", "parts"))
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-12, atol=1e-14)
    assert parts.scale == pytest.approx(whole.scale, rel=1e-12)
