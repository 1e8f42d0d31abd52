"""What the body of a reply says, read once. Pure: the body is untrusted and may be anything."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

FILTERED = 400
"""The only refusal that is stored: the endpoint's content filter; it is an outcome, not a fault."""


MOST_TOKENS = 10**9
"""More than any call can take: a body that says more is not believed."""


@dataclass(frozen=True)
class Usage:
    """Tokens that the endpoint says it has counted."""

    input: int
    output: int


@dataclass(frozen=True)
class Completion:
    """A chat completion: its first choice, and what the endpoint says of itself ("": nothing)."""

    content: str | None
    finish_reason: str
    refusal: str | None = None
    usage: Usage | None = None
    model: str = ""
    fingerprint: str = ""


class NotACompletionError(Exception):
    """A body that is no chat completion, whatever its HTTP status."""


def read_completion(text: str, status: int) -> Completion:
    """Read a stored or received body.

    Raises
    ------
    NotACompletionError
        If the body is no chat completion with at least one choice that says something.
    """
    if status == FILTERED:
        return Completion(None, "content_filter")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise NotACompletionError("the reply is no JSON") from None
    if not isinstance(value, dict):
        raise NotACompletionError("the reply is no JSON object")
    if value.get("error"):
        raise NotACompletionError(f"the reply is an error: {error_of(value).message}")
    choices = value.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise NotACompletionError("the reply holds no choice")
    content, refusal = message.get("content"), message.get("refusal")
    finish = _text(choice.get("finish_reason"))
    if not isinstance(content, str) and not refusal and finish not in ("length", "content_filter"):
        raise NotACompletionError("the reply holds no text")
    return Completion(
        _text(content) if isinstance(content, str) else None,
        finish,
        _text(refusal) or None,
        _usage(value.get("usage")),
        _text(value.get("model")),
        _text(value.get("system_fingerprint")),
    )


def _text(value: object) -> str:
    """Return a field as text that can be written: JSON can spell half a character."""
    return str(value or "").encode("utf-8", "replace").decode("utf-8")


def _usage(value: Any) -> Usage | None:
    """Return the tokens that a body says were used, or None where it does not say."""
    try:
        usage = Usage(int(value["prompt_tokens"]), int(value["completion_tokens"]))
    except (ValueError, KeyError, TypeError, OverflowError):
        return None
    return (
        usage if all(0 <= tokens <= MOST_TOKENS for tokens in (usage.input, usage.output)) else None
    )


@dataclass(frozen=True)
class ErrorDetail:
    """What an endpoint says of an error."""

    message: str = ""
    code: str = ""
    type: str = ""

    def names(self, words: tuple[str, ...]) -> bool:
        """Return whether code or type is one of ``words``."""
        return self.code in words or self.type in words


def read_error(text: str) -> ErrorDetail:
    """Read the body of a refusal; empty where it says nothing."""
    try:
        return error_of(json.loads(text))
    except (ValueError, RecursionError):
        return ErrorDetail()


def error_of(value: object) -> ErrorDetail:
    """Return what a parsed body says of an error; empty where it says nothing."""
    inner = value.get("error", value) if isinstance(value, dict) else None
    if isinstance(inner, str):
        return ErrorDetail(message=inner)
    if not isinstance(inner, dict):
        return ErrorDetail()
    return ErrorDetail(*(str(inner.get(name) or "") for name in ("message", "code", "type")))
