"""An archive replays a run elsewhere, and an altered one is refused whole."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from tests.autointerp.conftest import SENTINEL
from tests.autointerp.fake_server import FakeServer
from tests.autointerp.llm_run import KEY_ENV, Run
from tests.autointerp.oracle import Behaviour
from workflow_scripts.autointerp.llm.cache import Attempt, canonical, encode_attempts
from workflow_scripts.tools import pack_cache


@pytest.fixture
def packed(contexts: Path, tmp_path: Path) -> tuple[Run, Path]:
    with FakeServer() as server:
        run = Run(contexts, tmp_path / "a", server.url, tmp_path / "cache", held_out=8, null=4)
        run.everything()
        run.seed = 5
        assert run.build("explain") == run.call("explain") == 0  # answers of another run
        run.seed = 0
        run.everything()
    archive = tmp_path / "run.tar"
    ledgers = [str(run.file(p, "ledger.csv")) for p in ("explain", "classify", "score")]
    flags = ["--cache", str(run.cache), "--archive", str(archive), "--ledgers", *ledgers]
    assert pack_cache.main(["pack", *flags]) == 0
    first = archive.read_bytes()
    assert pack_cache.main(["pack", *flags]) == 0
    assert archive.read_bytes() == first
    return run, archive


def test_an_archive_replays_elsewhere(
    packed: tuple[Run, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, archive = packed
    monkeypatch.delenv(KEY_ENV)
    other = Run(run.data, tmp_path / "b", run.url, tmp_path / "fresh", held_out=8, null=4)
    assert pack_cache.main(["unpack", "--cache", str(other.cache), "--archive", str(archive)]) == 0
    other.flags = ("--mode", "replay")
    other.everything()
    for name in ("explanations", "labels", "scores"):
        assert run.llm(name).read_bytes() == other.llm(name).read_bytes()
    used = len(list(other.cache.glob("[0-9a-f][0-9a-f]/*.json")))
    assert used < len(list(run.cache.glob("[0-9a-f][0-9a-f]/*.json")))
    assert SENTINEL.encode() not in archive.read_bytes()


def _repack(archive: Path, change: str) -> None:
    with tarfile.open(archive) as tar:
        members = [(m, tar.extractfile(m).read()) for m in tar.getmembers()]  # type: ignore[union-attr]
    with tarfile.open(archive, "w") as tar:
        for i, (member, content) in enumerate(members):
            if i == 1 and change == "drop":
                continue
            if i == 1 and change == "flip":
                content = content.replace(b"stop", b"halt")
            if i == 1 and change == "rename":
                member.name = "../outside.json"
            tar.addfile(member, io.BytesIO(content))
        if change == "add":
            info = tarfile.TarInfo("aa/more.json")
            info.size = 2
            tar.addfile(info, io.BytesIO(b"{}"))


@pytest.mark.parametrize(
    ("change", "needle"),
    [
        ("drop", "incomplete"),
        ("flip", "altered"),
        ("rename", "altered"),
        ("add", "altered"),
        ("", "no archive"),
    ],
)
def test_an_altered_archive_is_refused_whole(
    packed: tuple[Run, Path],
    tmp_path: Path,
    change: str,
    needle: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, archive = packed
    if change:
        _repack(archive, change)
    else:
        archive.write_bytes(b"not a tar file")
    fresh = tmp_path / "fresh"
    assert pack_cache.main(["unpack", "--cache", str(fresh), "--archive", str(archive)]) == 2
    assert needle in capsys.readouterr().err
    assert not fresh.exists()


def test_an_archive_replays_what_was_given_up(
    contexts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeServer(Behaviour(first={2: "500"})) as server:
        run = Run(contexts, tmp_path / "a", server.url, tmp_path / "cache")
        flags = ("--attempts", "1", "--concurrency", "1", "--max-failures", "1")
        assert run.build("explain") == run.call("explain", *flags) == 0
    ledger, archive = run.file("explain", "ledger.csv"), tmp_path / "run.tar"
    (run.cache / "dialects" / f"{'0' * 64}.json").write_text('{"form": "of a later version"}')
    pack = ["pack", "--cache", str(run.cache), "--archive", str(archive), "--ledgers", str(ledger)]
    assert pack_cache.main(pack) == 0
    assert "3 answers packed" in capsys.readouterr().err
    other = Run(run.data, tmp_path / "b", run.url, tmp_path / "fresh")
    unpack = ["unpack", "--cache", str(other.cache), "--archive", str(archive)]
    assert pack_cache.main(unpack) == other.build("explain") == 0
    assert other.call("explain", "--mode", "replay", "--max-failures", "1") == 0
    for name in ("responses.jsonl", "ledger.csv", "manifest.json"):
        assert run.file("explain", name).read_bytes() == other.file("explain", name).read_bytes()
    next((run.cache / "failures").iterdir()).unlink()
    assert pack_cache.main(pack) == 2
    assert "lacks the attempt" in capsys.readouterr().err


KEY = "ab" * 32
GIVEN_UP = [Attempt((), "HTTP 500")]


@pytest.mark.parametrize(
    ("name", "content", "good"),
    [
        (f"failures/{KEY}.json", encode_attempts(KEY, GIVEN_UP), True),
        (f"failures/{KEY}.json", encode_attempts("cd" * 32, GIVEN_UP), False),
        (f"failures/{KEY}.json", encode_attempts(KEY, []), False),
        (f"failures/{KEY}.json", canonical({"key": KEY, "reason": None}), False),
        (f"failures/{KEY}.json", b"\xff", False),
        (f"failures/../{KEY}.json", encode_attempts(KEY, GIVEN_UP), False),
        (f"ab/{KEY}.json", encode_attempts(KEY, GIVEN_UP), False),
        (f"dialects/{KEY}.json", b"{}", True),
        (f"dialects/{KEY}.json", b'{"limit": "none"}', False),
    ],
)
def test_every_file_of_an_archive_is_what_its_name_says(
    tmp_path: Path, name: str, content: bytes, good: bool
) -> None:
    sums = {name: hashlib.sha256(content).hexdigest()}
    head = {"format": pack_cache.FORMAT, "version": pack_cache.VERSION, "files": sums}
    archive, fresh = tmp_path / "run.tar", tmp_path / "fresh"
    with tarfile.open(archive, "w") as tar:
        pack_cache._add(tar, pack_cache.MANIFEST, json.dumps(head).encode())
        pack_cache._add(tar, name, content)
    flags = ["--cache", str(fresh), "--archive", str(archive)]
    assert pack_cache.main(["unpack", *flags]) == (0 if good else 2)
    assert (fresh / name).exists() == good


@pytest.mark.parametrize("name", ["MOST_FILES", "LARGEST_FILE", "LARGEST_MANIFEST"])
def test_an_archive_is_bounded(
    packed: tuple[Run, Path], tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, archive = packed
    monkeypatch.setattr(pack_cache, name, 2)
    flags = ["unpack", "--cache", str(tmp_path / "fresh"), "--archive", str(archive)]
    assert pack_cache.main(flags) == 2
    assert not (tmp_path / "fresh").exists()


def test_a_compressed_archive_is_refused(packed: tuple[Run, Path], tmp_path: Path) -> None:
    _, archive = packed
    small = tmp_path / "run.tar.gz"
    small.write_bytes(gzip.compress(archive.read_bytes()))
    flags = ["unpack", "--cache", str(tmp_path / "fresh"), "--archive", str(small)]
    assert pack_cache.main(flags) == 2
    assert not (tmp_path / "fresh").exists()
