"""What the response cache alone answers. Opens no socket."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from workflow_scripts.autointerp.llm.cache import ResponseCache
from workflow_scripts.autointerp.llm.conversation import Conversation
from workflow_scripts.autointerp.llm.dialect import Dialect, dialect_key, load_dialects
from workflow_scripts.autointerp.llm.requests import Header, Request


@dataclass
class StoredAnswers:
    """The cache as one run sees it: endpoint, shared header, and form of the answers."""

    cache: ResponseCache
    base_url: str
    header: Header
    form: str
    failures: bool = False
    """Whether a request without a good answer counts as ended, as it does in a replay."""

    def __post_init__(self) -> None:
        self._dialects: dict[str, list[Dialect]] = {}

    def find(self, request: Request) -> Conversation | str:
        """Return a request's ended conversation, or the name of what the cache lacks of it.

        Answers count in any dialect that the endpoint was found to have, the latest first.
        """
        lacking = f"the dialect of {request.model}"
        ended: list[Conversation] = []
        for dialect in self.dialects(request):
            conversation = Conversation(self.base_url, self.header, request, dialect)
            key = conversation.follow(self.cache.get)
            conversation.earlier = self.cache.attempts(conversation.first_key)
            if conversation.good:
                return conversation
            lacking = key or lacking
            ended += self._ended(conversation)
        return ended[0] if ended and self.failures else lacking

    def _ended(self, conversation: Conversation) -> list[Conversation]:
        """Return how the latest vain attempt at a request ended, if there is one."""
        if not conversation.earlier:  # earlier versions kept failures among the answers
            return [conversation] if conversation.outcome is not None else []
        *earlier, last = conversation.earlier
        dialect = conversation.dialect
        again = Conversation(self.base_url, self.header, conversation.request, dialect)
        again.repeat(last)
        again.earlier = earlier
        return [] if again.outcome is None and again.failure is None else [again]  # interrupted

    def dialects(self, request: Request) -> list[Dialect]:
        """Return what is known of an endpoint's dialects, the latest first."""
        key = dialect_key(self.base_url, request.model, self.form, request.extra)
        if key not in self._dialects:
            self._dialects[key] = load_dialects(self.cache, key)[::-1]
        return self._dialects[key]

    def count(self, requests: Iterator[Request]) -> int:
        """Return how many requests have their outcome in the cache."""
        return sum(isinstance(self.find(request), Conversation) for request in requests)
