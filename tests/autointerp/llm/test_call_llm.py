"""The calling step: paid once, replayed, planned, and silent about its key."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path

import pytest

from tests.autointerp.calling import output_digests, quick_run, spawn, wait_for
from tests.autointerp.conftest import SENTINEL
from tests.autointerp.fake_server import FakeServer
from tests.autointerp.llm_run import ANNOTATORS, KEY_ENV
from tests.autointerp.oracle import Behaviour


def test_a_second_run_sends_nothing_and_writes_the_same_bytes(
    contexts: Path, tmp_path: Path
) -> None:
    with FakeServer(Behaviour(jitter=0.01)) as server:
        first = quick_run(contexts, tmp_path / "a", server.url)
        first.everything()
        calls, probes = server.counters.calls, server.counters.probes
        second = quick_run(contexts, tmp_path / "b", server.url)
        second.flags = ("--concurrency", "1", "--deadline", "3", "--attempts", "2")
        second.prices = '{"fake": [1, 2]}'
        second.everything()
        assert (server.counters.calls, server.counters.probes) == (calls, probes)
        assert server.counters.unauthorised == 0
        assert len(server.counters.key_hashes) == 1
    purposes = ("explain", "classify", "score")
    assert output_digests(first, *purposes) == output_digests(second, *purposes)
    for name in ("explanations", "labels", "scores"):
        assert first.llm(name).read_bytes() == second.llm(name).read_bytes()


def test_a_new_replicate_or_seed_is_a_new_question(contexts: Path, tmp_path: Path) -> None:
    with FakeServer() as server:
        run = quick_run(contexts, tmp_path / "a", server.url)
        assert run.purpose("explain") == 0
        run.replicates = 2
        assert run.purpose("explain") == 0
        assert server.counters.calls == 8
        run.seed = 1
        assert run.purpose("explain") == 0
        assert server.counters.calls == 16


def test_replay_needs_no_server_and_no_key(
    contexts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeServer() as server:
        first = quick_run(contexts, tmp_path / "a", server.url)
        first.everything()
        url = server.url
    monkeypatch.delenv(KEY_ENV)

    def no_socket(*_: object) -> None:
        raise AssertionError("a replay opens a socket")

    monkeypatch.setattr(socket.socket, "connect", no_socket)
    second = quick_run(contexts, tmp_path / "b", url)
    second.flags = ("--mode", "replay")
    second.everything()
    assert output_digests(first, "explain", "score") == output_digests(second, "explain", "score")


def test_replay_lists_what_is_missing(
    contexts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeServer() as server:
        run = quick_run(contexts, tmp_path / "a", server.url)
        assert run.purpose("explain") == 0
    entries = sorted(run.cache.glob("[0-9a-f][0-9a-f]/*.json"))
    entries[0].unlink()
    run.file("explain", "responses.jsonl").unlink()
    assert run.call("explain", "--mode", "replay") == 2
    err = capsys.readouterr().err
    assert "lacks 1 answers" in err
    assert entries[0].stem in err
    assert not run.file("explain", "responses.jsonl").exists()


@pytest.mark.parametrize("before", [{}, {1: "prose"}])
def test_a_replay_ends_what_was_given_up_as_the_run_did(
    contexts: Path, tmp_path: Path, before: dict[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = before | dict.fromkeys((2, 3, 4), "error200")
    with FakeServer(Behaviour(first=faults)) as server:
        first = quick_run(contexts, tmp_path / "a", server.url)
        first.flags += ("--attempts", "3", "--concurrency", "1", "--max-failures", "1")
        assert first.build("explain") == first.call("explain") == 0
        url, calls = server.url, server.counters.calls
        again = quick_run(contexts, tmp_path / "b", url)
        again.flags = ("--mode", "replay", "--max-failures", "1")
        with monkeypatch.context() as patch:
            patch.delenv(KEY_ENV)
            assert again.build("explain") == again.call("explain") == 0
        assert server.counters.calls == calls
        assert output_digests(first, "explain") == output_digests(again, "explain")
        text = again.file("explain", "responses.jsonl").read_text()
        assert text.count("the reply is an error: upstream failed") == 1
        manifest = json.loads(again.file("explain", "manifest.json").read_text())
        assert manifest["statuses"] == {"ok": 3, "transport_failed": 1}
        assert first.call("explain", "--dry-run") == 0
        assert first.call("explain") == 0  # live, it is no answer and is sent again
        assert server.counters.calls == calls + 1
    manifest = json.loads(first.file("explain", "manifest.json").read_text())
    assert "transport_failed" not in manifest["statuses"]


def test_a_later_failure_is_told_as_a_replay_will(contexts: Path, tmp_path: Path) -> None:
    with FakeServer(Behaviour(script=("500",))) as server:
        run = quick_run(contexts, tmp_path / "a", server.url)
        run.flags += ("--attempts", "1", "--max-failures", "9")
        assert run.build("explain") == run.call("explain") == 0
        server.behaviour.script = ("html200",)
        assert run.call("explain") == 0
    live = output_digests(run, "explain")
    assert run.call("explain", "--mode", "replay") == 0
    assert output_digests(run, "explain") == live


def test_a_damaged_entry_is_fetched_again(contexts: Path, tmp_path: Path) -> None:
    with FakeServer() as server:
        run = quick_run(contexts, tmp_path / "a", server.url)
        assert run.purpose("explain") == 0
        entry = sorted(run.cache.glob("[0-9a-f][0-9a-f]/*.json"))[0]
        raw = bytearray(entry.read_bytes())
        raw[len(raw) // 2] ^= 4
        entry.write_bytes(raw)
        assert run.call("explain") == 0
        assert server.counters.calls == 5
    assert len(list((run.cache / "quarantine").iterdir())) == 1


def test_the_plan_is_near_the_truth_and_opens_no_socket(
    contexts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with FakeServer() as server:
        run = quick_run(contexts, tmp_path / "a", server.url)
        run.annotators = ANNOTATORS
        for purpose in ("explain", "classify", "score"):
            assert run.build(purpose) == 0
            with monkeypatch.context() as patch:
                patch.setattr(socket, "socket", None)
                assert run.call(purpose, "--dry-run") == 0
            total = json.loads(run.file(purpose, "plan.json").read_text())["total"]
            before = dict(vars(server.counters))
            assert run.call(purpose) == run.parse(purpose) == 0
            sent = server.counters.prompt_tokens - before["prompt_tokens"]
            got = server.counters.completion_tokens - before["completion_tokens"]
            assert server.counters.calls - before["calls"] == total["calls"]
            assert total["input_tokens"] == pytest.approx(sent, rel=0.25)
            assert total["input_tokens"] + total["output_tokens"] == pytest.approx(
                sent + got, rel=0.25
            )
            assert sent <= total["input_bound"]
    assert "nothing is sent" in capsys.readouterr().out


def test_two_processes_share_the_work_and_read_the_same(contexts: Path, tmp_path: Path) -> None:
    with FakeServer(Behaviour(latency=0.01)) as server:
        runs = [quick_run(contexts, tmp_path / name, server.url) for name in ("a", "b")]
        for run in runs:
            assert run.purpose("explain") == 0
            assert run.build("score") == 0
        processes = [spawn(run, "score") for run in runs]
        assert [p.wait(20) for p in processes] == [0, 0]
        for process in processes:
            process.communicate()
    assert output_digests(runs[0], "score") == output_digests(runs[1], "score")


def test_the_key_is_nowhere(
    contexts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeServer(Behaviour(latency=0.03, first={3: "500", 5: "prose"})) as server:
        run = quick_run(contexts, tmp_path / "a", server.url)
        assert run.build("explain") == 0
        process = spawn(run, "explain", "--concurrency", "1")
        wait_for(lambda: server.counters.calls >= 1)
        arguments = subprocess.run(
            ["ps", "-ewwo", "args"], capture_output=True, text=True, check=True
        ).stdout
        _, err = process.communicate(timeout=20)
        assert process.returncode == 0
        server.behaviour.from_call = (0, "401")
        failing = quick_run(contexts, tmp_path / "b", server.url, "other")
        assert failing.build("explain") == 0
        process = spawn(failing, "explain")
        _, refused = process.communicate(timeout=20)
        assert process.returncode == 2
    assert "call_llm" in arguments
    for text in (arguments, err, refused):
        assert SENTINEL not in text
    paths = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(paths) > 10
    for path in paths:
        assert SENTINEL.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("key", [SENTINEL, "no-prefix-b7c1e0/4f9a77"])
@pytest.mark.parametrize("how", ["400", "401", "200", "filter"])
def test_a_key_that_the_endpoint_quotes_is_nowhere(
    contexts: Path,
    tmp_path: Path,
    how: str,
    key: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(KEY_ENV, key)
    fault = f"echo_key:{how}"
    for name, behaviour in (("a", Behaviour(script=(fault,))), ("b", Behaviour(probe_fault=fault))):
        with FakeServer(behaviour) as server:
            run = quick_run(contexts, tmp_path / name, server.url)
            run.flags += ("--attempts", "2", "--max-failures", "9", "--max-unexplained", "9")
            assert run.build("explain") == 0
            ends = how in ("200", "filter") and name == "a"
            assert run.call("explain") == (0 if ends else 2)
            assert server.counters.calls + server.counters.probes > 0
    printed = capfd.readouterr()
    assert key not in printed.err + printed.out
    assert ("[key]" in printed.err) == (how in ("400", "200"))
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert key.encode() not in path.read_bytes(), path


def test_redirected_logs_hold_no_control_characters(contexts: Path, tmp_path: Path) -> None:
    with FakeServer() as server:
        run = quick_run(contexts, tmp_path / "a", server.url)
        assert run.build("explain") == 0
        process = spawn(run, "explain")
        _, err = process.communicate(timeout=20)
    assert "127.0.0.1" in err  # says where the texts go before they go
    assert err.index("sending text") < err.index("4/4 requests")
    assert all(c.isprintable() or c == "\n" for c in err)
