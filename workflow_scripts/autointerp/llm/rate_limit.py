"""The pace at which a step sends: pauses that all share, and a rate that an endpoint takes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from itertools import takewhile


class Pace:
    """A pause shared by all workers, and a spacing of calls where many are refused with a 429.

    Each 429 holds everyone for a while. Where they are more than a twentieth of the latest replies,
    calls are spaced too, at 0.9 of the rate that was served, pauses not counted; each success
    narrows the spacing by half a percent, all together by a twentieth in a second. So a hard limit
    costs few refusals, and stray ones, which do not come from this run's rate, hardly slow it down.
    """

    TOLERATED, MEMORY = 0.05, 0.02
    """Share of refusals that is put up with, and the weight of the latest reply in it."""
    WINDOW, SHORTEST = 2.0, 1.0
    """Seconds over which the served rate is taken, at most and at least: limits are told per second
    or longer, and a burst that was served at once says nothing."""
    FASTER = (0.005, 0.05)
    """What the spacing loses with a success, and in a second, at most."""
    NEAR = (0.8, 1.25)
    """Which shares of a spacing count as about the same."""
    PATIENCE = 5
    """Successes after which a refusal at about the same spacing as the last means no lower rate."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._free_at = 0.0
        self._spacing = 0.0
        self._last = 0.0
        """Spacing that the last refusal has set."""
        self._share = self.TOLERATED
        self._successes = 0
        """Since the last refusal."""
        self._held_until = 0.0
        self._held = 0.0
        """Seconds of all pauses."""
        self._served: deque[tuple[float, float]] = deque(maxlen=4096)
        """Moments of successes, by the clock and by time outside of pauses."""

    def next_turn(self) -> float:
        """Return the seconds to wait before asking again; 0 takes the turn."""
        now = self._clock()
        if self._free_at > now:
            return self._free_at - now
        self._free_at = now + self._spacing
        return 0.0

    def served(self) -> None:
        """Note a success."""
        now = self._clock()
        by_success, by_second = self.FASTER
        passed = now - self._served[-1][0] if self._served else 1.0
        self._spacing *= 1 - min(by_success, by_second * passed)
        self._served.append((now, self._active()))
        self._successes += 1
        self._share *= 1 - self.MEMORY

    def hold(self, wait: float) -> None:
        """Hold everyone for so many seconds."""
        now = self._clock()
        until = max(self._held_until, now + wait)
        self._held += until - max(now, self._held_until)
        self._held_until = until
        self._free_at = max(self._free_at, until)

    def refused(self, wait: float) -> None:
        """Note a 429: hold everyone for ``wait`` seconds, and go slower where they are many."""
        now = self._clock()
        self._share += self.MEMORY * (1 - self._share)
        if now >= self._held_until:  # else it was sent before the pause and says nothing new
            if self._share > self.TOLERATED:
                wait = max(wait, self._slow_down(now))
            self._successes = 0
        self.hold(wait)

    def _slow_down(self, now: float) -> float:
        """Set the spacing; return the seconds in which a burst has used up what is allowed."""
        active = self._active()
        recent = list(takewhile(lambda at: active - at[1] <= self.WINDOW, reversed(self._served)))
        if not recent:
            return 0.0
        first, first_active = recent[-1]
        span = max(active - first_active, self.SHORTEST)
        spacing = max(self._spacing, span / (0.9 * len(recent)))
        low, high = self.NEAR
        if self._successes >= self.PATIENCE and low * self._last <= spacing <= high * self._last:
            spacing = min(spacing, self._last)
        self._spacing = self._last = spacing
        return first + self.SHORTEST - now

    def _active(self) -> float:
        """Return the time outside of pauses."""
        now = self._clock()
        return now - self._held + max(0.0, self._held_until - now)
