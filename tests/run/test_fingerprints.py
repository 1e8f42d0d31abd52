"""Digests of large files: every byte counts, and a file is read once as long as it stays."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from workflow_scripts.run import fingerprints
from workflow_scripts.run.fingerprints import LARGE, REMEMBERED, SETTLED, fingerprint


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of 20 MB, in a working directory of its own, and every file old enough."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fingerprints, "SETTLED", -1)
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(LARGE + 4_000_000))
    return path


def digest(path: Path) -> str:
    """Return the digest as a new process gets it."""
    fingerprint.cache_clear()
    return fingerprint(path)


def put(path: Path, place: int, value: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(value)


@pytest.mark.parametrize("place", [0, 1, 7_654_321, LARGE + 3_999_999])
def test_one_byte_changed_in_place_changes_it(large: Path, place: int) -> None:
    before = digest(large)
    put(large, place, b"\x01")
    after = digest(large)
    assert after != before
    put(large, place, b"\x00")
    assert digest(large) == before


def test_a_change_whose_time_is_set_back_is_seen(large: Path) -> None:
    before, status = digest(large), large.stat()
    put(large, 12_345_678, b"\x01")
    os.utime(large, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert digest(large) != before


def test_a_file_that_stays_is_read_once(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest(large)
    monkeypatch.setattr(fingerprints, "_digest", lambda path: pytest.fail(f"read {path}"))
    assert digest(large) == before
    assert digest(large.parent / "." / large.name) == before


def test_a_file_that_just_changed_is_not_remembered(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another change within the clock's step would leave size and times as they are."""
    monkeypatch.setattr(fingerprints, "SETTLED", SETTLED)
    os.utime(large)
    digest(large)
    assert not REMEMBERED.exists()


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"x": 3}'])
def test_damaged_memory_is_only_forgotten(large: Path, content: str) -> None:
    before = digest(large)
    held = json.loads(REMEMBERED.read_text())
    assert list(held) == [str(large)]
    REMEMBERED.write_text(content)
    assert digest(large) == before
    assert json.loads(REMEMBERED.read_text())[str(large)] == held[str(large)]


def test_a_tree_that_cannot_be_written_to(large: Path) -> None:
    Path(".snakemake").write_text("no folder")
    before = digest(large)
    assert digest(large) == before


def test_small_files_are_not_remembered(large: Path) -> None:
    small = large.with_name("small")
    small.write_bytes(b"1")
    before = digest(small)
    small.write_bytes(b"2")
    assert digest(small) != before
    assert not REMEMBERED.exists()
