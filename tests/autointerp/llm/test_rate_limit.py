"""The rate that the settings give, and the pause that all workers share."""

from __future__ import annotations

import asyncio
import itertools
import time
from pathlib import Path

import pytest

from tests.autointerp.calling import quick_run, request_ids, spawn, wait_for
from tests.autointerp.fake_server import FakeServer
from tests.autointerp.oracle import Behaviour
from workflow_scripts.autointerp.llm.rate_limit import RateLimit


def test_calls_are_spaced_evenly_from_the_first_on() -> None:
    moments: list[float] = []

    async def work(limit: RateLimit) -> None:
        for _ in range(3):
            await limit.wait()
            moments.append(time.monotonic())

    async def run() -> None:
        limit = RateLimit(per_minute=1200)
        await asyncio.gather(*(work(limit) for _ in range(4)))

    asyncio.run(run())
    steps = [later - earlier for earlier, later in itertools.pairwise(moments)]
    assert min(steps) > 0.04
    assert moments[-1] - moments[0] < 11 * 0.05 + 0.3


@pytest.mark.parametrize("per_minute", [None, 600.0])
def test_everyone_waits_during_a_pause(per_minute: float | None) -> None:
    async def run() -> list[float]:
        limit = RateLimit(per_minute)
        await limit.wait()
        started = time.monotonic()
        assert limit.pause(0.1) == pytest.approx(0.1)
        waiting = [asyncio.create_task(limit.wait()) for _ in range(3)]
        await asyncio.sleep(0)
        assert limit.pause(0.3) == pytest.approx(0.2, abs=0.05)  # so much longer
        assert limit.pause(0.2) == 0.0  # the longer one holds
        waits = []
        for wait in asyncio.as_completed(waiting):
            await wait
            waits.append(time.monotonic() - started)
        return waits

    waits = asyncio.run(run())
    assert waits[0] >= 0.29
    if per_minute is not None:  # nor do all go at once when it is over
        assert waits[2] - waits[0] >= 0.15


def test_a_limit_that_is_set_avoids_refusals(
    contexts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeServer(Behaviour(rps=25)) as server:
        run = quick_run(contexts, tmp_path, server.url)
        run.held_out, run.null = 40, 40
        run.flags += ("--requests-per-minute", "1440")
        assert run.purpose("explain") == run.build("score") == 0
        before = server.counters.calls
        started = time.monotonic()
        assert run.call("score") == 0
        calls = len(request_ids(run, "score"))
        assert calls > 50
        assert server.counters.refused <= 0.02 * calls
        assert server.counters.calls - before == calls + server.counters.refused
        assert time.monotonic() - started < 1.25 * calls / 24 + 1
    assert "requests_per_minute" not in capsys.readouterr().err


def test_a_refusal_without_a_limit_names_the_setting_once(
    contexts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeServer(Behaviour(first={2: "429", 3: "429"})) as server:
        run = quick_run(contexts, tmp_path, server.url)
        assert run.build("explain") == run.call("explain") == 0
    text = capsys.readouterr().err
    assert text.count("set autointerp.llm.requests_per_minute to what the endpoint allows") == 1


def test_too_many_refusals_stop_the_run_and_name_the_setting(
    contexts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeServer(Behaviour(script=("429:1",))) as server:
        run = quick_run(contexts, tmp_path, server.url)
        assert run.build("explain") == 0
        assert run.call("explain", "--attempts", "50") == 2
        assert server.counters.calls <= 20 + 4
    sentence = capsys.readouterr().err.splitlines()[-1]
    assert "too many calls fail (last: HTTP 429): set autointerp.llm.requests_per" in sentence


def test_one_refusal_with_a_wait_holds_the_calls_of_all(contexts: Path, tmp_path: Path) -> None:
    with FakeServer(Behaviour()) as server:
        run = quick_run(contexts, tmp_path, server.url)
        run.held_out, run.null = 40, 40
        assert run.purpose("explain") == run.build("score") == 0
        before = server.counters.calls
        server.behaviour.first = {before + 1: "429:1500"}
        process = spawn(run, "score", "--concurrency", "4")
        wait_for(lambda: server.counters.calls > before)
        time.sleep(0.7)
        assert server.counters.calls - before <= 4 + 4  # under way, or at its heels
        process.communicate(timeout=20)
        assert process.returncode == 0
        assert server.counters.calls - before == len(request_ids(run, "score")) + 1
