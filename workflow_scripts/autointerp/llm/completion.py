"""What the body of a reply says, read once. Pure: the body is untrusted and may be anything."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
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
    """The answer, without the thoughts before it."""
    finish_reason: str
    refusal: str | None = None
    usage: Usage | None = None
    model: str = ""
    fingerprint: str = ""


class NotACompletionError(Exception):
    """A body that is no chat completion, whatever its HTTP status."""

    def __init__(self, message: str, detail: ErrorDetail | None = None) -> None:
        super().__init__(message)
        self.detail = detail or ErrorDetail()
        """What the provider says of the error, where the body holds one."""


def read_completion(text: str, status: int) -> Completion:
    """Read a stored or received body.

    Raises
    ------
    NotACompletionError
        If the body is no chat completion with at least one choice.
    """
    if status == FILTERED:
        return Completion(None, "content_filter")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise NotACompletionError("the reply is no JSON") from None
    try:
        return _completion(value)
    except RecursionError:
        raise NotACompletionError("the reply is nested too deeply") from None


def _completion(value: object) -> Completion:
    if not isinstance(value, dict):
        raise NotACompletionError("the reply is no JSON object")
    _refuse_error(value)
    choices = value.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if isinstance(choice, dict):
        _refuse_error(choice)
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise NotACompletionError("the reply holds no choice")
    content = _said(message.get("content"))
    return Completion(
        None if content is None else without_thoughts(_text(content)),
        _text(choice.get("finish_reason")),
        _text(message.get("refusal")) or None,
        _usage(value.get("usage")),
        _text(value.get("model")),
        _text(value.get("system_fingerprint")),
    )


def _refuse_error(part: Mapping[str, object]) -> None:
    """Refuse a body, or a choice, in which a provider reports its failure."""
    if part.get("error") or part.get("finish_reason") == "error":
        detail = error_of(part) if part.get("error") else ErrorDetail()
        raise NotACompletionError(f"the reply is an error: {detail.message}".rstrip(": "), detail)


def _said(content: object) -> str | None:
    """Return a message's text; where it comes in parts, of those that are no thoughts."""
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict)]
        texts = [part.get("text") for part in parts if part.get("type") in ("text", "output_text")]
        return "".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else None


_NAME = r"(?:\w{1,20}:)?(?:think|thinking|thoughts?|reasoning|reflection|analysis)"
_OPENING = re.compile(rf"\s*(?:<{_NAME}>|\[{_NAME}\]|<\|channel\|>analysis)", re.IGNORECASE)
_CLOSING = re.compile(rf"</{_NAME}>|\[/{_NAME}\]|<\|channel\|>final<\|message\|>", re.IGNORECASE)


def without_thoughts(text: str) -> str:
    """Return the answer that follows a model's thoughts in a text: nothing if they do not end.

    Templates that open the thoughts themselves leave only their closing tag. A tag within a JSON
    answer is a part of it.
    """
    closing = _CLOSING.search(text)
    if _OPENING.match(text):
        return text[closing.end() :].strip() if closing else ""
    if closing is None or _is_object(text) or "{" not in text[closing.end() :]:
        return text
    return text[closing.end() :].strip()


def _is_object(text: str) -> bool:
    with suppress(ValueError, RecursionError):
        return isinstance(json.loads(text), dict)
    return False


def _text(value: object) -> str:
    """Return a field as text that can be written: JSON can spell half a character."""
    return str(value or "").encode("utf-8", "replace").decode("utf-8")


def _usage(value: Any) -> Usage | None:
    """Return the tokens that a body says were used, or None where it does not say."""
    try:
        usage = Usage(int(value["prompt_tokens"]), int(value["completion_tokens"]))
    except (ValueError, KeyError, TypeError, OverflowError):
        return None
    believable = 0 < usage.input <= MOST_TOKENS and 0 <= usage.output <= MOST_TOKENS
    return usage if believable else None  # no prompt is empty: some servers say 0 of all calls


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
    """Return what a parsed body says of an error; empty where it says nothing.

    Some providers put the error into a list.
    """
    value = value[0] if isinstance(value, list) and value else value
    inner = value.get("error", value) if isinstance(value, dict) else None
    if isinstance(inner, str):
        return ErrorDetail(message=inner)
    if not isinstance(inner, dict):
        return ErrorDetail()
    return ErrorDetail(*(str(inner.get(name) or "") for name in ("message", "code", "type")))
