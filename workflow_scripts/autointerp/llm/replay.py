"""What the response cache alone answers. Opens no socket."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from workflow_scripts.autointerp.llm.cache import ResponseCache
from workflow_scripts.autointerp.llm.conversation import Conversation
from workflow_scripts.autointerp.llm.dialect import Dialect, dialect_key, load_dialect
from workflow_scripts.autointerp.llm.requests import Header, Request


@dataclass
class StoredAnswers:
    """The cache as one run sees it: endpoint, shared header, and form of the answers."""

    cache: ResponseCache
    base_url: str
    header: Header
    form: str
    failures: bool = False
    """Whether a request that was given up counts as ended, as it does in a replay."""

    def __post_init__(self) -> None:
        self._dialects: dict[str, Dialect | None] = {}

    def find(self, request: Request) -> Conversation | str:
        """Return a request's ended conversation, or the name of what the cache lacks of it."""
        dialect = self.dialect(request.model)
        if dialect is None:
            return f"the dialect of {request.model}"
        conversation = Conversation(self.base_url, self.header, request, dialect)
        lacking = conversation.follow(self.cache.get)
        if lacking is not None and self.failures:
            conversation.failure = self.cache.failure(lacking)
        return conversation if lacking is None or conversation.failure is not None else lacking

    def dialect(self, model: str) -> Dialect | None:
        """Return what is known of a model's dialect."""
        if model not in self._dialects:
            key = dialect_key(self.base_url, model, self.form)
            self._dialects[model] = load_dialect(self.cache, key)
        return self._dialects[model]

    def count(self, requests: Iterator[Request]) -> int:
        """Return how many requests have their outcome in the cache."""
        return sum(isinstance(self.find(request), Conversation) for request in requests)
