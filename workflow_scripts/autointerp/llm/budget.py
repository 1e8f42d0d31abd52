"""Caps on what a run may send."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from workflow_scripts.autointerp.settings import Price, SpendingCaps
from workflow_scripts.common.cli import UserError


@dataclass
class Amount:
    """Calls, tokens and money, spent or reserved."""

    requests: int = 0
    input: int = 0
    output: int = 0
    cost: float = 0.0

    def add(self, other: Amount, sign: int = 1) -> None:
        """Add ``sign`` times another amount."""
        self.requests += sign * other.requests
        self.input += sign * other.input
        self.output += sign * other.output
        self.cost += sign * other.cost


def within(total: Amount, caps: SpendingCaps) -> bool:
    """Return whether so much may be spent."""
    return (
        (caps.max_requests is None or total.requests <= caps.max_requests)
        and (caps.max_tokens is None or total.input + total.output <= caps.max_tokens)
        and (caps.max_cost is None or total.cost <= caps.max_cost + 1e-9)
    )


class SpendLog:
    """What all steps of a run have reserved and spent, in a file to which they only append.

    A reservation adds its amount, settling it adds the difference. So the call in flight of a step
    that was killed stays recorded at its upper bound: it may have been paid.

    Raises
    ------
    UserError
        If the file cannot be opened, or was altered.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise self._failed(error) from None
        self._read = 0
        self._total = Amount()
        self.total()

    def add(self, amount: Amount, sign: int = 1) -> None:
        """Append an amount; lines this short are written whole, whoever else writes.

        Raises
        ------
        UserError
            If the file cannot be written.
        """
        a = amount
        line = f"[{sign * a.requests}, {sign * a.input}, {sign * a.output}, {sign * a.cost!r}]\n"
        try:
            os.write(self._file, line.encode())
        except OSError as error:
            raise self._failed(error) from None

    def total(self) -> Amount:
        """Return the sum of all lines.

        Raises
        ------
        UserError
            If the file was altered.
        """
        new = os.pread(self._file, os.fstat(self._file).st_size - self._read, self._read)
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        try:
            for line in whole.splitlines():
                self._total.add(Amount(*json.loads(line)))
        except (ValueError, TypeError):
            raise UserError(
                f"{self.path}, which keeps what the run has spent, is damaged: delete it to count "
                "from zero, and lower the caps by what was spent"
            ) from None
        return self._total

    def _failed(self, error: OSError) -> UserError:
        return UserError(
            f"what the run spends cannot be written to {self.path} ({error.strerror}): make "
            "room, or make the folder writable; answers that were stored are kept"
        )


class SpendingBudget:
    """Reserves the upper bound of a call before it is sent and settles what it did cost.

    With a ``log`` the caps hold for all steps that share it, else for this one.
    """

    def __init__(self, caps: SpendingCaps, log: SpendLog | None = None) -> None:
        self.caps = caps
        self.log = log
        self.spent = Amount()
        self._reserved = Amount()
        self._settled = asyncio.Event()

    async def reserve(self, bound: Amount) -> bool:
        """Reserve ``bound``, if need be after calls in flight; False when it never fits."""
        while not self._take(bound):
            if not self._reserved.requests:
                return False
            self._settled.clear()
            await self._settled.wait()
        self._reserved.add(bound)
        return True

    def settle(self, bound: Amount, actual: Amount) -> None:
        """Release a reservation and record what was spent."""
        self._reserved.add(bound, -1)
        self.spent.add(actual)
        if self.log is not None:
            difference = Amount()
            difference.add(actual)
            difference.add(bound, -1)
            # The answer is paid and must reach the cache: unwritten, it stays recorded at its
            # bound, and the next reservation says why.
            with suppress(UserError):
                self.log.add(difference)
        self._settled.set()

    def _take(self, bound: Amount) -> bool:
        """Record ``bound`` if the caps allow it."""
        if self.log is None:
            total = Amount()
            for part in (self.spent, self._reserved, bound):
                total.add(part)
            return within(total, self.caps)
        # Booked first: of two steps at the edge of a cap neither passes, rather than both.
        self.log.add(bound)
        allowed = self.caps == SpendingCaps() or within(self.log.total(), self.caps)
        if not allowed:
            self.log.add(bound, -1)
        return allowed


def amount(tokens_in: int, tokens_out: int, price: Price | None) -> Amount:
    """Return one call's amount."""
    cost = price.cost(tokens_in, tokens_out) if price else 0.0
    return Amount(1, tokens_in, tokens_out, cost)
