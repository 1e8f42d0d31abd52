"""The token shard's file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from workflow_scripts.common.cli import UserError
from workflow_scripts.dataset.shards import TokenShard, write_shard


def example() -> TokenShard:
    return TokenShard(
        ids=np.array([1, 5, 6, 1, 7], dtype=np.int32),
        row_starts=np.array([0, 3, 5], dtype=np.int64),
        row_document=np.array([4, 9], dtype=np.int32),
        row_split=np.array([0, 2], dtype=np.uint8),
        role=np.array([0, 0, 0, 2, 3], dtype=np.uint8),
        template=np.array([True, False, False, True, False]),
        category=np.array([-1, 0, 0, -1, 1], dtype=np.int16),
        categories=("advice", "news"),
    )


def test_round_trip_and_derived_arrays(tmp_path: Path) -> None:
    path = tmp_path / "shard000.h5"
    write_shard(path, example(), {"config": "x"})
    shard = TokenShard.read(path)
    for name in ("ids", "row_starts", "row_document", "row_split", "role", "template", "category"):
        np.testing.assert_array_equal(getattr(shard, name), getattr(example(), name))
        assert getattr(shard, name).dtype == getattr(example(), name).dtype
    assert shard.categories == ("advice", "news")
    assert (shard.rows, shard.tokens) == (2, 5)
    np.testing.assert_array_equal(shard.position, [0, 1, 2, 0, 1])
    np.testing.assert_array_equal(shard.row_of_token, [0, 0, 0, 1, 1])
    np.testing.assert_array_equal(shard.ids[shard.row(1)], [1, 7])


def test_an_empty_shard_is_valid(tmp_path: Path) -> None:
    empty = TokenShard(
        ids=np.empty(0, np.int32),
        row_starts=np.zeros(1, np.int64),
        row_document=np.empty(0, np.int32),
        row_split=np.empty(0, np.uint8),
        role=np.empty(0, np.uint8),
        template=np.empty(0, np.bool_),
        category=np.empty(0, np.int16),
    )
    write_shard(tmp_path / "x.h5", empty, {})
    shard = TokenShard.read(tmp_path / "x.h5")
    assert (shard.rows, shard.tokens, len(shard.position)) == (0, 0, 0)


def test_equal_shards_have_equal_bytes(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.h5", example(), {})
    write_shard(tmp_path / "b.h5", example(), {})
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_inconsistent_shards_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="differ in length"):
        write_shard(tmp_path / "x.h5", replace(example(), ids=np.zeros(3, np.int32)), {})
    write_shard(tmp_path / "x.h5", example(), {})
    with h5py.File(tmp_path / "x.h5", "r+") as file:
        file["row_starts"][2] = 4
    with pytest.raises(UserError, match=r"x\.h5 is damaged"):
        TokenShard.read(tmp_path / "x.h5")


def test_foreign_and_incomplete_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with pytest.raises(UserError, match=r"x\.h5 does not exist"):
        TokenShard.read(path)
    write_shard(path, example(), {})
    with h5py.File(path, "r+") as file:
        file.attrs["complete"] = False
    with pytest.raises(UserError, match="never finished"):
        TokenShard.read(path)
