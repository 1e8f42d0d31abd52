"""How many calls are under way: fewer where a server works on one at a time."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.autointerp.calling import quick_run
from tests.autointerp.fake_server import FakeServer
from tests.autointerp.oracle import Behaviour
from workflow_scripts.autointerp.llm.slots import (
    FIRST_DEADLINE,
    LONGEST_DEADLINE,
    PATIENCE,
    Slots,
)


def test_a_server_with_one_slot_is_not_overrun(
    contexts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeServer(Behaviour(latency=0.5, slots=1)) as server:
        run = quick_run(contexts, tmp_path / "a", server.url)
        run.replicates = 3
        assert run.build("explain") == 0
        assert run.call("explain", "--concurrency", "8", "--deadline", "1.7") == 0
        assert server.counters.calls == 12  # none was given up and sent again
        assert server.counters.most_in_flight == 2
    err = capsys.readouterr().err
    assert "at most 2 at once instead of 8" in err
    assert "raise autointerp.llm.deadline, or lower autointerp.llm.concurrency" in err


def test_a_fast_endpoint_gets_all_at_once(contexts: Path, tmp_path: Path) -> None:
    with FakeServer(Behaviour(latency=0.2)) as server:
        run = quick_run(contexts, tmp_path / "a", server.url)
        run.replicates = 6
        assert run.build("explain") == 0
        started = time.monotonic()
        assert run.call("explain", "--concurrency", "8") == 0
        assert server.counters.most_in_flight == 8
        assert time.monotonic() - started < 24 * 0.2 / 2


def test_slots_follow_the_speed() -> None:
    slots = Slots(8, deadline=10.0)
    assert slots.limit == 1
    slots.answered(1, 3.0)
    assert slots.limit == 2
    slots.answered(2, 3.0)  # the server works on both, or was about to be idle
    assert slots.limit == 2
    for _ in range(3):
        slots.answered(2, 3.0)
    assert slots.limit == 4
    for _ in range(8):
        slots.answered(4, 3.0)
    assert slots.limit == 8
    slots.timed_out(5)
    assert slots.limit == 2
    slots.timed_out(1)
    assert slots.limit == 1
    assert slots.deadline == 10.0  # as the settings say


def test_the_deadline_follows_the_speed_where_none_is_set() -> None:
    slots = Slots(8, None)
    assert slots.deadline == FIRST_DEADLINE
    slots.timed_out(1)
    assert slots.deadline == FIRST_DEADLINE  # nothing was answered: it may be dead
    slots.answered(1, 5.0)
    slots.timed_out(1)
    assert slots.deadline == 2 * FIRST_DEADLINE
    slots.answered(1, 100.0)
    assert slots.deadline == PATIENCE * 100
    slots.answered(1, 10 * LONGEST_DEADLINE)
    assert slots.deadline == LONGEST_DEADLINE


def test_a_slot_is_waited_for() -> None:
    async def run() -> list[int]:
        slots, order = Slots(2, 10.0), []

        async def call(number: int) -> None:
            await slots.acquire()
            order.append(number)
            await asyncio.sleep(0.01)
            order.append(-number)
            slots.release()

        await asyncio.gather(*(call(number) for number in (1, 2, 3)))
        return order

    assert asyncio.run(run()) == [1, -1, 2, -2, 3, -3]
