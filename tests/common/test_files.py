"""Files are written whole or not at all, by several processes and machines side by side."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from workflow_scripts.common import files


def test_a_file_is_synced_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, synced = tmp_path / "a.txt", []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append(path.exists()))
    files.write_text(path, "text")
    assert synced == [False, True]  # the file, then its name in the folder
    assert path.read_text() == "text"


def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "before")
    with pytest.raises(UnicodeEncodeError):
        files.write_text(path, "half \ud800")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["before"]


def test_only_what_dead_processes_of_this_machine_left_is_removed(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    names = {
        "dead": f".a.txt.{files.HOST}.{dead.pid}.part",
        "alive": f".a.txt.{files.HOST}.{os.getppid()}.part",
        "elsewhere": f".a.txt.another-host.{dead.pid}.part",
    }
    for name in names.values():
        (tmp_path / name).write_text("torn")
    files.write_text(tmp_path / "a.txt", "text")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"a.txt", names["alive"], names["elsewhere"]}
