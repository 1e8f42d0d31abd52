"""How many calls are under way at once, and how long one may take, by measured speed."""

from __future__ import annotations

import asyncio

FIRST_DEADLINE, LONGEST_DEADLINE = 120.0, 1200.0
"""Seconds per call where the settings give none: at first, and at most."""
PATIENCE = 3.0
"""The deadline is this many times the longest call that was answered."""
SAFE = 0.7
"""Share of the deadline that calls may take."""


class Slots:
    """At most ``most`` calls under way, and fewer where more would pass the deadline.

    A server that works on one call at a time answers the last of n calls after n times as long. So
    a run starts with one call; where the n-th of n calls under way took t seconds,
    n·SAFE·deadline/t are allowed. Of the last calls, twice as many as are allowed, the slowest
    counts: one may find the server idle. After a call without an answer they are halved.
    """

    def __init__(self, most: int, deadline: float | None) -> None:
        self.most = most
        self.limit = 1
        self.under_way = 0
        self._fixed = deadline
        self._longest = 0.0
        self._shares: list[float] = []
        """Of the last calls: seconds by the number under way."""
        self._patience = FIRST_DEADLINE
        self._freed = asyncio.Event()

    @property
    def deadline(self) -> float:
        """Seconds that a call may take now."""
        return self._fixed or min(LONGEST_DEADLINE, max(self._patience, PATIENCE * self._longest))

    async def acquire(self) -> int:
        """Take a slot when one is free; return how many calls are under way now."""
        while self.under_way >= self.limit:
            self._freed.clear()
            await self._freed.wait()
        self.under_way += 1
        return self.under_way

    def release(self) -> None:
        """Give a slot back."""
        self.under_way -= 1
        self._freed.set()

    def answered(self, number: int, seconds: float) -> None:
        """Take in that a call, the ``number``-th under way, was answered after so long."""
        self._longest = max(self._longest, seconds)
        self._shares = [*self._shares, seconds / number][-2 * self.limit :]
        allowed = int(SAFE * self.deadline / max(*self._shares, 1e-6))
        self.limit = max(1, min(self.most, allowed))
        self._freed.set()

    def timed_out(self, number: int) -> None:
        """Take in that such a call was not answered within the deadline.

        A call alone that takes longer than earlier ones needs more time, not fewer others.
        """
        self.limit = max(1, min(self.limit, number // 2))
        if number == 1 and self._longest:
            self._patience = min(LONGEST_DEADLINE, 2 * self.deadline)
