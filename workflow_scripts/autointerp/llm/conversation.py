"""One request and its answers so far: what to ask next, and how it ended. Pure.

Calling and replaying drive the same conversation; they differ only in where answers come from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from workflow_scripts.autointerp.annotation_tables import GOOD
from workflow_scripts.autointerp.llm.cache import Attempt, Entry, cache_key, canonical
from workflow_scripts.autointerp.llm.completion import Completion, read_completion
from workflow_scripts.autointerp.llm.cost import input_bound
from workflow_scripts.autointerp.llm.dialect import Dialect, compose
from workflow_scripts.autointerp.llm.replies import Exchange, Outcome, Reask, Redraw, conclude
from workflow_scripts.autointerp.llm.requests import Header, Request


@dataclass(frozen=True)
class Question:
    """What one turn sends."""

    body: bytes
    """Canonical JSON: what is sent, and what the key is taken of."""
    input_bound: int
    """The most tokens that its messages can have."""

    @staticmethod
    def of(body: dict[str, object]) -> Question:
        """Return the question that a body asks."""
        messages = body["messages"]
        assert isinstance(messages, list)
        text = "".join(str(message["content"]) for message in messages)
        return Question(canonical(body), input_bound(text, "") + 16 * len(messages))


@dataclass(frozen=True)
class Turn:
    """One stored answer and what it says."""

    entry: Entry
    completion: Completion
    exchange: Exchange

    @staticmethod
    def of(entry: Entry, completion: Completion) -> Turn:
        """Return the turn that an entry is."""
        c = completion
        return Turn(entry, c, Exchange(entry.key, c.content, c.finish_reason, c.refusal))


class Conversation:
    """A request's turns so far.

    ``outcome`` is set when there is nothing more to ask, ``failure`` when the last question was
    given up; it says why, ``failed_calls`` after how many calls. ``earlier`` are attempts that were
    paid for in vain.
    """

    def __init__(self, base_url: str, header: Header, request: Request, dialect: Dialect) -> None:
        self.request = request
        self.dialect = dialect
        self.turns: list[Turn] = []
        self.outcome: Outcome | None = None
        self.failure: str | None = None
        self.failed_calls = 0
        self.earlier: list[Attempt] = []
        self._base_url = base_url
        self._header = header
        self._verdicts: list[tuple[Exchange, Reask | Redraw]] = []

    @property
    def good(self) -> bool:
        """Whether the request has a good answer."""
        return self.outcome is not None and self.outcome.status in GOOD

    @property
    def first_key(self) -> str:
        """The key of the first question, under which vain attempts are stored."""
        return self.turns[0].entry.key if self.turns else self.question()[0]

    @property
    def attempt(self) -> Attempt:
        """What is stored of a request without a good answer."""
        entries = tuple(turn.entry for turn in self.turns)
        return Attempt(entries, self.failure, self.failed_calls)

    def question(self) -> tuple[str, Question]:
        """Return what to ask now, with its key in the cache."""
        question = Question.of(compose(self._header, self.request, self.dialect, self._verdicts))
        return cache_key(self._base_url, question.body, self.request.replicate), question

    def add_answer(self, entry: Entry, completion: Completion) -> None:
        """Take in the answer to the last question."""
        self.turns.append(Turn.of(entry, completion))
        exchange = self.turns[-1].exchange
        exchanges = [turn.exchange for turn in self.turns]
        verdict = conclude(self._header.expectation(self.request), exchanges)
        if isinstance(verdict, Outcome):
            self.outcome = verdict
        else:
            self._verdicts.append((exchange, verdict))

    def follow(self, find: Callable[[str], Entry | None]) -> str | None:
        """Go on as far as ``find`` has answers; return the key of the one that it lacks, if any.

        Raises
        ------
        NotACompletionError
            If an entry holds none; only completions are ever stored.
        """
        while self.outcome is None:
            key, _ = self.question()
            entry = find(key)
            if entry is None:
                return key
            self.add_answer(entry, read_completion(entry.response, entry.status))
        return None

    def repeat(self, attempt: Attempt) -> None:
        """End as a vain attempt did."""
        for entry in attempt.entries:
            self.add_answer(entry, read_completion(entry.response, entry.status))
        self.failure, self.failed_calls = attempt.reason, attempt.calls
