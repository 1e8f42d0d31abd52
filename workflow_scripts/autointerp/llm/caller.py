"""Get every request of a file answered: cache first, then the endpoint, with retries and caps."""

from __future__ import annotations

import asyncio
import datetime
import random
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass

import openai
import tenacity

from workflow_scripts.autointerp.llm import dialect as dialects
from workflow_scripts.autointerp.llm.budget import Amount, SpendingBudget, SpendLog, amount
from workflow_scripts.autointerp.llm.cache import Entry, ResponseCache
from workflow_scripts.autointerp.llm.completion import Completion, read_completion
from workflow_scripts.autointerp.llm.conversation import Conversation, Question
from workflow_scripts.autointerp.llm.dialect import Dialect
from workflow_scripts.autointerp.llm.endpoint import Endpoint, Reply
from workflow_scripts.autointerp.llm.rate_limit import RateLimit
from workflow_scripts.autointerp.llm.requests import Header, Request
from workflow_scripts.autointerp.llm.write_once import Syncer
from workflow_scripts.autointerp.settings import Calls, Price, Retries, SpendingCaps
from workflow_scripts.common.cli import log

TOO_MANY = 429
SET_RATE = "set autointerp.llm.requests_per_minute to what the endpoint allows"
LONG_PAUSE = 5.0
"""Seconds from which on a pause is reported."""
JITTER = 0.1
"""Seconds over which calls spread after a wait that the endpoint asks for."""


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


class StopRunError(Exception):
    """Nothing more may be sent; the message is for people and holds no secret."""


class TransportError(Exception):
    """One request could not be answered; the message says why."""


Keep = Callable[[int, Conversation], None]
"""Takes the place of a request and its conversation, which ended or was given up."""


Answered = tuple[Entry, Completion]
"""A stored answer and what it says."""


class Caller:
    """Runs the requests of one file against one endpoint."""

    def __init__(
        self,
        endpoint: Endpoint,
        cache: ResponseCache,
        header: Header,
        policy: Policy,
        key_env: str,
        spend: SpendLog | None = None,
        tally: CallTally | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.cache = cache
        self.header = header
        self.policy = policy
        self.key_env = key_env
        self.budget = SpendingBudget(policy.caps, spend)
        self.rate = RateLimit(policy.calls.requests_per_minute)
        self.tally = tally or CallTally()
        self.stopped: str | None = None
        self._dialects: dict[str, Dialect] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._in_flight: dict[str, asyncio.Task[Answered]] = {}
        self._waiting: set[asyncio.Task[object]] = set()
        self._calling = 0
        self._retries_left = 20
        self._rate_named = policy.calls.requests_per_minute is not None

    async def run(
        self,
        requests: Iterator[tuple[int, Request]],
        total: int,
        keep: Keep,
        report: Callable[[CallTally, Amount], None],
    ) -> None:
        """Answer all requests; ``keep`` gets each as it ends, in any order.

        Raises
        ------
        StopRunError
            If the endpoint refuses in a way that repeats, a cap is reached, or ``stop`` was
            called; what was received by then is in the cache.
        UserError
            If the cache cannot be written.
        """
        self._retries_left = max(20, round(self.policy.retries.retry_share * total))
        async with Syncer() as self._syncer:
            workers = [
                asyncio.create_task(self._work(requests, keep, report))
                for _ in range(max(1, min(self.policy.calls.concurrency, total)))
            ]
            results = await asyncio.gather(*workers, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        self._check_stopped()

    def _check_stopped(self) -> None:
        if self.stopped is not None:
            raise StopRunError(self.stopped)

    def stop(self, reason: str) -> None:
        """Send nothing more; calls in flight may end. The first reason is kept."""
        if self.stopped is None:
            self.stopped = reason
        for task in self._waiting:
            task.cancel()

    async def _wait(self, waiting: Coroutine[None, None, None]) -> None:
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
            self._check_stopped()
            raise
        finally:
            self._waiting.discard(task)

    async def finish_calls(self, longest: float) -> None:
        """Wait until no call is in flight, at most so many seconds."""
        end = time.monotonic() + longest
        while self._calling and time.monotonic() < end:
            await asyncio.sleep(0.02)

    async def _work(
        self,
        requests: Iterator[tuple[int, Request]],
        keep: Keep,
        report: Callable[[CallTally, Amount], None],
    ) -> None:
        while self.stopped is None:
            place, request = next(requests, (0, None))
            if request is None:
                return
            try:
                dialect = await self.dialect(request)
                conversation = Conversation(self.endpoint.base_url, self.header, request, dialect)
                await self._settle(conversation)
                keep(place, conversation)
            except StopRunError as error:
                self.stop(str(error))
                return
            except BaseException:
                self.stop("an error ended the run")
                raise
            self.tally.failed += conversation.failure is not None
            self.tally.done += 1
            report(self.tally, self.budget.spent)

    async def _settle(self, conversation: Conversation) -> None:
        """Ask until the request has an outcome or is given up; both are stored."""
        while conversation.outcome is None and conversation.failure is None:
            key, question = conversation.question()
            try:
                conversation.add_answer(*await self._answer(conversation.request, key, question))
            except TransportError as error:
                conversation.failure = await self.cache.put_failure(key, str(error), self._syncer)

    async def _answer(self, request: Request, key: str, question: Question) -> Answered:
        entry = self.cache.get(key)
        if entry is not None:
            self.tally.cached += 1
            return entry, read_completion(entry.response, entry.status)
        call = self._in_flight.get(key)
        if call is None:
            call = self._in_flight[key] = asyncio.create_task(self._fetch(request, key, question))
            call.add_done_callback(lambda _: self._in_flight.pop(key))
        return await call

    async def _fetch(self, request: Request, key: str, question: Question) -> Answered:
        """Call the endpoint until it answers, and store the answer at once."""
        started = time.monotonic()
        reply, attempts = await self._call(request, question)
        if reply.kind == "retry":
            raise TransportError(reply.reason)
        if reply.completion is None:
            raise StopRunError(self._explain(reply, request.model))
        entry = Entry(
            key=key,
            base_url=self.endpoint.base_url,
            body=question.body,
            replicate=request.replicate,
            response=reply.text,
            status=reply.status,
            headers=reply.headers,
            attempts=attempts,
            received=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - started, 3),
            sdk=f"openai {openai.__version__}",
        )
        stored = await self.cache.put_async(entry, self._syncer)
        if stored is entry:
            return entry, reply.completion
        return stored, read_completion(stored.response, stored.status)  # another process was first

    async def _call(self, request: Request, question: Question) -> tuple[Reply, int]:
        """Call until there is a reply that another attempt would not better, or no attempt left.

        Returns the last reply and the number of attempts.
        """
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_result(lambda reply: reply.kind == "retry"),
            stop=tenacity.stop_after_attempt(self.policy.calls.attempts),
            wait=self._time_to_wait,
            before_sleep=self._before_retry,
            sleep=lambda seconds: self._wait(asyncio.sleep(seconds)),
            retry_error_callback=_reply_of,
        )
        reply: Reply = await retrying(self._send, request, question)
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
            remedy = SET_RATE if reply.status == TOO_MANY else "check the endpoint"
            raise StopRunError(
                f"too many calls fail (last: {reply.reason}): {remedy} and run the same command "
                "again; what was answered is kept"
            )
        self._retries_left -= 1
        self.tally.retries += 1

    async def _send(self, request: Request, question: Question) -> Reply:
        """Make one call under the caps and the rate limit."""
        await self._wait(self.rate.wait())
        price = self.policy.prices.get(request.model)
        if price is None and self.policy.caps.max_cost is not None:
            raise StopRunError(
                f"max_cost cannot hold without the price of {request.model}: add it to "
                "autointerp.llm.prices"
            )
        bound = amount(question.input_bound, request.max_output, price)
        self._check_stopped()
        if not await self.budget.reserve(bound):
            raise StopRunError(
                "the cap on requests, tokens or cost is reached: raise max_requests, max_tokens or "
                "max_cost of autointerp.llm and run again; what was answered is kept and will not "
                "be paid twice"
            )
        actual = Amount()
        try:
            self._check_stopped()
            self.tally.sent += 1
            actual = bound  # a call that is cancelled may be billed
            self._calling += 1
            reply = await self.endpoint.send(question.body)
            actual = self._cost(reply, bound, price)
        finally:
            self._calling -= actual.requests
            self.budget.settle(bound, actual)
        self._heed(reply)
        return reply

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
            return Amount(requests=1)
        if reply.completion is None:
            self.tally.cut_off += 1
            return bound
        usage = reply.completion.usage
        self.tally.usage_missing += usage is None
        return amount(usage.input, usage.output, price) if usage else bound

    async def dialect(self, request: Request) -> Dialect:
        """Return what the endpoint understands for a model, tried out once and stored."""
        model = request.model
        if model not in self._dialects:
            async with self._locks.setdefault(model, asyncio.Lock()):
                if model not in self._dialects:
                    self._dialects[model] = await self._find_dialect(request)
        return self._dialects[model]

    async def _find_dialect(self, request: Request) -> Dialect:
        forced = self.policy.form
        key = dialects.dialect_key(self.endpoint.base_url, request.model, forced)
        stored = dialects.load_dialect(self.cache, key)
        if stored is not None:
            return stored
        candidate = Dialect() if forced == "auto" else Dialect(form=dialects.form(forced))
        while True:
            reply = await self._probe(request, candidate)
            if reply.kind == "rejected":
                weaker = candidate.weaker(reply.reason)
                if weaker is None or (forced != "auto" and weaker.form != candidate.form):
                    raise StopRunError(self._explain(reply, request.model))
                candidate = weaker
                continue
            content = (reply.completion.content if reply.completion else None) or ""
            lower = candidate.lower_form()
            if forced == "auto" and lower is not None and not dialects.probe_passed(content):
                candidate = lower
                continue
            log(f"{request.model}: answers come as {candidate.form}, {candidate.limit}")
            return dialects.store_dialect(self.cache, key, candidate)

    async def _probe(self, request: Request, candidate: Dialect) -> Reply:
        body = dialects.probe_body(request.model, candidate, request.temperature)
        reply, _ = await self._call(request, Question.of(body))
        if reply.kind == "retry":
            raise StopRunError(
                f"the endpoint does not answer ({reply.reason}): check autointerp.llm.base_url"
            )
        if reply.kind in ("fatal", "filtered"):
            raise StopRunError(self._explain(reply, request.model))
        return reply

    def _explain(self, reply: Reply, model: str) -> str:
        """Return a sentence with cause and remedy for a refusal that will repeat."""
        kept = "what was answered is kept"
        where = self.endpoint.base_url
        if reply.status in (401, 403):
            return (
                f"{where} refuses the key (HTTP {reply.status}): check the environment variable "
                f"{self.key_env or 'of autointerp.llm.key_env'}; {kept}"
            )
        if reply.status == 404:
            return (
                f"{where} knows no such path or model (HTTP 404): check autointerp.llm.base_url "
                f"and the model {model!r}; {kept}"
            )
        if 300 <= reply.status < 400:
            return (
                f"{where} redirects elsewhere (HTTP {reply.status}), and texts are not sent on: "
                f"set autointerp.llm.base_url to the final address; {kept}"
            )
        if "quota" in reply.reason:
            return f"{where}: {reply.reason}: top up the account and run again; {kept}"
        return (
            f"{where} rejects the request (HTTP {reply.status}: {reply.reason}): "
            f"check the model and autointerp.llm.response_format; {kept}"
        )


def _reply_of(state: tenacity.RetryCallState) -> Reply:
    """Return the reply to the latest attempt."""
    assert state.outcome is not None
    reply: Reply = state.outcome.result()
    return reply
