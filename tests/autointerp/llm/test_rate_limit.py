"""The pace against endpoints that refuse, in time that the test keeps."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from itertools import count

import pytest

from workflow_scripts.autointerp.llm.rate_limit import Pace

FIRST_BACKOFF = 0.5


class Simulation:
    """Workers that call an endpoint; ``admits`` tells whether it takes a call at a moment."""

    def __init__(self, workers: int, latency: float, admits: Callable[[float], bool]) -> None:
        self.now = 0.0
        self.refused = 0
        self.pace = Pace(lambda: self.now)
        self._latency = latency
        self._admits = admits
        self._rng = random.Random(1)
        self._order = count()
        self._events: list[tuple[float, int, int]] = []
        """Moment, number, attempt: an attempt of 0 or less is a reply to that attempt."""
        for _ in range(workers):
            self._push(0.0, 1)

    def _push(self, wait: float, attempt: int) -> None:
        heapq.heappush(self._events, (self.now + wait, next(self._order), attempt))

    def run(self, calls: int) -> None:
        """Go on until so many calls are served."""
        while calls:
            self.now, _, attempt = heapq.heappop(self._events)
            if attempt > 0:
                wait = self.pace.next_turn()
                assert wait >= 0
                self._push(wait or self._latency, attempt if wait else -attempt)
            elif self._admits(self.now):
                self.pace.served()
                calls -= 1
                self._push(0.0, 1)
            else:
                self.refused += 1
                self.pace.refused(self._rng.uniform(0, FIRST_BACKOFF * 2 ** (-attempt - 1)))
                self._push(0.0, 1 - attempt)


def window(limit: int, seconds: float = 1.0) -> Callable[[float], bool]:
    """Take so many calls in any stretch of time of a length."""
    taken: deque[float] = deque()

    def admits(now: float) -> bool:
        while taken and now - taken[0] >= seconds:
            taken.popleft()
        if len(taken) < limit:
            taken.append(now)
            return True
        return False

    return admits


def bucket(limit: int, seconds: float = 1.0) -> Callable[[float], bool]:
    """Take so many calls at once, and as many again in a time of a length, bit by bit."""
    left, last = float(limit), 0.0

    def admits(now: float) -> bool:
        nonlocal left, last
        left = min(float(limit), left + (now - last) * limit / seconds)
        last = now
        if left < 1.0:
            return False
        left -= 1.0
        return True

    return admits


def at_random(share: float) -> Callable[[float], bool]:
    """Refuse a share of the calls, whatever their rate."""
    rng = random.Random(2)
    return lambda _: rng.random() >= share


@pytest.mark.parametrize("limit", [1, 5, 20, 200])
@pytest.mark.parametrize("kind", [window, bucket])
@pytest.mark.parametrize("workers", [8, 32])
def test_a_hard_limit_costs_few_refusals_and_little_time(
    limit: int, kind: Callable[[int], Callable[[float], bool]], workers: int
) -> None:
    calls = 60 * limit
    made = Simulation(workers, 0.05, kind(limit))
    made.run(calls)
    ideal = calls / min(limit, workers / 0.05)
    assert made.now <= 1.25 * ideal, (made.now, ideal)
    # A burst of all workers comes before anything is known.
    assert made.refused - workers <= 0.1 * (calls + made.refused - workers), made.refused


@pytest.mark.parametrize(("share", "slower"), [(0.0, 1.0), (0.005, 1.2), (0.02, 1.7), (0.05, 3.5)])
@pytest.mark.parametrize(("workers", "latency"), [(8, 1.0), (32, 1.0), (32, 5.0), (8, 0.2)])
def test_stray_refusals_do_not_slow_a_run_down(
    share: float, slower: float, workers: int, latency: float
) -> None:
    calls = 3000
    made = Simulation(workers, latency, at_random(share))
    made.run(calls)
    assert made.now <= slower * calls * latency / workers + latency


def test_a_passing_shortage_is_forgotten() -> None:
    limits = {True: window(3), False: window(10_000)}
    made = Simulation(8, 0.2, lambda now: limits[now < 60](now))
    made.run(3 * 60)
    before = made.now
    made.run(4000)
    assert made.now - before <= 4000 * 0.2 / 8 + 100
    assert made.pace.next_turn() < 0.02


def test_everyone_waits_while_it_is_held() -> None:
    now = 0.0
    pace = Pace(lambda: now)
    pace.hold(3.0)
    pace.hold(2.0)
    assert pace.next_turn() == 3.0
    now = 3.0
    assert pace.next_turn() == 0.0
