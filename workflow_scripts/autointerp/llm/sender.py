"""Calls under the caps, the rate limit, the slots and the retries of one run."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass

import tenacity

from workflow_scripts.autointerp.llm.budget import Amount, SpendingBudget, SpendLog, amount
from workflow_scripts.autointerp.llm.conversation import Question
from workflow_scripts.autointerp.llm.endpoint import Endpoint, Reply
from workflow_scripts.autointerp.llm.rate_limit import RateLimit
from workflow_scripts.autointerp.llm.refusals import (
    KEPT,
    SET_RATE,
    SLOWER,
    TOO_MANY,
    retry_remedy,
)
from workflow_scripts.autointerp.llm.requests import Request
from workflow_scripts.autointerp.llm.slots import Slots
from workflow_scripts.autointerp.settings import Calls, Price, Retries, SpendingCaps
from workflow_scripts.common.cli import log

LONG_PAUSE = 5.0
"""Seconds from which on a pause is reported."""
JITTER = 0.1
"""Seconds over which calls spread after a wait that the endpoint asks for."""
LOADING_PAUSE, LOADING_LINE = 2.0, 15.0
"""Seconds between two calls to a server that loads its model, and between two lines about it."""


@dataclass(frozen=True)
class Policy:
    """How calls are made; nothing here changes their content, so nothing is in the cache key."""

    form: str
    """A step of the ladder of answer forms (json_schema, json_object, none); auto: the highest."""
    calls: Calls
    retries: Retries
    caps: SpendingCaps
    prices: Mapping[str, Price]


@dataclass
class CallTally:
    """What a run has done so far."""

    done: int = 0
    cached: int = 0
    failed: int = 0
    sent: int = 0
    retries: int = 0
    usage_missing: int = 0
    cut_off: int = 0
    """Calls that gave no answer, though the endpoint did not refuse them."""

    def text(self, spent: Amount) -> str:
        """Return what was done and spent, in words."""
        money = f", cost {spent.cost:.4f}" if spent.cost else ""
        return (
            f"{self.cached} from the cache, {self.sent} sent, {self.retries} retried, "
            f"{self.failed} failed, {spent.input} + {spent.output} tokens{money}"
        )


class StopRunError(Exception):
    """Nothing more may be sent; the message is for people and holds no secret."""


class Sender:
    """Makes the calls of one run to one endpoint."""

    def __init__(
        self,
        endpoint: Endpoint,
        policy: Policy,
        spend: SpendLog | None = None,
        tally: CallTally | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.policy = policy
        self.budget = SpendingBudget(policy.caps, spend)
        self.rate = RateLimit(policy.calls.requests_per_minute)
        self.slots = Slots(policy.calls.concurrency, policy.calls.deadline)
        self.tally = tally or CallTally()
        self.stopped: str | None = None
        self._waiting: set[asyncio.Task[object]] = set()
        self._calling = 0
        self._retries_left = 20
        self._rate_named = policy.calls.requests_per_minute is not None
        self._slowness_named = False
        self._loading_since: float | None = None
        self._loading_told = 0.0

    def expect(self, requests: int) -> None:
        """Allow the retries of so many requests."""
        self._retries_left = max(20, round(self.policy.retries.retry_share * requests))

    def check_stopped(self) -> None:
        """Raise the reason for which the run was stopped, if it was."""
        if self.stopped is not None:
            raise StopRunError(self.stopped)

    def stop(self, reason: str) -> None:
        """Send nothing more; calls in flight may end. The first reason is kept."""
        if self.stopped is None:
            self.stopped = reason
        for task in self._waiting:
            task.cancel()

    async def _wait(self, waiting: Coroutine[None, None, object]) -> None:
        """Wait for it, but not beyond the stop of the run."""
        if self.stopped is not None:
            waiting.close()
            raise StopRunError(self.stopped)
        task = asyncio.current_task()
        assert task is not None
        self._waiting.add(task)
        try:
            await waiting
        except asyncio.CancelledError:
            self.check_stopped()
            raise
        finally:
            self._waiting.discard(task)

    async def finish_calls(self, longest: float) -> None:
        """Wait until no call is in flight, at most so many seconds."""
        end = time.monotonic() + longest
        while self._calling and time.monotonic() < end:
            await asyncio.sleep(0.02)

    async def call(self, request: Request, question: Question) -> tuple[Reply, int]:
        """Call until there is a reply that another attempt would not better, or no attempt left.

        Returns the last reply and the number of attempts.

        Raises
        ------
        StopRunError
            If a cap is reached, too many calls fail, or the run was stopped.
        """
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_result(lambda reply: reply.kind == "retry"),
            stop=tenacity.stop_after_attempt(self.policy.calls.attempts),
            wait=self._time_to_wait,
            before_sleep=self._before_retry,
            sleep=lambda seconds: self._wait(asyncio.sleep(seconds)),
            retry_error_callback=_reply_of,
        )
        reply: Reply = await retrying(self._send_when_loaded, request, question)
        return reply, retrying.statistics["attempt_number"]

    def _time_to_wait(self, state: tenacity.RetryCallState) -> float:
        """Return the wait before another attempt: as the endpoint asks, or at random, doubling."""
        wait = _reply_of(state).retry_after
        if wait is not None:
            return wait + random.uniform(0, JITTER)
        first, longest = self.policy.retries.first_backoff, self.policy.retries.longest_backoff
        return tenacity.wait_random_exponential(first, longest)(state)

    def _before_retry(self, state: tenacity.RetryCallState) -> None:
        reply = _reply_of(state)
        if reply.retry_after is not None and reply.retry_after > self.policy.retries.longest_wait:
            raise StopRunError(
                f"the endpoint asks to wait {reply.retry_after:.0f} s: run the same command later"
            )
        if self._retries_left <= 0:
            raise StopRunError(
                f"too many calls fail (last: {reply.reason}): {retry_remedy(reply)} and run the "
                f"same command again; {KEPT}"
            )
        self._retries_left -= 1
        self.tally.retries += 1

    async def _send_when_loaded(self, request: Request, question: Question) -> Reply:
        """Make one call, after those that only say that the server still loads its model."""
        while True:
            reply = await self.send(request, question)
            if not reply.loading:
                self._loading_since = None
                return reply
            now = time.monotonic()
            if self._loading_since is None:
                self._loading_since = self._loading_told = now
                log(f"the server loads its model ({reply.reason}): waiting")
            waited = now - self._loading_since
            if waited > self.policy.calls.loading:
                raise StopRunError(
                    f"the server has loaded its model for {waited:.0f} s: see its log, or raise "
                    f"autointerp.llm.loading; {KEPT}"
                )
            if now - self._loading_told >= LOADING_LINE:
                self._loading_told = now
                log(f"the server loads its model: {waited:.0f} s so far")
            await self._wait(asyncio.sleep(LOADING_PAUSE))

    async def send(self, request: Request, question: Question) -> Reply:
        """Make one call when a slot is free and the rate allows it, under the caps."""
        await self._wait(self.slots.acquire())
        number = self.slots.under_way
        try:
            await self._wait(self.rate.wait())
            reply = await self._send_booked(request, question, number)
        finally:
            self.slots.release()
        self._heed(reply)
        return reply

    async def _send_booked(self, request: Request, question: Question, number: int) -> Reply:
        """Make one call, the ``number``-th under way, with its cost reserved and settled."""
        price = self.policy.prices.get(request.model)
        if price is None and self.policy.caps.max_cost is not None:
            raise StopRunError(
                f"max_cost cannot hold without the price of {request.model}: add it to "
                "autointerp.llm.prices"
            )
        bound = amount(question.input_bound, request.max_output, price)
        self.check_stopped()
        if not await self.budget.reserve(bound):
            raise StopRunError(
                "the cap on requests, tokens or cost is reached: raise max_requests, max_tokens or "
                f"max_cost of autointerp.llm and run again; {KEPT} and will not be paid twice"
            )
        actual = bound  # a call that is cancelled may be billed
        started = time.monotonic()
        self._calling += 1
        self.tally.sent += 1
        try:
            self.check_stopped()
            reply = await self.endpoint.send(question.body, self.slots.deadline)
            actual = self._cost(reply, bound, price)
        except StopRunError:
            actual = Amount()
            raise
        finally:
            self._calling -= 1
            self.tally.sent -= not actual.requests
            self.budget.settle(bound, actual)
        self._measure(reply, number, time.monotonic() - started)
        return reply

    def _measure(self, reply: Reply, number: int, seconds: float) -> None:
        """Let the time that a call took decide how many may be under way; say so once."""
        deadline = self.slots.deadline
        if reply.timed_out:
            self.slots.timed_out(number)
            what = f"no answer within {deadline:g} s with {number} calls under way"
        elif reply.completion is not None:
            self.slots.answered(number, seconds)
            what = f"calls take {seconds:.1f} s with {number} under way, of {deadline:g} s allowed"
        else:
            return
        if self.slots.limit < self.slots.most and not self._slowness_named:
            self._slowness_named = True
            log(
                f"{what}: for now at most {self.slots.limit} at once instead of "
                f"{self.slots.most}; if the server is that slow, {SLOWER}"
            )

    def _heed(self, reply: Reply) -> None:
        """Pause all calls where the endpoint asks for it; name the setting that avoids refusals."""
        if reply.retry_after is not None:
            added = self.rate.pause(min(reply.retry_after, self.policy.retries.longest_wait))
            if added >= LONG_PAUSE:
                log(f"the endpoint takes no calls for {reply.retry_after:.0f} s: all wait")
        if reply.status == TOO_MANY and reply.kind == "retry" and not self._rate_named:
            self._rate_named = True
            log(f"the endpoint refuses calls (HTTP {TOO_MANY}): {SET_RATE}")

    def _cost(self, reply: Reply, bound: Amount, price: Price | None) -> Amount:
        """Return a call's cost: the bound, unless it was refused or the reply has its usage."""
        if reply.status >= 300:
            return Amount(requests=not reply.loading)
        if reply.completion is None:
            self.tally.cut_off += 1
            return bound
        usage = reply.completion.usage
        self.tally.usage_missing += usage is None
        return amount(usage.input, usage.output, price) if usage else bound


def _reply_of(state: tenacity.RetryCallState) -> Reply:
    """Return the reply to the latest attempt."""
    assert state.outcome is not None
    reply: Reply = state.outcome.result()
    return reply
