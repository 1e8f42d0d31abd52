"""One request and its answers so far: what to ask next, and how it ended. Pure.

Calling and replaying drive the same conversation; they differ only in where answers come from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from workflow_scripts.autointerp.llm.cache import Entry, cache_key, canonical
from workflow_scripts.autointerp.llm.completion import Completion, read_completion
from workflow_scripts.autointerp.llm.cost import input_bound
from workflow_scripts.autointerp.llm.dialect import Dialect, compose
from workflow_scripts.autointerp.llm.replies import Exchange, Outcome, Reask, conclude
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


class Conversation:
    """A request's turns so far.

    ``outcome`` is set when there is nothing more to ask, ``failure`` when the last question was
    given up; it says why.
    """

    def __init__(self, base_url: str, header: Header, request: Request, dialect: Dialect) -> None:
        self.request = request
        self.dialect = dialect
        self.turns: list[Turn] = []
        self.outcome: Outcome | None = None
        self.failure: str | None = None
        self._base_url = base_url
        self._header = header
        self._reasks: list[tuple[Exchange, Reask]] = []

    def question(self) -> tuple[str, Question]:
        """Return what to ask now, with its key in the cache."""
        question = Question.of(compose(self._header, self.request, self.dialect, self._reasks))
        return cache_key(self._base_url, question.body, self.request.replicate), question

    def add_answer(self, entry: Entry, completion: Completion) -> None:
        """Take in the answer to the last question."""
        exchange = Exchange(
            entry.key, completion.content, completion.finish_reason, completion.refusal
        )
        self.turns.append(Turn(entry, completion, exchange))
        exchanges = [turn.exchange for turn in self.turns]
        verdict = conclude(self._header.expectation(self.request), exchanges)
        if isinstance(verdict, Outcome):
            self.outcome = verdict
        else:
            self._reasks.append((exchange, verdict))

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
