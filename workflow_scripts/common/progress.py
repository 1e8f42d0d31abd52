"""How far a long step is: a line in its log now and then, which the run's terminal repeats."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from functools import partial
from typing import TypeVar

from workflow_scripts.common.cli import log

T = TypeVar("T")
FIRST, BETWEEN = 10.0, 15.0
"""Seconds until the first line, and at least between two."""
LINE = re.compile(r"\[\d\d:\d\d:\d\d\] ([\d,]+(?: of [\d,]+)? \w+, [\d,.]+/s\b.*)")
"""A line of a log that says how far its step is; the text is the first group."""


class Progress:
    """Counts what is done, and logs it with the rate, the time left and a note.

    ``total`` is None where nobody knows it; ``done`` is what an earlier attempt did.
    """

    def __init__(self, total: int | None, unit: str, done: int = 0) -> None:
        self.total, self.unit, self.done = total, unit, done
        self._before, self._start = done, time.monotonic()
        self._due = self._start + FIRST

    def reach(self, done: int, note: Callable[[], str] = str) -> None:
        """Set what is done; where a line is due, log it with what ``note`` returns."""
        self.done = done
        now = time.monotonic()
        if now >= self._due and done > self._before:
            self._due = now + BETWEEN
            log(", ".join(filter(None, (self._line(now - self._start), note()))))

    def _line(self, seconds: float) -> str:
        rate = (self.done - self._before) / seconds
        shown = f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}" if rate >= 0.01 else f"{rate:.4f}"
        if self.total is None:
            return f"{self.done:,} {self.unit}, {shown}/s"
        left = duration(max(self.total - self.done, 0) / rate)
        return f"{self.done:,} of {self.total:,} {self.unit}, {shown}/s, {left} left"


def track(
    items: Iterable[T],
    unit: str,
    total: int | None = None,
    done: int = 0,
    size: Callable[[T], int] = lambda _: 1,
    note: Callable[[T], str] = lambda _: "",
) -> Iterator[T]:
    """Yield the items, and log now and then how many ``unit`` of them have been used.

    ``size`` says how many an item counts; ``total`` is known of a list of single items.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    progress = Progress(total, unit, done)
    for item in items:
        yield item
        progress.reach(progress.done + size(item), partial(note, item))


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
