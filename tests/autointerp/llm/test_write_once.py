"""Files written once: races, cancelled calls, and disks that refuse."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from workflow_scripts.autointerp.llm.write_once import Syncer, write_once
from workflow_scripts.common.cli import UserError


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_the_first_writer_wins(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.json"
    assert write_once(path, b"first")
    assert not write_once(path, b"second")
    assert path.read_bytes() == b"first"
    assert _files(tmp_path) == ["file.json"]


def test_many_writers_in_one_loop(tmp_path: Path) -> None:
    async def write() -> list[bool]:
        async with Syncer() as syncer:
            places = [tmp_path / f"{number % 10}" / "file.json" for number in range(200)]
            tasks = [syncer.write_once(p, b"x" * 5000) for p in places]
            return list(await asyncio.gather(*tasks))

    assert sum(asyncio.run(write())) == 10
    assert _files(tmp_path) == ["file.json"] * 10
    assert {p.read_bytes() for p in tmp_path.rglob("*.json")} == {b"x" * 5000}


def test_the_loop_goes_on_while_the_disk_is_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = threading.Event()
    monkeypatch.setattr(os, "fsync", lambda _: goes_on.wait(10))

    async def write() -> bool:
        async with Syncer() as syncer:
            task = asyncio.create_task(syncer.write_once(tmp_path / "file.json", b"paid"))
            await asyncio.sleep(0.05)
            assert not task.done()
            assert not (
                tmp_path / "file.json"
            ).exists()  # not in its place before it is on the disk
            goes_on.set()
            return await task

    assert asyncio.run(write())
    assert _files(tmp_path) == ["file.json"]


def test_cancelled_calls_are_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits, fsync = threading.Event(), os.fsync

    def slow(descriptor: int) -> None:
        waits.wait(10)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", slow)

    async def write() -> None:
        async with Syncer() as syncer:
            tasks = [
                asyncio.create_task(syncer.write_once(tmp_path / f"{n}.json", b"paid"))
                for n in range(12)
            ]
            await asyncio.sleep(0.05)
            for task in tasks[1::2]:
                task.cancel()
            await asyncio.gather(*tasks[1::2], return_exceptions=True)
            assert all(task.cancelled() for task in tasks[1::2])
            waits.set()
            assert await asyncio.gather(*tasks[::2]) == [True] * 6

    asyncio.run(write())
    assert _files(tmp_path) == sorted(f"{n}.json" for n in range(12))


def test_disks_that_can_sync_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(4)
    monkeypatch.setattr(os, "fsync", lambda _: together.wait(10))

    async def write() -> list[bool]:
        async with Syncer() as syncer:
            tasks = [syncer.write_once(tmp_path / f"{n}.json", b"x") for n in range(32)]
            return list(await asyncio.gather(*tasks))

    assert asyncio.run(write()) == [True] * 32


def test_a_draft_of_a_killed_process_is_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 7)
    (tmp_path / ".file.json.7.0.part").write_bytes(b"torn")
    assert write_once(tmp_path / "file.json", b"whole")
    assert (tmp_path / "file.json").read_bytes() == b"whole"


def test_a_disk_that_fills_is_told_for_that_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, calls = os.fsync, []

    def second_fails(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", second_fails)

    async def write() -> list[bool | BaseException]:
        async with Syncer() as syncer:
            tasks = [syncer.write_once(tmp_path / f"{n}.json", b"x") for n in range(3)]
            return list(await asyncio.gather(*tasks, return_exceptions=True))

    results = asyncio.run(write())
    failed = [result for result in results if isinstance(result, UserError)]
    assert len(failed) == 1
    assert "No space left on device" in str(failed[0])
    written = [f"{n}.json" for n, result in enumerate(results) if result is True]
    assert _files(tmp_path) == written
    assert len(written) == 2


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=r"cannot be written at .*make room"):
        write_once(tmp_path / "file" / "entry.json", b"x")
