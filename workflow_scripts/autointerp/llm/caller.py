"""Gets every request of a file answered: cache first, then the endpoint, with retries and caps."""

from __future__ import annotations

import asyncio
import datetime
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import openai

from workflow_scripts.autointerp.llm import dialect as dialects
from workflow_scripts.autointerp.llm.budget import Amount, Budget, Caps, SpendLog, amount
from workflow_scripts.autointerp.llm.cache import Entry, ResponseCache
from workflow_scripts.autointerp.llm.conversation import Conversation, Question
from workflow_scripts.autointerp.llm.cost import Price
from workflow_scripts.autointerp.llm.dialect import Dialect
from workflow_scripts.autointerp.llm.endpoint import Endpoint, Reply
from workflow_scripts.autointerp.llm.rate_limit import Pace
from workflow_scripts.autointerp.llm.requests import Header, Request
from workflow_scripts.autointerp.llm.write_once import Syncer
from workflow_scripts.common.cli import log

GLANCE, LONG_WAIT = 0.5, 5.0
"""Seconds after which a waiting call looks whether the run has stopped; waits that are told."""


@dataclass(frozen=True)
class Policy:
    """How calls are made; nothing here changes what is asked, so nothing is in the cache key."""

    concurrency: int = 8
    attempts: int = 5
    deadline: float = 120.0
    """Seconds for one call in all, from the first byte sent to the last received."""
    retry_share: float = 0.2
    """Retries of the whole run, as a share of its requests (at least 20)."""
    longest_wait: float = 120.0
    """If the endpoint asks for a longer pause than this, the run stops."""
    first_backoff: float = 0.5
    longest_backoff: float = 30.0
    caps: Caps = field(default_factory=Caps)
    prices: Mapping[str, Price] = field(default_factory=dict)
    form: str = "auto"
    """Force a step of the ladder of answer forms: json_schema, json_object or none."""


@dataclass
class Tally:
    """What a run did."""

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
        tally: Tally | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.cache = cache
        self.header = header
        self.policy = policy
        self.key_env = key_env
        self.budget = Budget(policy.caps, spend)
        self.pace = Pace()
        self.tally = tally or Tally()
        self.stopped: str | None = None
        self._dialects: dict[str, Dialect] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._in_flight: dict[str, asyncio.Future[Entry]] = {}
        self._calling = 0
        self._retries_left = 20
        self._jitter = random.Random()
        self._waiting_until = 0.0

    async def run(
        self,
        requests: Iterator[tuple[int, Request]],
        total: int,
        keep: Keep,
        report: Callable[[Tally, Amount], None],
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
        self._retries_left = max(20, round(self.policy.retry_share * total))
        async with Syncer() as self._syncer:
            workers = [
                asyncio.create_task(self._work(requests, keep, report))
                for _ in range(max(1, min(self.policy.concurrency, total)))
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

    async def quiet(self, longest: float) -> None:
        """Wait until no call is in flight, at most so many seconds."""
        end = time.monotonic() + longest
        while self._calling and time.monotonic() < end:
            await asyncio.sleep(0.02)

    async def _work(
        self,
        requests: Iterator[tuple[int, Request]],
        keep: Keep,
        report: Callable[[Tally, Amount], None],
    ) -> None:
        while self.stopped is None:
            place, request = next(requests, (0, None))
            if request is None:
                return
            try:
                dialect = await self.dialect(request)
                talk = Conversation(self.endpoint.base_url, self.header, request, dialect)
                await self._settle(talk)
                keep(place, talk)
            except StopRunError as error:
                self.stop(str(error))
                return
            except BaseException:
                self.stop("an error ended the run")
                raise
            self.tally.failed += talk.failure is not None
            self.tally.done += 1
            report(self.tally, self.budget.spent)

    async def _settle(self, talk: Conversation) -> None:
        """Ask until the request has an outcome or is given up; both are stored."""
        while talk.outcome is None and talk.failure is None:
            key, question = talk.question()
            try:
                talk.hear(await self._entry(talk.request, key, question))
            except TransportError as error:
                talk.failure = await self.cache.put_failure(key, str(error), self._syncer)

    async def _entry(self, request: Request, key: str, question: Question) -> Entry:
        entry = self.cache.get(key)
        if entry is not None:
            self.tally.cached += 1
            return entry
        waiting = self._in_flight.get(key)
        if waiting is not None:
            return await asyncio.shield(waiting)
        future: asyncio.Future[Entry] = asyncio.get_running_loop().create_future()
        self._in_flight[key] = future
        try:
            entry = await self._fetch(request, key, question)
            future.set_result(entry)
        except BaseException as error:
            future.set_exception(error)
            future.exception()  # retrieved here: others may not be waiting
            raise
        finally:
            del self._in_flight[key]
        return entry

    async def _fetch(self, request: Request, key: str, question: Question) -> Entry:
        """Call the endpoint until it answers, and store the answer at once."""
        started = time.monotonic()
        for attempt in range(1, self.policy.attempts + 1):
            reply = await self._send(request, question)
            if reply.kind in ("ok", "filtered"):
                entry = Entry(
                    key=key,
                    base_url=self.endpoint.base_url,
                    body=question.body,
                    replicate=request.replicate,
                    response=reply.text,
                    status=reply.status,
                    headers=reply.headers,
                    attempts=attempt,
                    received=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                    seconds=round(time.monotonic() - started, 3),
                    sdk=f"openai {openai.__version__}",
                )
                return await self.cache.put_async(entry, self._syncer)
            if reply.kind in ("fatal", "rejected"):
                raise StopRunError(self._explain(reply, request.model))
            if attempt < self.policy.attempts:
                await self._back_off(reply, attempt)
        raise TransportError(reply.reason)

    async def _send(self, request: Request, question: Question) -> Reply:
        """Make one call under the caps and the pace."""
        while (wait := self.pace.next_turn()) > 0:
            self._check_stopped()
            await asyncio.sleep(min(wait, GLANCE))
        price = self.policy.prices.get(request.model)
        if price is None and self.policy.caps.cost is not None:
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
        return reply

    def _cost(self, reply: Reply, bound: Amount, price: Price | None) -> Amount:
        """Return what a call did cost: the bound, unless the endpoint refused or says its usage."""
        if reply.completion is not None:
            self.pace.served()
            if reply.retry_after is not None:
                self.pace.hold(self._told(min(reply.retry_after, self.policy.longest_wait)))
            usage = reply.completion.usage
            self.tally.usage_missing += usage is None
            return amount(usage.input, usage.output, price) if usage else bound
        if reply.status >= 300:
            return Amount(requests=1)
        self.tally.cut_off += 1
        return bound

    async def _back_off(self, reply: Reply, attempt: int) -> None:
        """Wait before another attempt: as long as asked for, or a random time that doubles."""
        if reply.retry_after is not None and reply.retry_after > self.policy.longest_wait:
            raise StopRunError(
                f"the endpoint asks to wait {reply.retry_after:.0f} s: run the same command later"
            )
        if self._retries_left <= 0:
            raise StopRunError(
                f"too many calls fail (last: {reply.reason}): see to the endpoint and run the same "
                "command again; what was answered is kept"
            )
        self._retries_left -= 1
        self.tally.retries += 1
        longest = min(self.policy.longest_backoff, self.policy.first_backoff * 2 ** (attempt - 1))
        wait = self._jitter.uniform(0, longest)
        if reply.retry_after is not None:
            wait = reply.retry_after + self._jitter.uniform(0, 0.1)
        if reply.kind == "busy":
            self.pace.refused(self._told(wait))
        else:
            await asyncio.sleep(wait)

    def _told(self, wait: float) -> float:
        """Return a wait that holds all calls; a long one is told, once while it lasts."""
        now = time.monotonic()
        if wait >= LONG_WAIT and now >= self._waiting_until:
            self._waiting_until = now + wait
            log(f"the endpoint has no room for calls: all wait for {wait:.0f} s")
        return wait

    async def dialect(self, request: Request) -> Dialect:
        """Return what the endpoint understands for a model, found out once and stored."""
        model = request.model
        if model not in self._dialects:
            async with self._locks.setdefault(model, asyncio.Lock()):
                if model not in self._dialects:
                    self._dialects[model] = await self._find_dialect(request)
        return self._dialects[model]

    async def _find_dialect(self, request: Request) -> Dialect:
        forced = self.policy.form
        key = dialects.dialect_key(self.endpoint.base_url, request.model, forced)
        found = dialects.load_dialect(self.cache, key)
        if found is not None:
            return found
        candidate = Dialect() if forced == "auto" else Dialect(form=dialects.form(forced))
        while True:
            body = dialects.probe_body(request.model, candidate, request.temperature)
            reply = await self._probe(request, body)
            if reply.kind == "rejected":
                weaker = candidate.weaker(reply.reason)
                changed = weaker is not None and weaker.form != candidate.form
                if weaker is None or (forced != "auto" and changed):
                    raise StopRunError(self._explain(reply, request.model))
                candidate = weaker
                continue
            content = (reply.completion.content if reply.completion else None) or ""
            lower = candidate.lower_form()
            if forced == "auto" and lower is not None and not dialects.probe_passed(content):
                candidate = lower
                continue
            log(f"{request.model}: answers are asked for as {candidate.form}, {candidate.limit}")
            return dialects.store_dialect(self.cache, key, candidate)

    async def _probe(self, request: Request, body: dict[str, object]) -> Reply:
        for attempt in range(1, self.policy.attempts + 1):
            reply = await self._send(request, Question.of(body))
            if reply.kind in ("ok", "rejected"):
                return reply
            if reply.kind in ("fatal", "filtered"):
                raise StopRunError(self._explain(reply, request.model))
            if attempt < self.policy.attempts:
                await self._back_off(reply, attempt)
        raise StopRunError(
            f"the endpoint does not answer ({reply.reason}): check autointerp.llm.base_url"
        )

    def _explain(self, reply: Reply, model: str) -> str:
        """Return a sentence with cause and mend for a refusal that will repeat."""
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
