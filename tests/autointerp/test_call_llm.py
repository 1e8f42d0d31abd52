"""The calling step: paid once, replayed, capped, stopped, killed, and silent about its key."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.autointerp.conftest import SENTINEL
from tests.autointerp.fake_server import FakeServer
from tests.autointerp.llm_run import ANNOTATORS, KEY_ENV, Run
from tests.autointerp.oracle import Behaviour
from workflow_scripts import files
from workflow_scripts.autointerp.budget import Amount, Budget, Caps, SpendLog
from workflow_scripts.autointerp.cache import ResponseCache
from workflow_scripts.autointerp.caller import Caller, Policy
from workflow_scripts.autointerp.conversation import Question
from workflow_scripts.autointerp.dialect import Dialect, probe_body
from workflow_scripts.autointerp.endpoint import Endpoint
from workflow_scripts.autointerp.outputs import Writer
from workflow_scripts.autointerp.requests import Header, Request
from workflow_scripts.cli import UserError

OUTPUTS = ("responses.jsonl", "ledger.csv", "manifest.json")


def _run(contexts: Path, folder: Path, url: str, cache: str = "cache") -> Run:
    return Run(contexts, folder, url, folder.parent / cache, held_out=20, null=10)


def _hashes(run: Run, *purposes: str) -> dict[str, str]:
    found = {}
    for purpose in purposes:
        for name in OUTPUTS:
            path = run.file(purpose, name)
            found[f"{purpose}/{name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _spawn(run: Run, purpose: str, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "workflow_scripts.autointerp.call_llm"]
    return subprocess.Popen(
        [*command, *run.call_flags(purpose), *flags],
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def _wait_for(condition: object, seconds: float = 20.0) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def test_a_second_run_sends_nothing_and_writes_the_same_bytes(
    contexts: Path, tmp_path: Path
) -> None:
    with FakeServer(Behaviour(jitter=0.01)) as server:
        first = _run(contexts, tmp_path / "a", server.url)
        first.everything()
        calls, probes = server.counters.calls, server.counters.probes
        second = _run(contexts, tmp_path / "b", server.url)
        second.flags = ("--concurrency", "1", "--deadline", "3", "--attempts", "2")
        second.flags += ("--prices", '{"fake": [1, 2]}')
        second.everything()
        assert (server.counters.calls, server.counters.probes) == (calls, probes)
        assert server.counters.unauthorised == 0
        assert len(server.counters.key_hashes) == 1
    purposes = ("explain", "classify", "score")
    assert _hashes(first, *purposes) == _hashes(second, *purposes)
    for name in ("explanations", "labels", "scores"):
        assert first.llm(name).read_bytes() == second.llm(name).read_bytes()


def test_a_new_replicate_or_seed_is_a_new_question(contexts: Path, tmp_path: Path) -> None:
    with FakeServer() as server:
        run = _run(contexts, tmp_path / "a", server.url)
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
        first = _run(contexts, tmp_path / "a", server.url)
        first.everything()
        url = server.url
    monkeypatch.delenv(KEY_ENV)

    def no_socket(*_: object) -> None:
        raise AssertionError("a replay opens a socket")

    monkeypatch.setattr(socket.socket, "connect", no_socket)
    second = _run(contexts, tmp_path / "b", url)
    second.flags = ("--mode", "replay")
    second.everything()
    assert _hashes(first, "explain", "score") == _hashes(second, "explain", "score")


def test_replay_lists_what_is_missing(
    contexts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeServer() as server:
        run = _run(contexts, tmp_path / "a", server.url)
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
        first = _run(contexts, tmp_path / "a", server.url)
        first.flags += ("--attempts", "3", "--concurrency", "1")
        assert first.build("explain") == first.call("explain") == 0
        url, calls = server.url, server.counters.calls
        again = _run(contexts, tmp_path / "b", url)
        again.flags = ("--mode", "replay")
        with monkeypatch.context() as patch:
            patch.delenv(KEY_ENV)
            assert again.build("explain") == again.call("explain") == 0
        assert server.counters.calls == calls
        assert _hashes(first, "explain") == _hashes(again, "explain")
        text = again.file("explain", "responses.jsonl").read_text()
        assert text.count("the reply is an error: upstream failed") == 1
        manifest = json.loads(again.file("explain", "manifest.json").read_text())
        assert manifest["statuses"] == {"ok": 3, "transport_failed": 1}
        assert first.call("explain", "--dry-run") == 0
        assert first.call("explain") == 0  # live, it is no answer and is asked for again
        assert server.counters.calls == calls + 1
    manifest = json.loads(first.file("explain", "manifest.json").read_text())
    assert "transport_failed" not in manifest["statuses"]


def test_a_later_failure_is_told_as_a_replay_will(contexts: Path, tmp_path: Path) -> None:
    with FakeServer(Behaviour(script=("500",))) as server:
        run = _run(contexts, tmp_path / "a", server.url)
        run.flags += ("--attempts", "1")
        assert run.build("explain") == run.call("explain") == 0
        server.behaviour.script = ("html200",)
        assert run.call("explain") == 0
    live = _hashes(run, "explain")
    assert run.call("explain", "--mode", "replay") == 0
    assert _hashes(run, "explain") == live


def test_a_damaged_entry_is_fetched_again(contexts: Path, tmp_path: Path) -> None:
    with FakeServer() as server:
        run = _run(contexts, tmp_path / "a", server.url)
        assert run.purpose("explain") == 0
        entry = sorted(run.cache.glob("[0-9a-f][0-9a-f]/*.json"))[0]
        raw = bytearray(entry.read_bytes())
        raw[len(raw) // 2] ^= 4
        entry.write_bytes(raw)
        assert run.call("explain") == 0
        assert server.counters.calls == 5
    assert len(list((run.cache / "quarantine").iterdir())) == 1


@pytest.mark.parametrize(
    ("flags", "most"),
    [(("--max-requests", "6"), 6), (("--max-tokens", "30000"), None)],
)
def test_caps_are_never_exceeded_and_a_higher_one_resumes(
    contexts: Path,
    tmp_path: Path,
    flags: tuple[str, ...],
    most: int | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with FakeServer(Behaviour(latency=0.01)) as server:
        run = _run(contexts, tmp_path / "a", server.url)
        run.held_out, run.null = 40, 40
        assert run.purpose("explain") == 0
        assert run.build("score") == 0
        before = server.counters.calls
        spent = server.counters.prompt_tokens + server.counters.completion_tokens
        assert run.call("score", "--concurrency", "32", *flags) == 2
        assert "cap" in capsys.readouterr().err
        sent = server.counters.calls - before
        if most is not None:
            assert sent == most
        tokens = server.counters.prompt_tokens + server.counters.completion_tokens - spent
        assert 0 < tokens <= 30000
        assert run.call("score") == 0
        assert server.counters.calls == before + len(_ids(run, "score"))


def test_calls_that_hang_are_booked_at_their_bound(
    contexts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeServer(Behaviour(script=("hang:1",))) as server:
        run = _run(contexts, tmp_path / "a", server.url)
        assert run.build("explain") == 0
        total = json.loads(run.file("explain", "plan.json").read_text())["total"]
        bound = round(1.5 * (total["input_bound"] + total["output_bound"]))
        flags = ("--deadline", "0.2", "--attempts", "3", "--max-tokens", str(bound))
        assert run.call("explain", *flags) == 2
        assert "cap" in capsys.readouterr().err
        assert 0 < server.counters.calls < 3 * 4


@pytest.mark.parametrize(
    ("fault", "billed"),
    [
        ("hang:1", True),
        ("rst", True),
        ("short", True),
        ("trunc", True),
        ("500", False),
        ("429", False),
        ("401", False),
    ],
)
def test_only_a_refusal_costs_no_tokens(fault: str, billed: bool) -> None:
    question = Question.of(probe_body("fake", Dialect(), 0.0))

    async def send(url: str) -> Amount:
        async with Endpoint(url, SENTINEL, 0.3, 1) as endpoint:
            caller = _caller(endpoint)
            await caller._send(_REQUEST, question)
            assert caller.tally.cut_off == billed
            return caller.budget.spent

    with FakeServer(Behaviour(probe_fault=fault)) as server:
        spent = asyncio.run(send(server.url))
    bound = Amount(1, question.input_bound, _REQUEST.max_output)
    assert spent == (bound if billed else Amount(1))


def test_a_call_cancelled_in_flight_is_booked_at_its_bound() -> None:
    question = Question.of(probe_body("fake", Dialect(), 0.0))

    async def cancel(server: FakeServer) -> Amount:
        async with Endpoint(server.url, SENTINEL, 10, 1) as endpoint:
            caller = _caller(endpoint)
            job = asyncio.create_task(caller._send(_REQUEST, question))
            while not server.counters.in_flight:
                await asyncio.sleep(0.01)
            job.cancel()
            await asyncio.gather(job, return_exceptions=True)
            assert job.cancelled()
            return caller.budget.spent

    with FakeServer(Behaviour(probe_fault="hang:1")) as server:
        spent = asyncio.run(cancel(server))
    assert spent == Amount(1, question.input_bound, _REQUEST.max_output)


_REQUEST = Request(
    "r", "explain", "explain", 0, "first", 0, "fake", "main", "text", 0, 10, temperature=0.0
)


def _caller(endpoint: Endpoint) -> Caller:
    header = Header("explain", {"main": "You explain."}, (), {})
    return Caller(endpoint, ResponseCache(Path("unused")), header, Policy(), KEY_ENV)


def test_steps_of_a_run_share_its_caps(
    contexts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeServer(Behaviour(latency=0.01)) as server:
        run = _run(contexts, tmp_path / "a", server.url)
        run.flags = (*run.flags, "--spend", str(tmp_path / "run" / "spend.jsonl"))
        assert run.purpose("explain") == 0
        before = server.counters.calls + server.counters.probes
        assert run.build("score") == 0
        assert run.call("score", "--max-requests", str(before + 7)) == 2
        assert "cap" in capsys.readouterr().err
        assert server.counters.calls + server.counters.probes == before + 7
        assert run.call("score", "--max-requests", str(before + 7)) == 2
        assert server.counters.calls + server.counters.probes == before + 7
        assert run.call("score", "--max-requests", "100000") == 0


def test_a_call_in_flight_of_a_killed_step_stays_booked(tmp_path: Path) -> None:
    async def reserve(log: SpendLog, tokens: int) -> bool:
        return await Budget(Caps(tokens=100), log).reserve(Amount(1, tokens, 0))

    path = tmp_path / "spend.jsonl"
    assert asyncio.run(reserve(SpendLog(path), 60))  # and then it is killed
    assert not asyncio.run(reserve(SpendLog(path), 50))
    assert asyncio.run(reserve(SpendLog(path), 40))
    assert SpendLog(path).total() == Amount(2, 100, 0, 0.0)


def test_a_paid_answer_outlives_a_file_of_spending_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    async def pay(budget: Budget) -> None:
        bound = Amount(1, 60, 0)
        assert await budget.reserve(bound)
        monkeypatch.setattr(os, "write", full)
        await budget.settle(bound, Amount(1, 20, 0))  # must not keep the answer from the cache
        with pytest.raises(UserError, match="No space left on device"):
            await budget.reserve(bound)

    log = SpendLog(tmp_path / "spend.jsonl")
    asyncio.run(pay(Budget(Caps(tokens=100), log)))
    assert log.total() == Amount(1, 60, 0, 0.0)


@pytest.mark.parametrize("content", ["[1, 2\n", "nothing\n", '{"a": 1}\n', '["x", 1, 1, 1]\n'])
def test_a_damaged_file_of_spending_is_told(
    contexts: Path, tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spend = tmp_path / "spend.jsonl"
    spend.write_text(content, encoding="utf-8")
    with FakeServer() as server:
        run = _run(contexts, tmp_path / "a", server.url)
        assert run.build("explain") == 0
        assert run.call("explain", "--spend", str(spend)) == 2
        err = capsys.readouterr().err
        assert f"{spend}, which keeps what the run has spent, is damaged" in err
        assert "Traceback" not in err
        assert server.counters.calls == 0


def test_spending_that_cannot_be_written_is_told(
    contexts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with FakeServer() as server:
        run = _run(contexts, tmp_path / "a", server.url)
        assert run.build("explain") == 0
        assert run.call("explain", "--spend", str(tmp_path / "file" / "spend.jsonl")) == 2
        err = capsys.readouterr().err
        assert "what the run spends cannot be written to" in err
        assert "Traceback" not in err
        assert server.counters.calls + server.counters.probes == 0


def _ids(run: Run, purpose: str) -> list[str]:
    lines = run.file(purpose, "requests.jsonl").read_text().splitlines()[1:]
    return [json.loads(line)["id"] for line in lines]


def test_a_price_makes_a_cap_on_cost(contexts: Path, tmp_path: Path) -> None:
    with FakeServer() as server:
        run = _run(contexts, tmp_path / "a", server.url)
        assert run.build("explain") == 0
        prices = ("--prices", '{"fake": [1000, 1000]}')
        assert run.call("explain", *prices, "--max-cost", "0.5") == 2
        assert server.counters.calls + server.counters.probes == 1  # the preflight alone fits


def test_the_plan_is_near_the_truth_and_opens_no_socket(
    contexts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with FakeServer() as server:
        run = _run(contexts, tmp_path / "a", server.url)
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


def test_an_interrupt_lets_calls_end_and_a_rerun_sends_the_rest(
    contexts: Path, tmp_path: Path
) -> None:
    with FakeServer(Behaviour(latency=0.05)) as server:
        run = _run(contexts, tmp_path / "a", server.url)
        run.held_out, run.null = 40, 40
        assert run.purpose("explain") == 0
        assert run.build("score") == 0
        total, before = len(_ids(run, "score")), server.counters.calls
        process = _spawn(run, "score", "--concurrency", "2")
        _wait_for(lambda: server.counters.calls >= before + total // 3)
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
        undisturbed = _run(contexts, tmp_path / "a", server.url, "other")
        run = _run(contexts, tmp_path / "b", server.url)
        for one in (undisturbed, run):
            one.held_out, one.null = 40, 40
            assert one.purpose("explain") == 0
            assert one.build("score") == 0
        assert undisturbed.call("score") == 0
        total, before = len(_ids(run, "score")), server.counters.calls
        for kill in range(1, kills + 1):
            process = _spawn(run, "score", "--concurrency", str(concurrency))
            target = server.counters.calls + rng.randint(1, total // (kills + 1))
            _wait_for(lambda target=target: server.counters.calls >= target)
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


def test_two_processes_share_the_work_and_read_the_same(contexts: Path, tmp_path: Path) -> None:
    with FakeServer(Behaviour(latency=0.01)) as server:
        runs = [_run(contexts, tmp_path / name, server.url) for name in ("a", "b")]
        for run in runs:
            assert run.purpose("explain") == 0
            assert run.build("score") == 0
        processes = [_spawn(run, "score") for run in runs]
        assert [p.wait(20) for p in processes] == [0, 0]
        for process in processes:
            process.communicate()
    assert _hashes(runs[0], "score") == _hashes(runs[1], "score")


def test_the_key_is_nowhere(
    contexts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeServer(Behaviour(latency=0.03, first={3: "500", 5: "prose"})) as server:
        run = _run(contexts, tmp_path / "a", server.url)
        assert run.build("explain") == 0
        process = _spawn(run, "explain", "--concurrency", "1")
        _wait_for(lambda: server.counters.calls >= 1)
        arguments = subprocess.run(
            ["ps", "-eo", "args"], capture_output=True, text=True, check=True
        ).stdout
        _, err = process.communicate(timeout=20)
        assert process.returncode == 0
        server.behaviour.from_call = (0, "401")
        failing = _run(contexts, tmp_path / "b", server.url, "other")
        assert failing.build("explain") == 0
        process = _spawn(failing, "explain")
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
            run = _run(contexts, tmp_path / name, server.url)
            run.flags += ("--attempts", "2")
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
        run = _run(contexts, tmp_path / "a", server.url)
        assert run.build("explain") == 0
        process = _spawn(run, "explain")
        _, err = process.communicate(timeout=20)
    assert "127.0.0.1" in err  # where the texts go is told before they go
    assert err.index("sending text") < err.index("4/4 requests")
    assert all(c.isprintable() or c == "\n" for c in err)


def test_a_full_disk_stops_the_run(
    contexts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeServer() as server:
        run = _run(contexts, tmp_path / "a", server.url)
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
        run = _run(contexts, tmp_path / "a", server.url)
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
        run = _run(contexts, tmp_path / "a", server.url)
        assert run.build("explain") == 0
        process = _spawn(run, "explain", "--attempts", "9")
        _wait_for(lambda: server.counters.calls >= 1)
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
        run = _run(contexts, tmp_path / "a", server.url)
        run.held_out, run.null = 40, 40
        assert run.purpose("explain") == run.build("score") == 0
        before = server.counters.calls
        process = _spawn(run, "score", "--concurrency", "2")
        _wait_for(lambda: server.counters.calls > before + 4)
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
        run = _run(contexts, tmp_path / "a", server.url)
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
        run = _run(contexts, tmp_path / "a", server.url)
        assert run.build("explain") == 0
        path = run.file("explain", "requests.jsonl")
        path.write_bytes(path.read_bytes()[:-40])
        assert run.call("explain") == 2
    assert "has a damaged line: build the requests anew" in capsys.readouterr().err


def test_a_cache_that_is_no_folder_is_told_before_texts_are_sent(
    contexts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeServer() as server:
        run = _run(contexts, tmp_path / "a", server.url)
        run.cache.write_text("", encoding="utf-8")
        assert run.build("explain") == 0
        assert run.call("explain") == 2
        assert server.counters.calls == 0
    err = capsys.readouterr().err
    assert "the response cache cannot be written" in err
    assert "Traceback" not in err
