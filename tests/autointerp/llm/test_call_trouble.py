"""The calling step interrupted, killed, out of room, or given what is damaged."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.autointerp.calling import quick_run, request_ids, spawn, wait_for
from tests.autointerp.fake_server import FakeServer
from tests.autointerp.llm_run import Run
from tests.autointerp.oracle import Behaviour
from workflow_scripts.autointerp.call_llm import INTERRUPTED
from workflow_scripts.autointerp.llm.dialect import probe_passed
from workflow_scripts.autointerp.llm.outputs import Writer
from workflow_scripts.autointerp.llm.replay import StoredAnswers
from workflow_scripts.common import files


def test_an_interrupt_lets_calls_end_and_a_rerun_sends_the_rest(
    contexts: Path, tmp_path: Path
) -> None:
    with FakeServer(Behaviour(latency=0.05)) as server:
        run = quick_run(contexts, tmp_path / "a", server.url)
        run.held_out, run.null = 40, 40
        assert run.purpose("explain") == 0
        assert run.build("score") == 0
        total, before = len(request_ids(run, "score")), server.counters.calls
        process = spawn(run, "score", "--concurrency", "2")
        wait_for(lambda: server.counters.calls >= before + total // 3)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        assert process.returncode == 130
        assert "resume with the same command" in err
        assert before + total // 3 <= server.counters.calls < before + total
        assert run.call("score") == 0
        assert server.counters.calls == before + total
    assert run.parse("score") == 0


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_nothing_is_paid_twice(contexts: Path, tmp_path: Path, kills: int) -> None:
    concurrency = 4
    rng = random.Random(os.getpid())
    with FakeServer(Behaviour(latency=0.01, jitter=0.02)) as server:
        undisturbed = quick_run(contexts, tmp_path / "a", server.url, "other")
        run = quick_run(contexts, tmp_path / "b", server.url)
        for one in (undisturbed, run):
            one.held_out, one.null = 40, 40
            assert one.purpose("explain") == 0
            assert one.build("score") == 0
        assert undisturbed.call("score") == 0
        total, before = len(request_ids(run, "score")), server.counters.calls
        for kill in range(1, kills + 1):
            process = spawn(run, "score", "--concurrency", str(concurrency))
            target = server.counters.calls + rng.randint(1, total // (kills + 1))
            wait_for(lambda target=target: server.counters.calls >= target)
            process.kill()
            process.communicate(timeout=20)
            assert server.counters.calls - before <= total + kill * concurrency
        assert run.call("score") == 0
        assert server.counters.calls - before <= total + kills * concurrency
    assert _answers(run) == _answers(undisturbed)
    assert run.parse("score") == undisturbed.parse("score") == 0
    assert run.llm("scores").read_bytes() == undisturbed.llm("scores").read_bytes()
    assert not list(run.cache.glob("quarantine/*"))


def _answers(run: Run) -> bytes:
    return run.file("score", "responses.jsonl").read_bytes()


def test_a_full_disk_stops_the_run(
    contexts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeServer() as server:
        run = quick_run(contexts, tmp_path / "a", server.url)
        assert run.build("explain") == 0

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            assert run.call("explain") == 2
        assert run.call("explain") == 0


def test_outputs_that_cannot_be_written_stop_the_run(
    contexts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    added: list[int] = []

    def full_once(_: Writer, place: int, *__: object) -> None:
        added.append(place)
        if len(added) == 1:
            raise OSError(28, "No space left on device")

    with FakeServer(Behaviour(latency=0.01)) as server:
        run = quick_run(contexts, tmp_path / "a", server.url)
        run.held_out, run.null = 40, 40
        assert run.purpose("explain") == run.build("score") == 0
        before = server.counters.calls
        with monkeypatch.context() as patch:
            patch.setattr(Writer, "add", full_once)
            patch.setattr(os, "_exit", lambda code: None)
            run.call("score", "--concurrency", "2")
        assert server.counters.calls - before <= 4  # two in flight, and two that they freed
        assert run.call("score") == 0


def test_an_interrupt_does_not_wait_for_a_pause(contexts: Path, tmp_path: Path) -> None:
    with FakeServer(Behaviour(script=("429:60000",))) as server:
        run = quick_run(contexts, tmp_path / "a", server.url)
        assert run.build("explain") == 0
        process = spawn(run, "explain", "--attempts", "9")
        wait_for(lambda: server.counters.calls >= 1)
        time.sleep(0.3)
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert time.monotonic() - started < 10
    assert "Traceback" not in err


def test_another_process_does_not_take_away_what_this_one_writes(
    contexts: Path, tmp_path: Path
) -> None:
    with FakeServer(Behaviour(latency=0.1)) as server:
        run = quick_run(contexts, tmp_path / "a", server.url)
        run.held_out, run.null = 40, 40
        assert run.purpose("explain") == run.build("score") == 0
        before = server.counters.calls
        process = spawn(run, "score", "--concurrency", "2")
        wait_for(lambda: server.counters.calls > before + 4)
        assert run.call("score", "--mode", "replay") == 2  # lacks answers, and ends
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert run.file("score", "responses.jsonl").exists()


def test_a_manifest_without_room_leaves_no_outputs(
    contexts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with FakeServer() as server:
        run = quick_run(contexts, tmp_path / "a", server.url)
        assert run.build("explain") == 0
        with monkeypatch.context() as patch:
            patch.setattr(files, "write_json", full)
            patch.setattr(os, "_exit", lambda code: None)
            run.call("explain")
        left = {path.name for path in run.file("explain", "x").parent.iterdir()}
        assert left == {"requests.jsonl", "plan.json"}
        assert run.call("explain") == 0


def test_a_damaged_request_file_is_told(
    contexts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeServer() as server:
        run = quick_run(contexts, tmp_path / "a", server.url)
        assert run.build("explain") == 0
        path = run.file("explain", "requests.jsonl")
        path.write_bytes(path.read_bytes()[:-40])
        assert run.call("explain") == 2
    assert "has a damaged line: build the requests again" in capsys.readouterr().err


def test_a_cache_that_is_no_folder_is_told_before_texts_are_sent(
    contexts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeServer() as server:
        run = quick_run(contexts, tmp_path / "a", server.url)
        run.cache.write_text("", encoding="utf-8")
        assert run.build("explain") == 0
        assert run.call("explain") == 2
        assert server.counters.calls == 0
    err = capsys.readouterr().err
    assert "the response cache cannot be written" in err
    assert "Traceback" not in err


def test_an_interrupt_while_the_cache_is_read_is_told(
    contexts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with FakeServer() as server:
        run = quick_run(contexts, tmp_path / "a", server.url)
        assert run.build("explain") == run.call("explain") == 0
        before = run.file("explain", "responses.jsonl").read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(StoredAnswers, "find", interrupted)
            with pytest.raises(SystemExit) as stopped:
                run.call("explain")
            assert stopped.value.code == INTERRUPTED
        err = capsys.readouterr().err
        assert "interrupted: while the cache was read; nothing is lost" in err
        assert "Traceback" not in err
        calls = server.counters.calls
        assert run.call("explain") == 0
        assert server.counters.calls == calls
    assert run.file("explain", "responses.jsonl").read_bytes() == before


@pytest.mark.parametrize("said", ["[" * 100_000, '{"ready": ' * 50_000, '{"ready": "no"}', ""])
def test_a_preflight_that_says_something_else_has_not_passed(said: str) -> None:
    assert not probe_passed(said)
    assert probe_passed(' {"ready": "yes"}\n')
