"""When a call may be sent: a rate from the settings, and a pause that all workers share."""

from __future__ import annotations

import asyncio
import time

from aiolimiter import AsyncLimiter


class RateLimit:
    """At most so many calls per minute, evenly spaced (None: no limit), and none during a pause."""

    def __init__(self, per_minute: float | None = None) -> None:
        self._limiter = AsyncLimiter(1, 60.0 / per_minute) if per_minute else None
        self._paused_until = 0.0

    def pause(self, seconds: float) -> float:
        """Stop all calls for this many seconds; return by how many the pause became longer."""
        now = time.monotonic()
        before = max(self._paused_until, now)
        self._paused_until = max(before, now + seconds)
        return self._paused_until - before

    async def wait(self) -> None:
        """Return when the caller may send one call."""
        while True:
            while (left := self._paused_until - time.monotonic()) > 0:
                await asyncio.sleep(left)
            if self._limiter is None:
                return
            await self._limiter.acquire()
            if self._paused_until <= time.monotonic():
                return
