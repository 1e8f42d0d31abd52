"""Get every request of a file answered: cache first, then the endpoint; keep the good answers."""

from __future__ import annotations

import asyncio
import datetime
import time
from collections import Counter
from collections.abc import Callable, Iterator

import openai

from workflow_scripts.autointerp.llm import dialect as dialects
from workflow_scripts.autointerp.llm.budget import Amount
from workflow_scripts.autointerp.llm.cache import Entry, ResponseCache
from workflow_scripts.autointerp.llm.completion import Completion
from workflow_scripts.autointerp.llm.conversation import Conversation, Question
from workflow_scripts.autointerp.llm.dialect import Dialect
from workflow_scripts.autointerp.llm.endpoint import Reply
from workflow_scripts.autointerp.llm.prompt_check import PromptCheck
from workflow_scripts.autointerp.llm.refusals import KEPT, MORE_OUTPUT, REMEDIES, explain_refusal
from workflow_scripts.autointerp.llm.requests import Header, Request
from workflow_scripts.autointerp.llm.sender import CallTally, Sender, StopRunError
from workflow_scripts.autointerp.llm.write_once import Syncer
from workflow_scripts.common.cli import log

HOPELESS = 20
"""Requests without a single good answer after which a run stops, rather than pay for the rest."""


class TransportError(Exception):
    """One request could not be answered; the message says why."""

    def __init__(self, reason: str, calls: int) -> None:
        super().__init__(reason)
        self.calls = calls


class RejectedError(Exception):
    """The endpoint refuses a body as it is."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.reason)
        self.reply = reply


Keep = Callable[[int, Conversation], None]
"""Takes the place of a request and its conversation, which ended or was given up."""


Answered = tuple[Entry, Completion]
"""An answer as it is stored, and what it says."""


class Caller:
    """Runs the requests of one file against one endpoint."""

    def __init__(self, sender: Sender, cache: ResponseCache, header: Header, key_env: str) -> None:
        self.sender = sender
        self.endpoint = sender.endpoint
        self.tally = sender.tally
        self.cache = cache
        self.header = header
        self.key_env = key_env
        self._form = sender.policy.form
        self._dialects: dict[str, Dialect] = {}
        self._earlier_dialects: dict[str, list[Dialect]] = {}
        self._proven: set[tuple[str, Dialect]] = set()
        self._locks: dict[str, asyncio.Lock] = {}
        self._in_flight: dict[str, asyncio.Task[Answered]] = {}
        self._prompts = PromptCheck(sender.policy.calls.least_prompt)
        self._statuses: Counter[str] = Counter()
        self._any_good = False

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
            If the endpoint refuses in a way that repeats, cuts prompts or gives no good answer, a
            cap is reached, or the run was stopped; what was answered by then is in the cache.
        UserError
            If the cache cannot be written.
        """
        self.sender.expect(total)
        async with Syncer() as self._syncer:
            workers = [
                asyncio.create_task(self._work(requests, keep, report))
                for _ in range(max(1, min(self.sender.slots.most, total)))
            ]
            results = await asyncio.gather(*workers, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        self.sender.check_stopped()
        few = self._prompts.complaint(least=1)
        if few is not None:
            log(f"warning: {few}")

    async def _work(
        self,
        requests: Iterator[tuple[int, Request]],
        keep: Keep,
        report: Callable[[CallTally, Amount], None],
    ) -> None:
        while self.sender.stopped is None:
            place, request = next(requests, (0, None))
            if request is None:
                return
            try:
                conversation = await self._converse(request)
                keep(place, conversation)
            except StopRunError as error:
                self.sender.stop(str(error))
                return
            except BaseException:
                self.sender.stop("an error ended the run")
                raise
            self.tally.failed += not conversation.good
            self.tally.done += 1
            report(self.tally, self.sender.budget.spent)

    async def _converse(self, request: Request) -> Conversation:
        """Return a request's ended conversation, which is stored."""
        while True:
            dialect = await self.dialect(request)
            conversation = self._stored(request, dialect)
            if conversation.good:
                self.tally.cached += len(conversation.turns)
                return conversation
            try:
                await self._settle(conversation)
            except RejectedError as error:
                self._weaken(request, dialect, error.reply)
                continue
            conversation = await self._store(conversation)
            if conversation.good:
                self._prove(request, dialect)
            self._check_hope(conversation)
            return conversation

    def _stored(self, request: Request, dialect: Dialect) -> Conversation:
        """Return a request's conversation as far as the cache has it.

        A good one counts in any dialect that the endpoint was found to have.
        """
        conversation = self._stored_in(request, dialect)
        if not conversation.good:
            for other in self._earlier_dialects[self._dialect_key(request)]:
                earlier = self._stored_in(request, other) if other != dialect else conversation
                if earlier.good:
                    return earlier
        return conversation

    def _stored_in(self, request: Request, dialect: Dialect) -> Conversation:
        while True:
            conversation = Conversation(self.endpoint.base_url, self.header, request, dialect)
            conversation.follow(self.cache.get)
            if conversation.outcome is None or conversation.good:
                conversation.earlier = self.cache.attempts(conversation.first_key)
                return conversation
            self._take_back(conversation)  # earlier versions kept failures among the answers

    def _take_back(self, conversation: Conversation) -> None:
        self.cache.add_attempt(conversation.first_key, conversation.attempt)
        for turn in conversation.turns:
            self.cache.remove(turn.entry.key)

    async def _settle(self, conversation: Conversation) -> None:
        """Ask until the request has an outcome or is given up.

        Raises
        ------
        RejectedError
            If the endpoint refuses the body as it is.
        StopRunError
            If nothing more may be sent; what was paid for so far is stored as a vain attempt.
        """
        try:
            while conversation.outcome is None and conversation.failure is None:
                key, question = conversation.question()
                try:
                    answered = await self._answer(conversation.request, key, question)
                    conversation.add_answer(*answered)
                except TransportError as error:
                    conversation.failure, conversation.failed_calls = str(error), error.calls
        except StopRunError:
            if conversation.turns:
                self.cache.add_attempt(conversation.first_key, conversation.attempt)
            raise

    async def _store(self, conversation: Conversation) -> Conversation:
        """Keep a good answer with the replies that led to it; any other as a vain attempt.

        The first question's entry comes last: what the cache has of a conversation is whole.
        Returns the conversation that the cache holds: another process may have been first.
        """
        if not conversation.good:
            self.cache.add_attempt(conversation.first_key, conversation.attempt)
            return conversation
        for turn in reversed(conversation.turns):
            held = await self.cache.put_async(turn.entry, self._syncer)
        if held != conversation.turns[0].entry:
            stored = self._stored(conversation.request, conversation.dialect)
            conversation = stored if stored.good else conversation
        self._check_prompts(conversation)
        return conversation

    def _check_prompts(self, conversation: Conversation) -> None:
        """Stop, and take back the answers, where the endpoint cuts prompts."""
        turn = conversation.turns[0]
        if turn.completion.usage is None:
            return
        self._prompts.add(conversation, turn.entry.body, turn.completion.usage.input)
        complaint = self._prompts.complaint()
        if complaint is not None:
            while self._prompts.suspects:
                self._take_back(self._prompts.suspects.pop())
            raise StopRunError(complaint)

    def _check_hope(self, conversation: Conversation) -> None:
        """Stop a run in which no answer is good."""
        self._any_good = self._any_good or conversation.good or self.tally.cached > 0
        outcome = conversation.outcome
        self._statuses[outcome.status if outcome else "transport_failed"] += 1
        if not self._any_good and self._statuses.total() >= HOPELESS:
            status, _ = self._statuses.most_common(1)[0]
            listed = ", ".join(f"{n} {status}" for status, n in sorted(self._statuses.items()))
            raise StopRunError(
                f"none of the first {HOPELESS} requests has a good answer ({listed}): "
                f"{REMEDIES.get(status, 'change the prompt or the model')}; then run again"
            )

    async def _answer(self, request: Request, key: str, question: Question) -> Answered:
        call = self._in_flight.get(key)
        if call is None:
            call = self._in_flight[key] = asyncio.create_task(self._fetch(request, key, question))
            call.add_done_callback(lambda _: self._in_flight.pop(key))
        return await call

    async def _fetch(self, request: Request, key: str, question: Question) -> Answered:
        """Call the endpoint until it answers."""
        started = time.monotonic()
        reply, attempts = await self.sender.call(request, question)
        if reply.kind == "retry":
            raise TransportError(reply.reason, attempts)
        if reply.kind == "rejected":
            raise RejectedError(reply)
        if reply.completion is None:
            raise StopRunError(self._explain(reply, request))
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
        return entry, reply.completion

    async def dialect(self, request: Request) -> Dialect:
        """Return what the endpoint understands for a request's model, tried out once."""
        key = self._dialect_key(request)
        if key not in self._dialects:
            async with self._locks.setdefault(key, asyncio.Lock()):
                if key not in self._dialects:
                    self._dialects[key] = await self._find_dialect(request, key)
        return self._dialects[key]

    def _dialect_key(self, request: Request) -> str:
        where, model = self.endpoint.base_url, request.model
        return dialects.dialect_key(where, model, self._form, request.extra)

    def _prove(self, request: Request, dialect: Dialect) -> None:
        """Store a dialect in which a good answer has come."""
        key = self._dialect_key(request)
        if (key, dialect) not in self._proven:
            self._proven.add((key, dialect))
            if dialect not in dialects.load_dialects(self.cache, key)[-1:]:
                dialects.store_dialect(self.cache, key, dialect)

    def _weaken(self, request: Request, dialect: Dialect, reply: Reply) -> None:
        """Leave out what the endpoint has just refused, for the rest of the run."""
        weaker = dialect.weaker(reply.reason)
        if weaker is None or (self._form != "auto" and weaker.form != dialect.form):
            raise StopRunError(self._explain(reply, request))
        key = self._dialect_key(request)
        if self._dialects[key] == dialect:  # else another call was first
            self._dialects[key] = weaker
            log(f"{request.model}: refuses a request ({reply.reason}): now {weaker.describe()}")

    async def _find_dialect(self, request: Request, key: str) -> Dialect:
        stored = dialects.load_dialects(self.cache, key)
        self._earlier_dialects[key] = stored
        if stored:
            self._proven.add((key, stored[-1]))
            return stored[-1]
        forced = self._form
        candidate = Dialect() if forced == "auto" else Dialect(form=dialects.form(forced))
        while True:
            reply = await self._probe(request, candidate)
            if reply.kind == "rejected":
                weaker = candidate.weaker(reply.reason)
                if weaker is None or (forced != "auto" and weaker.form != candidate.form):
                    raise StopRunError(self._explain(reply, request))
                candidate = weaker
                continue
            content = (reply.completion.content if reply.completion else None) or ""
            if dialects.probe_passed(content):
                log(f"{request.model}: answers come as {candidate.describe()}")
                self._prove(request, candidate)
                return candidate
            lower = candidate.lower_form() if forced == "auto" else None
            if lower is None:
                log(f"{request.model}: answers come as {candidate.describe()}")
                return candidate
            candidate = lower

    async def _probe(self, request: Request, candidate: Dialect) -> Reply:
        """Return the reply to a preflight call: a refusal of the body, or one that says something.

        Raises
        ------
        StopRunError
            If there is none.
        """
        body = dialects.probe_body(
            request.model, candidate, request.temperature, request.max_output, request.extra
        )
        finish = ""
        for _ in range(self.sender.policy.calls.attempts):
            reply, _ = await self.sender.call(request, Question.of(body))
            if reply.kind == "retry":
                raise StopRunError(
                    f"the endpoint does not answer ({reply.reason}): check autointerp.llm.base_url"
                )
            if reply.kind in ("fatal", "filtered"):
                raise StopRunError(self._explain(reply, request))
            said = reply.completion
            if said is None or not dialects.probe_says_nothing(said.content, said.finish_reason):
                return reply
            finish = said.finish_reason
        raise StopRunError(
            f"{request.model} ends its answer to a first, short question before it has said "
            f"anything (finish_reason {finish or 'none'}): {MORE_OUTPUT}; {KEPT}"
        )

    def _explain(self, reply: Reply, request: Request) -> str:
        return explain_refusal(reply, request, self.endpoint.base_url, self.key_env)
